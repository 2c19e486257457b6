//! The second story: the schemas of the tools, and what happens when one toolkit changes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::workspace;

use super::narrator::Narrator;
use super::stage::{Stage, TENANT};
use super::story::section;

/// The example that is applied, from the root of the workspace.
pub const EXAMPLE: &str = "examples/composioschemacache.yaml";
/// The object in it.
pub const NAME: &str = "tools";
/// The toolkit that changes, and its ConfigMap.
const TOOLKIT: &str = "reddit";
const CONFIG_MAP: &str = "schemas-reddit";
/// The list of all.
const MANIFEST: &str = "schemas-manifest";
/// What changes at Composio: one of the tools in a way that breaks its callers.
const RELEASE: &str = r#"{"add": 1, "break": 1}"#;
const SELECTOR: &str = "composio-operator.dev/schema-cache=tools";

/// Tells it.
pub async fn tell(stage: &Stage, narrator: &Narrator) -> Result<()> {
    declare(stage, narrator).await?;
    change(stage, narrator).await
}

async fn declare(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.act(
        5,
        "You declare that the schemas of your tools belong into ConfigMaps",
    );
    narrator.command(&format!("cat {EXAMPLE}"));
    let example = workspace::root().join(EXAMPLE);
    narrator.output(&std::fs::read_to_string(&example).with_context(|| format!("cannot read {EXAMPLE}"))?);
    narrator.command(&format!("kubectl apply -f {EXAMPLE}"));
    let filename = format!("--filename={}", example.display());
    narrator.output(&kubectl(stage, &["apply", &filename]).await?);
    shown(
        stage,
        narrator,
        &format!("wait csc/{NAME} --for=condition=Ready --timeout=90s"),
    )
    .await?;
    shown(stage, narrator, &format!("get csc {NAME}")).await?;
    shown(stage, narrator, &format!("get configmaps -l {SELECTOR}")).await?;
    narrator.deed(&format!(
        "(A pod mounts {CONFIG_MAP} like any other ConfigMap: examples/schema-reader.yaml.)"
    ));
    Ok(())
}

async fn change(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.act(
        6,
        "One toolkit changes at Composio, and only its ConfigMap is written again",
    );
    let before = versions(stage).await?;
    let url = format!("{}/_sim/toolkits/{TOOLKIT}/release", stage.composio);
    narrator.command(&format!("curl -s {url} -d '{RELEASE}'"));
    let answer = stage
        .http
        .post(url)
        .body(RELEASE)
        .send()
        .await?
        .error_for_status()?;
    narrator.output(&answer.text().await?);

    narrator.say("The next refresh would be in some six hours. Somebody asks for one now:");
    let token = "now";
    shown(
        stage,
        narrator,
        &format!("annotate csc {NAME} composio-operator.dev/requested-at={token}"),
    )
    .await?;
    shown(
        stage,
        narrator,
        &format!("wait csc/{NAME} --for=jsonpath={{.status.lastHandledRequestAt}}={token} --timeout=90s"),
    )
    .await?;
    let after = versions(stage).await?;
    narrator.command(&format!(
        "kubectl get configmaps -l {SELECTOR} -o custom-columns=NAME:.metadata.name,VERSION:.metadata.resourceVersion"
    ));
    narrator.output(&compared(&before, &after));
    let written: Vec<&str> = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version))
        .map(|(name, _)| name.as_str())
        .collect();
    ensure!(
        written == [MANIFEST, CONFIG_MAP] && before.len() == after.len(),
        "only {MANIFEST} and {CONFIG_MAP} should have been written, not {written:?}"
    );
    narrator.kept("one toolkit changed, one toolkit was written, and the manifest that lists it");

    let json = kubectl(stage, &["get", "csc", NAME, "--output=jsonpath={.status.drift}"]).await?;
    narrator.command(&format!(
        "kubectl get csc {NAME} -o jsonpath='{{.status.drift}}' | jq"
    ));
    let drift: Value = serde_json::from_str(&json).context("there is no drift in the status")?;
    narrator.output(&serde_json::to_string_pretty(&drift)?);
    ensure!(drift["breaking"] == 1, "one breaking change should be reported");
    narrator.command(&format!("kubectl describe csc {NAME}   # its events"));
    let described = kubectl(stage, &["describe", "csc", NAME]).await?;
    narrator.output(section(&described, "Events:").context("there are no events")?);
    Ok(())
}

/// Runs kubectl with these words, and shows both what is typed and what is printed.
async fn shown(stage: &Stage, narrator: &Narrator, words: &str) -> Result<()> {
    narrator.command(&format!("kubectl {words}"));
    let words: Vec<&str> = words.split(' ').collect();
    narrator.output(&kubectl(stage, &words).await?);
    Ok(())
}

async fn kubectl(stage: &Stage, words: &[&str]) -> Result<String> {
    let words = words.iter().copied().chain(["--namespace", TENANT]);
    stage.plane.kubectl(words).await?.ok()
}

/// The resource versions of the cache's ConfigMaps.
async fn versions(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let template =
        r#"--output=jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}"#;
    let listed = kubectl(stage, &["get", "configmaps", "-l", SELECTOR, template]).await?;
    let rows = listed.lines().filter_map(|line| line.split_once(' '));
    Ok(rows
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect())
}

fn compared(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    after.iter().fold(
        format!("{:<26}{}\n", "NAME", "VERSION"),
        |all, (name, version)| {
            let was = match before.get(name) {
                Some(was) if was == version => "   as before".to_owned(),
                Some(was) => format!("   was {was}"),
                None => "   new".to_owned(),
            };
            all + &format!("{name:<26}{version}{was}\n")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_stands_out() {
        let versions = |rows: &[(&str, &str)]| {
            rows.iter()
                .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let text = compared(
            &versions(&[("a", "1"), ("b", "2")]),
            &versions(&[("a", "1"), ("b", "5"), ("c", "6")]),
        );
        let rows: Vec<&str> = text
            .lines()
            .skip(1)
            .map(|row| row.trim_start_matches(|c| c != ' '))
            .collect();
        assert_eq!(
            rows.iter().map(|row| row.trim()).collect::<Vec<_>>(),
            ["1   as before", "5   was 2", "6   new"]
        );
    }
}
