//! Commits: numbered files that are created once. The newest one says what the channel is.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Kind, kind};
use super::{ChannelKey, Root, StoreError};

/// What a channel is at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    /// Its number; the first is 1.
    pub version: u64,
    /// The commit that it follows; 0 for the first.
    pub parent: u64,
    /// Who wrote it.
    pub writer: Writer,
    /// When, by the writer's clock.
    pub time: Timestamp,
    /// Which channel.
    pub channel: ChannelKey,
    /// The channel as people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Where fetching goes on. The store does not look into it.
    #[serde(default)]
    pub cursor: Value,
    /// What could not be read.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// The files that hold the messages, all of them.
    pub segments: Vec<Segment>,
    /// The paths of the segments that this commit added, and of those that it no longer names.
    #[serde(default)]
    pub added: Vec<String>,
    /// See `added`.
    #[serde(default)]
    pub retired: Vec<String>,
    /// The file that holds the names of people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub people: Option<FileRef>,
    /// The facts, the graph and the wiki that readers see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The newest commit that took messages away, itself included; 0 where none ever did. What older commits name may hold
    /// their text.
    #[serde(default)]
    pub erased: u64,
    /// How much there is.
    pub counts: Counts,
}

/// Who writes. The random part tells two attempts of one run apart, and two writes of one attempt.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Writer {
    /// What the writer works for: the uid of the resource.
    pub uid: String,
    /// Which attempt.
    pub attempt: u32,
    /// Drawn anew for each commit.
    #[serde(default)]
    pub nonce: String,
}

impl Writer {
    /// A writer; the nonce is drawn when it commits.
    pub fn new(uid: impl Into<String>, attempt: u32) -> Self {
        Self {
            uid: uid.into(),
            attempt,
            nonce: String::new(),
        }
    }

    pub(super) fn with_nonce(&self) -> Self {
        Self {
            nonce: format!("{:032x}", fastrand::u128(..)),
            ..self.clone()
        }
    }
}

/// A stretch of time of which messages may be missing.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// From when; nothing where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why, in words for people.
    pub reason: String,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.from, self.until) {
            (Some(from), Some(until)) => write!(f, "{from} to {until}: ")?,
            (Some(from), None) => write!(f, "since {from}: ")?,
            (None, Some(until)) => write!(f, "before {until}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.reason)
    }
}

/// A file of the channel and what is in it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileRef {
    /// From the channel's folder.
    pub path: String,
    /// How many lines.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The hash of its bytes.
    pub sha256: String,
}

/// A file of messages.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// The file.
    #[serde(flatten)]
    pub file: FileRef,
    /// Its size before compression.
    pub raw_bytes: u64,
    /// The time of its oldest message.
    pub from: Timestamp,
    /// The time of its newest message.
    pub until: Timestamp,
}

/// What readers see.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// The name of its folder below `gen/`; it follows from the content.
    pub id: String,
    /// The commit whose messages it was made of.
    pub built_from: u64,
    /// What it was made of, as a hash.
    pub inputs: String,
    /// The version of the stages that made it. Where inputs and version are the same, nothing has to be built.
    pub stages: String,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// People who wrote them, as of the generation.
    pub people: u64,
    /// Facts of the generation.
    pub facts: u64,
    /// Entities of the generation.
    pub entities: u64,
    /// Relations of the generation.
    pub relations: u64,
    /// Pages of the generation's wiki.
    pub pages: u64,
}

#[derive(Deserialize, Serialize)]
struct Head {
    version: u64,
}

pub(super) fn path(folder: &str, version: u64) -> String {
    format!("{folder}/commits/{version:020}.json")
}

/// The number in the path of a commit.
pub(super) fn number(path: &str) -> Option<u64> {
    path.rsplit_once("/commits/")?
        .1
        .strip_suffix(".json")?
        .parse()
        .ok()
}

/// The commit with that number, or nothing where there is none.
pub(crate) async fn read(root: &Root, folder: &str, version: u64) -> Result<Option<Commit>, StoreError> {
    let path = path(folder, version);
    let Some(bytes) = root.get(&path).await? else {
        return Ok(None);
    };
    let damaged = |reason: String| StoreError::Damaged {
        file: path.clone(),
        reason,
    };
    let commit: Commit = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if commit.version == version {
        Ok(Some(commit))
    } else {
        Err(damaged(format!("it says that it is commit {}", commit.version)))
    }
}

