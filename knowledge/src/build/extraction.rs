//! Stage 2 over all messages: several threads, one order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;

use super::runs::Record;
use super::spread::{Spread, parse};
use super::{Options, Progress, Stage};
use crate::extract::{Context, Extractor};
use crate::message::Message;
use crate::store::StoreError;

/// How many messages outside threads one piece of work has.
const PIECE: usize = 1024;

/// What the messages say, in files of records that are sorted by time and message.
#[derive(Debug)]
pub(super) struct Extraction {
    pub(super) runs: Vec<PathBuf>,
    /// Which message takes back what another one says, by that other one: the first that does.
    pub(super) superseded: Superseded,
}

pub(super) type Superseded = BTreeMap<String, (Timestamp, String)>;

struct Work<'a> {
    spread: &'a Spread,
    extractor: &'a dyn Extractor,
    progress: &'a dyn Progress,
    folder: &'a Path,
    pieces: usize,
    next: AtomicUsize,
    done: AtomicU64,
    stopped: AtomicBool,
    superseded: Mutex<Superseded>,
    in_order: Mutex<InOrder>,
}

/// Pieces are done in any order and written in theirs.
struct InOrder {
    next: usize,
    waiting: BTreeMap<usize, Vec<u8>>,
    file: BufWriter<File>,
}

impl InOrder {
    fn put(&mut self, piece: usize, records: Vec<u8>) -> std::io::Result<()> {
        self.waiting.insert(piece, records);
        while let Some(records) = self.waiting.remove(&self.next) {
            self.file.write_all(&records)?;
            self.next += 1;
        }
        Ok(())
    }
}

/// Extracts from every message.
pub(super) fn extract(
    spread: &Spread,
    extractor: &dyn Extractor,
    folder: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Extraction, StoreError> {
    let top = folder.join("run-top");
    let work = Work {
        spread,
        extractor,
        progress,
        folder,
        pieces: spread.has_replies.len().div_ceil(PIECE),
        next: AtomicUsize::new(0),
        done: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        superseded: Mutex::new(Superseded::new()),
        in_order: Mutex::new(InOrder {
            next: 0,
            waiting: BTreeMap::new(),
            file: BufWriter::new(File::create(&top)?),
        }),
    };
    let threads = options.threads.max(1);
    let results: Vec<Result<(), StoreError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work.run())).collect();
        workers
            .into_iter()
            .map(|worker| {
                worker.join().unwrap_or_else(|_| {
                    Err(StoreError::Stage {
                        reason: "the extractor panicked".into(),
                    })
                })
            })
            .collect()
    });
    results.into_iter().collect::<Result<(), _>>()?;
    let mut in_order = work
        .in_order
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    in_order.file.flush()?;
    let mut runs = vec![top];
    runs.extend((0..spread.threads.len()).map(|n| run_of(folder, n)));
    Ok(Extraction {
        runs,
        superseded: work
            .superseded
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    })
}

fn run_of(folder: &Path, threads: usize) -> PathBuf {
    folder.join(format!("run-{threads}"))
}

