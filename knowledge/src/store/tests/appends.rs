//! Pages in, messages out.

use proptest::prelude::*;

use super::*;
use crate::message::Reaction;
use crate::store::{Appended, Page};

fn page(messages: impl IntoIterator<Item = Message>) -> Page {
    Page {
        messages: messages.into_iter().collect(),
        ..Page::default()
    }
}

#[tokio::test]
async fn what_was_appended_is_read_back_with_cursor_and_people() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    let appended = channel
        .append(
            Page {
                messages: vec![message(2), message(1)],
                cursor: Some(serde_json::json!({"oldest": "1772445600.000002"})),
                people: vec![Author {
                    id: "U1".into(),
                    name: "Mira Chen".into(),
                }],
                title: Some("billing".into()),
                ..Page::default()
            },
            start(),
        )
        .await
        .unwrap();
    assert_eq!(
        appended,
        Appended {
            commit: Some(1),
            new: 2,
            ..Appended::default()
        }
    );
    assert_eq!(stored(&root).await.unwrap(), [message(1), message(2)]);
    let commit = latest(&root, &key().folder()).await.unwrap().unwrap();
    assert_eq!(commit.cursor["oldest"], "1772445600.000002");
    assert_eq!(
        (commit.parent, commit.counts.messages, commit.title.as_deref()),
        (0, 2, Some("billing"))
    );
    assert_eq!(open(&root, "b").await.people().await.unwrap()["U1"], "Mira Chen");
}

#[tokio::test]
async fn a_page_without_news_writes_nothing() {
    let (store, _) = memory();
    let counting = faults::Faulty::new(store, faults::Fault::None);
    let root = Root::over(Arc::clone(&counting) as Arc<dyn ObjectStore>, "memory");
    let all = || Page {
        messages: (0..50).map(message).collect(),
        cursor: Some(serde_json::json!(50)),
        people: vec![Author {
            id: "U1".into(),
            name: "Mira Chen".into(),
        }],
        gaps: Some(Vec::new()),
        ..Page::default()
    };
    open(&root, "a").await.append(all(), start()).await.unwrap();
    let before = counting.changes();
    let again = open(&root, "b").await.append(all(), start()).await.unwrap();
    assert_eq!(again, Appended::default());
    assert_eq!(counting.changes(), before);
}

#[tokio::test]
async fn of_two_names_the_last_one_stays_and_is_no_news_the_next_time() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    let named = |name: &str| Author {
        id: "U1".into(),
        name: name.into(),
    };
    let page = Page {
        people: vec![named("Mira"), named("Mira Chen")],
        ..Page::default()
    };
    assert_eq!(
        channel.append(page.clone(), start()).await.unwrap().commit,
        Some(1)
    );
    assert_eq!(channel.append(page, start()).await.unwrap().commit, None);
    assert_eq!(channel.people().await.unwrap()["U1"], "Mira Chen");
}

#[tokio::test]
async fn the_newest_version_wins_whatever_comes_first() {
    let mut edited = message(1);
    edited.text = "message number one".into();
    edited.edited = Some(start());
    let mut liked = message(1);
    liked.reactions = vec![Reaction {
        name: "+1".into(),
        count: 3,
    }];
    let mut other = message(1);
    other.text = "the same time, other words".into();
    let versions = [message(1), edited.clone(), liked, other];
    for first in 0..4 {
        for second in 0..4 {
            let (_, root) = memory();
            let mut channel = open(&root, "a").await;
            for place in [first, second, 0, 1, 2, 3] {
                channel
                    .append(page([versions[place].clone()]), start())
                    .await
                    .unwrap();
            }
            assert_eq!(stored(&root).await.unwrap(), std::slice::from_ref(&edited));
            assert_eq!(channel.head().unwrap().counts.messages, 1);
        }
    }
}

#[tokio::test]
async fn a_damaged_segment_is_named() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    channel.append(page([message(1)]), start()).await.unwrap();
    let segment = channel.head().unwrap().segments[0].file.path.clone();
    let path = format!("{}/{segment}", channel.folder());
    let mut bytes = root.get(&path).await.unwrap().unwrap().to_vec();
    bytes[12] ^= 1;
    root.put(&path, bytes.into()).await.unwrap();
    let error = stored(&root).await.unwrap_err().to_string();
    assert!(error.contains(&segment) && error.contains("sha256"), "{error}");
    root.delete(&path).await.unwrap();
    let error = stored(&root).await.unwrap_err().to_string();
    assert!(error.contains(&segment) && error.contains("missing"), "{error}");
}

#[tokio::test]
async fn hints_may_be_missing_old_or_wrong() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    for n in 0..5 {
        channel.append(page([message(n)]), start()).await.unwrap();
    }
    let head = format!("{}/HEAD.json", key().folder());
    for hint in [
        r#"{"version":2}"#,
        r#"{"version":999}"#,
        r#"{"version":0}"#,
        "garbage",
        "",
    ] {
        root.put(&head, hint.as_bytes().to_vec().into()).await.unwrap();
        assert_eq!(
            latest(&root, &key().folder()).await.unwrap().unwrap().version,
            5,
            "{hint}"
        );
    }
    root.delete(&head).await.unwrap();
    assert_eq!(latest(&root, &key().folder()).await.unwrap().unwrap().version, 5);
}

/// One thing that happens to a channel.
#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u32>),
    Edit(u32, i64),
    Delete(Vec<u32>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(0u32..60, 1..12).prop_map(Step::Put),
        2 => (0u32..60, 1i64..50).prop_map(|(n, at)| Step::Edit(n, at)),
        1 => prop::collection::vec(0u32..60, 1..4).prop_map(Step::Delete),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against a plain map: segments of any size, compaction, edits, deletions and new writers change nothing.
    #[test]
    fn the_store_holds_what_a_map_would(steps in prop::collection::vec(step(), 1..60), largest in 200u64..5000) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_, root) = memory();
            let mut model = std::collections::BTreeMap::new();
            let mut channel = open(&root, "a").await.with_largest_segment(largest);
            for step in steps {
                let mut next = Page::default();
                match step {
                    Step::Put(numbers) => next.messages = numbers.into_iter().map(message).collect(),
                    Step::Edit(n, at) => {
                        let mut edited = message(n);
                        edited.text = format!("edited at {at}");
                        edited.edited = Some(start() + SignedDuration::from_secs(at));
                        next.messages.push(edited);
                    }
                    Step::Delete(numbers) => {
                        next.deleted = numbers.into_iter().map(|n| message(n).id).collect();
                    }
                    Step::Reopen => channel = open(&root, "b").await.with_largest_segment(largest),
                }
                for message in &next.messages {
                    let held: &mut Message = model.entry(message.id.clone()).or_insert_with(|| message.clone());
                    if message.edited > held.edited {
                        *held = message.clone();
                    }
                }
                for id in &next.deleted {
                    model.remove(id);
                }
                channel.append(next, start()).await.unwrap();
                assert_eq!(channel.head().map_or(0, |head| head.counts.messages), model.len() as u64);
            }
            assert_eq!(stored(&root).await.unwrap(), model.into_values().collect::<Vec<_>>());
            let small = channel.head().map_or(0, |head| head.segments.len());
            assert!(small <= 24 + 60 * 400 / usize::try_from(largest).unwrap(), "{small}");
        });
    }
}
