//! A generation into the store, and the commit that switches readers to it.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::generation::Manifest;
use super::{Built, Generated, Progress, Stage};
use crate::store::{Channel, Generation, StoreError};

/// How many files are under way to the store at a time.
const AT_ONCE: usize = 4;

/// Puts the files into the store and commits. Files that the generation before has with the same content are copied
/// inside the store.
pub(super) async fn publish(
    channel: &mut Channel,
    generated: &Generated,
    generation: Generation,
    force: bool,
    progress: &dyn Progress,
    now: Timestamp,
) -> Result<Built, StoreError> {
    let mut built = Built {
        generation: generation.id.clone(),
        counts: generated.manifest.counts,
        ..Built::default()
    };
    let current = channel.head().and_then(|head| head.generation.clone());
    let unchanged = current
        .as_ref()
        .is_some_and(|current| current.id == generation.id);
    if unchanged && !force {
        built.unchanged = true;
        built.pages_kept = built.counts.pages;
        return Ok(built);
    }
    let before = match &current {
        Some(current) if !force => files_of(channel, &current.id).await?,
        _ => BTreeMap::new(),
    };
    let to = format!("{}/gen/{}", channel.folder(), generation.id);
    // First of all: it is new in any case, so it tells collection how young the generation is.
    channel
        .root()
        .upload(
            &format!("{to}/{}", Manifest::NAME),
            &generated.local(Manifest::NAME),
        )
        .await?;
    let total = generated.manifest.files.len() as u64;
    let mut done = 0;
    let mut puts = futures::stream::iter(&generated.manifest.files)
        .map(|file| {
            let held = before.get(&file.path).filter(|held| held.sha256 == file.sha256);
            let (root, to) = (channel.root(), format!("{to}/{}", file.path));
            let (path, local) = (file.path.as_str(), generated.local(&file.path));
            async move {
                if let Some(held) = held
                    && root.copy(&held.stored, &to).await?
                {
                    return Ok::<_, StoreError>((path, true));
                }
                root.upload(&to, &local).await?;
                Ok((path, false))
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some((path, kept)) = puts.try_next().await? {
        if path.starts_with("wiki/") {
            *(if kept {
                &mut built.pages_kept
            } else {
                &mut built.pages_written
            }) += 1;
        }
        done += 1;
        progress.at(Stage::Storing, done, total);
        if progress.cancelled() {
            return Err(StoreError::Cancelled);
        }
    }
    drop(puts);
    if unchanged {
        return Ok(built);
    }
    channel.switch(generation, generated.manifest.counts, now).await?;
    Ok(built)
}

struct Held {
    stored: String,
    sha256: String,
}

/// The files of a generation in the store. One that is damaged is no reason not to replace it.
async fn files_of(channel: &Channel, id: &str) -> Result<BTreeMap<String, Held>, StoreError> {
    let folder = format!("{}/gen/{id}", channel.folder());
    let path = format!("{folder}/{}", Manifest::NAME);
    let Some(bytes) = channel.root().get(&path).await? else {
        return Ok(BTreeMap::new());
    };
    let Ok(manifest) = Manifest::parse(&bytes, &path) else {
        return Ok(BTreeMap::new());
    };
    let held = |file: super::ManifestFile| {
        (
            file.path.clone(),
            Held {
                stored: format!("{folder}/{}", file.path),
                sha256: file.sha256,
            },
        )
    };
    Ok(manifest.files.into_iter().map(held).collect())
}
