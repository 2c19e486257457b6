//! What the pipeline is given: how facts are found, how they become a graph, how a graph becomes pages; and who watches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::LongList;
use crate::extract::{Extractor, Mention};
use crate::fact::Fact;
use crate::graph::{Graph, Relation};
use crate::message::Platform;
use crate::wiki;

/// The stages. Each is a pure function: the same arguments give the same answer, whatever the thread or the time.
pub trait Stages: Send + Sync {
    /// Changes whenever the same messages would give other facts, another graph or other pages.
    fn version(&self) -> String;

    /// Stage 2, for one channel. `people` are the names by id of everybody who wrote there or is known there.
    fn extractor(&self, people: &BTreeMap<String, String>) -> Box<dyn Extractor + '_>;

    /// Stage 3.
    fn graph(&self, input: GraphInput<'_>) -> Graph;

    /// Stage 4.
    fn wiki(&self, input: &WikiInput<'_>) -> Vec<wiki::Page>;
}

/// What the graph is made of. All lists follow the messages, oldest first. None of them is held in memory, since a channel
/// of a million messages has hundreds of thousands of facts.
#[derive(Clone, Copy, Debug)]
pub struct GraphInput<'a> {
    /// The facts.
    pub facts: &'a LongList<Fact>,
    /// What messages name.
    pub mentions: &'a LongList<Mention>,
    /// How what they name belongs together.
    pub relations: &'a LongList<Relation>,
    /// The first message of the thread, for each reply that carries a fact or names something.
    pub replies: &'a LongList<Reply>,
}

/// What the wiki is made of: [`wiki::Source`], with facts that are not held.
#[derive(Clone, Copy, Debug)]
pub struct WikiInput<'a> {
    /// The platform.
    pub platform: Platform,
    /// The channel as people call it.
    pub channel: &'a str,
    /// Oldest first.
    pub facts: &'a LongList<Fact>,
    /// Entities, relations, topics.
    pub graph: &'a Graph,
    /// How many messages the channel holds.
    pub messages: u64,
    /// How many people wrote them.
    pub people: u64,
    /// Stretches of time that could not be read, in words; empty where the channel is complete.
    pub gaps: &'a [String],
}

/// That a message belongs to a thread.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reply {
    /// The reply.
    pub message: String,
    /// The first message of its thread.
    pub root: String,
}

/// A part of the work, for people who wait.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// Messages into the store, or out of it.
    Messages,
    /// Messages to facts.
    ExtractingFacts,
    /// Facts to a graph.
    BuildingGraph,
    /// The graph to pages.
    GeneratingWiki,
    /// Files into the store.
    Storing,
}

/// Hears how far the work is. Calls come from several threads.
pub trait Progress: Send + Sync {
    /// `done` of `total` things of that stage. `total` is 0 where it is not known.
    fn at(&self, stage: Stage, done: u64, total: u64);

    /// Whether the work shall stop. It is asked often.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn at(&self, _: Stage, _: u64, _: u64) {}
}
