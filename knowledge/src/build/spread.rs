//! Messages apart: those that begin a talk in the order of time, replies by thread.
//!
//! A message that is no reply is understood with its neighbours in time; a reply with its thread, which may reach over
//! years. So replies, and what they reply to, are spread over files by the hash of the thread: each file is small enough
//! to be held.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::threads::ThreadFiles;
use super::{Options, Progress, Spool};
use crate::digest;
use crate::store::{Row, StoreError, Version};

type Hash = [u8; 16];

/// Messages on the local disk, ready for extraction.
#[derive(Debug)]
pub(super) struct Spread {
    /// Messages that are no replies, one a line, by time and id.
    pub(super) top: PathBuf,
    /// Where each of them begins in the file, and at last where the file ends.
    pub(super) offsets: Vec<u64>,
    /// Which of them have replies: they are extracted with their thread.
    pub(super) has_replies: Vec<bool>,
    /// Threads by the hash of their first message.
    pub(super) threads: Vec<ThreadFiles>,
    /// The names of everybody, by id: the platform's own word, else the name on the newest message.
    pub(super) people: BTreeMap<String, String>,
    /// How many messages there are.
    pub(super) messages: u64,
    /// How many people wrote them, apps left out.
    pub(super) authors: u64,
}

/// The most files of threads: each is a file that is open.
const MOST_FILES: u64 = 256;

