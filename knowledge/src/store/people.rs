//! The names of people, as the platform says them: one a line.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::commit::FileRef;
use super::segment::Compressed;
use super::{Root, StoreError};
use crate::message::Author;

/// Names by id.
pub(crate) type People = BTreeMap<String, String>;

/// Reads the file.
pub(crate) async fn read(root: &Root, folder: &str, file: &FileRef) -> Result<People, StoreError> {
    let bytes = root.get_whole(folder, file).await?;
    parse(&bytes).map_err(|error| StoreError::Damaged {
        file: format!("{folder}/{}", file.path),
        reason: error.to_string(),
    })
}

fn parse(bytes: &[u8]) -> std::io::Result<People> {
    let lines = zstd::decode_all(bytes)?;
    let people = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    people
        .map(|line| {
            let Author { id, name } = serde_json::from_slice(line)?;
            Ok((id, name))
        })
        .collect()
}

/// The file's content.
pub(crate) fn encode(people: &People, path: String) -> Result<(Bytes, FileRef), StoreError> {
    let mut file = Compressed::new(Vec::new())?;
    for (id, name) in people {
        let line = serde_json::to_vec(&Author {
            id: id.clone(),
            name: name.clone(),
        });
        file.line(&line.unwrap_or_default())?;
    }
    let (bytes, file, _) = file.finish(path)?;
    Ok((bytes.into(), file))
}
