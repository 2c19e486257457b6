//! A simulated person with a browser: opens the link, reads the page, and clicks Connect.

use anyhow::{Context, Result, bail};
use reqwest::Url;

/// The form of a page, as far as a browser needs it to submit.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Form {
    /// The form with a button of that label.
    fn with_button(html: &str, label: &str) -> Option<Self> {
        let forms = html.split("<form").skip(1);
        let form = forms
            .filter_map(|rest| rest.split("</form>").next())
            .find(|form| form.contains(&format!(">{label}</button>")))?;
        let fields = form.split("<input").skip(1).filter_map(|rest| {
            let tag = rest.split('>').next()?;
            Some((
                attribute(tag, "name")?,
                attribute(tag, "value").unwrap_or_default(),
            ))
        });
        Some(Self {
            action: attribute(form.split('>').next()?, "action")?,
            fields: fields.collect(),
        })
    }

    /// Types into a field, over what it suggests.
    fn fill(&mut self, name: &str, text: &str) -> Result<()> {
        let field = self.fields.iter_mut().find(|(field, _)| field == name);
        let (_, value) = field.with_context(|| format!("the form has no field {name}"))?;
        text.clone_into(value);
        Ok(())
    }
}

/// An attribute of a tag, with its character references resolved.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    let text = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'")]
        .iter()
        .fold(value.to_owned(), |text, (reference, character)| {
            text.replace(reference, character)
        });
    // Last, or `&amp;lt;` would turn into a tag.
    Some(text.replace("&amp;", "&"))
}

/// What the person saw.
pub struct Visit {
    /// The heading of the page behind the link.
    pub page: String,
    /// The heading of the page after the click.
    pub outcome: String,
}

/// Opens the link, signs in as `username`, and clicks Connect. No error contains the link: whoever has it can attach an
/// account.
pub async fn connect(http: &reqwest::Client, link: &str, username: &str) -> Result<Visit> {
    let url = Url::parse(link).ok().context("the link is no URL")?;
    let page = fetch(http.get(url.clone()))
        .await
        .context("the link cannot be opened")?;
    let mut form =
        Form::with_button(&page, "Connect").context("the page has no form with a Connect button")?;
    form.fill("username", username)?;
    let target = url
        .join(&form.action)
        .ok()
        .context("the form's action is no URL")?;
    let answer = fetch(http.post(target).form(&form.fields))
        .await
        .context("the form cannot be sent")?;
    Ok(Visit {
        page: heading(&page),
        outcome: heading(&answer),
    })
}

async fn fetch(request: reqwest::RequestBuilder) -> Result<String> {
    let answer = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    let html = answer.text().await.map_err(reqwest::Error::without_url)?;
    if !status.is_success() {
        bail!("the answer is {status}: {}", heading(&html));
    }
    Ok(html)
}

/// The text of the first `h1`.
fn heading(html: &str) -> String {
    let heading = html
        .split_once("<h1>")
        .and_then(|(_, rest)| rest.split_once("</h1>"));
    heading.map(|(text, _)| text.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<h1>Connect your Reddit account</h1>
<form method="post" action="/link/lk_1/deny"><button type="submit">Deny</button></form>
<form method="post" action="/link/lk_1/connect?a=1&amp;b=2">
<label for="username">Name</label>
<input id="username" name="username" value="a&amp;lt;&quot;b" autocomplete="off">
<input type="checkbox">
<button class="go" type="submit">Connect</button>
</form>"#;

    #[test]
    fn the_form_of_the_button_is_read_as_a_browser_would() {
        let form = Form::with_button(PAGE, "Connect").unwrap();
        assert_eq!(
            form,
            Form {
                action: "/link/lk_1/connect?a=1&b=2".to_owned(),
                fields: vec![("username".to_owned(), "a&lt;\"b".to_owned())],
            }
        );
        let mut deny = Form::with_button(PAGE, "Deny").unwrap();
        assert_eq!(deny.fields, []);
        assert!(deny.fill("username", "bob").is_err());
        assert_eq!(Form::with_button(PAGE, "Buy"), None);
    }

    #[test]
    fn the_heading_is_found() {
        assert_eq!(heading(PAGE), "Connect your Reddit account");
        assert_eq!(heading("<p>none</p>"), "");
    }

    #[tokio::test]
    async fn no_error_contains_the_link() {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        // Nobody listens there: port 0 cannot be connected to.
        for link in ["http://127.0.0.1:0/link/lk_secret", "lk_secret"] {
            let Err(error) = connect(&http, link, "bob").await else {
                panic!("{link} cannot be opened");
            };
            assert!(!format!("{error:#} {error:?}").contains("lk_secret"), "{error:#}");
        }
    }
}
