//! The story of a connection: declare, connect, look, delete.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::narrator::Narrator;
use super::person;
use super::stage::{Account, NAMESPACE, PATIENCE, Stage, TENANT};
use super::story;
use super::view::{CONNECTIONS, View};

/// The example that is applied, from the root of the workspace.
pub const EXAMPLE: &str = "examples/redditconnection.yaml";
/// The object in it, and the Secret that the operator makes for it.
pub const NAME: &str = "alice";
const LINK_SECRET: &str = "alice-link";
/// The Reddit user the simulated person is.
const REDDIT_USER: &str = "alice_reads";
/// A person at the keyboard has as long as a link lives.
const LINK_LIFETIME: Duration = Duration::from_mins(10);

/// Tells it. With `manual` the person at the keyboard opens the link.
pub async fn tell(stage: &Stage, narrator: &Narrator, manual: bool) -> Result<()> {
    let mut view = View::open(stage, CONNECTIONS)?;
    declare(stage, narrator, &mut view).await?;
    if manual {
        connect_by_hand(stage, narrator, &mut view).await?;
    } else {
        connect(stage, narrator, &mut view).await?;
    }
    look(stage, narrator).await?;
    delete(stage, narrator).await
}

async fn declare(stage: &Stage, narrator: &Narrator, view: &mut View) -> Result<()> {
    narrator.act(1, "You declare whom to connect");
    story::apply(stage, narrator, EXAMPLE).await?;
    narrator.command("kubectl get rdc --watch");
    view.until(narrator, &["pending", "AwaitingConsent"], PATIENCE)
        .await
}

async fn connect(stage: &Stage, narrator: &Narrator, view: &mut View) -> Result<()> {
    narrator.act(2, "A person opens the link and consents");
    let link = link(stage).await?;
    narrator.say("The operator asked Composio for a link and put it into a Secret:");
    narrator.command(&read_link_command());
    narrator.output(&masked(&link));
    narrator.deed("(Shortened here: whoever has a link can connect their own account with it.)");

    let visit = person::connect(&stage.http, &link, REDDIT_USER).await?;
    narrator.say("Somebody with a browser:");
    narrator.deed(&format!("opens the link                    → {}", visit.page));
    narrator.deed(&format!(
        "is {REDDIT_USER}, clicks \"Connect\"  → {}",
        visit.outcome
    ));

    narrator.command("kubectl get rdc --watch");
    view.until(narrator, &["connected", "Connected", REDDIT_USER], PATIENCE)
        .await?;
    spent(stage, narrator).await
}

async fn connect_by_hand(stage: &Stage, narrator: &Narrator, view: &mut View) -> Result<()> {
    narrator.act(2, "You open the link and consent");
    narrator.say("The operator asked Composio for a link and put it into a Secret:");
    narrator.command(&read_link_command());
    // In full, as kubectl would show it to whoever may read the Secret: it is theirs to open.
    narrator.output(&link(stage).await?);
    narrator.say("Open it in your browser within ten minutes, and click Connect. This goes on by itself.");
    narrator.command("kubectl get rdc --watch");
    view.until(narrator, &["connected", "Connected"], LINK_LIFETIME)
        .await?;
    let arguments = [
        "wait",
        "rdc",
        NAME,
        "--namespace",
        TENANT,
        "--for=jsonpath={.status.displayName}",
        "--timeout=90s",
    ];
    stage.plane.kubectl(arguments).await?.ok()?;
    spent(stage, narrator).await
}

/// The link's Secret goes with its use.
async fn spent(stage: &Stage, narrator: &Narrator) -> Result<()> {
    let arguments = [
        "wait",
        "secret",
        LINK_SECRET,
        "--namespace",
        TENANT,
        "--for=delete",
        "--timeout=90s",
    ];
    stage.plane.kubectl(arguments).await?.ok()?;
    narrator.kept(&format!(
        "the link is used up, and Secret {LINK_SECRET} is deleted"
    ));
    Ok(())
}

fn read_link_command() -> String {
    format!("kubectl get secret {LINK_SECRET} -o jsonpath='{{.data.url}}' | base64 -d")
}

/// The link, from the Secret.
async fn link(stage: &Stage) -> Result<String> {
    let template = "--template={{.data.url | base64decode}}";
    let arguments = ["get", "secret", LINK_SECRET, "--namespace", TENANT, template];
    stage.plane.kubectl(arguments).await?.ok()
}