/// Spreads the messages of the spool.
pub(super) fn spread(
    spool: &Spool,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Spread, StoreError> {
    let mut newest = HashMap::new();
    loop {
        let mut pass = Pass::new(spool, options)?;
        let twice = pass.read(spool, &newest, progress)?;
        if twice.is_empty() {
            return pass.finish(spool);
        }
        // Versions of a message whose times differ did not meet in the merge. It happens where a platform corrects a
        // time, so it is worth another pass only then.
        newest = newest_versions(spool, &twice)?;
    }
}

/// The newest version of each of these messages.
fn newest_versions(spool: &Spool, ids: &HashSet<Hash>) -> Result<HashMap<Hash, Version>, StoreError> {
    let mut newest = HashMap::new();
    let mut rows = spool.rows();
    while let Some(row) = rows.next_row()? {
        let id = digest::short(row.message.id.as_bytes());
        if ids.contains(&id) {
            let version = row.version();
            let held = newest.entry(id).or_insert(version);
            *held = version.max(*held);
        }
    }
    Ok(newest)
}

struct Pass {
    top: BufWriter<File>,
    top_path: PathBuf,
    end: u64,
    offsets: Vec<u64>,
    /// The hashes of the ids of `top`, by place.
    ids: Vec<Hash>,
    threads: Vec<(PathBuf, BufWriter<File>)>,
    replied: HashSet<Hash>,
    people: BTreeMap<String, String>,
    authors: HashSet<Hash>,
    messages: u64,
}

impl Pass {
    fn new(spool: &Spool, options: &Options) -> Result<Self, StoreError> {
        let folder = spool.folder.path();
        let top_path = folder.join("top");
        let files = (spool.raw_bytes() / options.partition_bytes.max(1) + 1).min(MOST_FILES);
        let threads = (0..files)
            .map(|n| {
                let path = folder.join(format!("threads-{n}"));
                Ok((
                    path.clone(),
                    BufWriter::with_capacity(16 * 1024, File::create(path)?),
                ))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self {
            top: BufWriter::new(File::create(&top_path)?),
            top_path,
            end: 0,
            offsets: Vec::new(),
            ids: Vec::new(),
            threads,
            replied: HashSet::new(),
            people: BTreeMap::new(),
            authors: HashSet::new(),
            messages: 0,
        })
    }

    /// Reads everything once. Returns which messages came twice, with different times.
    fn read(
        &mut self,
        spool: &Spool,
        newest: &HashMap<Hash, Version>,
        progress: &dyn Progress,
    ) -> Result<HashSet<Hash>, StoreError> {
        let mut seen = HashSet::new();
        let mut twice = HashSet::new();
        let mut rows = spool.rows();
        while let Some(row) = rows.next_row()? {
            if self.messages.is_multiple_of(1024) && progress.cancelled() {
                return Err(StoreError::Cancelled);
            }
            let id = digest::short(row.message.id.as_bytes());
            if newest.get(&id).is_some_and(|newest| *newest != row.version()) {
                continue;
            }
            if seen.insert(id) {
                self.place(id, &row)?;
            } else {
                twice.insert(id);
            }
        }
        Ok(twice)
    }

    fn place(&mut self, id: Hash, row: &Row) -> std::io::Result<()> {
        let message = &row.message;
        self.messages += 1;
        if !message.author.id.is_empty() && !message.author.name.is_empty() {
            let known = self.people.get(&message.author.id);
            // Rows come oldest first, so the newest name stays.
            if known != Some(&message.author.name) {
                self.people
                    .insert(message.author.id.clone(), message.author.name.clone());
            }
        }
        if !message.bot {
            self.authors.insert(digest::short(message.author.id.as_bytes()));
        }
        if message.is_reply() {
            let root = digest::short(message.root().as_bytes());
            self.replied.insert(root);
            return self.thread(root, "", &row.line);
        }
        self.offsets.push(self.end);
        self.ids.push(id);
        self.end += row.line.len() as u64 + 1;
        self.top.write_all(&row.line)?;
        self.top.write_all(b"\n")
    }

    /// `before` stands before the message in its line.
    fn thread(&mut self, root: Hash, before: &str, line: &[u8]) -> std::io::Result<()> {
        let mut first = [0; 8];
        first.copy_from_slice(&root[..8]);
        let file = u64::from_be_bytes(first) % self.threads.len() as u64;
        let (_, file) = &mut self.threads[usize::try_from(file).unwrap_or_default()];
        file.write_all(before.as_bytes())?;
        file.write_all(line)?;
        file.write_all(b"\n")
    }

    /// Closes the files of replies, and opens those of what they reply to.
    fn begin_roots(&mut self, spool: &Spool) -> std::io::Result<Vec<PathBuf>> {
        let mut replies = Vec::new();
        for (n, (path, file)) in self.threads.iter_mut().enumerate() {
            file.flush()?;
            let roots = spool.folder.path().join(format!("roots-{n}"));
            *file = BufWriter::with_capacity(16 * 1024, File::create(&roots)?);
            replies.push(std::mem::replace(path, roots));
        }
        Ok(replies)
    }

    /// Puts what has replies beside them.
    fn finish(mut self, spool: &Spool) -> Result<Spread, StoreError> {
        self.top.flush()?;
        let replies = self.begin_roots(spool)?;
        self.offsets.push(self.end);
        let has_replies: Vec<bool> = self.ids.iter().map(|id| self.replied.contains(id)).collect();
        let mut top = BufReader::new(File::open(&self.top_path)?);
        let mut at = 0;
        let mut line = Vec::new();
        for place in (0..has_replies.len()).filter(|place| has_replies[*place]) {
            let offset = self.offsets[place];
            top.seek_relative(i64::try_from(offset - at).unwrap_or(i64::MAX))?;
            line.clear();
            top.read_until(b'\n', &mut line)?;
            at = offset + line.len() as u64;
            line.pop();
            self.thread(self.ids[place], &format!("{place} "), &line)?;
        }
        let mut threads = Vec::new();
        for (replies, (roots, mut file)) in replies.into_iter().zip(self.threads) {
            file.flush()?;
            threads.push(ThreadFiles { replies, roots });
        }
        self.people.extend(spool.people.clone());
        Ok(Spread {
            top: self.top_path,
            offsets: self.offsets,
            has_replies,
            threads,
            people: self.people,
            messages: self.messages,
            authors: self.authors.len() as u64,
        })
    }
}

impl Spread {
    /// The messages that are no replies at these places, in one read.
    pub(super) fn tops(
        &self,
        file: &mut File,
        places: std::ops::Range<usize>,
    ) -> Result<Vec<Row>, StoreError> {
        use std::io::Read;

        let (from, to) = (self.offsets[places.start], self.offsets[places.end]);
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut bytes)?;
        bytes
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(parse)
            .collect()
    }
}

/// How many messages one piece of work has, at most.
const PIECE: usize = 1024;
/// How many bytes one piece of work has, but for its last message.
const PIECE_BYTES: u64 = 1024 * 1024;

impl Spread {
    /// Pieces of work: where each begins among the messages that are no replies, and at last where the last one ends.
    pub(super) fn pieces(&self) -> Vec<usize> {
        let mut pieces = vec![0];
        let mut begun = 0;
        for place in 1..=self.has_replies.len() {
            let full = place - begun == PIECE || self.offsets[place] - self.offsets[begun] > PIECE_BYTES;
            if full || place == self.has_replies.len() {
                pieces.push(place);
                begun = place;
            }
        }
        pieces
    }
}

/// A line of this run's own files.
pub(super) fn parse(line: &[u8]) -> Result<Row, StoreError> {
    let message = serde_json::from_slice(line).map_err(std::io::Error::from)?;
    Ok(Row {
        message,
        line: Vec::new(),
    })
}
