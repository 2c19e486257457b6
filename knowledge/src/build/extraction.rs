//! Stage 2 over all messages: several threads, one order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;

use super::runs::Record;
use super::spread::Spread;
use super::{Options, Progress, Stage, threads};
use crate::extract::{Context, Extractor};
use crate::message::Message;
use crate::store::StoreError;

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
    pieces: Vec<usize>,
    /// How many bytes of records of threads are sorted at a time.
    sorted: usize,
    thread_runs: Mutex<Vec<PathBuf>>,
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
        pieces: spread.pieces(),
        sorted: usize::try_from(options.partition_bytes).unwrap_or(usize::MAX),
        thread_runs: Mutex::new(Vec::new()),
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
    runs.extend(
        work.thread_runs
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
    Ok(Extraction {
        runs,
        superseded: work
            .superseded
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    })
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
        let pieces = self.pieces.len() - 1;
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces + self.spread.threads.len() || self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.progress.cancelled() {
                return Err(StoreError::Cancelled);
            }
            let done = match piece.checked_sub(pieces) {
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
        let mine = self.pieces[piece]..self.pieces[piece + 1];
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

    /// The threads of one pair of files. Returns how many messages they have.
    fn threads(&self, top: &mut File, file: usize) -> Result<u64, StoreError> {
        let (mut found, mut bytes, mut runs) = (Vec::new(), 0, 0);
        let mut name = || {
            runs += 1;
            self.folder.join(format!("run-{file}-{runs}"))
        };
        let count = threads::walk(&self.spread.threads[file], |member, earlier, later| {
            let message = &member.message;
            let mut record = Vec::new();
            let alone = Context {
                earlier,
                later,
                ..Context::default()
            };
            if let Some(place) = member.place {
                let near = around(place, self.spread.has_replies.len());
                let rows = self.spread.tops(top, near.clone())?;
                let near_refs: Vec<&Message> = rows.iter().map(|row| &row.message).collect();
                let (before, after) = near_refs.split_at(place - near.start);
                let after = &after[1..];
                self.one(
                    message,
                    &Context {
                        before,
                        after,
                        ..alone
                    },
                    &mut record,
                )?;
            } else {
                self.one(message, &alone, &mut record)?;
            }
            if !record.is_empty() {
                bytes += record.len();
                found.push((message.time, message.id.clone(), record));
            }
            if bytes > self.sorted {
                bytes = 0;
                self.sorted_run(std::mem::take(&mut found), name())?;
            }
            Ok(())
        })?;
        self.sorted_run(found, name())?;
        Ok(count)
    }

    /// Records of messages into a file of their own.
    fn sorted_run(
        &self,
        mut found: Vec<(Timestamp, String, Vec<u8>)>,
        path: PathBuf,
    ) -> Result<(), StoreError> {
        if found.is_empty() {
            return Ok(());
        }
        found.sort_unstable();
        let mut run = BufWriter::new(File::create(&path)?);
        for (_, _, record) in found {
            run.write_all(&record)?;
        }
        run.flush()?;
        self.thread_runs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(path);
        Ok(())
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
