//! How the catalogue changes while a simulator runs: new versions of toolkits, and edits without one.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

use super::{
    schema::SchemaSize,
    toolkit::{Toolkit, Version},
};

/// How the tools of a new version differ from those of the latest one. Every tool is changed at most once. The choice
/// of tools is the same for the same toolkit with the same earlier releases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Release {
    /// Tools to add.
    pub add: usize,
    /// Tools to remove.
    pub remove: usize,
    /// Tools to describe differently.
    pub change: usize,
    /// Tools to give a new required input.
    #[serde(rename = "break")]
    pub breaking: usize,
    /// The name of the version, as in `20260601_00`, later than the latest; absent: made from the date.
    pub version: Option<String>,
}

/// A version that was released, with the slugs of the tools that differ, in alphabetical order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// The toolkit.
    pub slug: String,
    /// The new version, which is the latest now.
    pub version: String,
    /// The latest one before.
    pub previous_version: String,
    /// The toolkit's new `meta.updated_at`, always later than before.
    pub updated_at: Timestamp,
    /// New tools.
    pub added: Vec<String>,
    /// Tools the new version lacks.
    pub removed: Vec<String>,
    /// Tools with another description.
    pub changed: Vec<String>,
    /// Tools with one more required input.
    pub broken: Vec<String>,
}

/// A change to a toolkit that makes no version: its update time moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Touch {
    /// Its new description; absent: as before.
    pub description: Option<String>,
}

/// Why the catalogue was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// No toolkit has that slug.
    #[error("there is no toolkit {0}")]
    NoToolkit(String),
    /// A toolkit has that slug already.
    #[error("there is a toolkit {0} already")]
    Exists(String),
    /// The slug is not one.
    #[error("`{0}` is no slug: lower-case letters, digits and underscores make one")]
    BadSlug(String),
    /// The version is not one, or not a later one.
    #[error("`{wanted}` is no version after {latest}; one looks like 20260601_00")]
    BadVersion {
        /// The version asked for.
        wanted: String,
        /// The latest one.
        latest: String,
    },
    /// More tools were to be touched than there are.
    #[error("toolkit {slug} has {tools} tools, which is fewer than were to be removed, changed and broken")]
    TooFewTools {
        /// The toolkit.
        slug: String,
        /// How many its latest version has.
        tools: usize,
    },
}

impl Toolkit {
    /// The toolkit with a new latest version.
    pub(crate) fn release(
        &self,
        release: &Release,
        now: Timestamp,
    ) -> Result<(Self, Released), CatalogueError> {
        let latest = self.latest();
        let version = match &release.version {
            Some(wanted) if is_version(wanted) && *wanted > latest.name => wanted.clone(),
            Some(wanted) => {
                return Err(CatalogueError::BadVersion {
                    wanted: wanted.clone(),
                    latest: latest.name.clone(),
                });
            }
            None => next_version(&latest.name, now),
        };
        let mut tools = latest.tools().to_vec();
        let touched = [release.remove, release.change, release.breaking]
            .into_iter()
            .try_fold(0, usize::checked_add)
            .filter(|touched| *touched <= tools.len());
        let Some(touched) = touched else {
            return Err(CatalogueError::TooFewTools {
                slug: self.slug.clone(),
                tools: tools.len(),
            });
        };

        // Every version starts at another tool, so that a series of releases reaches all tools.
        let turn = self.versions.len() % tools.len().max(1);
        tools.rotate_left(turn);
        let (to_touch, untouched) = tools.split_at(touched);
        let (removed, kept) = to_touch.split_at(release.remove);
        let (changed, broken) = kept.split_at(release.change);
        let mut toolkit = self.clone();
        let added = toolkit.make_tools(release.add, SchemaSize::Usual);
        let redescribed = changed
            .iter()
            .map(|tool| Arc::new(tool.with_note(format!("Revised in {version}."))));
        let broken_tools = broken
            .iter()
            .map(|tool| Arc::new(tool.with_required_input(format!("required_since_{version}"))));
        let tools = untouched.iter().cloned().chain(redescribed).chain(broken_tools);
        let tools: Vec<_> = tools.chain(added.iter().cloned()).collect();

        let slugs = |tools: &[Arc<super::tool::Tool>]| {
            let mut slugs: Vec<_> = tools.iter().map(|tool| tool.slug.clone()).collect();
            slugs.sort_unstable();
            slugs
        };
        toolkit.updated_at = self.next_update(now);
        let released = Released {
            slug: self.slug.clone(),
            version: version.clone(),
            previous_version: latest.name.clone(),
            updated_at: toolkit.updated_at,
            added: slugs(&added),
            removed: slugs(removed),
            changed: slugs(changed),
            broken: slugs(broken),
        };
        toolkit.versions.insert(0, Arc::new(Version::new(version, tools)));
        Ok((toolkit, released))
    }

    /// The toolkit with a later update time, and the description given.
    pub(crate) fn touched(&self, touch: &Touch, now: Timestamp) -> Self {
        let description = touch.description.as_ref().unwrap_or(&self.description);
        Self {
            description: description.clone(),
            updated_at: self.next_update(now),
            ..self.clone()
        }
    }

    /// Now, or right after the last update where the clock did not get that far.
    fn next_update(&self, now: Timestamp) -> Timestamp {
        now.max(self.updated_at + SignedDuration::from_millis(1))
    }
}

/// A date and a number.
fn is_version(text: &str) -> bool {
    parse(text).is_some()
}

fn parse(version: &str) -> Option<(Date, u8)> {
    let (date, number) = version.split_once('_')?;
    if (date.len(), number.len()) != (8, 2)
        || !version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
    {
        return None;
    }
    let part = |range: std::ops::Range<usize>| date.get(range)?.parse::<i8>().ok();
    let year: i16 = date.get(..4)?.parse().ok()?;
    let (month, day) = (part(4..6)?, part(6..8)?);
    Some((Date::new(year, month, day).ok()?, number.parse().ok()?))
}

/// Today's first version, or the one after `latest` where that is not later.
pub(super) fn next_version(latest: &str, now: Timestamp) -> String {
    let name = |date: Date, number: u8| format!("{}_{number:02}", date.strftime("%Y%m%d"));
    let today = name(now.to_zoned(jiff::tz::TimeZone::UTC).date(), 0);
    match parse(latest) {
        Some((date, number)) if *latest >= *today => {
            if number < 99 {
                name(date, number + 1)
            } else {
                name(date.tomorrow().unwrap_or(date), 0)
            }
        }
        // The initial version is no date.
        _ => today,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_after_the_day_and_never_go_back() {
        let now = Timestamp::constant(1_800_000_000, 0);
        for (latest, next) in [
            ("00000000_00", "20270115_00"),
            ("20260101_07", "20270115_00"),
            ("20270115_00", "20270115_01"),
            ("20280101_05", "20280101_06"),
            ("20271231_99", "20280101_00"),
        ] {
            assert_eq!(next_version(latest, now), next, "after {latest}");
        }
        for bad in ["latest", "20260101", "20261301_00", "20260101_1", "+2026101_00"] {
            assert!(!is_version(bad), "{bad:?}");
        }
    }
}
