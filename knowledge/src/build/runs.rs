//! What messages say, in sorted files that are merged in the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LongList;
use super::extraction::{Extraction, Superseded};
use super::long_list::LongListWriter;
use super::stages::Reply;
use crate::extract::{Extracted, Mention};
use crate::fact::Fact;
use crate::graph::Relation;
use crate::message::Message;
use crate::store::StoreError;

/// What one message says.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Record {
    time: Timestamp,
    message: String,
    root: Option<String>,
    pub(super) facts: Vec<Fact>,
    pub(super) mentions: Vec<Mention>,
    pub(super) relations: Vec<Relation>,
}

impl Record {
    /// Nothing where the message says nothing.
    pub(super) fn of(message: &Message, extracted: Extracted) -> Option<Self> {
        let Extracted {
            mut facts,
            mentions,
            mut relations,
        } = extracted;
        if facts.is_empty() && mentions.is_empty() && relations.is_empty() {
            return None;
        }
        // JSON has no word for what is no number.
        for quality in facts
            .iter_mut()
            .map(|fact| &mut fact.quality)
            .filter(|quality| !quality.is_finite())
        {
            *quality = 0.0;
        }
        for confidence in relations
            .iter_mut()
            .map(|relation| &mut relation.confidence)
            .filter(|confidence| !confidence.is_finite())
        {
            *confidence = 0.0;
        }
        let root = message.is_reply().then(|| message.root().to_owned());
        Some(Self {
            time: message.time,
            message: message.id.clone(),
            root,
            facts,
            mentions,
            relations,
        })
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) -> std::io::Result<()> {
        serde_json::to_writer(&mut *to, self)?;
        to.push(b'\n');
        Ok(())
    }
}

/// Everything that the channel's messages say, oldest first.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) facts: LongList<Fact>,
    pub(super) mentions: LongList<Mention>,
    pub(super) relations: LongList<Relation>,
    pub(super) replies: LongList<Reply>,
}

impl Said {
    /// Fails where one of the lists could not be read to its end.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.facts.check()?;
        self.mentions.check()?;
        self.relations.check()?;
        self.replies.check()
    }
}

struct Run {
    lines: BufReader<File>,
}

impl Run {
    fn next(&mut self) -> Result<Option<Record>, StoreError> {
        let mut line = Vec::new();
        if self.lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line).map_err(std::io::Error::from)?))
    }
}

/// Merges the runs, and notes on facts which later message took them back.
pub(super) fn merge(extraction: &Extraction, folder: &Path) -> Result<Said, StoreError> {
    let mut facts = LongListWriter::new(folder.join("facts"))?;
    let mut mentions = LongListWriter::new(folder.join("mentions"))?;
    let mut relations = LongListWriter::new(folder.join("relations"))?;
    let mut replies = LongListWriter::new(folder.join("replies"))?;
    let mut heads: BinaryHeap<Reverse<(Timestamp, String, usize)>> = BinaryHeap::new();
    let mut runs: Vec<(Run, Option<Record>)> = Vec::new();
    for path in &extraction.runs {
        let mut run = Run { lines: open(path)? };
        let first = run.next()?;
        if let Some(record) = &first {
            heads.push(Reverse((record.time, record.message.clone(), runs.len())));
        }
        runs.push((run, first));
    }
    while let Some(Reverse((_, _, from))) = heads.pop() {
        let (run, head) = &mut runs[from];
        let Some(record) = head.take() else { continue };
        *head = run.next()?;
        if let Some(next) = head {
            heads.push(Reverse((next.time, next.message.clone(), from)));
        }
        for mut fact in record.facts {
            mark_superseded(&mut fact, &extraction.superseded);
            facts.push(&fact)?;
        }
        for mention in record.mentions {
            mentions.push(&mention)?;
        }
        for relation in record.relations {
            relations.push(&relation)?;
        }
        if let Some(root) = record.root {
            replies.push(&Reply {
                message: record.message,
                root,
            })?;
        }
    }
    Ok(Said {
        facts: facts.finish()?,
        mentions: mentions.finish()?,
        relations: relations.finish()?,
        replies: replies.finish()?,
    })
}

fn open(path: &PathBuf) -> std::io::Result<BufReader<File>> {
    Ok(BufReader::with_capacity(32 * 1024, File::open(path)?))
}

/// A fact that a later message takes back says so itself.
fn mark_superseded(fact: &mut Fact, superseded: &Superseded) {
    if let (None, Some((time, message))) = (&fact.superseded_by, superseded.get(&fact.source_message_id))
        && *message != fact.source_message_id
        && *time >= fact.time
    {
        fact.superseded_by = Some(message.clone());
    }
}
