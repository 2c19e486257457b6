//! Generations as plain files, for people and their tools.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::generation::{Manifest, is_inside};
use crate::store::{self, FileRef, Root, StoreError};

/// Writes what readers see of every channel below `to`: `facts.jsonl`, `entities.jsonl`, `relations.jsonl`,
/// `graph.graphml` and `wiki/`, one folder a channel. Returns the folders.
///
/// A folder is called by platform and channel; where the root has several clusters or namespaces, it is inside folders of
/// theirs. Channels without a generation are left out.
pub async fn export(root: &Root, to: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let channels = root.channels().await?;
    let owners: BTreeSet<_> = channels
        .iter()
        .filter_map(|folder| split(folder))
        .map(|(owner, _)| owner)
        .collect();
    let mut written = Vec::new();
    for folder in &channels {
        let (Some(commit), Some((owner, name))) = (store::latest(root, folder).await?, split(folder)) else {
            continue;
        };
        let Some(generation) = commit.generation else {
            continue;
        };
        let name = name.replace('/', "-");
        let local = if owners.len() > 1 {
            to.join(owner).join(name)
        } else {
            to.join(name)
        };
        one(root, &format!("{folder}/gen/{}", generation.id), &local).await?;
        written.push(local);
    }
    Ok(written)
}

/// Cluster and namespace, platform and channel.
fn split(folder: &str) -> Option<(&str, &str)> {
    let (second, _) = folder.match_indices('/').nth(1)?;
    Some((&folder[..second], &folder[second + 1..]))
}

async fn one(root: &Root, generation: &str, to: &Path) -> Result<(), StoreError> {
    let path = format!("{generation}/{}", Manifest::NAME);
    let bytes = root.get(&path).await?.ok_or_else(|| StoreError::Damaged {
        file: path.clone(),
        reason: "it is missing".into(),
    })?;
    for file in Manifest::parse(&bytes, &path)?.files {
        let Some(plain) = plain_name(&file.path) else {
            continue;
        };
        let file = FileRef {
            path: file.path,
            rows: 0,
            bytes: file.bytes,
            sha256: file.sha256,
        };
        let bytes = root.get_whole(generation, &file).await?;
        let local = to.join(&plain);
        if let Some(parent) = local.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if plain != file.path && file.path.strip_suffix(".zst").is_some() {
            zstd::stream::copy_decode(&bytes[..], std::fs::File::create(local)?)?;
        } else {
            std::fs::write(local, bytes)?;
        }
    }
    Ok(())
}

/// What a file of a generation is called in an export; nothing for what is left out.
fn plain_name(path: &str) -> Option<String> {
    match path {
        "facts.jsonl.zst" => Some("facts.jsonl".into()),
        "graph/entities.jsonl.zst" => Some("entities.jsonl".into()),
        "graph/relations.jsonl.zst" => Some("relations.jsonl".into()),
        "graph.graphml" => Some(path.into()),
        _ => path
            .strip_prefix("wiki/")
            .filter(|page| is_inside(page))
            .map(|page| format!("wiki/{page}")),
    }
}
