//! Lists that are too long to hold.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Mutex;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::StoreError;

/// A list on the local disk: read from front to back, or here and there. It takes 8 bytes of memory a row.
///
/// Reading cannot fail for who reads: where the disk fails, the list seems to end there, and the build fails afterwards.
#[derive(Debug)]
pub struct LongList<T> {
    path: PathBuf,
    /// Where each row begins, and at last where the file ends.
    offsets: Vec<u64>,
    failure: Mutex<Option<std::io::Error>>,
    rows: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> LongList<T> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All rows, from the first on.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        let mut lines = self.noted(File::open(&self.path)).map(BufReader::new);
        let mut line = Vec::new();
        std::iter::from_fn(move || {
            let lines = lines.as_mut()?;
            line.clear();
            let read = self.noted(lines.read_until(b'\n', &mut line))?;
            if read == 0 { None } else { self.parsed(&line) }
        })
    }

    /// The row at that place, from 0.
    pub fn get(&self, place: usize) -> Option<T> {
        let (from, to) = (*self.offsets.get(place)?, *self.offsets.get(place + 1)?);
        let mut line = vec![0; usize::try_from(to - from).ok()?];
        let mut file = self.noted(File::open(&self.path))?;
        self.noted(file.seek(SeekFrom::Start(from)))?;
        self.noted(file.read_exact(&mut line))?;
        self.parsed(&line)
    }

    /// All rows at once, for who has the room.
    pub fn to_vec(&self) -> Vec<T> {
        let mut rows = Vec::with_capacity(self.len());
        rows.extend(self.iter());
        rows
    }

    /// Fails where some read did.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let mut failure = self
            .failure
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        failure.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// The rows as lines of JSON.
    pub(super) fn lines(&self) -> std::io::Result<impl Iterator<Item = std::io::Result<Vec<u8>>>> {
        Ok(BufReader::new(File::open(&self.path)?).split(b'\n'))
    }

    fn parsed(&self, line: &[u8]) -> Option<T> {
        self.noted(serde_json::from_slice(line).map_err(std::io::Error::from))
    }

    fn noted<R>(&self, result: std::io::Result<R>) -> Option<R> {
        result
            .map_err(|error| {
                let mut failure = self
                    .failure
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                failure.get_or_insert(error);
            })
            .ok()
    }
}

/// A list that grows.
pub(super) struct LongListWriter<T> {
    file: BufWriter<File>,
    path: PathBuf,
    offsets: Vec<u64>,
    line: Vec<u8>,
    rows: PhantomData<fn(T)>,
}

impl<T: Serialize> LongListWriter<T> {
    pub(super) fn new(path: PathBuf) -> std::io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(File::create(&path)?),
            path,
            offsets: vec![0],
            line: Vec::new(),
            rows: PhantomData,
        })
    }

    pub(super) fn push(&mut self, row: &T) -> std::io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, row)?;
        self.line.push(b'\n');
        self.file.write_all(&self.line)?;
        let end = self.offsets.last().copied().unwrap_or_default() + self.line.len() as u64;
        self.offsets.push(end);
        Ok(())
    }

    pub(super) fn finish(mut self) -> std::io::Result<LongList<T>> {
        self.file.flush()?;
        self.offsets.shrink_to_fit();
        Ok(LongList {
            path: self.path,
            offsets: self.offsets,
            failure: Mutex::new(None),
            rows: PhantomData,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_failures_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut writer = LongListWriter::new(path.clone()).unwrap();
        let rows: Vec<String> = (0..50).map(|n| format!("line\nbreak {n} \u{1f600}")).collect();
        for row in &rows {
            writer.push(row).unwrap();
        }
        let list: LongList<String> = writer.finish().unwrap();
        assert_eq!((list.to_vec(), list.len()), (rows.clone(), 50));
        assert_eq!((list.get(49).as_ref(), list.get(50)), (rows.last(), None));
        list.check().unwrap();
        std::fs::write(&path, "\"one\"\nno").unwrap();
        assert_eq!(list.to_vec(), ["one"]);
        assert!(list.check().is_err());
    }
}
