//! How fast messages become a generation, and in how much memory.
//!
//! ```sh
//! cargo run -p knowledge --release --example throughput -- 1000000 [facts in a hundred messages, 20 by default] [one-thread]
//! ```
//!
//! The stages of this example are plain, so the figures are those of the pipeline: reading, spreading, contexts, merging,
//! writing. Filling the store happens in a process of its own, so that the memory shown is that of the build.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this measures time"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use knowledge::build::{GraphInput, Options, Progress, Stage, Stages, Unwatched, WikiInput, build, verify};
use knowledge::extract::{Context, Extracted, Extractor, Mention};
use knowledge::fact::{Fact, FactType, Importance};
use knowledge::graph::{Entity, EntityType, Graph, GraphMention, Predicate, Relation};
use knowledge::message::{Author, Message, Platform};
use knowledge::store::{Channel, ChannelKey, Page, Root, Writer};
use knowledge::wiki;

const WORDS: [&str; 24] = [
    "postgres", "the", "billing", "service", "we", "moved", "to", "kafka", "because", "latency", "rollback",
    "deploy", "friday", "owner", "review", "please", "index", "timeout", "cluster", "staging", "it", "was",
    "slow", "today",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", folder, count, shape] => {
            let one_thread = shape == "one-thread";
            runtime.block_on(fill(
                Path::new(folder),
                count.parse().expect("a number"),
                one_thread,
            ));
        }
        ["verify", folder, density] => {
            runtime.block_on(check(Path::new(folder), density.parse().expect("a number")));
        }
        [count] => measure(&runtime, count, 20, "threads"),
        [count, density] => measure(&runtime, count, density.parse().expect("a number"), "threads"),
        [count, density, shape] => measure(&runtime, count, density.parse().expect("a number"), shape),
        _ => eprintln!("give the number of messages"),
    }
}

fn measure(runtime: &tokio::runtime::Runtime, count: &str, density: u64, shape: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let this = std::env::current_exe().expect("this program");
    let filled = Command::new(&this)
        .arg("fill")
        .arg(folder.path())
        .arg(count)
        .arg(shape)
        .status();
    assert!(
        filled.is_ok_and(|status| status.success()),
        "the store was not filled"
    );
    runtime.block_on(run(folder.path(), density));
    let verified = Command::new(this)
        .arg("verify")
        .arg(folder.path())
        .arg(density.to_string())
        .status();
    assert!(
        verified.is_ok_and(|status| status.success()),
        "verification failed"
    );
}

fn root(folder: &Path) -> Root {
    Root::in_folder(folder.join("store")).expect("a root")
}

async fn open(folder: &Path) -> Channel {
    let key = ChannelKey::new("bench", "bench", Platform::Slack, "C1").expect("a key");
    Channel::open(&root(folder), key, Writer::new("bench", 1))
        .await
        .expect("a channel")
}

async fn fill(folder: &Path, count: u32, one_thread: bool) {
    let started = Instant::now();
    let mut channel = open(folder).await;
    for first in (0..count).step_by(1000) {
        let messages = (first..count.min(first + 1000)).map(message);
        let messages = messages.map(|message| Message {
            thread: if one_thread {
                Some("1700000000.000000".into())
            } else {
                message.thread
            },
            ..message
        });
        let messages = messages.collect();
        let page = Page {
            messages,
            ..Page::default()
        };
        channel.append(page, now()).await.expect("an append");
    }
    let segments = channel.head().map_or(0, |head| head.segments.len());
    println!(
        "fill: {count} messages in pages of 1000, {:.1} s, {segments} segments, {} MiB at most",
        started.elapsed().as_secs_f64(),
        peak()
    );
}

async fn run(folder: &Path, density: u64) {
    let mut channel = open(folder).await;
    let options = Options {
        threads: 2,
        scratch: Some(folder.to_owned()),
        ..Options::default()
    };
    let started = Instant::now();
    let built = build(
        &mut channel,
        Arc::new(Plain { density }),
        &options,
        Arc::new(Watch),
        now(),
    )
    .await
    .expect("a build");
    let seconds = started.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = built.counts.messages as f64 / seconds;
    println!(
        "build: {} messages, {} facts, {seconds:.1} s, {rate:.0} messages/s, {} MiB at most",
        built.counts.messages,
        built.counts.facts,
        peak()
    );
}

async fn check(folder: &Path, density: u64) {
    let started = Instant::now();
    let options = Options {
        threads: 1,
        scratch: Some(folder.to_owned()),
        ..Options::default()
    };
    let verified = verify(
        &root(folder),
        Arc::new(Plain { density }),
        &options,
        Arc::new(Unwatched),
    )
    .await;
    let verified = verified.expect("a verification");
    assert!(
        verified.iter().all(|channel| channel.differences.is_empty()),
        "{verified:?}"
    );
    println!(
        "verify: {} files, {:.1} s",
        verified[0].files,
        started.elapsed().as_secs_f64()
    );
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// Tells the most memory so far, where a stage begins or ends.
struct Watch;

impl Progress for Watch {
    fn at(&self, stage: Stage, done: u64, total: u64) {
        if done == 0 || done == total {
            println!("  {stage} {done} of {total}: {} MiB at most so far", peak());
        }
    }
}

/// The most memory that this process held, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap_or_default()
        / 1024
}

