//! The hosted page a link leads to, where a person agrees or declines.
//!
//! A link works for anyone who has it: the person who opens it connects their own account. So requests to the page are
//! not logged, and its headers keep browsers from passing its address on.

use std::sync::Arc;

use axum::{
    Form, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Map, json};
use url::Url;

use super::accounts_view::is_redirect_scheme;
use crate::{
    core::Core,
    provider::reddit,
    state::{
        Project,
        account::Account,
        accounts::Row,
        lifecycle::{AccountStatus, Event},
    },
};

const STYLE: &str = include_str!("page.css");

pub(super) fn router() -> Router<Arc<Core>> {
    Router::new()
        .route("/link/{token}", get(open))
        .route("/link/{token}/connect", post(connect))
        .route("/link/{token}/deny", post(deny))
}

/// Shows the page; opening it advances the account to INITIATED.
async fn open(State(core): State<Arc<Core>>, Path(token): Path<String>, method: Method) -> Response {
    let page = core.find_project(|project, now| {
        let row = project.accounts.find_link(&token)?;
        if let Some(gone) = gone(project.accounts.get(row)) {
            return Some(gone);
        }
        // Link previews send HEAD requests; no person has opened the page then.
        if method != Method::HEAD {
            // A pending account can always be opened.
            let _ = project.accounts.apply(row, &Event::Opened, now);
        }
        Some(consent_page(
            &core,
            project,
            project.accounts.get(row),
            &token,
            None,
        ))
    });
    page.unwrap_or_else(unknown)
}

/// What the page's form sends.
#[derive(Deserialize)]
struct Consent {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// The person agrees.
async fn connect(
    State(core): State<Arc<Core>>,
    Path(token): Path<String>,
    Form(form): Form<Consent>,
) -> Response {
    let response = core.find_project(|project, now| {
        let row = project.accounts.find_link(&token)?;
        let account = project.accounts.get(row);
        if let Some(gone) = gone(account) {
            return Some(gone);
        }
        let mut credentials = Map::new();
        let mut username = form.username.trim().to_owned();
        if is_redirect_scheme(&account.auth_scheme) {
            if username.is_empty() {
                username = reddit::username_for(&account.user_id);
            }
            if account.toolkit == "reddit" && !reddit::is_username(&username) {
                let complaint = "A Reddit username has 3 to 20 letters, digits, dashes or underscores.";
                return Some(consent_page(
                    &core,
                    project,
                    account,
                    &token,
                    Some((complaint, &username)),
                ));
            }
        } else if form.secret.trim().is_empty() {
            return Some(consent_page(
                &core,
                project,
                account,
                &token,
                Some(("Enter the key to connect with.", "")),
            ));
        } else {
            username = reddit::username_for(&account.user_id);
            credentials.insert(
                secret_name(&account.auth_scheme).to_owned(),
                json!(form.secret.trim()),
            );
        }
        Some(match project.accounts.consent(row, username, credentials, now) {
            Ok(()) => finished(&core, project, row),
            Err(_) => unknown(),
        })
    });
    response.unwrap_or_else(unknown)
}

/// The person declines.
async fn deny(State(core): State<Arc<Core>>, Path(token): Path<String>) -> Response {
    let response = core.find_project(|project, now| {
        let row = project.accounts.find_link(&token)?;
        if let Some(gone) = gone(project.accounts.get(row)) {
            return Some(gone);
        }
        Some(match project.accounts.apply(row, &Event::Denied, now) {
            Ok(()) => finished(&core, project, row),
            Err(_) => unknown(),
        })
    });
    response.unwrap_or_else(unknown)
}

/// The name of the field a secret is stored under.
fn secret_name(scheme: &str) -> &'static str {
    if scheme == "BEARER_TOKEN" {
        "token"
    } else {
        "generic_api_key"
    }
}

/// The page for a link that no longer works; `None` for one that does.
fn gone(account: &Account) -> Option<Response> {
    if account.is_deleted() {
        return Some(unknown());
    }
    let (title, text) = match account.status() {
        AccountStatus::Initializing | AccountStatus::Initiated => return None,
        AccountStatus::Expired => (
            "This link has expired",
            "Links are valid for ten minutes. Ask for a new one and try again.",
        ),
        _ => (
            "This link was already used",
            "Each link works once. Ask for a new one to connect again.",
        ),
    };
    Some(notice(StatusCode::GONE, "bad", "!", title, text))
}

fn unknown() -> Response {
    let text = "It may have been replaced by a newer one, or withdrawn. Ask for a new link and try again.";
    notice(StatusCode::GONE, "bad", "!", "This link is not valid", text)
}

