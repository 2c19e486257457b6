//! The store under writers, crashes and full disks.

mod appends;
pub(crate) mod collection;
mod conflicts;
pub(crate) mod faults;
pub(crate) mod s3;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::segment::{Rows, Source, merged};
use super::{Channel, ChannelKey, Root, StoreError, Writer, latest};
use crate::message::{Author, Message, Platform};

pub(crate) fn key() -> ChannelKey {
    ChannelKey::new("test", "team-a", Platform::Slack, "C0AB12CD3").unwrap()
}

pub(crate) fn memory() -> (Arc<dyn ObjectStore>, Root) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    (Arc::clone(&store), Root::over(store, "memory"))
}

pub(crate) async fn open(root: &Root, writer: &str) -> Channel {
    Channel::open(root, key(), Writer::new(writer, 1)).await.unwrap()
}

pub(crate) fn start() -> Timestamp {
    "2026-03-02T10:00:00Z".parse().unwrap()
}

/// The n-th message, one a second.
pub(crate) fn message(n: u32) -> Message {
    Message {
        platform: Platform::Slack,
        channel: "C0AB12CD3".into(),
        id: format!("1772445600.{n:06}"),
        thread: None,
        author: Author {
            id: format!("U{}", n % 7),
            name: format!("Person {}", n % 7),
        },
        time: start() + SignedDuration::from_secs(i64::from(n)),
        text: format!("message number {n}"),
        permalink: format!("https://example.slack.com/archives/C0AB12CD3/p{n}"),
        edited: None,
        bot: false,
        reactions: Vec::new(),
    }
}

/// Everything that the newest commit holds, in order.
pub(crate) async fn stored(root: &Root) -> Result<Vec<Message>, StoreError> {
    let folder = key().folder();
    let Some(commit) = latest(root, &folder).await? else {
        return Ok(Vec::new());
    };
    let mut sources = Vec::new();
    for segment in &commit.segments {
        let bytes = root.get_whole(&folder, &segment.file).await?;
        let path = segment.file.path.clone();
        sources.push(Source {
            from: segment.from,
            open: Box::new(move || Rows::new(std::io::Cursor::new(bytes), &path)),
        });
    }
    let mut rows = merged(sources);
    let mut messages = Vec::new();
    while let Some(row) = rows.next_row()? {
        messages.push(row.message);
    }
    Ok(messages)
}
