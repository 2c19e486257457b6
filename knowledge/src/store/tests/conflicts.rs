//! One winner for each number, whatever answers get lost.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use super::faults::{Fault, Faulty};
use super::*;
use crate::store::Page;
use crate::store::commit;

fn page(n: u32) -> Page {
    Page {
        messages: vec![message(n)],
        cursor: Some(n.into()),
        ..Page::default()
    }
}

/// Two writers who open the channel anew after each defeat, until each has 200 commits.
async fn race(root: Root) {
    async fn write(root: Root, name: &'static str, first: u32) -> (u64, BTreeMap<u64, u32>) {
        let mut lost = 0;
        let mut won = BTreeMap::new();
        let mut channel = open(&root, name).await;
        let mut n = first;
        while won.len() < 200 {
            match channel.append(page(n), start()).await {
                Ok(appended) => {
                    won.insert(appended.commit.unwrap(), n);
                    n += 1;
                }
                Err(StoreError::Conflict { version, .. }) => {
                    lost += 1;
                    // Who lost stays out: the same writer cannot win with what it holds.
                    let again = channel.append(page(n), start()).await.unwrap_err();
                    assert!(matches!(again, StoreError::Conflict { version: still, .. } if still == version));
                    channel = open(&root, name).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
        (lost, won)
    }
    let a = tokio::spawn(write(root.clone(), "a", 0));
    let b = tokio::spawn(write(root.clone(), "b", 1000));
    let ((_, a), (_, b)) = (a.await.unwrap(), b.await.unwrap());
    let mut all = a.clone();
    all.extend(b);
    assert_eq!(
        all.keys().copied().collect::<Vec<_>>(),
        (1..=400).collect::<Vec<_>>(),
        "one winner for each number"
    );
    let folder = key().folder();
    for (version, n) in all {
        let commit = commit::read(&root, &folder, version).await.unwrap().unwrap();
        let writer = if a.contains_key(&version) { "a" } else { "b" };
        assert_eq!((commit.writer.uid.as_str(), commit.cursor), (writer, n.into()));
    }
    let ids: Vec<_> = stored(&root)
        .await
        .unwrap()
        .into_iter()
        .map(|message| message.id)
        .collect();
    let expected: Vec<_> = (0..200).chain(1000..1200).map(|n| message(n).id).collect();
    assert_eq!(ids, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_on_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::in_folder(folder.path().to_owned()).unwrap();
    root.probe().await.unwrap();
    race(root).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_on_s3() {
    let server = super::s3::Server::start().await;
    let root = server.root();
    root.probe().await.unwrap();
    race(root).await;
}

/// `memory` with one fault, after one good commit of another writer.
async fn with_fault(fault: Fault) -> (Arc<dyn ObjectStore>, Root, Root) {
    let (store, plain) = memory();
    open(&plain, "a").await.append(page(0), start()).await.unwrap();
    let faulty = Root::over(Faulty::new(Arc::clone(&store), fault), "faulty");
    (store, plain, faulty)
}

#[tokio::test]
async fn a_lost_answer_is_a_success() {
    // The first change is the segment, the second the commit.
    for fault in [Fault::LoseAnswer(2), Fault::Early409(2), Fault::Fail(2)] {
        let (_, plain, faulty) = with_fault(fault).await;
        let mut channel = open(&faulty, "b").await;
        let appended = channel.append(page(1), start()).await.unwrap();
        assert_eq!(appended.commit, Some(2), "{fault:?}");
        assert_eq!(channel.append(page(2), start()).await.unwrap().commit, Some(3));
        assert_eq!(
            stored(&plain).await.unwrap(),
            [message(0), message(1), message(2)]
        );
    }
}

#[tokio::test]
async fn a_lost_answer_of_a_loser_is_a_defeat() {
    let (_, plain, faulty) = with_fault(Fault::Fail(2)).await;
    let mut late = open(&faulty, "b").await;
    open(&plain, "a").await.append(page(7), start()).await.unwrap();
    let error = late.append(page(1), start()).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Conflict { version: 2, .. }),
        "{error}"
    );
    assert_eq!(stored(&plain).await.unwrap(), [message(0), message(7)]);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    let (store, _) = memory();
    let root = Root::over(Faulty::new(Arc::clone(&store), Fault::Unconditional), "careless");
    let error = root.probe().await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NotConditional { root } if root == "careless"),
        "{error}"
    );
    let left = Root::over(store, "plain").list("").await.unwrap();
    assert!(left.is_empty(), "the probe is deleted: {left:?}");
}

#[tokio::test]
async fn what_the_disk_says_is_said() {
    let cases = [
        (ErrorKind::StorageFull, "is full"),
        (ErrorKind::ReadOnlyFilesystem, "refuses access"),
    ];
    for (kind, words) in cases {
        let (_, plain, faulty) = with_fault(Fault::Refuse(kind)).await;
        let error = open(&faulty, "b")
            .await
            .append(page(1), start())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words) && error.contains("faulty"), "{error}");
        assert!(faulty.probe().await.unwrap_err().to_string().contains(words));
        assert_eq!(stored(&plain).await.unwrap(), [message(0)]);
    }
}