impl Work<'_> {
    fn run(&self) -> Result<(), StoreError> {
        let result = self.take_pieces();
        if result.is_err() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        result
    }

    fn take_pieces(&self) -> Result<(), StoreError> {
        let mut top = File::open(&self.spread.top)?;
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.pieces + self.spread.threads.len() || self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.progress.cancelled() {
                return Err(StoreError::Cancelled);
            }
            let done = match piece.checked_sub(self.pieces) {
                None => self.outside_threads(&mut top, piece)?,
                Some(file) => self.threads(&mut top, file)?,
            };
            let done = self.done.fetch_add(done, Ordering::Relaxed) + done;
            self.progress
                .at(Stage::ExtractingFacts, done, self.spread.messages);
        }
    }

    /// Messages that are in no thread, with their neighbours. Returns how many.
    fn outside_threads(&self, file: &mut File, piece: usize) -> Result<u64, StoreError> {
        let all = self.spread.has_replies.len();
        let mine = piece * PIECE..all.min((piece + 1) * PIECE);
        let read = around(mine.start, all).start..around(mine.end - 1, all).end;
        let rows = self.spread.tops(file, read.clone())?;
        let refs: Vec<&Message> = rows.iter().map(|row| &row.message).collect();
        let (mut records, mut done) = (Vec::new(), 0);
        for place in mine.filter(|place| !self.spread.has_replies[*place]) {
            let near = around(place, all);
            let context = Context {
                earlier: &[],
                later: &[],
                before: &refs[near.start - read.start..place - read.start],
                after: &refs[place + 1 - read.start..near.end - read.start],
            };
            self.one(refs[place - read.start], &context, &mut records)?;
            done += 1;
        }
        let mut in_order = self
            .in_order
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        in_order.put(piece, records)?;
        Ok(done)
    }

    /// The threads of one file. Returns how many messages they have.
    fn threads(&self, top: &mut File, file: usize) -> Result<u64, StoreError> {
        let mut messages = read_threads(&self.spread.threads[file])?;
        messages.sort_by(|(_, a), (_, b)| (a.root(), a.time, &a.id).cmp(&(b.root(), b.time, &b.id)));
        let mut found: Vec<(&Message, Vec<u8>)> = Vec::new();
        for thread in messages.chunk_by(|(_, a), (_, b)| a.root() == b.root()) {
            let refs: Vec<&Message> = thread.iter().map(|(_, message)| message).collect();
            let mut shortened = Vec::new();
            for (at, (place, message)) in thread.iter().enumerate() {
                let earlier = if at <= Context::MOST {
                    &refs[..at]
                } else {
                    shortened.clear();
                    shortened.push(refs[0]);
                    shortened.extend_from_slice(&refs[at + 1 - Context::MOST..at]);
                    &shortened[..]
                };
                let later = &refs[at + 1..refs.len().min(at + 1 + Context::MOST)];
                let mut record = Vec::new();
                match place {
                    None => {
                        let context = Context {
                            earlier,
                            later,
                            ..Context::default()
                        };
                        self.one(message, &context, &mut record)?;
                    }
                    Some(place) => {
                        let near = around(*place, self.spread.has_replies.len());
                        let rows = self.spread.tops(top, near.clone())?;
                        let near_refs: Vec<&Message> = rows.iter().map(|row| &row.message).collect();
                        let (before, after) = near_refs.split_at(place - near.start);
                        self.one(
                            message,
                            &Context {
                                earlier,
                                later,
                                before,
                                after: &after[1..],
                            },
                            &mut record,
                        )?;
                    }
                }
                if !record.is_empty() {
                    found.push((message, record));
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| (a.time, &a.id).cmp(&(b.time, &b.id)));
        let mut run = BufWriter::new(File::create(run_of(self.folder, file))?);
        for (_, record) in found {
            run.write_all(&record)?;
        }
        run.flush()?;
        Ok(messages.len() as u64)
    }

    fn one(&self, message: &Message, context: &Context<'_>, records: &mut Vec<u8>) -> Result<(), StoreError> {
        let extracted = self.extractor.extract(message, context);
        let Some(record) = Record::of(message, extracted) else {
            return Ok(());
        };
        for target in record.facts.iter().filter_map(|fact| fact.supersedes.as_ref()) {
            let by = (message.time, message.id.clone());
            let mut superseded = self
                .superseded
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let first = superseded.entry(target.clone()).or_insert_with(|| by.clone());
            if by < *first {
                *first = by;
            }
        }
        record.write(records)?;
        Ok(())
    }
}

/// The places of a message and its neighbours.
fn around(place: usize, all: usize) -> Range<usize> {
    place.saturating_sub(Context::NEARBY)..all.min(place + 1 + Context::NEARBY)
}

/// Messages of threads, with the place of those that are no replies.
fn read_threads(path: &Path) -> Result<Vec<(Option<usize>, Message)>, StoreError> {
    let mut file = BufReader::new(File::open(path)?);
    let mut messages = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            return Ok(messages);
        }
        let mut parts = line.splitn(2, |b| *b == b' ');
        let place = parts
            .next()
            .and_then(|place| std::str::from_utf8(place).ok()?.parse().ok());
        messages.push((place, parse(parts.next().unwrap_or_default())?.message));
    }
}
