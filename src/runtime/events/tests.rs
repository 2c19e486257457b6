use proptest::prelude::*;

use super::*;
use crate::runtime::testing::{self, Answer, Call, failure};

fn alice() -> ObjectReference {
    ObjectReference {
        api_version: Some("composio-operator.dev/v1alpha1".into()),
        kind: Some("RedditConnection".into()),
        name: Some("alice".into()),
        namespace: Some("team".into()),
        uid: Some("u-1".into()),
        ..ObjectReference::default()
    }
}

fn normal(reason: &'static str, note: impl Into<String>) -> Announcement {
    Announcement {
        warning: false,
        reason,
        note: note.into(),
    }
}

fn warning(reason: &'static str, note: impl Into<String>) -> Announcement {
    Announcement {
        warning: true,
        ..normal(reason, note)
    }
}

struct Bench {
    publisher: Publisher,
    calls: Arc<Mutex<Vec<Call>>>,
    registry: Arc<prometheus_client::registry::Registry>,
}

impl Bench {
    fn new(answer: impl Fn(&Call) -> Answer + Clone + Send + Sync + 'static) -> Self {
        let calls = Arc::new(Mutex::new(vec![]));
        let log = calls.clone();
        let client = testing::client(move |call| {
            let answer = answer(&call);
            log.lock().unwrap().push(call);
            std::future::ready(answer)
        });
        let (metrics, registry) = Metrics::new();
        let reporter = Reporter {
            controller: "composio-operator.dev/redditconnection".into(),
            instance: Some("pod-0".into()),
        };
        Self {
            publisher: Publisher::new(client, reporter, metrics),
            calls,
            registry,
        }
    }

    /// Accepts everything.
    fn open() -> Self {
        Self::new(|call| {
            Ok((
                200,
                json!({"metadata": {"name": call.body["metadata"]["name"]}, "eventTime": null}),
            ))
        })
    }

