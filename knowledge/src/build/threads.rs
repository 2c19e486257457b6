//! Messages of threads as they pass by, each with the part of its thread that extraction looks at.
//!
//! A thread is never held as a whole: beside the first message, a window of those before and after one message is enough.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use super::spread::parse;
use crate::extract::Context;
use crate::message::Message;
use crate::store::StoreError;

/// Files with some of the threads. Messages in each are sorted by time and id.
#[derive(Debug)]
pub(super) struct ThreadFiles {
    /// Replies, one a line.
    pub(super) replies: PathBuf,
    /// What they reply to: the place among the messages that are no replies, a space, the message.
    pub(super) roots: PathBuf,
}

/// A message of a thread; for one that is no reply, its place among those.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) place: Option<usize>,
    pub(super) message: Message,
}

/// What is known of a thread so far.
#[derive(Default)]
struct Window {
    /// The first message, once it has left the window.
    first: Option<Message>,
    members: VecDeque<Member>,
    /// Which member is told next; those before it have been.
    next: usize,
}

impl Window {
    /// Tells about the next message, with what is before and after it.
    fn tell<E>(
        &mut self,
        to: &mut impl FnMut(&Member, &[&Message], &[&Message]) -> Result<(), E>,
    ) -> Result<(), E> {
        let refs: Vec<&Message> = self.members.iter().map(|member| &member.message).collect();
        let (before, rest) = refs.split_at(self.next);
        let later = &rest[1..rest.len().min(1 + Context::MOST)];
        match &self.first {
            Some(first) => {
                let newest = &before[before.len() + 1 - Context::MOST..];
                let earlier: Vec<&Message> = std::iter::once(first).chain(newest.iter().copied()).collect();
                to(&self.members[self.next], &earlier, later)?;
            }
            None => to(&self.members[self.next], before, later)?,
        }
        self.next += 1;
        if self.next > Context::MOST
            && let Some(left) = self.members.pop_front()
        {
            self.first.get_or_insert(left.message);
            self.next -= 1;
        }
        Ok(())
    }

    fn has_all_after(&self) -> bool {
        self.members.len() - self.next > Context::MOST
    }
}

/// Tells about each message of the files, with the earlier and later ones of its thread as [`Context`] wants them.
/// Returns how many there are.
pub(super) fn walk(
    files: &ThreadFiles,
    mut to: impl FnMut(&Member, &[&Message], &[&Message]) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let mut replies = members(&files.replies, false)?.peekable();
    let mut roots = members(&files.roots, true)?.peekable();
    let mut windows: BTreeMap<String, Window> = BTreeMap::new();
    let mut count = 0;
    while let Some(member) = earlier_of(&mut replies, &mut roots) {
        let member = member?;
        count += 1;
        let root = member.message.root();
        if !windows.contains_key(root) {
            windows.insert(root.to_owned(), Window::default());
        }
        let Some(window) = windows.get_mut(root) else {
            continue;
        };
        window.members.push_back(member);
        if window.has_all_after() {
            window.tell(&mut to)?;
        }
    }
    for mut window in windows.into_values() {
        while window.next < window.members.len() {
            window.tell(&mut to)?;
        }
    }
    Ok(count)
}

type Read = Result<Member, StoreError>;

/// The earlier one of the two next members.
fn earlier_of<A, B>(a: &mut Peekable<A>, b: &mut Peekable<B>) -> Option<Read>
where
    A: Iterator<Item = Read>,
    B: Iterator<Item = Read>,
{
    let first_is_earlier = match (a.peek(), b.peek()) {
        (Some(Ok(a)), Some(Ok(b))) => (a.message.time, &a.message.id) <= (b.message.time, &b.message.id),
        (Some(_), _) => true,
        (None, _) => false,
    };
    if first_is_earlier { a.next() } else { b.next() }
}

fn members(path: &Path, placed: bool) -> Result<impl Iterator<Item = Read>, StoreError> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    Ok(std::iter::from_fn(move || {
        line.clear();
        match file.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(member(&line, placed)),
            Err(error) => Some(Err(error.into())),
        }
    }))
}

fn member(line: &[u8], placed: bool) -> Read {
    if !placed {
        let message = parse(line)?.message;
        return Ok(Member { place: None, message });
    }
    let mut parts = line.splitn(2, |b| *b == b' ');
    let place = parts
        .next()
        .and_then(|place| std::str::from_utf8(place).ok()?.parse().ok());
    let message = parse(parts.next().unwrap_or_default())?.message;
    Ok(Member { place, message })
}
