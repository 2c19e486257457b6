//! What the annotations of a toolkit's ConfigMap tell: enough to know whether it is up to date without reading it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::drift::Drift;
use super::manifest::Entry;
use super::pack::{Encoding, MAX_PARTS};
use crate::api::GROUP;

/// Label with the name of the cache that a ConfigMap belongs to.
pub const CACHE_LABEL: &str = "composio-operator.dev/schema-cache";
/// Label with the toolkit whose tools a ConfigMap holds.
pub const TOOLKIT_LABEL: &str = "composio-operator.dev/toolkit";
/// Label that tells the manifest (`manifest`) from toolkits (`toolkit`) and their continuations (`continuation`).
pub const ROLE_LABEL: &str = "composio-operator.dev/schema-role";
/// Annotation with the hash over everything in a ConfigMap that is ours, see [`super::pack::checksum`].
pub const CHECKSUM: &str = "composio-operator.dev/checksum";
/// Annotation with the SHA-256 of the tools of all parts, on each of them: parts of one content have the same.
pub const CONTENT: &str = "composio-operator.dev/sha256";
/// Annotation with the slug of the toolkit.
pub const TOOLKIT: &str = "composio-operator.dev/toolkit";

/// Annotation with the hash of the settings that shape a ConfigMap.
pub const SETTINGS: &str = "composio-operator.dev/settings";

/// What the annotations of a toolkit's ConfigMap tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Slug of the toolkit.
    pub toolkit: String,
    /// Version that is cached.
    pub version: Option<String>,
    /// When Composio last updated the toolkit, in its own words. For comparison only.
    pub updated_at: Option<String>,
    /// Hash of the settings that shape the content.
    pub settings: String,
    /// Number of tools.
    pub tools: usize,
    /// How they are stored.
    pub encoding: Encoding,
    /// SHA-256 of the tools.
    pub sha256: String,
    /// The ConfigMaps, this one first.
    pub config_maps: Vec<String>,
    /// Tools that are left out.
    pub omitted_tools: Vec<String>,
    /// How many tools Composio has beside these, and did not deliver.
    pub missing_tools: usize,
    /// When the content was last written.
    pub synced_at: Timestamp,
    /// What changed then.
    pub drift: Option<Drift>,
}

fn key(name: &str) -> String {
    format!("{GROUP}/{name}")
}

fn list(values: &[String]) -> String {
    values.join(",")
}

fn unlist(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Record {
    /// The annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::from([
            (TOOLKIT.to_owned(), self.toolkit.clone()),
            (SETTINGS.to_owned(), self.settings.clone()),
            (key("tools"), self.tools.to_string()),
            (key("encoding"), <&str>::from(self.encoding).to_owned()),
            (CONTENT.to_owned(), self.sha256.clone()),
            (key("config-maps"), list(&self.config_maps)),
            (key("synced-at"), self.synced_at.to_string()),
        ]);
        let optional = [
            ("version", self.version.clone()),
            ("updated-at", self.updated_at.clone()),
            (
                "omitted-tools",
                (!self.omitted_tools.is_empty()).then(|| list(&self.omitted_tools)),
            ),
            (
                "missing-tools",
                (self.missing_tools > 0).then(|| self.missing_tools.to_string()),
            ),
            (
                "drift",
                self.drift
                    .as_ref()
                    .and_then(|drift| serde_json::to_string(drift).ok()),
            ),
        ];
        for (name, value) in optional {
            annotations.extend(value.map(|value| (key(name), value)));
        }
        annotations
    }

    /// Reads the annotations; None if they are not those of a toolkit, or were edited beyond use.
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = |name: &str| annotations.get(&key(name)).cloned();
        let encoding = match text("encoding")?.as_str() {
            "json" => Encoding::Json,
            "gzip" => Encoding::Gzip,
            _ => return None,
        };
        Some(Self {
            toolkit: annotations.get(TOOLKIT).cloned()?,
            version: text("version"),
            updated_at: text("updated-at"),
            settings: annotations.get(SETTINGS).cloned()?,
            tools: text("tools")?.parse().ok()?,
            encoding,
            sha256: annotations.get(CONTENT).cloned()?,
            config_maps: Some(unlist(&text("config-maps")?)).filter(|parts| parts.len() <= MAX_PARTS)?,
            omitted_tools: unlist(&text("omitted-tools").unwrap_or_default()),
            missing_tools: text("missing-tools")
                .and_then(|count| count.parse().ok())
                .unwrap_or_default(),
            synced_at: text("synced-at")?.parse().ok()?,
            drift: text("drift").and_then(|text| serde_json::from_str(&text).ok()),
        })
    }

    /// The manifest's entry for it.
    pub fn entry(&self) -> Entry {
        Entry {
            slug: self.toolkit.clone(),
            version: self.version.clone(),
            tools: self.tools,
            config_maps: self.config_maps.clone(),
            encoding: self.encoding,
            sha256: self.sha256.clone(),
            synced_at: self.synced_at,
            stale: None,
            omitted_tools: self.omitted_tools.clone(),
            missing_tools: self.missing_tools,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let record = Record {
            toolkit: "github".to_owned(),
            version: Some("20260101_00".to_owned()),
            updated_at: None,
            settings: "s".to_owned(),
            tools: 3,
            encoding: Encoding::Gzip,
            sha256: "abc".to_owned(),
            config_maps: vec!["schemas-github".to_owned(), "schemas-github.2".to_owned()],
            omitted_tools: vec!["GIANT".to_owned()],
            missing_tools: 4,
            synced_at: Timestamp::UNIX_EPOCH,
            drift: Some(Drift {
                added: vec!["A".to_owned()],
                ..Drift::default()
            }),
        };
        let annotations = record.annotations();
        assert_eq!(Record::read(&annotations), Some(record.clone()));
        // Found as three thousand reads for one forged annotation.
        let forged = Record {
            config_maps: vec!["schemas-github".to_owned(); MAX_PARTS + 1],
            ..record
        };
        assert_eq!(Record::read(&forged.annotations()), None);
        for required in [
            "toolkit",
            "settings",
            "tools",
            "encoding",
            "sha256",
            "config-maps",
            "synced-at",
        ] {
            let mut edited = annotations.clone();
            edited.remove(&key(required));
            assert_eq!(Record::read(&edited), None, "{required}");
        }
    }
}
