//! Stage 4: Markdown pages that a stranger can use.

use crate::fact::Fact;
use crate::graph::Graph;
use crate::message::Platform;

/// What the wiki of a channel is made of.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The platform.
    pub platform: Platform,
    /// The channel as people call it.
    pub channel: &'a str,
    /// Oldest first.
    pub facts: &'a [Fact],
    /// Entities, relations, topics.
    pub graph: &'a Graph,
    /// How many messages the channel holds, and how many people wrote them.
    pub messages: u64,
    /// How many people wrote them.
    pub people: u64,
    /// Stretches of time that could not be read, in words; empty where the channel is complete.
    pub gaps: &'a [String],
}

/// One page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// Relative to the wiki's root, with forward slashes: `topics/billing.md`.
    pub path: String,
    /// Markdown with YAML front matter.
    pub content: String,
}
