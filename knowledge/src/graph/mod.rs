//! Stage 3: the entities of a channel and how they belong together. Statistics of the whole channel are used here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What an entity is.
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
pub enum EntityType {
    /// Somebody.
    Person,
    /// Software, a language, a protocol, a device.
    Technology,
    /// An internal service, a code name, an undertaking.
    Project,
    /// A team, company, authority, vendor.
    Team,
    /// Something that was decided and has a name.
    Decision,
    /// A version, release, pull request, document, permit, certificate.
    Artifact,
    /// What people talk about.
    Topic,
}

/// How two entities belong together.
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
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Predicate {
    Decided,
    WorksOn,
    Uses,
    Owns,
    BlockedBy,
    DependsOn,
    Created,
    Reviewed,
    Deployed,
    ResponsibleFor,
    PartOf,
    Supersedes,
    Replaces,
}

/// One entity, with everything that names it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entity {
    /// The name that is used for it everywhere.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: EntityType,
    /// Other spellings, sorted.
    pub aliases: Vec<String>,
    /// How many messages name it.
    pub mentions: u64,
}

/// That two entities belong together, and who says so.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Relation {
    /// The name of the entity that acts.
    pub subject: String,
    /// How they belong together.
    pub predicate: Predicate,
    /// The name of the other entity.
    pub object: String,
    /// 1.0 stated, 0.8 implied, 0.5 plausible.
    pub confidence: f64,
    /// The message that says so.
    pub source_message_id: String,
    /// Since when it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
    /// Until when it held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
}

/// The graph of a channel.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Graph {
    /// Sorted by type, then name. None without a relation or a fact.
    pub entities: Vec<Entity>,
    /// Sorted by subject, predicate, object, message.
    pub relations: Vec<Relation>,
    /// Which messages name which entity: sorted by name, then message.
    pub mentions: Vec<GraphMention>,
    /// What the channel talks about: groups of entities and the facts that belong to them.
    pub topics: Vec<Topic>,
}

/// That a message names an entity of the graph.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GraphMention {
    /// The entity's name.
    pub entity: String,
    /// The message.
    pub source_message_id: String,
}

/// What a part of the channel's talk is about.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    /// A title for people.
    pub title: String,
    /// A file name without extension: lower-case ASCII letters, digits and hyphens; unique in the channel, stable while
    /// the topic's main entity stays.
    pub slug: String,
    /// The names of its entities, the most named first.
    pub entities: Vec<String>,
    /// The ids of its facts, oldest first.
    pub facts: Vec<String>,
}
