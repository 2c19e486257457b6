//! The messages of a channel on the local disk, so that a build holds none of them.

use std::path::PathBuf;

use jiff::Timestamp;
use tempfile::TempDir;

use super::{Options, Progress, Stage};
use crate::digest;
use crate::store::{self, Commit, Root, Rows, StoreError};

/// Everything that a generation is made of, as of one commit.
#[derive(Debug)]
pub struct Spool {
    pub(super) folder: TempDir,
    pub(super) commit: Commit,
    files: Vec<File>,
    /// Names by id, as the platform says them.
    pub(super) people: store::People,
}

#[derive(Debug)]
struct File {
    local: PathBuf,
    name: String,
    from: Timestamp,
}

impl Spool {
    /// Copies what the commit names to a temporary folder, and checks it.
    pub async fn fill(
        root: &Root,
        commit: Commit,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Self, StoreError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("knowledge-");
        let folder = match &options.scratch {
            Some(scratch) => builder.tempdir_in(scratch)?,
            None => builder.tempdir()?,
        };
        let channel = commit.channel.folder();
        let (mut files, mut rows) = (Vec::new(), 0);
        for (place, segment) in commit.segments.iter().enumerate() {
            if progress.cancelled() {
                return Err(StoreError::Cancelled);
            }
            let local = folder.path().join(format!("segment-{place}"));
            root.download(&channel, &segment.file, &local).await?;
            files.push(File {
                local,
                name: segment.file.path.clone(),
                from: segment.from,
            });
            rows += segment.file.rows;
            progress.at(
                Stage::Messages,
                rows,
                commit.segments.iter().map(|segment| segment.file.rows).sum(),
            );
        }
        let people = match &commit.people {
            Some(file) => store::read_people(root, &channel, file).await?,
            None => store::People::new(),
        };
        Ok(Self {
            folder,
            commit,
            files,
            people,
        })
    }

    /// How much text there is, in bytes before compression.
    pub(super) fn raw_bytes(&self) -> u64 {
        self.commit.segments.iter().map(|segment| segment.raw_bytes).sum()
    }

    /// The rows of all files, by time and id.
    pub(super) fn rows(&self) -> store::Merged<'_> {
        let open = |file: &File| -> store::Source<'_> {
            let (local, name) = (file.local.clone(), file.name.clone());
            store::Source {
                from: file.from,
                open: Box::new(move || Rows::new(std::fs::File::open(local)?, &name)),
            }
        };
        store::merged(self.files.iter().map(open).collect())
    }
}

/// What a generation would be made of.
pub(super) fn inputs(commit: &Commit) -> String {
    let mut segments: Vec<&str> = commit
        .segments
        .iter()
        .map(|segment| segment.file.sha256.as_str())
        .collect();
    segments.sort_unstable();
    let people = commit.people.as_ref().map(|file| &file.sha256);
    let all = serde_json::json!([&commit.channel, &commit.title, &commit.gaps, segments, people]);
    digest::hex(all.to_string().as_bytes())
}
