//! The story of a schema cache: declare, change one toolkit at Composio, see what is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::narrator::Narrator;
use super::stage::{PATIENCE, Stage};
use super::story;
use super::view::{CACHES, View};

/// The example that is applied, from the root of the workspace.
const EXAMPLE: &str = "examples/composioschemacache.yaml";
/// The object in it.
pub const NAME: &str = "tools";
/// The ConfigMap that lists the others.
pub const MANIFEST: &str = "schemas-manifest";
/// The toolkit that changes, and its ConfigMap.
const CHANGING: &str = "reddit";
pub const CHANGING_MAP: &str = "schemas-reddit";
/// All ConfigMaps of the cache.
const SELECTOR: &str = "composio-operator.dev/schema-cache=tools";
/// How often something that kubectl cannot wait for is looked for.
const INTERVAL: Duration = Duration::from_millis(100);

/// Tells it.
pub async fn tell(stage: &Stage, narrator: &Narrator) -> Result<()> {
    declare(stage, narrator).await?;
    change(stage, narrator).await
}

async fn declare(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.act(5, "You declare that the schemas of all tools in use are kept");
    let mut view = View::open(stage, CACHES)?;
    story::apply(stage, narrator, EXAMPLE).await?;
    narrator.command("kubectl get csc --watch");
    view.until(narrator, &["synced", "Synced"], PATIENCE).await?;

    narrator.say("Pods mount them by name, start without asking Composio, and go on when it is down:");
    let role = "composio-operator.dev/schema-role";
    narrator.command(&format!("kubectl get cm -l {SELECTOR} -L {role}"));
    let table = ["get", "cm", "--selector", SELECTOR, "--label-columns", role];
    narrator.output(&stage.kubectl_here(&table).await?);

    let maps = config_maps(stage).await?;
    let manifest = document(&maps, MANIFEST, "manifest.json")?;
    narrator.command(&format!(
        r"kubectl get cm {MANIFEST} -o jsonpath='{{.data.manifest\.json}}' | jq -c .totals"
    ));
    narrator.output(&manifest["totals"].to_string());
    let toolkits = verify(&maps, &manifest)?;
    narrator.kept(&format!(
        "{toolkits} toolkits, each with all its tools, and the SHA-256 of each is the one in the manifest"
    ));
    narrator.deed(&format!(
        "(examples/schema-reader.yaml is a Deployment that mounts {CHANGING_MAP} and reads it.)"
    ));
    Ok(())
}

async fn change(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.act(
        6,
        "Composio changes one toolkit, and only that one is written again",
    );
    let before = show_versions(stage, narrator).await?;

    narrator.say(&format!(
        "Composio releases a version of {CHANGING} in which one tool asks for an input it did not need before:"
    ));
    let changes = json!({ "break": 1 });
    narrator.command(&format!(
        "curl -s -d '{changes}' {}/_sim/toolkits/{CHANGING}/release | jq -c '{{previousVersion, version, broken}}'",
        stage.composio
    ));
    let release = stage.release(CHANGING, &changes).await?;
    narrator.output(&serde_json::to_string(&release)?);
    let [broken] = release.broken.as_slice() else {
        bail!(
            "one tool of {CHANGING} should have changed, not {:?}",
            release.broken
        );
    };

    narrator.say("The cache looks for changes every six hours. You want it to look now:");
    refresh(stage, narrator).await?;

    let after = show_versions(stage, narrator).await?;
    let expected = BTreeSet::from([MANIFEST, CHANGING_MAP]);
    let written = written(&before, &after);
    ensure!(
        written == expected,
        "{expected:?} should have been written again, and nothing else, but it was {written:?}"
    );
    verify_now(stage).await?;
    narrator.kept(&format!(
        "{CHANGING_MAP} and the manifest were written again; the {} others were not touched",
        after.len() - written.len()
    ));

    drift(stage, narrator, broken).await?;
    warning(stage, narrator, broken).await
}

