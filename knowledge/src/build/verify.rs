//! Makes every generation again and compares it with what is stored, byte by byte.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::generation::Manifest;
use super::{Options, Progress, Spool, Stages, generate_aside, spool};
use crate::digest;
use crate::store::{self, Root, StoreError};

/// What verification found of one channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// The channel's folder below the root.
    pub channel: String,
    /// The generation that readers see; nothing where none was built.
    pub generation: Option<String>,
    /// How many messages it was made of.
    pub messages: u64,
    /// How many files were compared.
    pub files: u64,
    /// What differs; empty where all is well.
    pub differences: Vec<Difference>,
}

/// One file that is not what it should be.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Difference {
    /// From the root.
    pub file: String,
    /// How.
    pub wrong: Wrong,
}

/// How a file is wrong.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Wrong {
    /// It is not there.
    Missing,
    /// Nothing names it.
    Extra,
    /// Its bytes are others.
    Differs,
    /// A file of messages, of people or a commit is not what was written.
    Damaged,
    /// The generation is older than the messages: they changed, and nothing was built since.
    Behind,
}

/// Verifies all channels of the root. It writes nothing there.
pub async fn verify(
    root: &Root,
    stages: Arc<dyn Stages>,
    options: &Options,
    progress: Arc<dyn Progress>,
) -> Result<Vec<Verified>, StoreError> {
    let mut all = Vec::new();
    for folder in root.channels().await? {
        let mut verified = Verified {
            channel: folder.clone(),
            generation: None,
            messages: 0,
            files: 0,
            differences: Vec::new(),
        };
        match channel(root, &folder, &stages, options, &progress, &mut verified).await {
            Ok(()) => {}
            Err(StoreError::Damaged { file, .. }) => {
                let file = if file.starts_with(&folder) {
                    file
                } else {
                    format!("{folder}/{file}")
                };
                verified.differences.push(Difference {
                    file,
                    wrong: Wrong::Damaged,
                });
            }
            Err(other) => return Err(other),
        }
        verified.differences.sort();
        all.push(verified);
    }
    Ok(all)
}

async fn channel(
    root: &Root,
    folder: &str,
    stages: &Arc<dyn Stages>,
    options: &Options,
    progress: &Arc<dyn Progress>,
    verified: &mut Verified,
) -> Result<(), StoreError> {
    let Some(newest) = store::latest(root, folder).await? else {
        return Ok(());
    };
    let Some(generation) = newest.generation.clone() else {
        // Messages alone: at least they are whole.
        Spool::fill(root, newest, options, &**progress).await?;
        return Ok(());
    };
    verified.generation = Some(generation.id.clone());
    let stored = format!("{folder}/gen/{}", generation.id);
    let source = match store::read_commit(root, folder, generation.built_from).await? {
        Some(source) if spool::inputs(&newest) != generation.inputs => source,
        _ => newest,
    };
    let behind = spool::inputs(&source) != generation.inputs;
    let spool = Spool::fill(root, source, options, &**progress).await?;
    let made = generate_aside(spool, Arc::clone(stages), options.clone(), Arc::clone(progress)).await?;
    verified.messages = made.manifest.counts.messages;

    let mut expected = BTreeSet::new();
    let manifest = (Manifest::NAME.to_owned(), digest::hex(&made.manifest.bytes()));
    let files = made
        .manifest
        .files
        .iter()
        .map(|file| (file.path.clone(), file.sha256.clone()));
    for (path, sha256) in files.chain([manifest]) {
        let file = format!("{stored}/{path}");
        verified.files += 1;
        match root.hash(&file).await? {
            Some(found) if found == sha256 => {}
            Some(_) => verified.differences.push(Difference {
                file: file.clone(),
                wrong: Wrong::Differs,
            }),
            None => verified.differences.push(Difference {
                file: file.clone(),
                wrong: Wrong::Missing,
            }),
        }
        expected.insert(file);
    }
    for found in root.list(&stored).await? {
        if !expected.contains(&found.path) {
            verified.differences.push(Difference {
                file: found.path,
                wrong: Wrong::Extra,
            });
        }
    }
    if behind && !verified.differences.is_empty() {
        // The messages that it was made of are collected, so nothing more can be said.
        verified.differences = vec![Difference {
            file: stored,
            wrong: Wrong::Behind,
        }];
    }
    Ok(())
}
