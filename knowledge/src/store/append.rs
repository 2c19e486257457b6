//! A page of messages, its cursor and what vanished become one commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::channel::{Channel, Index};
use super::commit::{Commit, Gap, Segment};
use super::segment::{Row, Rows, Segments, Source, merged};
use super::{StoreError, compact, people};
use crate::message::{Author, Message};

/// What a platform handed over, and where it goes on.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Messages in any order. One that the channel holds already is replaced where this version is the newer one.
    pub messages: Vec<Message>,
    /// The ids of messages that are deleted on the platform. A message that is also in `messages` is deleted.
    pub deleted: Vec<String>,
    /// Where fetching goes on; nothing leaves it as it is.
    pub cursor: Option<Value>,
    /// What could not be read, all of it; nothing leaves it as it is.
    pub gaps: Option<Vec<Gap>>,
    /// Names of people, which replace earlier names.
    pub people: Vec<Author>,
    /// The channel as people call it; nothing leaves it as it is.
    pub title: Option<String>,
}

/// What a page changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Appended {
    /// The number of the commit; nothing where the store had everything, and then nothing was written.
    pub commit: Option<u64>,
    /// Messages that were not there.
    pub new: u64,
    /// Messages of which a newer version came.
    pub changed: u64,
    /// Messages that were there and are deleted.
    pub deleted: u64,
}

/// A commit that is being made, with the files that are not in the store yet.
struct Draft {
    commit: Commit,
    fresh: HashMap<String, Bytes>,
    indexes: HashMap<String, Arc<Index>>,
}

impl Channel {
    /// Puts the page into the channel, in one commit. Nothing is written where the page says nothing new.
    ///
    /// Fails with [`StoreError::Conflict`] where another writer was faster; then this one must stop.
    pub async fn append(&mut self, page: Page, now: Timestamp) -> Result<Appended, StoreError> {
        let mut draft = Draft {
            commit: self.next(now),
            fresh: HashMap::new(),
            indexes: HashMap::new(),
        };
        let before = draft.commit.clone();
        let deleted: BTreeSet<String> = page.deleted.into_iter().collect();
        let mut appended = Appended::default();

        let rows = newest(page.messages, &deleted);
        let rows = self.only_news(&draft.commit, rows, &mut appended).await?;
        appended.deleted = self.erase(&mut draft, &deleted).await?;
        self.add(&mut draft, &rows)?;
        self.compact(&mut draft).await?;
        self.name_people(&mut draft, page.people).await?;

        let commit = &mut draft.commit;
        commit.cursor = page.cursor.unwrap_or_else(|| commit.cursor.take());
        commit.gaps = page.gaps.unwrap_or_else(|| std::mem::take(&mut commit.gaps));
        commit.title = page.title.or_else(|| commit.title.take());
        commit.counts.messages = (commit.counts.messages + appended.new).saturating_sub(appended.deleted);
        if *commit == before && before.parent > 0 {
            return Ok(appended);
        }
        name_changes(commit, &before);
        for (path, bytes) in draft.fresh {
            self.root.put(&format!("{}/{path}", self.folder), bytes).await?;
        }
        appended.commit = Some(draft.commit.version);
        self.publish(draft.commit, now).await?;
        self.remember(draft.indexes);
        Ok(appended)
    }

    /// Drops the rows of which the channel holds this version or a newer one. Only segments that share a stretch of time
    /// with the page are looked at, since a message does not change its time.
    async fn only_news(
        &mut self,
        commit: &Commit,
        rows: Vec<Row>,
        appended: &mut Appended,
    ) -> Result<Vec<Row>, StoreError> {
        let times = || rows.iter().map(|row| row.message.time);
        let (Some(from), Some(until)) = (times().min(), times().max()) else {
            return Ok(rows);
        };
        let mut near = Vec::new();
        for segment in commit
            .segments
            .iter()
            .filter(|segment| segment.from <= until && segment.until >= from)
        {
            near.push(self.index(segment).await?);
        }
        let mut news = Vec::new();
        for row in rows {
            match near.iter().filter_map(|index| index.get(&row.message.id)).max() {
                None => appended.new += 1,
                Some(held) if held < row.version() => appended.changed += 1,
                Some(_) => continue,
            }
            news.push(row);
        }
        Ok(news)
    }

    /// Rewrites every segment that holds a deleted message. Returns how many messages went.
    async fn erase(&mut self, draft: &mut Draft, deleted: &BTreeSet<String>) -> Result<u64, StoreError> {
        if deleted.is_empty() {
            return Ok(0);
        }
        let mut gone = BTreeSet::new();
        for segment in draft.commit.segments.clone() {
            let index = self.index(&segment).await?;
            let held: Vec<&String> = deleted.iter().filter(|id| index.get(id).is_some()).collect();
            if held.is_empty() {
                continue;
            }
            gone.extend(held.into_iter().cloned());
            let bytes = self.segment(&segment).await?;
            let mut rows = Rows::new(&bytes[..], &segment.file.path)?;
            let mut kept = self.segments(draft);
            let mut index = Index::default();
            while let Some(row) = rows.row()? {
                if !deleted.contains(&row.message.id) {
                    index.add(&row.message.id, row.version());
                    kept.push(&row)?;
                }
            }
            draft.commit.segments.retain(|other| *other != segment);
            draft.take(kept, index)?;
        }
        if !gone.is_empty() {
            draft.commit.erased = draft.commit.version;
        }
        Ok(gone.len() as u64)
    }

