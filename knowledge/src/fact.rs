//! A fact: what somebody who joins in six months still needs to know, in one sentence of a message.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What kind of statement a fact is.
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
    strum::EnumIter,
    strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FactType {
    /// A choice that was made.
    Decision,
    /// Somebody will do something.
    ActionItem,
    /// Asked, and worth knowing that it was asked.
    Question,
    /// It resolves a question of the thread.
    Answer,
    /// A judgement or preference with a reason.
    Opinion,
    /// Anything else that is so: a state, an event, a number, a cause, a workaround.
    Observation,
}

/// How much it matters.
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
pub enum Importance {
    /// Good to know.
    Low,
    /// Worth a line.
    Medium,
    /// A decision, a deadline, a breaking change.
    High,
    /// Outage, security, law, money.
    Critical,
}

/// One fact.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// Content-derived: platform, channel, message, place in the message, and text decide it.
    pub id: String,
    /// The author's own sentence. What the extractor adds to make it understood alone stands in square brackets; without
    /// the brackets the text is a substring of the message.
    pub text: String,
    /// What kind of statement it is.
    #[serde(rename = "type")]
    pub kind: FactType,
    /// The name of who wrote the message.
    pub author: String,
    /// When the message was written.
    pub time: Timestamp,
    /// The message that says it.
    pub source_message_id: String,
    /// Where people read that message.
    pub permalink: String,
    /// One to three words for what it is about, lower-case.
    pub tags: Vec<String>,
    /// The names of the entities it is about, as the graph spells them.
    pub entities: Vec<String>,
    /// How much it matters.
    pub importance: Importance,
    /// From 0 to 1: how specific, actionable and verifiable it is. Nothing below 0.5 is kept.
    pub quality: f64,
    /// Who will do it; action items only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Until when, as a date (`2026-03-10`); action items only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// The message whose question it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
    /// The earlier message whose fact no longer holds because of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<String>,
    /// The later message because of which it no longer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
}