    fn taken(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn counted(&self, outcome: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let prefix = format!("composio_operator_events_total{{outcome=\"{outcome}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .map_or(0, |count| count.parse().unwrap())
    }
}

#[tokio::test]
async fn an_event_carries_everything_the_api_server_requires() {
    let bench = Bench::open();
    bench
        .publisher
        .announce(&alice(), &warning("LinkExpired", "The link expired unused."))
        .await;
    let [call] = &bench.taken()[..] else {
        panic!("one call")
    };
    assert_eq!(
        (call.method.as_str(), call.path.as_str()),
        ("POST", "/apis/events.k8s.io/v1/namespaces/team/events")
    );
    let body = &call.body;
    assert!(body["metadata"]["name"].as_str().unwrap().starts_with("alice."));
    assert_eq!(body["metadata"]["namespace"], "team");
    assert_eq!(body["regarding"]["uid"], "u-1");
    assert!(body["eventTime"].as_str().unwrap().ends_with('Z'));
    for (field, want) in [
        ("type", "Warning"),
        ("reason", "LinkExpired"),
        ("action", "Reconcile"),
        ("note", "The link expired unused."),
        ("reportingController", "composio-operator.dev/redditconnection"),
        ("reportingInstance", "pod-0"),
    ] {
        assert_eq!(body[field], want, "{field}");
    }
    assert_eq!(bench.counted("created"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_repetition_is_counted_and_a_changed_note_is_news() {
    let bench = Bench::open();
    let say = async |note| bench.publisher.announce(&alice(), &warning("Failed", note)).await;
    say("first").await;
    let name = bench.taken()[0].body["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    say("first").await;
    say("first").await;
    assert_eq!(bench.taken(), [], "repetitions are not written one by one");
    tokio::time::advance(COUNT_EVERY).await;
    say("first").await;
    let [call] = &bench.taken()[..] else {
        panic!("one call")
    };
    assert_eq!(call.method, "PATCH");
    assert!(call.path.ends_with(&format!("/events/{name}")), "{}", call.path);
    assert_eq!(call.content_type, "application/merge-patch+json");
    assert_eq!(call.body["series"]["count"], 4);
    assert!(call.body["series"]["lastObservedTime"].is_string());
    say("second").await;
    let [call] = &bench.taken()[..] else {
        panic!("one call")
    };
    assert_eq!(
        (call.method.as_str(), &call.body["note"]),
        ("POST", &json!("second"))
    );
    assert_ne!(call.body["metadata"]["name"], name);
    assert_eq!(
        (
            bench.counted("created"),
            bench.counted("suppressed"),
            bench.counted("updated")
        ),
        (2, 2, 1)
    );
}

#[tokio::test]
async fn what_differs_in_type_reason_or_object_is_another_event() {
    let bench = Bench::open();
    let mut bob = alice();
    (bob.name, bob.uid) = (Some("bob".into()), Some("u-2".into()));
    bench.publisher.announce(&alice(), &normal("R", "note")).await;
    bench.publisher.announce(&alice(), &warning("R", "note")).await;
    bench.publisher.announce(&alice(), &normal("Q", "note")).await;
    bench.publisher.announce(&bob, &normal("R", "note")).await;
    // A newer version of the same object is the same object.
    let newer = ObjectReference {
        resource_version: Some("8".into()),
        ..alice()
    };
    bench.publisher.announce(&newer, &normal("R", "note")).await;
    assert_eq!((bench.counted("created"), bench.counted("suppressed")), (4, 1));
}

#[tokio::test]
async fn after_forget_the_same_is_news_again() {
    let bench = Bench::open();
    bench.publisher.announce(&alice(), &normal("R", "note")).await;
    bench.publisher.forget("u-2");
    bench.publisher.announce(&alice(), &normal("R", "note")).await;
    assert_eq!(bench.counted("created"), 1);
    bench.publisher.forget("u-1");
    bench.publisher.announce(&alice(), &normal("R", "note")).await;
    assert_eq!(bench.counted("created"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_expired_is_created_anew() {
    let bench = Bench::new(|call| match call.method.as_str() {
        "PATCH" => Ok(failure(404, "NotFound")),
        _ => Ok((201, json!({"metadata": {}, "eventTime": null}))),
    });
    let say = async || bench.publisher.announce(&alice(), &normal("R", "note")).await;
    say().await;
    tokio::time::advance(COUNT_EVERY).await;
    say().await;
    say().await;
    let methods: Vec<_> = bench.taken().into_iter().map(|call| call.method).collect();
    assert_eq!(methods, ["POST", "PATCH", "POST"]);
    assert_eq!(bench.counted("failed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_or_silent_api_server_does_not_fail_the_caller() {
    let refusing = Bench::new(|_| Ok(failure(403, "Forbidden")));
    refusing.publisher.announce(&alice(), &normal("R", "note")).await;
    refusing.publisher.announce(&alice(), &normal("R", "note")).await;
    assert_eq!(
        refusing.taken().len(),
        2,
        "what was not written is not remembered"
    );
    assert_eq!(refusing.counted("failed"), 2);

    let (metrics, _registry) = Metrics::new();
    let silent = Publisher::new(
        testing::client(|_| std::future::pending()),
        "controller".into(),
        metrics,
    );
    let started = Instant::now();
    silent.announce(&alice(), &normal("R", "note")).await;
    assert_eq!(started.elapsed(), WRITE_TIMEOUT);
}

#[tokio::test]
async fn a_note_is_scrubbed_and_cut() {
    let bench = Bench::open();
    let note = format!(
        "open https://connect.composio.dev/link/lk_secret {}",
        "ä".repeat(2000)
    );
    bench.publisher.announce(&alice(), &normal("R", &note)).await;
    let sent = bench.taken()[0].body["note"].as_str().unwrap().to_owned();
    assert!(sent.len() <= MAX_NOTE && sent.ends_with("ä…"), "{sent}");
    assert!(!sent.contains("secret"), "{sent}");
}

#[tokio::test]
async fn references_without_namespace_or_uid_are_published_too() {
    let bench = Bench::open();
    let node = |name: &str| ObjectReference {
        name: Some(name.into()),
        ..ObjectReference::default()
    };
    bench.publisher.announce(&node("a"), &normal("R", "note")).await;
    bench.publisher.announce(&node("b"), &normal("R", "note")).await;
    let paths: Vec<_> = bench.taken().into_iter().map(|call| call.path).collect();
    assert_eq!(paths, ["/apis/events.k8s.io/v1/namespaces/default/events"; 2]);
}

#[test]
fn names_stay_valid_and_short_enough() {
    let named = |name: String| ObjectReference {
        name: Some(name),
        ..ObjectReference::default()
    };
    assert_eq!(event_name(&named("alice".into()), 255), "alice.ff");
    let long = event_name(&named("x".repeat(253)), u64::MAX);
    assert_eq!(long.len(), MAX_NAME);
    let dotted = event_name(
        &named(format!("{}-.{}", "x".repeat(234), "y".repeat(17))),
        u64::MAX,
    );
    assert_eq!(dotted, format!("{}.ffffffffffffffff", "x".repeat(234)));
}

fn key(uid: &str) -> Key {
    Key {
        uid: uid.into(),
        object: Default::default(),
        type_: EventType::Normal,
        reason: "R",
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_by_age_and_by_number() {
    let mut ledger = Ledger::default();
    let (start, clock) = (Instant::now(), Timestamp::UNIX_EPOCH);
    ledger.next(key("first"), 0, start, clock);
    for n in 0..MAX_REMEMBERED {
        ledger.next(key(&n.to_string()), 0, start + Duration::from_secs(1), clock);
    }
    assert_eq!(ledger.entries.len(), MAX_REMEMBERED);
    assert!(
        !ledger.entries.contains_key(&key("first")),
        "the oldest goes first"
    );
    ledger.next(key("last"), 0, start + REMEMBER * 2, clock);
    assert_eq!(ledger.entries.len(), 1);
}

#[test]
fn suffixes_never_repeat_even_if_the_clock_steps_back() {
    let mut ledger = Ledger::default();
    let clock = |nanos| Timestamp::from_nanosecond(nanos).unwrap();
    let suffixes = [5, 5, 3, 9, -1].map(|nanos| ledger.unique_suffix(clock(nanos)));
    assert_eq!(suffixes, [5, 6, 7, 9, 10]);
}

proptest! {
    #[test]
    fn a_note_never_passes_the_limit_and_short_ones_are_kept(note in ".{0,1200}") {
        let kept = cut_note(&note);
        prop_assert!(kept.len() <= MAX_NOTE);
        if note.len() <= MAX_NOTE {
            prop_assert_eq!(kept, note);
        } else {
            prop_assert!(note.starts_with(kept.trim_end_matches('…')));
        }
    }
}
