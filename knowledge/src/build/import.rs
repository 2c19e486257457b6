//! A file of messages into the store.

use std::collections::BTreeMap;
use std::io::BufRead;

use jiff::Timestamp;

use super::{Progress, Stage};
use crate::message::{Malformed, Message, read_lines};
use crate::store::{Channel, ChannelKey, Page, Root, StoreError, Writer};

/// How many messages become one commit, at most.
const PAGE: usize = 5000;
/// How much text is held at a time, in bytes. Few very long messages count as many short ones.
const HELD: usize = 16 * 1024 * 1024;
/// How many malformed lines are named; all are counted.
const NAMED: usize = 100;

/// What an import did.
#[derive(Debug, Default)]
pub struct Imported {
    /// The channels of the file.
    pub channels: Vec<ImportedChannel>,
    /// How many lines the file has, empty ones left out.
    pub lines: u64,
    /// How many lines hold no message.
    pub malformed: u64,
    /// The first hundred of them.
    pub named: Vec<Malformed>,
}

/// One channel of an imported file, open for a build.
#[derive(Debug)]
pub struct ImportedChannel {
    /// The channel.
    pub channel: Channel,
    /// Messages that were not in the store.
    pub new: u64,
    /// Messages of which the file has a newer version than the store had.
    pub changed: u64,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    bytes: usize,
}

/// Reads JSON Lines, one message a line, of any number of channels. Importing a file again changes nothing; importing a
/// longer one adds what is new. A line that holds no message is counted, and the rest goes on.
pub async fn import(
    root: &Root,
    (cluster, namespace): (&str, &str),
    writer: &Writer,
    lines: impl BufRead,
    progress: &dyn Progress,
    now: Timestamp,
) -> Result<Imported, StoreError> {
    let mut imported = Imported::default();
    let mut channels: BTreeMap<ChannelKey, ImportedChannel> = BTreeMap::new();
    let mut waiting: BTreeMap<ChannelKey, Waiting> = BTreeMap::new();
    let mut held = 0;
    for line in read_lines(lines) {
        imported.lines += 1;
        if imported.lines.is_multiple_of(1000) {
            progress.at(Stage::Messages, imported.lines, 0);
            if progress.cancelled() {
                return Err(StoreError::Cancelled);
            }
        }
        let message = match line? {
            Ok(message) => message,
            Err(malformed) => {
                imported.malformed += 1;
                if imported.named.len() < NAMED {
                    imported.named.push(malformed);
                }
                continue;
            }
        };
        let key = ChannelKey::new(cluster, namespace, message.platform, &message.channel)?;
        let size = message.text.len() + 300;
        let page = waiting.entry(key.clone()).or_default();
        page.bytes += size;
        held += size;
        page.messages.push(message);
        if page.messages.len() >= PAGE {
            held -= page.bytes;
            flush(root, writer, key, std::mem::take(page), &mut channels, now).await?;
        } else if held > HELD
            && let Some(largest) = waiting
                .iter()
                .max_by_key(|(_, page)| page.bytes)
                .map(|(key, _)| key.clone())
            && let Some(page) = waiting.remove(&largest)
        {
            held -= page.bytes;
            flush(root, writer, largest, page, &mut channels, now).await?;
        }
    }
    for (key, page) in waiting {
        flush(root, writer, key, page, &mut channels, now).await?;
    }
    progress.at(Stage::Messages, imported.lines, imported.lines);
    imported.channels = channels.into_values().collect();
    Ok(imported)
}

async fn flush(
    root: &Root,
    writer: &Writer,
    key: ChannelKey,
    page: Waiting,
    channels: &mut BTreeMap<ChannelKey, ImportedChannel>,
    now: Timestamp,
) -> Result<(), StoreError> {
    if page.messages.is_empty() {
        return Ok(());
    }
    if !channels.contains_key(&key) {
        let channel = Channel::open(root, key.clone(), writer.clone()).await?;
        channels.insert(
            key.clone(),
            ImportedChannel {
                channel,
                new: 0,
                changed: 0,
            },
        );
    }
    let Some(imported) = channels.get_mut(&key) else {
        return Ok(());
    };
    let page = Page {
        messages: page.messages,
        ..Page::default()
    };
    let appended = imported.channel.append(page, now).await?;
    imported.new += appended.new;
    imported.changed += appended.changed;
    Ok(())
}
