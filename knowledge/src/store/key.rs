//! Which channel, and the folder that is its own.

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::digest;
use crate::message::Platform;

/// A channel, as the store knows it.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ChannelKey {
    /// The cluster whose operator writes; several may share one root.
    pub cluster: String,
    /// The namespace that the channel belongs to.
    pub namespace: String,
    /// The platform.
    pub platform: Platform,
    /// The platform's id of the channel; for Reddit the subreddit's name in lower case.
    pub channel: String,
}

impl ChannelKey {
    /// The most characters of a channel's name that its folder shows.
    const SLUG: usize = 40;

    /// Fails with [`StoreError::BadName`] where cluster or namespace could not be a folder.
    pub fn new(
        cluster: &str,
        namespace: &str,
        platform: Platform,
        channel: &str,
    ) -> Result<Self, StoreError> {
        for name in [cluster, namespace] {
            let fits = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !fits || name.is_empty() || name.len() > 253 || name.bytes().all(|b| b == b'.') {
                return Err(StoreError::BadName {
                    name: name.to_owned(),
                    reason:
                        "cluster and namespace are 1 to 253 letters, digits, hyphens, dots and underscores"
                            .into(),
                });
            }
        }
        // Reddit shows r/Rust and r/rust alike; elsewhere ids differ by case.
        let channel = match platform {
            Platform::Reddit => channel.to_lowercase(),
            Platform::Slack | Platform::Discord => channel.to_owned(),
        };
        Ok(Self {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            platform,
            channel,
        })
    }

    /// The channel's folder under the root, without a slash at either end. The hash keeps two channels apart whose names
    /// look alike.
    pub fn folder(&self) -> String {
        let hash = digest::hex(self.channel.as_bytes());
        format!(
            "{}/{}/{}/{}-{}",
            self.cluster,
            self.namespace,
            self.platform,
            slug(&self.channel),
            &hash[..8]
        )
    }
}

/// Lower-case letters and digits with hyphens between: it fits into any file system and URL.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if slug.len() == ChannelKey::SLUG {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        "channel".to_owned()
    } else {
        slug.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        let folder = |platform, channel: &str| {
            ChannelKey::new("prod", "team-a", platform, channel)
                .unwrap()
                .folder()
        };
        assert_eq!(
            folder(Platform::Slack, "C0AB12CD3"),
            "prod/team-a/slack/c0ab12cd3-c1c8e57b"
        );
        assert_eq!(folder(Platform::Reddit, "Rust"), folder(Platform::Reddit, "rust"));
        assert_ne!(folder(Platform::Slack, "Rust"), folder(Platform::Slack, "rust"));
        let hostile = folder(Platform::Slack, "../../etc\u{202e}/passwd#1");
        assert!(
            hostile.starts_with("prod/team-a/slack/etc-passwd-1-"),
            "{hostile}"
        );
        assert!(folder(Platform::Discord, "日本").starts_with("prod/team-a/discord/channel-"));
    }

    #[test]
    fn names_that_are_no_folder_are_refused() {
        for name in ["", "..", "a/b", "ä", &"x".repeat(254)] {
            assert!(
                ChannelKey::new(name, "n", Platform::Slack, "c").is_err(),
                "{name}"
            );
            assert!(
                ChannelKey::new("c", name, Platform::Slack, "c").is_err(),
                "{name}"
            );
        }
    }
}
