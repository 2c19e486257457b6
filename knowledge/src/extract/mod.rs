//! Stage 2: facts out of messages. A pure function of a message and its surroundings, so that page size, batch size,
//! threads and the order of arrival cannot change a byte.

use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::graph::{EntityType, Relation};
use crate::message::Message;

/// What an extractor may look at besides the message itself. Everything is ordered by time, then id.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The messages of the thread before this one, its first message included; at most [`Context::MOST`], the first
    /// message and the newest ones.
    pub earlier: &'a [&'a Message],
    /// The messages of the thread after this one; at most [`Context::MOST`], the oldest ones.
    pub later: &'a [&'a Message],
    /// For a message that is no reply: up to [`Context::NEARBY`] messages of the channel before it that are no replies
    /// either. Channels without threads talk there.
    pub before: &'a [&'a Message],
    /// Likewise after it.
    pub after: &'a [&'a Message],
}

impl Context<'_> {
    /// How many messages of a thread are looked at on either side.
    pub const MOST: usize = 100;
    /// How many neighbours outside threads are looked at on either side.
    pub const NEARBY: usize = 8;
}

/// What one message says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extracted {
    /// At most two facts.
    pub facts: Vec<Fact>,
    /// What is named in those facts, and the author.
    pub mentions: Vec<Mention>,
    /// How what is named belongs together. Names are spelled as in `mentions`.
    pub relations: Vec<Relation>,
}

/// Something that a message names.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mention {
    /// The name as the message spells it, markup resolved.
    pub name: String,
    /// What it seems to be; the graph decides by all mentions together.
    #[serde(rename = "type")]
    pub kind: EntityType,
    /// How sure the extractor is of name and type, from 0 to 100.
    pub certainty: u8,
    /// The message that names it.
    pub source_message_id: String,
}

/// Finds the facts of a message.
pub trait Extractor: Sync {
    /// What the message says. The same arguments give the same answer.
    fn extract(&self, message: &Message, context: &Context<'_>) -> Extracted;
}
