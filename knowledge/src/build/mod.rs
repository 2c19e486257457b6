//! Messages of a channel to facts, graph and wiki, in bounded memory.
//!
//! [`build()`] copies the messages of a channel to the local disk, makes a generation of files beside them, puts the files
//! into the store and switches readers to them with one commit. What it makes depends on the messages alone: no page
//! size, segment size, number of threads, crash or order of arrival changes a byte. So [`verify()`] can make it again and
//! compare.

mod export;
mod extraction;
mod generation;
mod graphml;
mod import;
mod long_list;
#[cfg(feature = "parquet")]
mod parquet;
mod publish;
mod runs;
mod spool;
mod spread;
mod stages;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests compare with the clock of the disk and look at files"
)]
mod tests;
mod threads;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::store::{Channel, Counts, Generation, StoreError};

pub use export::export;
pub use generation::{Generated, Manifest, ManifestFile, generate};
pub use import::{Imported, ImportedChannel, import};
pub use long_list::LongList;
pub use spool::Spool;
pub use stages::{GraphInput, Progress, Reply, Stage, Stages, Unwatched, WikiInput};
pub use verify::{Difference, Verified, Wrong, verify};

/// How a build uses the machine. Nothing of it changes what is built.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many threads extract facts.
    pub threads: usize,
    /// Where temporary files go; nothing means the system's own place. A build needs about three times the size of the
    /// messages before compression.
    pub scratch: Option<PathBuf>,
    /// About how many bytes of messages in threads each thread holds at a time, before they are parsed.
    pub partition_bytes: u64,
    /// Builds and writes every file even where nothing changed. It mends files that are damaged.
    pub force: bool,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            threads,
            scratch: None,
            partition_bytes: 4 * 1024 * 1024,
            force: false,
        }
    }
}

/// What a build did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Built {
    /// The generation that readers see now.
    pub generation: String,
    /// Whether that is the one they saw before; then nothing was written.
    pub unchanged: bool,
    /// How much there is.
    pub counts: Counts,
    /// Pages of the wiki that were written.
    pub pages_written: u64,
    /// Pages that are as they were, and were taken over from the generation before.
    pub pages_kept: u64,
}

/// Makes a generation of the channel's messages and switches readers to it.
///
/// The work that burns the processor has threads of its own, so the caller's executor goes on. Where the messages and
/// the stages are those of the current generation, nothing is done.
pub async fn build(
    channel: &mut Channel,
    stages: Arc<dyn Stages>,
    options: &Options,
    progress: Arc<dyn Progress>,
    now: Timestamp,
) -> Result<Built, StoreError> {
    let Some(commit) = channel.head().cloned() else {
        return Ok(Built::default());
    };
    let (inputs, version) = (spool::inputs(&commit), stages.version());
    let made_of_it = |made: &&Generation| made.inputs == inputs && made.stages == version;
    if let Some(current) = commit.generation.as_ref().filter(made_of_it)
        && !options.force
    {
        return Ok(Built {
            generation: current.id.clone(),
            unchanged: true,
            counts: commit.counts,
            pages_kept: commit.counts.pages,
            ..Built::default()
        });
    }
    channel.shed();
    let built_from = commit.version;
    let spool = Spool::fill(channel.root(), commit, options, &*progress).await?;
    let generated = generate_aside(spool, stages, options.clone(), Arc::clone(&progress)).await?;
    let generation = Generation {
        id: generated.id.clone(),
        built_from,
        inputs,
        stages: version,
    };
    publish::publish(channel, &generated, generation, options.force, &*progress, now).await
}

/// [`generate()`] on a thread of its own.
pub(crate) async fn generate_aside(
    spool: Spool,
    stages: Arc<dyn Stages>,
    options: Options,
    progress: Arc<dyn Progress>,
) -> Result<Generated, StoreError> {
    let (answer, answered) = futures::channel::oneshot::channel();
    std::thread::Builder::new()
        .name("knowledge-build".into())
        .spawn(move || {
            let _ = answer.send(generate(spool, &*stages, &options, &*progress));
        })?;
    answered.await.unwrap_or_else(|_| {
        Err(StoreError::Stage {
            reason: "it panicked".into(),
        })
    })
}