/// Some numbers that follow from `n` and look random.
fn mixed(n: u32, salt: u32) -> u32 {
    let mut x = n.wrapping_mul(0x9E37_79B9) ^ salt.wrapping_mul(0x85EB_CA6B);
    x ^= x >> 15;
    x = x.wrapping_mul(0x2C1B_3C6D);
    x ^ (x >> 13)
}

/// Four of ten messages are replies, half of those to what was said just before.
fn message(n: u32) -> Message {
    let id = |n: u32| format!("{}.{:06}", 1_700_000_000 + n / 2, n % 1_000_000);
    let back = match mixed(n, 1) % 10 {
        0 | 1 => Some(mixed(n, 2) % 40),
        2 | 3 => Some(mixed(n, 2) % 100_000),
        _ => None,
    };
    let thread = back
        .and_then(|back| n.checked_sub(back))
        .map(|root| root - root % 20)
        .filter(|root| *root != n);
    let mut text = String::new();
    for word in 0..8 + mixed(n, 3) % 24 {
        let _ = write!(text, "{} ", WORDS[(mixed(n, 100 + word) % 24) as usize]);
    }
    let author = mixed(n, 4) % 500;
    Message {
        platform: Platform::Slack,
        channel: "C1".into(),
        id: id(n),
        thread: thread.map(id),
        author: Author {
            id: format!("U{author}"),
            name: format!("Person Number{author}"),
        },
        time: Timestamp::from_second(1_700_000_000).expect("a time")
            + SignedDuration::from_secs(i64::from(n / 2)),
        text,
        permalink: format!("https://example.slack.com/archives/C1/p17000{n:011}"),
        edited: None,
        bot: false,
        reactions: Vec::new(),
    }
}

struct Plain {
    density: u64,
}

impl Extractor for Plain {
    fn extract(&self, message: &Message, context: &Context<'_>) -> Extracted {
        let sum = message
            .id
            .bytes()
            .fold(7u64, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        if sum % 100 >= self.density {
            return Extracted::default();
        }
        let near = context.before.len() + context.after.len() + context.earlier.len() + context.later.len();
        let thing = message.text.split(' ').next().unwrap_or_default().to_owned();
        let mention = |name: &str, kind| Mention {
            name: name.to_owned(),
            kind,
            certainty: 80,
            source_message_id: message.id.clone(),
        };
        let fact = Fact {
            id: format!("{sum:032x}"),
            text: format!("{} [{near}]", message.text.trim()),
            kind: FactType::Observation,
            author: message.author.name.clone(),
            time: message.time,
            source_message_id: message.id.clone(),
            permalink: message.permalink.clone(),
            tags: vec!["tag".into(), thing.clone()],
            entities: vec![thing.clone()],
            importance: Importance::Medium,
            quality: 0.75,
            owner: None,
            due: None,
            answers: None,
            supersedes: None,
            superseded_by: None,
        };
        Extracted {
            facts: vec![fact],
            mentions: vec![
                mention(&message.author.name, EntityType::Person),
                mention(&thing, EntityType::Technology),
            ],
            relations: vec![Relation {
                subject: message.author.name.clone(),
                predicate: Predicate::Uses,
                object: thing,
                confidence: 0.8,
                source_message_id: message.id.clone(),
                valid_from: Some(message.time),
                valid_until: None,
            }],
        }
    }
}

impl Stages for Plain {
    fn version(&self) -> String {
        "plain".into()
    }

    fn extractor(&self, _: &BTreeMap<String, String>) -> Box<dyn Extractor + '_> {
        Box::new(Plain {
            density: self.density,
        })
    }

    fn graph(&self, input: GraphInput<'_>) -> Graph {
        let mut counts: BTreeMap<(EntityType, String), u64> = BTreeMap::new();
        let mut mentions = Vec::with_capacity(input.mentions.len());
        for mention in input.mentions.iter() {
            *counts.entry((mention.kind, mention.name.clone())).or_default() += 1;
            mentions.push(GraphMention {
                entity: mention.name,
                source_message_id: mention.source_message_id,
            });
        }
        mentions.sort_unstable();
        let entity = |((kind, name), mentions)| Entity {
            name,
            kind,
            aliases: Vec::new(),
            mentions,
        };
        Graph {
            entities: counts.into_iter().map(entity).collect(),
            relations: input.relations.to_vec(),
            mentions,
            topics: Vec::new(),
        }
    }

    fn wiki(&self, source: &WikiInput<'_>) -> Vec<wiki::Page> {
        let page = |entity: &Entity| wiki::Page {
            path: format!("topics/{}.md", entity.name.to_lowercase().replace(' ', "-")),
            content: format!("# {}\n\n{} mentions\n", entity.name, entity.mentions),
        };
        source.graph.entities.iter().map(page).collect()
    }
}
