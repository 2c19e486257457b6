//! A channel that is open for one writer.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::commit::{self, Commit, Counts, Generation, Segment, Writer};
use super::people::{self, People};
use super::segment::{Rows, Version};
use super::{ChannelKey, Root, StoreError};
use crate::digest;

/// A channel, as of the newest commit that this writer has seen.
///
/// Several may be open at once; the first that commits wins, and the others' commits fail with
/// [`StoreError::Conflict`].
#[derive(Debug)]
pub struct Channel {
    pub(super) root: Root,
    pub(super) key: ChannelKey,
    pub(super) folder: String,
    writer: Writer,
    head: Option<Commit>,
    /// What the segments hold, by path. Segments never change, so an entry stays right.
    pub(super) indexes: HashMap<String, Arc<Index>>,
    pub(super) people: Option<People>,
    pointed: Option<Timestamp>,
    pub(super) largest: u64,
}

impl Channel {
    /// How often readers are told where to begin.
    const POINT: SignedDuration = SignedDuration::from_secs(1);

    /// Opens the channel; it need not exist. Call [`Root::probe`] first, once a run.
    pub async fn open(root: &Root, key: ChannelKey, writer: Writer) -> Result<Self, StoreError> {
        let folder = key.folder();
        let head = commit::latest(root, &folder).await?;
        Ok(Self {
            root: root.clone(),
            key,
            folder,
            writer,
            head,
            indexes: HashMap::new(),
            people: None,
            pointed: None,
            largest: super::compact::MOST,
        })
    }

    /// Makes segments end at `bytes` before compression. The default suits every use but tests.
    #[must_use]
    pub fn with_largest_segment(mut self, bytes: u64) -> Self {
        self.largest = bytes;
        self
    }

    /// The newest commit that this writer has seen; nothing where the channel is new.
    pub fn head(&self) -> Option<&Commit> {
        self.head.as_ref()
    }

    /// The store.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The channel's folder below the root.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Which channel.
    pub fn key(&self) -> &ChannelKey {
        &self.key
    }

    /// Forgets what it remembers of the segments. It is read again where it is needed.
    pub fn shed(&mut self) {
        self.indexes = HashMap::new();
        self.people = None;
    }

    /// Switches readers to a generation whose files are all there.
    pub(crate) async fn switch(
        &mut self,
        generation: Generation,
        counts: Counts,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut next = self.next(now);
        next.generation = Some(generation);
        next.counts = counts;
        self.publish(next, now).await
    }

    /// The commit that would follow, so far without a change.
    pub(super) fn next(&self, now: Timestamp) -> Commit {
        let empty = Commit {
            version: 0,
            parent: 0,
            writer: self.writer.clone(),
            time: now,
            channel: self.key.clone(),
            title: None,
            cursor: serde_json::Value::Null,
            gaps: Vec::new(),
            segments: Vec::new(),
            added: Vec::new(),
            retired: Vec::new(),
            people: None,
            generation: None,
            erased: 0,
            counts: Counts::default(),
        };
        let head = self.head.clone().unwrap_or(empty);
        Commit {
            version: head.version + 1,
            parent: head.version,
            writer: self.writer.with_nonce(),
            time: now,
            added: Vec::new(),
            retired: Vec::new(),
            ..head
        }
    }

    pub(super) async fn publish(&mut self, next: Commit, now: Timestamp) -> Result<(), StoreError> {
        commit::create(&self.root, &self.folder, &next).await?;
        let version = next.version;
        self.head = Some(next);
        if self
            .pointed
            .is_none_or(|pointed| now.duration_since(pointed) >= Self::POINT)
        {
            self.point(now).await;
            debug_assert!(self.head.as_ref().is_some_and(|head| head.version == version));
        }
        Ok(())
    }

    /// Tells readers where to begin. The commit counts without it, so a failure is not one of the caller.
    pub(super) async fn point(&mut self, now: Timestamp) {
        let Some(head) = &self.head else { return };
        if commit::point(&self.root, &self.folder, head.version)
            .await
            .is_ok()
        {
            self.pointed = Some(now);
        }
    }

    /// The bytes of a segment, checked.
    pub(super) async fn segment(&self, segment: &Segment) -> Result<Bytes, StoreError> {
        self.root.get_whole(&self.folder, &segment.file).await
    }

    /// What a segment holds.
    pub(super) async fn index(&mut self, segment: &Segment) -> Result<Arc<Index>, StoreError> {
        if let Some(index) = self.indexes.get(&segment.file.path) {
            return Ok(Arc::clone(index));
        }
        let bytes = self.segment(segment).await?;
        let mut rows = Rows::new(&bytes[..], &segment.file.path)?;
        let mut index = Index::default();
        while let Some(row) = rows.row()? {
            index.add(&row.message.id, row.version());
        }
        let index = Arc::new(index.sorted());
        self.indexes.insert(segment.file.path.clone(), Arc::clone(&index));
        Ok(index)
    }

    pub(super) async fn people(&mut self) -> Result<People, StoreError> {
        if let Some(people) = self.people.take() {
            return Ok(people);
        }
        match self.head.as_ref().and_then(|head| head.people.as_ref()) {
            Some(file) => people::read(&self.root, &self.folder, file).await,
            None => Ok(People::new()),
        }
    }
}

/// Which messages a segment holds, and in which version: 40 bytes a message.
#[derive(Debug, Default)]
pub(super) struct Index(Vec<([u8; 16], Version)>);

impl Index {
    pub(super) fn add(&mut self, id: &str, version: Version) {
        self.0.push((digest::short(id.as_bytes()), version));
    }

    pub(super) fn sorted(mut self) -> Self {
        self.0.sort_unstable();
        self.0.shrink_to_fit();
        self
    }

    /// The newest version of the message that the segment holds.
    pub(super) fn get(&self, id: &str) -> Option<Version> {
        let hash = digest::short(id.as_bytes());
        let after = self.0.partition_point(|(other, _)| *other <= hash);
        let (other, version) = self.0.get(after.checked_sub(1)?)?;
        (*other == hash).then_some(*version)
    }
}
