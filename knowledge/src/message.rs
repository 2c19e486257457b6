//! A message of a channel, as a platform hands it over and as `--messages` files hold it: one JSON object a line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a channel lives.
#[derive(
    Clone,
    Copy,
    Debug,
    Deserialize,
    Eq,
    Hash,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
    strum::Display,
    strum::EnumString,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Platform {
    /// Slack: text is mrkdwn, with `<@U2>`, `<https://…|label>` and `:emoji:`.
    Slack,
    /// Discord: text is Markdown with `<@123>` and `<:name:123>`.
    Discord,
    /// Reddit: text is Markdown; the text of a post begins with its title and a blank line.
    Reddit,
}

/// One message.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Message {
    /// The platform of the channel.
    pub platform: Platform,
    /// The platform's id of the channel; for Reddit the subreddit's name.
    pub channel: String,
    /// The platform's id of the message. It stays text to its last digit: a number would lose digits.
    pub id: String,
    /// The id of the first message of the thread; null, or the message's own id, for that first message and for what is
    /// in no thread.
    #[serde(default)]
    pub thread: Option<String>,
    /// Who wrote it.
    pub author: Author,
    /// When it was written, to the second.
    pub time: Timestamp,
    /// What the platform returns, markup included.
    pub text: String,
    /// Where people read it.
    #[serde(default)]
    pub permalink: String,
    /// When it was last edited.
    #[serde(default)]
    pub edited: Option<Timestamp>,
    /// An app or the platform itself wrote it. Such a message is kept and carries no facts.
    #[serde(default)]
    pub bot: bool,
    /// What people answered with an emoji.
    #[serde(default)]
    pub reactions: Vec<Reaction>,
}

/// Who wrote a message.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Author {
    /// The platform's id of the person.
    pub id: String,
    /// The name that people see.
    pub name: String,
}

/// How often people answered with one emoji.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reaction {
    /// The name of the emoji, without colons.
    pub name: String,
    /// How many people.
    pub count: u32,
}

impl Message {
    /// The id of the first message of the thread; the message's own where it is in none.
    pub fn root(&self) -> &str {
        self.thread.as_deref().unwrap_or(&self.id)
    }

    /// Whether another message began the thread.
    pub fn is_reply(&self) -> bool {
        self.root() != self.id
    }
}