/// A link that can be recognized, but not used.
fn masked(link: &str) -> String {
    let (page, token) = link.rsplit_once('/').unwrap_or_default();
    let beginning: String = token.chars().take(5).collect();
    format!("{page}/{beginning}…")
}

async fn look(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.act(3, "The object knows who connected, and says what it knows");
    let json = ["get", "rdc", NAME, "--namespace", TENANT, "--output=json"];
    let object: Value = serde_json::from_str(&stage.plane.kubectl(json).await?.ok()?)?;
    let status = &object["status"];
    narrator.command(&format!("kubectl get rdc {NAME} -o yaml   # from its status"));
    for field in ["displayName", "profileUrl", "avatarUrl", "connectedAccountId"] {
        let value = status[field]
            .as_str()
            .with_context(|| format!("status.{field} is missing"))?;
        narrator.output(&format!("{:<20} {value}", format!("{field}:")));
    }

    let columns = r#"{range .status.conditions[*]}{.type}={.status}{"\t"}{.reason}{"\n"}{end}"#;
    narrator.command(&format!("kubectl get rdc {NAME} -o jsonpath='{columns}'"));
    let conditions = [
        "get",
        "rdc",
        NAME,
        "--namespace",
        TENANT,
        "--output",
        &format!("jsonpath={columns}"),
    ];
    narrator.output(&aligned(&stage.plane.kubectl(conditions).await?.ok()?));

    narrator.command(&format!("kubectl describe rdc {NAME}   # its events"));
    let described = stage
        .plane
        .kubectl(["describe", "rdc", NAME, "--namespace", TENANT])
        .await?
        .ok()?;
    narrator.output(section(&described, "Events:").context("there are no events")?);
    Ok(())
}

/// Lines of two columns separated by a tab, as a terminal would show them with wide tab stops.
fn aligned(text: &str) -> String {
    let rows = text
        .lines()
        .map(|line| line.split_once('\t').unwrap_or((line, "")));
    rows.fold(String::new(), |all, (left, right)| {
        all + &format!("{left:<24}{right}\n")
    })
}

/// The part of `kubectl describe` from that heading to the end, less the heading.
fn section<'a>(described: &'a str, heading: &str) -> Option<&'a str> {
    let start = described.find(&format!("\n{heading}\n"))?;
    Some(&described[start + heading.len() + 2..])
}

async fn delete(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.act(4, "You delete it, and nothing is left behind at Composio either");
    let json = [
        "get",
        "rdc",
        NAME,
        "--namespace",
        TENANT,
        "--output=jsonpath={.spec.userId}",
    ];
    let user = stage.plane.kubectl(json).await?.ok()?;
    let before = stage.accounts(&user).await?;
    show(stage, narrator, &user, &before);
    ensure!(
        before.len() == 1 && before.iter().all(|account| !account.deleted),
        "exactly one account should exist for {user}"
    );

    narrator.command(&format!("kubectl delete rdc {NAME}"));
    let arguments = ["delete", "rdc", NAME, "--namespace", TENANT, "--timeout=90s"];
    narrator.output(&stage.plane.kubectl(arguments).await?.ok()?);

    let after = stage.accounts(&user).await?;
    show(stage, narrator, &user, &after);
    ensure!(
        after.len() == 1 && after.iter().all(|account| account.deleted),
        "the account of {user} should be deleted at Composio"
    );
    narrator.kept("one object, one account, both gone");
    narrator.deed(&format!(
        "(The operator's key is in Secret composio of namespace {NAMESPACE}. It is in no log, event or status.)"
    ));
    Ok(())
}

fn show(stage: &Stage, narrator: &Narrator, user: &str, accounts: &[Account]) {
    narrator.command(&format!(
        "curl -s '{}/_sim/accounts?userId={user}'   # in short",
        stage.composio
    ));
    for account in accounts {
        narrator.output(&format!(
            "{id}  userId={user}  username={username}  {state}",
            id = account.id,
            user = account.user_id,
            username = account.username.as_deref().unwrap_or("-"),
            state = if account.deleted {
                "deleted"
            } else {
                &account.status
            },
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_link_is_of_no_use() {
        let masked = masked("http://127.0.0.1:1/link/lk_abcdefgh");
        assert_eq!(masked, "http://127.0.0.1:1/link/lk_ab…");
    }

    #[test]
    fn the_events_are_cut_out() {
        let described = "Name: alice\nEvents:\n  Type  Reason\n  ----  ------\n";
        assert_eq!(
            section(described, "Events:"),
            Some("  Type  Reason\n  ----  ------\n")
        );
        assert_eq!(section("Events: <none>\n", "Events:"), None);
    }
}
