//! Files of messages: one a line, sorted by time and id, compressed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io::{BufRead, BufReader, Read, Write};

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::StoreError;
use super::commit::{FileRef, Segment};
use crate::digest;
use crate::message::Message;

/// Which of two versions of a message is the newer one: the later edit; then the one that more people reacted to, since
/// reactions come without an edit; then the larger hash, so that the order of arrival decides nothing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version {
    edited: i64,
    reactions: u64,
    hash: u64,
}

impl Version {
    /// `line` is the message as the store writes it.
    pub fn of(message: &Message, line: &[u8]) -> Self {
        let edited = message.edited.map_or(i64::MIN, Timestamp::as_microsecond);
        let reactions = message
            .reactions
            .iter()
            .map(|reaction| u64::from(reaction.count))
            .sum();
        let mut hash = [0; 8];
        hash.copy_from_slice(&digest::short(line)[..8]);
        Self {
            edited,
            reactions,
            hash: u64::from_be_bytes(hash),
        }
    }
}

/// A message and the line that holds it, without its end.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) message: Message,
    pub(crate) line: Vec<u8>,
}

impl Row {
    pub(crate) fn new(message: Message) -> Self {
        // Text, numbers and lists: there is nothing in a message that JSON could refuse.
        let line = serde_json::to_vec(&message).unwrap_or_default();
        Self { message, line }
    }

    pub(crate) fn version(&self) -> Version {
        Version::of(&self.message, &self.line)
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |row: &Self| row.message.time;
        key(self)
            .cmp(&key(other))
            .then_with(|| self.message.id.cmp(&other.message.id))
    }
}

/// Writes lines, compresses them and keeps count. The same lines give the same bytes.
pub(crate) struct Compressed<W: Write> {
    encoder: zstd::Encoder<'static, Hashing<W>>,
    rows: u64,
    raw: u64,
}

impl<W: Write> Compressed<W> {
    const LEVEL: i32 = 3;
    /// 2^19 bytes: many files are read side by side, and each reader holds a window.
    const WINDOW_LOG: u32 = 19;

    pub(crate) fn new(to: W) -> std::io::Result<Self> {
        let hashing = Hashing {
            to,
            hash: Sha256::new(),
            bytes: 0,
        };
        let mut encoder = zstd::Encoder::new(hashing, Self::LEVEL)?;
        encoder.window_log(Self::WINDOW_LOG)?;
        encoder.include_checksum(true)?;
        Ok(Self {
            encoder,
            rows: 0,
            raw: 0,
        })
    }

    pub(crate) fn line(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.encoder.write_all(line)?;
        self.encoder.write_all(b"\n")?;
        self.rows += 1;
        self.raw += line.len() as u64 + 1;
        Ok(())
    }

    /// Bytes before compression so far.
    pub(crate) fn raw(&self) -> u64 {
        self.raw
    }

    /// Where it was written to, what it is, and its size before compression.
    pub(crate) fn finish(self, path: String) -> std::io::Result<(W, FileRef, u64)> {
        let hashing = self.encoder.finish()?;
        let sha256 = digest::spelled(&hashing.hash.finalize());
        let file = FileRef {
            path,
            rows: self.rows,
            bytes: hashing.bytes,
            sha256,
        };
        Ok((hashing.to, file, self.raw))
    }
}