/// Redirects to the callback, or shows the outcome where the link has none.
fn finished(core: &Core, project: &Project, row: Row) -> Response {
    let account = project.accounts.get(row);
    let connected = account.status() == AccountStatus::Active;
    if let Some(target) = account
        .callback_url
        .as_ref()
        .and_then(|url| callback(url, &account.id, connected))
    {
        let mut response = StatusCode::SEE_OTHER.into_response();
        response.headers_mut().insert(header::LOCATION, target);
        response.headers_mut().extend(private());
        return response;
    }
    let name = toolkit_name(core, account);
    if connected {
        let title = format!("Your {name} account is connected");
        notice(StatusCode::OK, "good", "✓", &title, "You can close this window.")
    } else {
        let title = format!("Your {name} account was not connected");
        notice(
            StatusCode::OK,
            "bad",
            "×",
            &title,
            "You declined the request. You can close this window.",
        )
    }
}

/// The callback with its own query kept and the outcome appended.
fn callback(url: &str, account_id: &str, connected: bool) -> Option<HeaderValue> {
    let mut url = Url::parse(url).ok()?;
    url.query_pairs_mut()
        .append_pair("status", if connected { "success" } else { "failed" })
        .append_pair("connected_account_id", account_id);
    HeaderValue::from_str(url.as_str()).ok()
}

fn toolkit_name(core: &Core, account: &Account) -> String {
    core.catalogue
        .toolkit(&account.toolkit)
        .map_or_else(|| account.toolkit.clone(), |toolkit| toolkit.name.clone())
}

/// The form. `refused`: the complaint about the last submission, and the username in it.
fn consent_page(
    core: &Core,
    project: &Project,
    account: &Account,
    token: &str,
    refused: Option<(&str, &str)>,
) -> Response {
    let name = escape(&toolkit_name(core, account));
    let config = project.auth_configs.get_any(&account.auth_config_id);
    let config = escape(config.map_or(account.auth_config_id.as_str(), |config| config.name.as_str()));
    let user = escape(&account.user_id);
    let token = escape(token);
    let initial = name.chars().next().unwrap_or('C');
    let (field, hint) = if is_redirect_scheme(&account.auth_scheme) {
        let suggestion = reddit::username_for(&account.user_id);
        let value = escape(refused.map_or(&suggestion, |(_, typed)| typed));
        (
            format!(
                r#"<label for="username">{name} username to connect as</label>
<input id="username" name="username" value="{value}" autocomplete="off" spellcheck="false" maxlength="64">"#
            ),
            format!("This stands in for signing in at {name}: connect as anybody you like."),
        )
    } else {
        (
            format!(
                r#"<label for="secret">{name} key</label>
<input id="secret" name="secret" type="password" autocomplete="off" required>"#
            ),
            "Any value does: the simulator contacts no provider.".to_owned(),
        )
    };
    let complaint = refused.map_or_else(String::new, |(text, _)| {
        format!(
            r#"<p class="hint" role="alert"><strong>{}</strong></p>"#,
            escape(text)
        )
    });
    let body = format!(
        r#"<div class="mark" aria-hidden="true">{initial}</div>
<h1>Connect your {name} account</h1>
<p>An application wants to act for you at {name}. Only go on if you started this yourself.</p>
<dl><dt>Asked for</dt><dd>{user}</dd><dt>Through</dt><dd>{config}</dd></dl>
<form method="post" action="/link/{token}/connect">
{field}
{complaint}<p class="hint">{hint}</p>
<button class="go" type="submit">Connect</button>
</form>
<form method="post" action="/link/{token}/deny"><button class="no" type="submit">Deny</button></form>"#
    );
    let status = if complaint.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    page(status, &format!("Connect your {name} account"), &body)
}

fn notice(status: StatusCode, mood: &str, mark: &str, title: &str, text: &str) -> Response {
    let (title, text) = (escape(title), escape(text));
    let body = format!(
        r#"<div class="mark {mood}" aria-hidden="true">{mark}</div>
<h1>{title}</h1>
<p>{text}</p>"#
    );
    page(status, &title, &body)
}

/// `title` and `body` are HTML.
fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
{body}
<footer>composio-sim: a simulated Composio. No real account is involved.</footer>
</main>
</body>
</html>
"#
    );
    (status, private(), Html(html)).into_response()
}

/// Keeps the page's address out of caches, frames and Referer headers, and the page free of scripts.
fn private() -> HeaderMap {
    // No form-action: browsers apply it to the redirect after the form too, which leads to the callback.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
    HeaderMap::from_iter([
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
    ])
}

fn escape(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut html, c| {
            match c {
                '&' => html.push_str("&amp;"),
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '"' => html.push_str("&quot;"),
                '\'' => html.push_str("&#39;"),
                c => html.push(c),
            }
            html
        })
}
