//! Nothing but the messages decides about a byte.

use proptest::prelude::*;

use super::*;
use crate::extract::Context;
use crate::message::Author;

/// How the same messages can come.
#[derive(Clone, Debug)]
struct Way {
    order: Vec<usize>,
    page: usize,
    segment: u64,
    partition: u64,
    threads: usize,
    /// After how many pages something is built already.
    builds: Vec<usize>,
    again: Vec<usize>,
}

fn way(count: usize) -> impl Strategy<Value = Way> {
    let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
    let sorted = Just((0..count).collect::<Vec<_>>());
    (
        prop_oneof![order, sorted],
        1usize..200,
        300u64..100_000,
        100u64..50_000,
        1usize..5,
        prop::collection::vec(0usize..6, 0..2),
        prop::collection::vec(0..count, 0..20),
    )
        .prop_map(|(order, page, segment, partition, threads, builds, again)| Way {
            order,
            page,
            segment,
            partition,
            threads,
            builds,
            again,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn order_pages_segments_threads_and_increments_change_no_byte(way in way(400)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let messages = talk(400);
            let (_, root) = memory();
            let mut channel = open(&root, "a").await.with_largest_segment(way.segment);
            let options = Options { threads: way.threads, partition_bytes: way.partition, ..Options::default() };
            let numbers: Vec<usize> = way.order.iter().chain(&way.again).copied().collect();
            for (place, page) in numbers.chunks(way.page).enumerate() {
                let page: Vec<Message> = page.iter().map(|n| messages[*n].clone()).collect();
                append(&mut channel, &page).await;
                if way.builds.contains(&place) {
                    built(&mut channel, &options).await;
                }
            }
            built(&mut channel, &options).await;
            let (found, expected) = (generation(&root).await, reference(&messages).await);
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            for (path, bytes) in expected {
                assert!(found[&path] == bytes, "{path} differs");
            }
        });
    }
}

#[tokio::test]
async fn a_time_that_a_platform_corrects_doubles_nothing() {
    let mut corrected = talk(100);
    let moved = &mut corrected[40];
    moved.edited = Some(start());
    moved.time = start() + SignedDuration::from_hours(5);
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(100)).await;
    append(&mut channel, &corrected[40..41]).await;
    assert_eq!(
        built(&mut channel, &Options::default()).await.counts.messages,
        100
    );
    assert_eq!(generation(&root).await, reference(&corrected).await);
}

#[tokio::test]
async fn neighbours_and_threads_are_those_of_the_contract() {
    let files = reference(&talk(2000)).await;
    let facts = lines(&files["facts.jsonl.zst"]);
    let sizes = |n: u32| {
        let fact = facts
            .iter()
            .find(|fact| fact["sourceMessageId"] == message(n).id.as_str())
            .unwrap();
        let text = fact["text"].as_str().unwrap();
        let (from, to) = (text.rfind('[').unwrap(), text.find(']').unwrap());
        text[from + 1..to].to_owned()
    };
    // The first message of the long thread, one in its middle, its last one.
    assert_eq!(sizes(0), "0, 100, 0, 8");
    assert_eq!(sizes(1001), "100, 100, 0, 0");
    assert_eq!(sizes(1996), "100, 0, 0, 0");
    // Outside of threads; in the middle of a piece of work, at its edge, and in a short thread.
    assert_eq!(sizes(1004), "0, 0, 8, 8");
    assert_eq!(sizes(1999), "0, 0, 8, 0");
    assert_eq!(sizes(1000), "0, 2, 8, 8");
    assert_eq!(sizes(1002), "1, 1, 0, 0");
}

/// The contract of [`Context`], word by word, over all messages.
fn plain_texts(messages: &[Message]) -> Vec<String> {
    let mut sorted: Vec<&Message> = messages.iter().collect();
    sorted.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    let names = sorted
        .iter()
        .map(|message| (message.author.id.clone(), message.author.name.clone()));
    let names = names.collect::<BTreeMap<_, _>>();
    let stages = stages();
    let extractor = stages.extractor(&names);
    let last = |of: &[&Message], count: usize| -> Vec<usize> {
        (of.len().saturating_sub(count)..of.len()).collect()
    };
    let mut texts = Vec::new();
    for (at, message) in sorted.iter().enumerate() {
        let (before, after) = (&sorted[..at], &sorted[at + 1..]);
        let of_thread = |other: &&&Message| other.root() == message.root();
        let no_reply = |other: &&&Message| !other.is_reply() && !message.is_reply();
        let mut earlier: Vec<&Message> = before.iter().filter(of_thread).copied().collect();
        if earlier.len() > Context::MOST {
            let newest = last(&earlier, Context::MOST - 1)
                .into_iter()
                .map(|place| earlier[place]);
            earlier = std::iter::once(earlier[0])
                .chain(newest.collect::<Vec<_>>())
                .collect();
        }
        let later: Vec<&Message> = after
            .iter()
            .filter(of_thread)
            .take(Context::MOST)
            .copied()
            .collect();
        let talk: Vec<&Message> = before.iter().filter(no_reply).copied().collect();
        let near: Vec<&Message> = last(&talk, Context::NEARBY)
            .into_iter()
            .map(|place| talk[place])
            .collect();
        let next: Vec<&Message> = after
            .iter()
            .filter(no_reply)
            .take(Context::NEARBY)
            .copied()
            .collect();
        let context = Context {
            earlier: &earlier,
            later: &later,
            before: &near,
            after: &next,
        };
        texts.extend(
            extractor
                .extract(message, &context)
                .facts
                .into_iter()
                .map(|fact| fact.text),
        );
    }
    texts
}

#[tokio::test]
async fn every_message_is_shown_with_the_surroundings_of_the_contract() {
    for partition_bytes in [300, 4 << 20] {
        let mut messages = talk(1300);
        // A thread whose first message was never read, and one whose first message is later than an answer.
        messages[700].thread = Some("missing".into());
        messages[710].thread = Some("missing".into());
        messages[720].thread = Some(messages[1295].id.clone());
        let (_, root) = memory();
        let mut channel = open(&root, "a").await;
        append(&mut channel, &messages).await;
        let options = Options {
            partition_bytes,
            ..Options::default()
        };
        built(&mut channel, &options).await;
        let facts = lines(&generation(&root).await["facts.jsonl.zst"]);
        let texts: Vec<_> = facts
            .iter()
            .map(|fact| fact["text"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(texts, plain_texts(&messages));
    }
}

#[tokio::test]
async fn what_the_platform_says_of_names_counts_more_than_messages() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(50)).await;
    let people = vec![Author {
        id: "U1".into(),
        name: "Mira Chen".into(),
    }];
    channel
        .append(
            Page {
                people,
                ..Page::default()
            },
            start(),
        )
        .await
        .unwrap();
    built(&mut channel, &Options::default()).await;
    let facts = lines(&generation(&root).await["facts.jsonl.zst"]);
    assert!(facts.iter().any(|fact| fact["author"] == "Mira Chen"));
    assert!(facts.iter().all(|fact| fact["author"] != "Person 1"));
}