    fn add(&self, draft: &mut Draft, rows: &[Row]) -> Result<(), StoreError> {
        let mut segments = self.segments(draft);
        let mut index = Index::default();
        for row in rows {
            index.add(&row.message.id, row.version());
            segments.push(row)?;
        }
        draft.take(segments, index)
    }

    /// Puts small segments together.
    async fn compact(&mut self, draft: &mut Draft) -> Result<(), StoreError> {
        let due = compact::due(&draft.commit.segments);
        let mut sources = Vec::new();
        let mut paths = BTreeSet::new();
        for place in due {
            let segment = &draft.commit.segments[place];
            let path = segment.file.path.clone();
            let bytes = match draft.fresh.remove(&path) {
                Some(bytes) => bytes,
                None => self.segment(segment).await?,
            };
            paths.insert(path.clone());
            sources.push(Source {
                from: segment.from,
                open: Box::new(move || Rows::new(std::io::Cursor::new(bytes), &path)),
            });
        }
        if sources.is_empty() {
            return Ok(());
        }
        let mut segments = self.segments(draft);
        let mut index = Index::default();
        let mut rows = merged(sources);
        while let Some(row) = rows.next_row()? {
            index.add(&row.message.id, row.version());
            segments.push(&row)?;
        }
        draft
            .commit
            .segments
            .retain(|segment| !paths.contains(&segment.file.path));
        draft.indexes.retain(|path, _| !paths.contains(path));
        draft.take(segments, index)
    }

    async fn name_people(&mut self, draft: &mut Draft, named: Vec<Author>) -> Result<(), StoreError> {
        if named.is_empty() {
            return Ok(());
        }
        let before = self.people().await?;
        let mut people = before.clone();
        people.extend(
            named
                .into_iter()
                .filter(|person| !person.id.is_empty())
                .map(|person| (person.id, person.name)),
        );
        if people != before {
            let name = format!("people-{}.jsonl.zst", draft.stem());
            let (bytes, file) = people::encode(&people, name)?;
            draft.fresh.insert(file.path.clone(), bytes);
            draft.commit.people = Some(file);
        }
        self.people = Some(people);
        Ok(())
    }

    /// New segments of the commit. Its number stands in their names, so that collection knows what a faster writer has
    /// only begun; the nonce keeps two writers of one number apart.
    fn segments(&self, draft: &Draft) -> Segments<'static> {
        let (stem, taken) = (draft.stem(), draft.fresh.len());
        // Numbers are taken again only by segments that replace others of the same draft, so the count of all ever made
        // would do as well; the random part makes them differ for certain.
        let salt = fastrand::u32(..);
        Segments::new(self.largest, move |n| {
            format!("messages/seg-{stem}-{salt:08x}-{:04}.jsonl.zst", taken + n)
        })
    }

    /// Keeps what is known of segments that the newest commit names.
    fn remember(&mut self, fresh: HashMap<String, Arc<Index>>) {
        self.indexes.extend(fresh);
        let live: BTreeSet<String> = self
            .head()
            .map(|head| {
                head.segments
                    .iter()
                    .map(|segment| segment.file.path.clone())
                    .collect()
            })
            .unwrap_or_default();
        self.indexes.retain(|path, _| live.contains(path));
    }
}

impl Draft {
    fn stem(&self) -> String {
        format!("{:020}-{}", self.commit.version, &self.commit.writer.nonce[..8])
    }

    fn take(&mut self, segments: Segments<'_>, index: Index) -> Result<(), StoreError> {
        let index = Arc::new(index.sorted());
        let made = segments.finish()?;
        for (segment, bytes) in made {
            // Where rows filled several segments, each points to the index of all of them: it is only asked whether a
            // version is held, and all of them are live together until one is rewritten.
            self.indexes.insert(segment.file.path.clone(), Arc::clone(&index));
            self.fresh.insert(segment.file.path.clone(), bytes);
            self.commit.segments.push(segment);
        }
        self.commit
            .segments
            .sort_by(|a: &Segment, b| (a.from, a.until, &a.file.path).cmp(&(b.from, b.until, &b.file.path)));
        Ok(())
    }
}

/// The newest version of each message that is not deleted, in the order of the segments.
fn newest(messages: Vec<Message>, deleted: &BTreeSet<String>) -> Vec<Row> {
    let mut newest: BTreeMap<String, Row> = BTreeMap::new();
    for message in messages
        .into_iter()
        .filter(|message| !deleted.contains(&message.id))
    {
        let row = Row::new(message);
        match newest.get(&row.message.id) {
            Some(held) if held.version() >= row.version() => {}
            _ => {
                newest.insert(row.message.id.clone(), row);
            }
        }
    }
    let mut rows: Vec<Row> = newest.into_values().collect();
    rows.sort_by(|a, b| (a.message.time, &a.message.id).cmp(&(b.message.time, &b.message.id)));
    rows
}

/// Notes which segments came and went.
fn name_changes(commit: &mut Commit, before: &Commit) {
    let paths = |commit: &Commit| -> BTreeSet<String> {
        commit
            .segments
            .iter()
            .map(|segment| segment.file.path.clone())
            .collect()
    };
    let (old, new) = (paths(before), paths(commit));
    commit.added = new.difference(&old).cloned().collect();
    commit.retired = old.difference(&new).cloned().collect();
}