/// Asks for a sync and waits until it has been done.
async fn refresh(stage: &Stage, narrator: &Narrator) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let request = format!("composio-operator.dev/requested-at={}", now.as_secs());
    narrator.command(&format!("kubectl annotate csc {NAME} {request}"));
    narrator.output(&stage.kubectl_here(&["annotate", "csc", NAME, &request]).await?);

    let handled = format!("jsonpath={{.status.lastHandledRequestAt}}={}", now.as_secs());
    narrator.command(&format!(
        "kubectl wait csc {NAME} --for=jsonpath='{{.status.lastHandledRequestAt}}'={}",
        now.as_secs()
    ));
    let patience = format!("--timeout={}s", PATIENCE.as_secs());
    let wait = ["wait", "csc", NAME, "--for", &handled, &patience];
    narrator.output(&stage.kubectl_here(&wait).await?);
    Ok(())
}

/// What the status says of the change.
async fn drift(stage: &Stage, narrator: &Narrator, broken: &str) -> Result<()> {
    let path = "jsonpath={.status.drift}";
    narrator.command(&format!(
        "kubectl get csc {NAME} -o jsonpath='{{.status.drift}}' | jq"
    ));
    let found = stage
        .kubectl_here(&["get", "csc", NAME, "--output", path])
        .await?;
    let found: Value = serde_json::from_str(&found).context("status.drift is missing")?;
    narrator.output(&serde_json::to_string_pretty(&found)?);
    let sentences = found["breakingChanges"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(
        found["breaking"] == 1 && sentences.iter().any(|sentence| mentions(sentence, broken)),
        "status.drift should name {broken}, and nothing else, as a breaking change"
    );
    Ok(())
}

fn mentions(sentence: &Value, tool: &str) -> bool {
    sentence.as_str().is_some_and(|sentence| sentence.contains(tool))
}

/// The event. It follows the status, so it is waited for.
async fn warning(stage: &Stage, narrator: &Narrator, broken: &str) -> Result<()> {
    let fields = format!("involvedObject.name={NAME},reason=BreakingChange");
    let events = ["get", "events", "--field-selector", &fields];
    let appears = async {
        loop {
            let table = stage.kubectl_here(&events).await?;
            if table.contains(broken) {
                return anyhow::Ok(table);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let table = tokio::time::timeout(PATIENCE, appears).await.with_context(|| {
        format!(
            "no event BreakingChange names {broken} within {} s",
            PATIENCE.as_secs()
        )
    })??;
    narrator.command(&format!("kubectl get events --field-selector {fields}"));
    narrator.output(&table);
    narrator.kept("which tool, and what about it: a Warning for whoever looks after the agents");
    Ok(())
}

/// Shows the resource versions of the ConfigMaps, which move with every write, and returns them by name.
async fn show_versions(stage: &Stage, narrator: &Narrator) -> Result<BTreeMap<String, String>> {
    let columns = "custom-columns=NAME:.metadata.name,VERSION:.metadata.resourceVersion";
    narrator.command(&format!("kubectl get cm -l {SELECTOR} -o {columns}"));
    let table = stage
        .kubectl_here(&["get", "cm", "--selector", SELECTOR, "--output", columns])
        .await?;
    narrator.output(&table);
    Ok(versions(&table))
}

/// The rows of a table of two columns, less the header.
fn versions(table: &str) -> BTreeMap<String, String> {
    let rows = table.lines().skip(1);
    rows.filter_map(|row| {
        let (name, version) = row.split_once(' ')?;
        Some((name.to_owned(), version.trim().to_owned()))
    })
    .collect()
}

/// The names whose version is another one, or that are only in one of the two.
fn written<'a>(
    before: &'a BTreeMap<String, String>,
    after: &'a BTreeMap<String, String>,
) -> BTreeSet<&'a str> {
    let names = before.keys().chain(after.keys());
    names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(String::as_str)
        .collect()
}

/// The data of the cache's ConfigMaps by name.
async fn config_maps(stage: &Stage) -> Result<BTreeMap<String, Value>> {
    let list = stage
        .kubectl_here(&["get", "cm", "--selector", SELECTOR, "--output=json"])
        .await?;
    let mut list: Value = serde_json::from_str(&list)?;
    let items = list["items"].as_array_mut().context("kubectl printed no list")?;
    let named = items.iter_mut().filter_map(|map| {
        let name = map["metadata"]["name"].as_str()?.to_owned();
        Some((name, map["data"].take()))
    });
    Ok(named.collect())
}

/// The JSON document under a key of a ConfigMap.
fn document(maps: &BTreeMap<String, Value>, name: &str, key: &str) -> Result<Value> {
    let text = maps.get(name).and_then(|data| data[key].as_str());
    let text = text.with_context(|| format!("ConfigMap {name} has no {key}"))?;
    serde_json::from_str(text).with_context(|| format!("{key} of ConfigMap {name} is no JSON"))
}

/// Verifies what is there now.
async fn verify_now(stage: &Stage) -> Result<()> {
    let maps = config_maps(stage).await?;
    verify(&maps, &document(&maps, MANIFEST, "manifest.json")?)?;
    Ok(())
}

/// Reads every toolkit of the manifest as an agent would, and returns how many there are. Fails unless all that the
/// manifest and the ConfigMaps say of each other is true.
fn verify(maps: &BTreeMap<String, Value>, manifest: &Value) -> Result<usize> {
    let toolkits = manifest["toolkits"]
        .as_array()
        .context("the manifest lists no toolkits")?;
    let mut total = 0;
    for toolkit in toolkits {
        let name = toolkit["configMaps"][0].as_str();
        let name = name.with_context(|| format!("the manifest names no ConfigMap in {toolkit}"))?;
        let text = maps.get(name).and_then(|data| data["tools.json"].as_str());
        let text = text.with_context(|| format!("ConfigMap {name} has no tools.json"))?;
        let sha256 = hex(&Sha256::digest(text));
        let tools: Vec<Value> = serde_json::from_str(text)?;
        let head = document(maps, name, "toolkit.json")?;
        for (place, said) in [("toolkit.json", &head), ("the manifest", toolkit)] {
            ensure!(
                said["sha256"] == sha256 && said["tools"] == tools.len(),
                "{place} does not describe tools.json of ConfigMap {name}"
            );
        }
        total += tools.len();
    }
    ensure!(
        total > 0
            && manifest["totals"]["tools"] == total
            && manifest["totals"]["toolkits"] == toolkits.len()
            && maps.len() == toolkits.len() + 1,
        "the manifest's totals do not count what is there"
    );
    Ok(toolkits.len())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_shows_in_the_versions() {
        let before = versions("NAME        VERSION\nschemas-a   7\nschemas-b   8\nschemas-c   9\n");
        let after = versions("NAME        VERSION\nschemas-a   7\nschemas-b   12\nschemas-d   13\n");
        assert_eq!(before["schemas-a"], "7");
        assert_eq!(
            written(&before, &after),
            BTreeSet::from(["schemas-b", "schemas-c", "schemas-d"])
        );
        assert_eq!(written(&before, &before), BTreeSet::new());
    }

    #[test]
    fn a_set_that_does_not_fit_together_is_refused() {
        let set = |tools: &str, sha256: &str, total: usize| {
            let head = json!({ "sha256": sha256, "tools": 1 }).to_string();
            let maps = BTreeMap::from([
                (MANIFEST.to_owned(), json!({})),
                (
                    CHANGING_MAP.to_owned(),
                    json!({ "tools.json": tools, "toolkit.json": head }),
                ),
            ]);
            let manifest = json!({
                "toolkits": [{ "configMaps": [CHANGING_MAP], "sha256": sha256, "tools": 1 }],
                "totals": { "toolkits": 1, "tools": total },
            });
            verify(&maps, &manifest)
        };
        let sha256 = hex(&Sha256::digest("[{}]"));
        assert!(set("[1]", &sha256, 1).is_err(), "another text");
        assert_eq!(set("[{}]", &sha256, 1).unwrap(), 1);
        assert!(set("[{}]", &sha256, 2).is_err(), "another total");
        assert!(set("[{}, {}]", &sha256, 1).is_err(), "another number of tools");
    }
}