/// The newest commit of the channel in that folder, or nothing where the store has none.
///
/// HEAD is only where the search begins: it may be missing, behind, or name a commit that is collected.
pub async fn latest(root: &Root, folder: &str) -> Result<Option<Commit>, StoreError> {
    let hint = root.get(&head(folder)).await?;
    let hint = hint.and_then(|bytes| serde_json::from_slice::<Head>(&bytes).ok());
    let mut newest = match hint {
        Some(hint) => read(root, folder, hint.version).await?,
        None => None,
    };
    if newest.is_none() {
        let listed = root.list(&format!("{folder}/commits")).await?;
        let Some(version) = listed.iter().filter_map(|found| number(&found.path)).max() else {
            return Ok(None);
        };
        newest = read(root, folder, version).await?;
    }
    while let Some(version) = newest.as_ref().map(|commit| commit.version + 1) {
        match read(root, folder, version).await? {
            Some(next) => newest = Some(next),
            None => break,
        }
    }
    Ok(newest)
}

/// Tells readers where to begin. It is a hint, so nothing depends on it.
pub(super) async fn point(root: &Root, folder: &str, version: u64) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(&Head { version }).unwrap_or_default();
    root.put(&head(folder), bytes.into()).await
}

fn head(folder: &str) -> String {
    format!("{folder}/HEAD.json")
}

/// How often a put is tried whose effect cannot be seen.
const TRIES: u32 = 5;

/// Creates the commit, once and for all.
///
/// An error of the put says little: the answer may have been lost after the effect, or 409 may mean "just now". So the
/// commit is read back: one's own means success, another's is a [`StoreError::Conflict`], none means trying again.
pub(super) async fn create(root: &Root, folder: &str, commit: &Commit) -> Result<(), StoreError> {
    let bytes = Bytes::from(serde_json::to_vec(commit).map_err(|error| StoreError::Damaged {
        file: path(folder, commit.version),
        reason: error.to_string(),
    })?);
    let mut failure = None;
    for _ in 0..TRIES {
        let error = match root.create(&path(folder, commit.version), bytes.clone()).await {
            Ok(()) => return still_there(root, folder, commit).await,
            Err(error) => error,
        };
        match read(root, folder, commit.version).await {
            Ok(Some(found)) if found.writer == commit.writer => {
                return still_there(root, folder, commit).await;
            }
            Ok(Some(found)) => return Err(conflict(folder, commit.version, &found.writer)),
            Ok(None) | Err(StoreError::Unreachable { .. }) => {}
            Err(other) => return Err(other),
        }
        let hopeless = matches!(kind(&error), Kind::Full | Kind::ReadOnly | Kind::Vanished);
        failure = Some(root.typed(&error));
        if hopeless {
            break;
        }
    }
    Err(failure.unwrap_or_else(|| StoreError::Unreachable {
        root: root.name().to_owned(),
        reason: "the commit could not be written".into(),
    }))
}

/// A writer that slept for days can create a number that was written, collected and is free again. Collection takes the
/// oldest first, so then the parent is gone too.
async fn still_there(root: &Root, folder: &str, commit: &Commit) -> Result<(), StoreError> {
    let followed = if commit.parent == 0 {
        let listed = root.list(&format!("{folder}/commits")).await?;
        listed.iter().filter_map(|found| number(&found.path)).max() <= Some(commit.version)
    } else {
        root.exists(&path(folder, commit.parent)).await?
    };
    if followed {
        return Ok(());
    }
    root.delete(&path(folder, commit.version)).await?;
    match latest(root, folder).await? {
        Some(newest) => Err(conflict(folder, newest.version, &newest.writer)),
        None => Err(StoreError::Vanished {
            root: root.name().to_owned(),
            reason: format!("{} is missing", path(folder, commit.parent)),
        }),
    }
}

fn conflict(folder: &str, version: u64, winner: &Writer) -> StoreError {
    StoreError::Conflict {
        channel: folder.to_owned(),
        version,
        winner: format!("{} (attempt {})", winner.uid, winner.attempt),
    }
}
