//! The pipeline as a whole, with stages that are simple and feel every change of their input.

mod crashes;
mod erasure;
mod imports;
mod properties;
mod simple;
mod verification;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use super::*;
use crate::message::Message;
use crate::store::tests::{faults, key, memory, message, open, start};
use crate::store::{Page, Root, latest};
use simple::Simple;

fn stages() -> Arc<dyn Stages> {
    Arc::new(Simple)
}

/// A channel with threads, edits of names, apps and messages of one second.
fn talk(count: u32) -> Vec<Message> {
    let number = |n: u32| message(n).id;
    (0..count)
        .map(|n| {
            let mut message = message(n);
            message.time = start() + SignedDuration::from_secs(i64::from(n / 3));
            message.bot = n % 17 == 5;
            match n % 5 {
                // A thread over the whole channel, one over everything near, and roots that say that they are roots.
                1 => message.thread = Some(number(0)),
                2 => message.thread = Some(number(n - n % 10)),
                3 => message.thread = Some(message.id.clone()),
                _ => {}
            }
            if n > count / 2 && message.author.id == "U3" {
                message.author.name = "Person Three".into();
            }
            if n % 23 == 7 {
                message.text = format!("scrap {}", number(n - 7));
            }
            message
        })
        .collect()
}

async fn append(channel: &mut Channel, messages: &[Message]) {
    let page = Page {
        messages: messages.to_vec(),
        ..Page::default()
    };
    channel.append(page, start()).await.unwrap();
}

async fn built(channel: &mut Channel, options: &Options) -> Built {
    build(channel, stages(), options, Arc::new(Unwatched), start())
        .await
        .unwrap()
}

/// The bytes of the generation that readers see, by path.
async fn generation(root: &Root) -> BTreeMap<String, Vec<u8>> {
    let commit = latest(root, &key().folder()).await.unwrap().unwrap();
    let folder = format!("{}/gen/{}/", key().folder(), commit.generation.unwrap().id);
    let mut files = BTreeMap::new();
    for found in root.list(&folder).await.unwrap() {
        let bytes = root.get(&found.path).await.unwrap().unwrap().to_vec();
        files.insert(found.path[folder.len()..].to_owned(), bytes);
    }
    files
}

/// The generation that these messages have, come as they may.
async fn reference(messages: &[Message]) -> BTreeMap<String, Vec<u8>> {
    let (_, root) = memory();
    let mut channel = open(&root, "reference").await;
    append(&mut channel, messages).await;
    built(&mut channel, &Options::default()).await;
    generation(&root).await
}

fn lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    let text = String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_generation_has_every_file_and_readers_are_switched_to_it() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(200)).await;
    let first = built(&mut channel, &Options::default()).await;
    let files = generation(&root).await;
    let names: Vec<_> = files
        .keys()
        .filter(|path| !path.starts_with("wiki/people/"))
        .cloned()
        .collect();
    let expected = [
        "facts.jsonl.zst",
        #[cfg(feature = "parquet")]
        "facts.parquet",
        "graph.graphml",
        "graph/entities.jsonl.zst",
        #[cfg(feature = "parquet")]
        "graph/entities.parquet",
        "graph/mentions.jsonl.zst",
        #[cfg(feature = "parquet")]
        "graph/mentions.parquet",
        "graph/relations.jsonl.zst",
        #[cfg(feature = "parquet")]
        "graph/relations.parquet",
        "graph/topics.jsonl.zst",
        "manifest.json",
        "wiki/index.md",
    ];
    assert_eq!(names, expected);
    assert_eq!((first.counts.messages, first.counts.people), (200, 7));
    assert_eq!(first.counts.pages, first.pages_written);
    let facts = lines(&files["facts.jsonl.zst"]);
    assert_eq!(facts.len() as u64, first.counts.facts);
    assert!(
        facts[0]["sourceMessageId"].is_string() && facts[0]["type"].is_string(),
        "{}",
        facts[0]
    );
    assert!(facts.iter().any(|fact| fact["supersededBy"].is_string()));
    assert!(
        facts
            .iter()
            .any(|fact| fact["text"].as_str().unwrap().contains("Person Three")),
        "names are the newest"
    );
    let head = channel.head().unwrap();
    assert_eq!((head.version, head.counts), (2, first.counts));
}

#[tokio::test]
async fn an_unchanged_build_writes_nothing() {
    let (store, _) = memory();
    let counting = faults::Faulty::new(store, faults::Fault::None);
    let root = Root::over(
        Arc::clone(&counting) as Arc<dyn object_store::ObjectStore>,
        "memory",
    );
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(100)).await;
    let first = built(&mut channel, &Options::default()).await;
    let before = counting.changes();
    let second = built(&mut open(&root, "b").await, &Options::default()).await;
    assert_eq!((second.generation, second.unchanged), (first.generation, true));
    assert_eq!(counting.changes(), before);
}

#[tokio::test]
async fn pages_that_stay_as_they_are_are_not_written_again() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    let mut messages = talk(200);
    let last = messages.pop().unwrap();
    append(&mut channel, &messages).await;
    built(&mut channel, &Options::default()).await;
    append(&mut channel, &[last]).await;
    let second = built(&mut channel, &Options::default()).await;
    assert_eq!(
        (second.pages_written, second.pages_kept),
        (2, 6),
        "the index and its author's page"
    );
    assert_eq!(generation(&root).await, reference(&talk(200)).await);
}

#[cfg(feature = "parquet")]
fn plain(field: &::parquet::record::Field) -> serde_json::Value {
    use ::parquet::record::Field;

    match field {
        Field::Null => serde_json::Value::Null,
        Field::Str(text) => text.as_str().into(),
        Field::Double(number) => (*number).into(),
        Field::Long(number) => (*number).into(),
        Field::ListInternal(list) => list.elements().iter().map(plain).collect(),
        other => other.to_string().into(),
    }
}

#[cfg(feature = "parquet")]
#[tokio::test]
async fn parquet_says_what_the_lines_say() {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};

    let files = reference(&talk(300)).await;
    for table in ["facts", "graph/entities", "graph/relations", "graph/mentions"] {
        let bytes = bytes::Bytes::from(files[&format!("{table}.parquet")].clone());
        let reader = SerializedFileReader::new(bytes).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        let lines = lines(&files[&format!("{table}.jsonl.zst")]);
        assert_eq!(rows.len(), lines.len(), "{table}");
        for (row, line) in rows.iter().zip(&lines) {
            for (name, field) in row.get_column_iter() {
                let (told, line) = (plain(field), &line[name]);
                if name == "time" || name.starts_with("valid") {
                    // The same moment, spelled differently.
                    assert_eq!(told.is_null(), line.is_null(), "{table} {name}");
                } else {
                    assert_eq!(&told, line, "{table} {name}");
                }
            }
        }
    }
}
