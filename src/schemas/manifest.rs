//! The manifest: the list of what is cached.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::FORMAT;
use super::pack::Encoding;
use crate::digest::sha256_hex;

/// Key of the manifest.
pub const MANIFEST_KEY: &str = "manifest.json";

/// `manifest.json`. Written after everything it names.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Changes exactly when the content of a toolkit changes, comes or goes.
    pub content_hash: String,
    /// What is cached, together.
    pub totals: Totals,
    /// The toolkits, by slug.
    pub toolkits: Vec<Entry>,
    /// Toolkits that were lost last, at most 50: cached before and gone since, although the same ones were selected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
}

/// Most toolkits that are remembered as lost.
const MAX_LOST: usize = 50;

/// A toolkit that was cached and is gone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// Its slug.
    pub slug: String,
    /// How many tools it had.
    pub tools: usize,
    /// When that was found.
    pub lost_at: Timestamp,
}

/// Sums over the toolkits of a manifest.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Number of toolkits.
    pub toolkits: usize,
    /// Number of their tools.
    pub tools: usize,
    /// Number of toolkits that are out of date.
    pub stale: usize,
}

/// One toolkit of a manifest.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its slug.
    pub slug: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Number of its tools.
    pub tools: usize,
    /// Its ConfigMaps, the one with `toolkit.json` first.
    pub config_maps: Vec<String>,
    /// How the tools are stored.
    pub encoding: Encoding,
    /// SHA-256 of the tools, as in `toolkit.json`.
    pub sha256: String,
    /// When the content was last written.
    pub synced_at: Timestamp,
    /// Why it could not be brought up to date. Absent: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// Tools that are too large for any ConfigMap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted_tools: Vec<String>,
    /// How many tools Composio has beside these, and did not deliver.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing_tools: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(super) const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Since when a toolkit is out of date, and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Stale {
    /// Since when.
    pub since: Timestamp,
    /// Why, as in the conditions.
    pub reason: String,
}

impl Manifest {
    /// The manifest of these toolkits.
    pub fn new(mut toolkits: Vec<Entry>) -> Self {
        toolkits.sort_by(|a, b| a.slug.cmp(&b.slug));
        let lines: Vec<String> = toolkits
            .iter()
            .map(|entry| format!("{} {}\n", entry.slug, entry.sha256))
            .collect();
        Self {
            format: FORMAT,
            content_hash: sha256_hex(lines.iter().map(String::as_bytes)),
            totals: Totals {
                toolkits: toolkits.len(),
                tools: toolkits.iter().map(|entry| entry.tools).sum(),
                stale: toolkits.iter().filter(|entry| entry.stale.is_some()).count(),
            },
            toolkits,
            lost: Vec::new(),
        }
    }

    /// The same, which follows `before`, and in which these toolkits are lost.
    #[must_use]
    pub fn having_lost(mut self, lost: Vec<Lost>, before: Option<&Self>) -> Self {
        let is_back = |lost: &Lost| self.entry(&lost.slug).is_some_and(|entry| entry.stale.is_none());
        self.lost = if lost.is_empty() {
            let known = before.iter().flat_map(|before| &before.lost);
            known.filter(|lost| !is_back(lost)).cloned().collect()
        } else {
            lost
        };
        self.lost.truncate(MAX_LOST);
        self
    }

    /// The JSON that is written.
    pub fn to_text(&self) -> String {
        // A type of strings and numbers only cannot fail to serialise.
        serde_json::to_value(self).unwrap_or_default().to_string()
    }

    /// The toolkit of that slug.
    pub fn entry(&self, slug: &str) -> Option<&Entry> {
        let place = self
            .toolkits
            .binary_search_by(|entry| entry.slug.as_str().cmp(slug))
            .ok()?;
        self.toolkits.get(place)
    }

    /// Every ConfigMap it names.
    pub fn config_maps(&self) -> impl Iterator<Item = &str> {
        self.toolkits
            .iter()
            .flat_map(|entry| entry.config_maps.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slug: &str, sha256: &str) -> Entry {
        Entry {
            slug: slug.to_owned(),
            version: None,
            tools: 2,
            config_maps: vec![format!("schemas-{slug}")],
            encoding: Encoding::Json,
            sha256: sha256.to_owned(),
            synced_at: Timestamp::UNIX_EPOCH,
            stale: None,
            omitted_tools: vec![],
            missing_tools: 0,
        }
    }

    #[test]
    fn the_content_hash_follows_the_content_and_nothing_else() {
        let one = Manifest::new(vec![entry("b", "2"), entry("a", "1")]);
        let stale = Stale {
            since: Timestamp::UNIX_EPOCH,
            reason: "Down".to_owned(),
        };
        let other = Manifest::new(vec![
            entry("a", "1"),
            Entry {
                stale: Some(stale),
                synced_at: Timestamp::MAX,
                ..entry("b", "2")
            },
        ]);
        assert_eq!(one.content_hash, other.content_hash);
        assert_eq!(
            (other.totals.toolkits, other.totals.tools, other.totals.stale),
            (2, 4, 1)
        );
        assert_ne!(
            one.content_hash,
            Manifest::new(vec![entry("a", "1"), entry("b", "3")]).content_hash
        );
        assert_ne!(
            one.content_hash,
            Manifest::new(vec![entry("a", "1")]).content_hash
        );
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let manifest = Manifest::new(vec![entry("b", "2"), entry("a", "1")]);
        assert_eq!(
            serde_json::from_str::<Manifest>(&manifest.to_text()).unwrap(),
            manifest
        );
        assert_eq!(manifest.entry("b").map(|entry| entry.sha256.as_str()), Some("2"));
        assert_eq!(manifest.entry("c"), None);
    }
}
