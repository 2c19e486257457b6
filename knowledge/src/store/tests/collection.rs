//! What goes and what stays.

use super::*;
use crate::store::{Appended, Collected, Grace, Page};

fn page(numbers: impl IntoIterator<Item = u32>) -> Page {
    Page {
        messages: numbers.into_iter().map(message).collect(),
        ..Page::default()
    }
}

const CANARY: &str = "kestrel-canary-4711";

/// Every file under the folder that holds the words, compressed or not.
pub(crate) fn holding(folder: &std::path::Path, words: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            let plain = zstd::decode_all(&bytes[..]).unwrap_or_default();
            let holds = |bytes: &[u8]| {
                bytes
                    .windows(words.len())
                    .any(|window| window == words.as_bytes())
            };
            if holds(&bytes) || holds(&plain) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

#[tokio::test]
async fn the_text_of_a_deleted_message_is_in_no_byte_after_collection() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::in_folder(folder.path().to_owned()).unwrap();
    let mut channel = open(&root, "a").await;
    let mut told = message(3);
    told.text = format!("the code is {CANARY}");
    let mut edited = told.clone();
    edited.text = format!("the code was {CANARY}, forget it");
    edited.edited = Some(start());
    for n in 0..12 {
        channel.append(page([n]), start()).await.unwrap();
        channel
            .append(
                Page {
                    messages: vec![told.clone()],
                    ..Page::default()
                },
                start(),
            )
            .await
            .unwrap();
    }
    channel
        .append(
            Page {
                messages: vec![edited],
                ..Page::default()
            },
            start(),
        )
        .await
        .unwrap();
    // A writer that was killed in the middle of a put.
    let leftover = folder
        .path()
        .join(channel.folder())
        .join("messages/seg-x.jsonl.zst#1");
    std::fs::write(&leftover, CANARY).unwrap();
    assert!(holding(folder.path(), CANARY).len() > 3);

    let deletion = Page {
        deleted: vec![told.id.clone()],
        ..Page::default()
    };
    let gone = channel.append(deletion.clone(), start()).await.unwrap();
    assert_eq!(gone.deleted, 1);
    let now = Timestamp::now();
    channel.collect(Grace::default(), now).await.unwrap();
    assert_eq!(holding(folder.path(), CANARY), [""; 0]);
    let expected: Vec<_> = (0..12).filter(|n| *n != 3).map(message).collect();
    assert_eq!(stored(&root).await.unwrap(), expected);
    assert_eq!(
        channel.append(deletion, start()).await.unwrap(),
        Appended::default(),
        "it is deleted once"
    );
    assert_eq!(
        channel.collect(Grace::default(), now).await.unwrap(),
        Collected::default()
    );
}

#[tokio::test]
async fn readers_keep_what_is_young_and_the_newest_commits() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    for n in 0..30 {
        channel.append(page([n]), start()).await.unwrap();
    }
    let now = Timestamp::now();
    assert_eq!(
        channel.collect(Grace::default(), now).await.unwrap(),
        Collected::default()
    );
    let tomorrow = now + SignedDuration::from_hours(25);
    let collected = channel.collect(Grace::default(), tomorrow).await.unwrap();
    assert_eq!(collected.commits, 20);
    assert!(collected.files > 0);
    let folder = key().folder();
    for version in 21..=30 {
        let commit = crate::store::commit::read(&root, &folder, version)
            .await
            .unwrap()
            .unwrap();
        for segment in &commit.segments {
            root.get_whole(&folder, &segment.file).await.unwrap();
        }
    }
    assert_eq!(
        stored(&root).await.unwrap(),
        (0..30).map(message).collect::<Vec<_>>()
    );
    let mut reopened = open(&root, "b").await;
    assert_eq!(
        reopened.append(page([30]), start()).await.unwrap().commit,
        Some(31)
    );
}

#[tokio::test]
async fn what_a_faster_writer_has_begun_stays() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    channel.append(page([0, 1]), start()).await.unwrap();
    channel
        .append(
            Page {
                deleted: vec![message(0).id],
                ..Page::default()
            },
            start(),
        )
        .await
        .unwrap();
    let begun = format!("{}/messages/seg-{:020}-abc-0.jsonl.zst", channel.folder(), 3);
    let stale = format!("{}/messages/seg-{:020}-abc-0.jsonl.zst", channel.folder(), 1);
    root.put(&begun, "begun".into()).await.unwrap();
    root.put(&stale, "stale".into()).await.unwrap();
    channel.collect(Grace::default(), Timestamp::now()).await.unwrap();
    assert!(root.exists(&begun).await.unwrap());
    assert!(!root.exists(&stale).await.unwrap());
}

#[tokio::test]
async fn leftovers_of_killed_writers_go_after_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::in_folder(folder.path().to_owned()).unwrap();
    let mut channel = open(&root, "a").await;
    channel.append(page([0]), start()).await.unwrap();
    let commits = folder.path().join(channel.folder()).join("commits");
    std::fs::write(commits.join("00000000000000000002.json#1"), "{").unwrap();
    std::fs::write(commits.join("notes#today"), "mine").unwrap();
    let now = Timestamp::now();
    let swept = |hours: i64| {
        root.sweep("", now + SignedDuration::from_hours(hours), false)
            .unwrap()
    };
    assert_eq!((swept(0), swept(2), swept(2)), (0, 1, 0));
    assert!(commits.join("notes#today").exists());
    assert_eq!(stored(&root).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_deleted_channel_leaves_its_neighbours_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::in_folder(folder.path().to_owned()).unwrap();
    open(&root, "a").await.append(page([0]), start()).await.unwrap();
    let other = ChannelKey::new("test", "team-b", Platform::Slack, "C0AB12CD3").unwrap();
    let mut neighbour = Channel::open(&root, other.clone(), Writer::new("b", 1))
        .await
        .unwrap();
    neighbour.append(page([1]), start()).await.unwrap();
    assert_eq!(root.channels().await.unwrap(), [key().folder(), other.folder()]);
    Channel::delete(&root, &key()).await.unwrap();
    Channel::delete(&root, &key()).await.unwrap();
    assert_eq!(root.channels().await.unwrap(), [other.folder()]);
    assert!(stored(&root).await.unwrap().is_empty());
    assert!(!folder.path().join("test/team-a").exists());
}