struct Hashing<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(buf)?;
        self.hash.update(&buf[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Reads a file of messages line by line.
pub struct Rows<'a> {
    lines: Box<dyn BufRead + Send + 'a>,
    file: String,
}

impl<'a> Rows<'a> {
    /// `file` is named in errors.
    pub fn new(compressed: impl Read + Send + 'a, file: &str) -> Result<Self, StoreError> {
        let decoder = zstd::Decoder::new(compressed)?;
        Ok(Self {
            lines: Box::new(BufReader::with_capacity(64 * 1024, decoder)),
            file: file.to_owned(),
        })
    }

    fn damaged(&self, reason: &impl ToString) -> StoreError {
        StoreError::Damaged {
            file: self.file.clone(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn row(&mut self) -> Result<Option<Row>, StoreError> {
        let mut line = Vec::new();
        self.lines
            .read_until(b'\n', &mut line)
            .map_err(|error| self.damaged(&error))?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let message = serde_json::from_slice(&line).map_err(|error| self.damaged(&error))?;
        Ok(Some(Row { message, line }))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Message, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row().map(|row| row.map(|row| row.message)).transpose()
    }
}

/// A source of rows that is opened when the merge comes to the time of its first message.
pub(crate) struct Source<'a> {
    pub(crate) from: Timestamp,
    pub(crate) open: Box<dyn FnOnce() -> Result<Rows<'a>, StoreError> + Send + 'a>,
}

/// Rows of many files in the order of time and id; of versions with equal time and id the newest one.
///
/// A file is open only from its first message to its last one.
pub(crate) struct Merged<'a> {
    /// The next one to open at the end.
    waiting: Vec<Source<'a>>,
    open: Vec<Rows<'a>>,
    heads: BinaryHeap<Reverse<Head>>,
}

struct Head {
    row: Row,
    from: usize,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.row
            .order(&other.row)
            .then_with(|| self.from.cmp(&other.from))
    }
}

/// See [`Merged`].
pub(crate) fn merged(mut sources: Vec<Source<'_>>) -> Merged<'_> {
    sources.sort_by_key(|source| Reverse(source.from));
    Merged {
        waiting: sources,
        open: Vec::new(),
        heads: BinaryHeap::new(),
    }
}

impl Merged<'_> {
    fn refill(&mut self, from: usize) -> Result<(), StoreError> {
        if let Some(row) = self.open[from].row()? {
            self.heads.push(Reverse(Head { row, from }));
        } else {
            // The reader's buffers go at once; its place stays, so that the others keep their numbers.
            self.open[from].lines = Box::new(std::io::empty());
        }
        Ok(())
    }

    fn open_due(&mut self) -> Result<(), StoreError> {
        loop {
            let due = match (self.waiting.last(), self.heads.peek()) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(source), Some(Reverse(head))) => source.from <= head.row.message.time,
            };
            if !due {
                return Ok(());
            }
            if let Some(source) = self.waiting.pop() {
                self.open.push((source.open)()?);
                self.refill(self.open.len() - 1)?;
            }
        }
    }

    fn pop(&mut self) -> Result<Option<Row>, StoreError> {
        self.open_due()?;
        let Some(Reverse(Head { row, from })) = self.heads.pop() else {
            return Ok(None);
        };
        self.refill(from)?;
        Ok(Some(row))
    }

    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, StoreError> {
        let Some(mut best) = self.pop()? else {
            return Ok(None);
        };
        loop {
            self.open_due()?;
            match self.heads.peek() {
                Some(Reverse(head)) if head.row.order(&best) == Ordering::Equal => {}
                _ => return Ok(Some(best)),
            }
            if let Some(other) = self.pop()?
                && other.version() > best.version()
            {
                best = other;
            }
        }
    }
}

/// Rows become segments in memory. A segment ends where the next row would make it larger than `most` bytes.
pub(crate) struct Segments<'n> {
    most: u64,
    name: Box<dyn FnMut(usize) -> String + Send + 'n>,
    current: Option<(Compressed<Vec<u8>>, Timestamp, Timestamp)>,
    done: Vec<(Segment, Bytes)>,
}

impl<'n> Segments<'n> {
    pub(crate) fn new(most: u64, name: impl FnMut(usize) -> String + Send + 'n) -> Self {
        Self {
            most,
            name: Box::new(name),
            current: None,
            done: Vec::new(),
        }
    }

    /// Rows come in their order.
    pub(crate) fn push(&mut self, row: &Row) -> std::io::Result<()> {
        let time = row.message.time;
        let room = row.line.len() as u64 + 1;
        if self
            .current
            .as_ref()
            .is_some_and(|(file, ..)| file.raw() + room > self.most)
        {
            self.close()?;
        }
        if let Some((file, _, until)) = &mut self.current {
            *until = time;
            return file.line(&row.line);
        }
        let mut file = Compressed::new(Vec::new())?;
        file.line(&row.line)?;
        self.current = Some((file, time, time));
        Ok(())
    }

    fn close(&mut self) -> std::io::Result<()> {
        let Some((file, from, until)) = self.current.take() else {
            return Ok(());
        };
        let (bytes, file, raw_bytes) = file.finish((self.name)(self.done.len()))?;
        self.done.push((
            Segment {
                file,
                raw_bytes,
                from,
                until,
            },
            bytes.into(),
        ));
        Ok(())
    }

    pub(crate) fn finish(mut self) -> std::io::Result<Vec<(Segment, Bytes)>> {
        self.close()?;
        Ok(self.done)
    }
}