#[tokio::test]
async fn a_folder_that_vanished_is_not_made_anew() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("mounted");
    let root = Root::in_folder(folder.clone()).unwrap();
    let mut channel = open(&root, "a").await;
    channel.append(page(0), start()).await.unwrap();
    std::fs::rename(&folder, parent.path().join("away")).unwrap();
    let error = channel.append(page(1), start()).await.unwrap_err();
    assert!(matches!(error, StoreError::Vanished { .. }), "{error}");
    assert!(!folder.exists());
    // A bare mount point is there, but the commit that this one follows is not.
    std::fs::create_dir(&folder).unwrap();
    let error = channel.append(page(1), start()).await.unwrap_err();
    assert!(matches!(error, StoreError::Vanished { .. }), "{error}");
    assert!(latest(&root, channel.folder()).await.unwrap().is_none());
}

#[tokio::test]
async fn who_slept_until_its_number_was_collected_loses_all_the_same() {
    for parent in [0, 1] {
        let (_, root) = memory();
        if parent == 1 {
            open(&root, "a").await.append(page(0), start()).await.unwrap();
        }
        let mut sleeper = open(&root, "sleeper").await;
        let mut awake = open(&root, "b").await;
        for n in 1..30 {
            awake.append(page(n), start()).await.unwrap();
        }
        let later = Timestamp::now() + SignedDuration::from_hours(48);
        assert!(
            awake
                .collect(crate::store::Grace::default(), later)
                .await
                .unwrap()
                .commits
                > 10
        );
        let error = sleeper.append(page(500), start()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        let all = stored(&root).await.unwrap();
        assert!(all.iter().all(|held| *held != message(500)));
        assert_eq!(
            latest(&root, sleeper.folder()).await.unwrap().unwrap().version,
            29 + parent
        );
    }
}

/// A writer that dies at any change, before or after its effect; another goes on.
#[tokio::test]
async fn a_crash_at_any_change_loses_and_doubles_nothing() {
    let pages: Vec<u32> = (0..20).collect();
    for n in 1.. {
        let mut died = false;
        for fault in [Fault::DieBefore(n), Fault::DieAfter(n)] {
            let (store, plain) = memory();
            let dying = Root::over(Faulty::new(store, fault), "dying");
            let mut channel = open(&dying, "a").await;
            for n in &pages {
                if channel.append(page(*n), start()).await.is_err() {
                    died = true;
                    break;
                }
            }
            let mut channel = open(&plain, "b").await;
            let next = channel.head().map_or(0, |head| head.cursor.as_u64().unwrap() + 1);
            for n in &pages[usize::try_from(next).unwrap()..] {
                channel.append(page(*n), start()).await.unwrap();
            }
            let expected: Vec<_> = pages.iter().copied().map(message).collect();
            assert_eq!(stored(&plain).await.unwrap(), expected, "{fault:?}");
            assert_eq!(channel.head().unwrap().counts.messages, 20, "{fault:?}");
        }
        if !died {
            assert!(
                n > 40,
                "there is a change to die at for each segment and each commit"
            );
            break;
        }
    }
}

#[test]
fn roots_are_named_by_url_or_path() {
    let folder = tempfile::tempdir().unwrap();
    let open = |url: &str| Root::open(url, []).map(|root| root.name().to_owned());
    let path = folder.path().join("made here").display().to_string();
    assert_eq!(open(&path).unwrap(), format!("{path}/"));
    assert!(folder.path().join("made here").is_dir());
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    assert!(open(url.as_str()).is_ok());
    for wrong in [
        "ftp://host/SECRET?token=SECRET",
        "s3://",
        "file://host/share",
        "nonsense://u:SECRET@h/x",
    ] {
        let error = open(wrong).unwrap_err();
        assert!(matches!(error, StoreError::BadName { .. }), "{error}");
        assert!(
            !error.to_string().contains("=SECRET") && !error.to_string().contains(":SECRET"),
            "{error}"
        );
    }
}
