//! What no commit needs any more goes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::channel::Channel;
use super::commit::{self, Commit};
use super::root::Found;
use super::{ChannelKey, Root, StoreError};

/// What collection keeps for readers that are still in the middle.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// So many of the newest commits, and all that they name.
    pub commits: u64,
    /// Everything that is younger.
    pub age: SignedDuration,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            commits: 10,
            age: SignedDuration::from_hours(24),
        }
    }
}

/// What collection took away.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Collected {
    /// Commits.
    pub commits: u64,
    /// Other files.
    pub files: u64,
    /// What killed writers had left.
    pub leftovers: u64,
}

impl Channel {
    /// Deletes what neither the newest commits name nor is young. `now` is compared with the store's clock.
    ///
    /// Where messages were deleted on the platform, nothing that may hold their text has a grace: commits from before,
    /// their segments and generations go at once. Only the generation that readers see stays until another is built.
    pub async fn collect(&mut self, grace: Grace, now: Timestamp) -> Result<Collected, StoreError> {
        let Some(newest) = commit::latest(&self.root, &self.folder).await? else {
            return Ok(Collected::default());
        };
        let found = self.root.list(&self.folder).await?;
        let first = first_kept(&found, &newest, grace, now);
        let mut kept = Vec::new();
        for version in found
            .iter()
            .filter_map(|found| commit::number(&found.path))
            .filter(|v| *v >= first)
        {
            kept.extend(commit::read(&self.root, &self.folder, version).await?);
        }
        let garbage = garbage(&self.folder, &found, &kept, &newest, grace, now);

        // HEAD may name what goes.
        self.point(now).await;
        let mut collected = Collected::default();
        // The oldest first and one by one: a number is free again only when its parent is gone.
        for found in found
            .iter()
            .filter(|found| commit::number(&found.path).is_some_and(|v| v < first))
        {
            self.root.delete(&found.path).await?;
            collected.commits += 1;
        }
        self.root.delete_all(&garbage).await?;
        collected.files = garbage.len() as u64;
        collected.leftovers = self.root.sweep(&self.folder, now, newest.erased > 0)?;
        Ok(collected)
    }

    /// Deletes a channel with everything it has. Deleting it again goes on where a deletion was interrupted.
    pub async fn delete(root: &Root, key: &ChannelKey) -> Result<(), StoreError> {
        let folder = key.folder();
        // Without commits there is no channel, so nobody reads one that is half there.
        let (commits, others): (Vec<_>, Vec<_>) = root
            .list(&folder)
            .await?
            .into_iter()
            .map(|found| found.path)
            .partition(|path| commit::number(path).is_some());
        root.delete_all(&commits).await?;
        root.delete_all(&others).await?;
        root.sweep(&folder, Timestamp::MAX, true)?;
        Ok(())
    }
}

/// The oldest commit that stays. All after it stay too.
fn first_kept(found: &[Found], newest: &Commit, grace: Grace, now: Timestamp) -> u64 {
    let by_number = (newest.version + 1).saturating_sub(grace.commits.max(1));
    let by_age = found
        .iter()
        .filter(|found| now.duration_since(found.written) <= grace.age)
        .filter_map(|found| commit::number(&found.path))
        .min()
        .unwrap_or(newest.version);
    by_number.min(by_age).max(newest.erased).max(1)
}

/// The files to delete, commits aside.
fn garbage(
    folder: &str,
    found: &[Found],
    kept: &[Commit],
    newest: &Commit,
    grace: Grace,
    now: Timestamp,
) -> Vec<String> {
    let mut files = BTreeSet::from(["HEAD.json".to_owned()]);
    let mut generations = BTreeSet::new();
    for commit in kept {
        files.extend(commit.segments.iter().map(|segment| segment.file.path.clone()));
        files.extend(commit.people.iter().map(|file| file.path.clone()));
        let clean = |built_from: u64| built_from >= newest.erased || commit.version == newest.version;
        generations.extend(
            commit
                .generation
                .iter()
                .filter(|made| clean(made.built_from))
                .map(|made| made.id.clone()),
        );
    }
    let newest_written = found
        .iter()
        .find(|found| commit::number(&found.path) == Some(newest.version))
        .map_or(Timestamp::MIN, |found| found.written);
    let ages = generation_ages(folder, found);
    let is_garbage = |found: &&Found| {
        let Some(path) = found
            .path
            .strip_prefix(folder)
            .map(|path| path.trim_start_matches('/'))
        else {
            return false;
        };
        if commit::number(&found.path).is_some() || files.contains(path) {
            return false;
        }
        let (written, before_erasure) = match generation(path) {
            Some(id) if generations.contains(id) => return false,
            // Whoever wrote it before the newest commit and has not committed yet will be refused.
            Some(id) => {
                let written = ages.get(id).copied().unwrap_or(found.written);
                (written, newest.erased > 0 && written <= newest_written)
            }
            None => (
                found.written,
                // What a faster writer has begun for the next commit has a larger number.
                number_in_name(path).is_some_and(|number| number < newest.erased),
            ),
        };
        before_erasure || now.duration_since(written) > grace.age
    };
    found
        .iter()
        .filter(is_garbage)
        .map(|found| found.path.clone())
        .collect()
}

/// When each generation was last written to. A file that was copied inside a file system keeps its old time.
fn generation_ages(folder: &str, found: &[Found]) -> BTreeMap<String, Timestamp> {
    let mut ages = BTreeMap::new();
    for found in found {
        let path = found
            .path
            .strip_prefix(folder)
            .unwrap_or_default()
            .trim_start_matches('/');
        if let Some(id) = generation(path) {
            let age = ages.entry(id.to_owned()).or_insert(found.written);
            *age = found.written.max(*age);
        }
    }
    ages
}

/// The generation that the path belongs to.
fn generation(path: &str) -> Option<&str> {
    path.strip_prefix("gen/")?.split('/').next()
}

/// The number of the commit for which a segment or a file of people was written.
fn number_in_name(path: &str) -> Option<u64> {
    let name = path
        .strip_prefix("messages/seg-")
        .or_else(|| path.strip_prefix("people-"))?;
    name.split('-').next()?.parse().ok()
}
