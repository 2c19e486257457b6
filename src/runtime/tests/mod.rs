//! The frame itself, with a small controller in it: what every controller gets without saying anything.

mod widget;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use self::widget::{Store, Widget, Widgets};
use super::failure::Failure;
use super::reconcile::{Error, Reconciled, reconcile};
use super::supervise::{EarlyEnds, Supervisor};
use super::testing::{self, ApiServer, Intercept, ManualClock, failure};
use super::wake_ups::ObjectKey;
use super::watch::{self, Namespaces};
use super::{Context, Controller};
use crate::api::conditions::{READY, RECONCILING, find, is_true};
use crate::api::{REQUESTED_AT_ANNOTATION, Reason};
use crate::telemetry::metrics::Outcome;
use crate::telemetry::server::Readiness;

struct Bench {
    api: ApiServer,
    supervisor: Arc<Supervisor<Widgets>>,
    clock: ManualClock,
    registry: Arc<Registry>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Context)) -> Self {
        let api = ApiServer::new();
        let clock = ManualClock::at("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
        let (mut cx, registry) = testing::context(api.client(), clock.clock());
        change(&mut cx);
        let supervisor = Arc::new(Supervisor {
            controller: Arc::new(Widgets::default()),
            cx: Arc::new(cx),
            early_ends: EarlyEnds::default(),
        });
        let object = json!({
            "apiVersion": "test.dev/v1", "kind": "Widget",
            "metadata": {"name": "one", "namespace": "team"}, "spec": {"item": "lamp"},
        });
        api.create::<Widget>(&serde_json::from_value(object).unwrap());
        Self {
            api,
            supervisor,
            clock,
            registry,
        }
    }

    fn widgets(&self) -> &Widgets {
        &self.supervisor.controller
    }

    fn store(&self, store: Store) {
        *self.widgets().store.lock().unwrap() = store;
    }

    /// How often the store was called.
    fn calls(&self) -> usize {
        self.widgets().calls.lock().unwrap().len()
    }

    fn object(&self) -> Widget {
        self.api.get("team", "one").unwrap()
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        self.api.edit::<Widget>("team", "one", change);
    }

    async fn reconcile(&self) -> Result<Reconciled, Error> {
        reconcile(self.widgets(), &self.supervisor.cx, self.object()).await
    }

    /// A reconcile as the watch causes it.
    async fn supervised(&self) -> Action {
        let object = Arc::new(DeserializeGuard(Ok(self.object())));
        Arc::clone(&self.supervisor).reconcile(object).await
    }

    fn ready_reason(&self) -> String {
        let status = self.object().status.unwrap();
        find(&status.conditions, READY).unwrap().reason.clone()
    }

    /// Type and reason of the events so far.
    fn events(&self) -> Vec<(String, String)> {
        let calls = self.api.calls();
        let created = calls.iter().filter(|call| call.path.ends_with("/events"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        created
            .map(|call| (text(&call.body["type"]), text(&call.body["reason"])))
            .collect()
    }

    /// The statuses that were written.
    fn statuses(&self) -> Vec<Value> {
        let calls = self.api.calls();
        let written = calls.iter().filter(|call| call.path.ends_with("/status"));
        written.map(|call| call.body["status"].clone()).collect()
    }

    fn counts(&self, line: &str) -> bool {
        testing::exposition(&self.registry).contains(line)
    }
}

fn down() -> Failure {
    Failure::transient(Reason::ComposioUnavailable, "down")
}

fn wait_of(action: &Action) -> Duration {
    // Action does not show its time but in its debug form.
    let shown = format!("{action:?}");
    let (_, rest) = shown.split_once("Some(").unwrap_or_else(|| panic!("{shown}"));
    let seconds: f64 = rest.split('s').next().unwrap().parse().unwrap();
    Duration::from_secs_f64(seconds)
}

#[tokio::test]
async fn an_object_gets_its_finalizer_then_its_step_then_its_status_and_is_then_left_alone() {
    let bench = Bench::new();
    let first = bench.reconcile().await.unwrap();
    assert_eq!(first.outcome, Outcome::Applied);
    let object = bench.object();
    assert_eq!(object.finalizers(), ["test.dev/store"]);
    let status = object.status.unwrap();
    assert!(is_true(&status.conditions, READY));
    assert_eq!(
        (status.observed_generation, status.stored.as_deref()),
        (Some(1), Some("lamp"))
    );
    assert_eq!(bench.events(), [("Normal".to_owned(), "Stored".to_owned())]);

    bench.api.clear_calls();
    let second = bench.reconcile().await.unwrap();
    assert_eq!(
        (second.outcome, bench.api.calls().len(), bench.calls()),
        (Outcome::Unchanged, 0, 1)
    );
}

#[tokio::test]
async fn the_finalizer_is_on_the_object_before_anything_is_stored() {
    let bench = Bench::new();
    bench.api.intercept(|call| {
        (call.content_type == "application/json-patch+json")
            .then(|| Intercept::Answer(Ok(failure(403, "Forbidden"))))
    });
    bench.reconcile().await.unwrap_err();
    assert_eq!(bench.calls(), 0);
}

#[tokio::test]
async fn a_deleted_object_is_cleaned_up_and_released() {
    let bench = Bench::new();
    bench.reconcile().await.unwrap();
    bench.api.delete::<Widget>("team", "one");
    bench.reconcile().await.unwrap();
    assert!(bench.api.get::<Widget>("team", "one").is_none());
    assert!(bench.widgets().items.lock().unwrap().is_empty());
    assert_eq!(*bench.widgets().deleted.lock().unwrap(), ["one"]);
}

#[tokio::test]
async fn a_clean_up_that_never_works_is_given_up_with_a_warning() {
    let bench = Bench::new();
    bench.reconcile().await.unwrap();
    bench.api.delete::<Widget>("team", "one");
    bench.store(Store::Fails(Failure::stalled(Reason::ApiKeyRejected, "no")));
    let mut tries = 0;
    while bench.api.get::<Widget>("team", "one").is_some() {
        bench.reconcile().await.unwrap();
        bench.clock.advance(Duration::from_mins(7));
        tries += 1;
        assert!(tries < 40, "{:#?}", bench.object().status);
    }
    assert_eq!(bench.calls(), 1 + 8, "a person could fix it, and did not");
    assert_eq!(tries, 9);
    let last = bench.events().pop().unwrap();
    assert_eq!(last, ("Warning".to_owned(), "CleanupAbandoned".to_owned()));
}

/// Found as objects that could not be deleted while something else used up the limit of their key; and they must not be
/// given up while Composio only asks for patience.
#[tokio::test]
async fn a_clean_up_that_is_always_throttled_is_given_up_after_two_hours() {
    let bench = Bench::new();
    bench.reconcile().await.unwrap();
    bench.api.delete::<Widget>("team", "one");
    let deleted_at = bench.object().metadata.deletion_timestamp.unwrap().0;
    bench.clock.set(deleted_at);
    let patience = Some(Duration::from_secs(30));
    bench.store(Store::Fails(Failure::waiting(Reason::RateLimited, "", patience)));
    let mut passed = Duration::ZERO;
    while bench.api.get::<Widget>("team", "one").is_some() {
        bench.reconcile().await.unwrap();
        bench.clock.advance(Duration::from_mins(1));
        passed += Duration::from_mins(1);
        assert!(passed < Duration::from_hours(3), "{:#?}", bench.object().status);
    }
    assert!(passed > Duration::from_hours(2), "{passed:?}");
    let last = bench.events().pop().unwrap();
    assert_eq!(last, ("Warning".to_owned(), "CleanupAbandoned".to_owned()));
}

#[tokio::test]
async fn a_failure_from_before_the_deletion_does_not_delay_it() {
    let bench = Bench::new();
    bench.reconcile().await.unwrap();
    bench.edit(|object| object["spec"]["item"] = "chair".into());
    bench.store(Store::Fails(Failure::stalled(Reason::LinkRefused, "no")));
    bench.reconcile().await.unwrap();
    bench.edit(|object| object["spec"]["item"] = "lamp".into());
    bench.store(Store::Works);
    bench.api.delete::<Widget>("team", "one");
    bench.reconcile().await.unwrap();
    assert!(bench.api.get::<Widget>("team", "one").is_none());
}

#[tokio::test]
async fn a_suspended_object_is_marked_and_nothing_else() {
    let bench = Bench::new();
    bench.edit(|object| object["spec"]["suspend"] = true.into());
    bench.reconcile().await.unwrap();
    assert_eq!((bench.ready_reason().as_str(), bench.calls()), ("Suspended", 0));
    bench.edit(|object| object["spec"]["suspend"] = false.into());
    bench.reconcile().await.unwrap();
    assert_eq!((bench.ready_reason().as_str(), bench.calls()), ("Stored", 1));
}

#[tokio::test]
async fn after_a_failure_nothing_is_tried_before_its_time_unless_somebody_asks() {
    let bench = Bench::new();
    bench.store(Store::Fails(down()));
    let failed = bench.reconcile().await.unwrap();
    assert_eq!((failed.outcome, bench.calls()), (Outcome::Failed, 1));
    assert_eq!(bench.ready_reason(), "ComposioUnavailable");
    assert!(is_true(&bench.object().status.unwrap().conditions, RECONCILING));
    assert!(bench.counts(r#"failures_total{controller="widget",reason="ComposioUnavailable"} 1"#));

    bench.reconcile().await.unwrap();
    assert_eq!(bench.calls(), 1, "too early");
    bench.edit(|object| object["metadata"]["annotations"] = json!({ REQUESTED_AT_ANNOTATION: "now" }));
    bench.reconcile().await.unwrap();
    assert_eq!(bench.calls(), 2, "somebody asked");
    let status = bench.object().status.unwrap();
    assert_eq!(
        status.last_handled_request_at, None,
        "what may pass leaves it open"
    );
    bench.reconcile().await.unwrap();
    assert_eq!(bench.calls(), 2, "and asking once more takes another token");

    bench.clock.advance(Duration::from_mins(6));
    bench.reconcile().await.unwrap();
    bench.clock.advance(Duration::from_mins(6));
    bench.reconcile().await.unwrap();
    assert_eq!(bench.object().status.unwrap().retry.unwrap().failures, 3);
    bench.store(Store::Works);
    bench.clock.advance(Duration::from_mins(6));
    bench.reconcile().await.unwrap();
    assert_eq!(
        (
            bench.ready_reason().as_str(),
            bench.object().status.unwrap().retry
        ),
        ("Stored", None)
    );
    let status = bench.object().status.unwrap();
    assert_eq!(
        status.last_handled_request_at.as_deref(),
        Some("now"),
        "it is done"
    );
}

#[tokio::test]
async fn a_failure_that_only_a_person_can_fix_answers_a_request() {
    let bench = Bench::new();
    bench.store(Store::Fails(Failure::stalled(Reason::LinkRefused, "no")));
    bench.edit(|object| object["metadata"]["annotations"] = json!({ REQUESTED_AT_ANNOTATION: "now" }));
    bench.reconcile().await.unwrap();
    let status = bench.object().status.unwrap();
    assert_eq!(status.last_handled_request_at.as_deref(), Some("now"));
}

#[tokio::test]
async fn a_status_never_calls_a_spec_observed_that_its_conditions_do_not_speak_of() {
    let bench = Bench::new();
    bench.reconcile().await.unwrap();
    let mut own = serde_json::to_value(bench.object()).unwrap();
    let condition = json!({"type": "Tested", "status": "True", "reason": "Tried", "message": "",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    own["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(condition);
    bench.api.replace::<Widget>(&serde_json::from_value(own).unwrap());
    bench.edit(|object| object["spec"]["item"] = "chair".into());
    bench.reconcile().await.unwrap();
    let generation = bench.object().metadata.generation;
    for written in bench.statuses() {
        let conditions = written["conditions"]
            .as_array()
            .expect("no status without conditions");
        for condition in conditions {
            assert_eq!(
                condition["observedGeneration"], written["observedGeneration"],
                "{written:#}"
            );
        }
    }
    let status = bench.object().status.unwrap();
    assert_eq!(status.observed_generation, generation);
    assert!(is_true(&status.conditions, "Tested"));
}

/// Found as an object that was called ready for a spec that nobody had carried out.
#[tokio::test]
async fn what_is_ready_while_suspended_is_the_spec_that_was_carried_out_last() {
    let bench = Bench::new();
    bench.reconcile().await.unwrap();
    let carried_out = bench.object().metadata.generation;
    bench.edit(|object| object["spec"] = json!({"item": "chair", "suspend": true}));
    bench.reconcile().await.unwrap();
    let status = bench.object().status.unwrap();
    let ready = find(&status.conditions, READY).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("True", "Suspended")
    );
    assert_eq!(
        (status.observed_generation, ready.observed_generation),
        (carried_out, carried_out)
    );
    let before = bench.statuses().len();
    bench.reconcile().await.unwrap();
    assert_eq!(bench.statuses().len(), before, "said once");
}

#[tokio::test]
async fn a_plan_that_never_ends_is_cut_off() {
    let bench = Bench::new();
    bench.store(Store::Lies);
    assert!(matches!(bench.reconcile().await, Err(Error::TooManySteps)));
    bench.supervised().await;
    assert!(
        bench
            .events()
            .contains(&("Warning".to_owned(), "TooManySteps".to_owned()))
    );
}

#[tokio::test]
async fn a_step_is_not_taken_on_the_word_of_an_old_watch_event() {
    let bench = Bench::new();
    let old = bench.object();
    bench.edit(|object| object["spec"]["suspend"] = true.into());
    // The finalizer is added to whatever version there is; the step needs the object as it is.
    reconcile(bench.widgets(), &bench.supervisor.cx, old.clone())
        .await
        .unwrap();
    assert_eq!(bench.calls(), 0);
    bench.edit(|object| object["metadata"]["finalizers"] = json!([]));
    bench.api.remove::<Widget>("team", "one");
    let mut old = old;
    old.metadata.finalizers = Some(vec!["test.dev/store".to_owned()]);
    reconcile(bench.widgets(), &bench.supervisor.cx, old)
        .await
        .unwrap();
    assert_eq!(
        (bench.calls(), bench.widgets().deleted.lock().unwrap().len()),
        (0, 1),
        "it is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_no_failure_and_what_must_be_recorded_is_recorded_all_the_same() {
    let bench = Bench::new();
    let api = bench.api.clone();
    // Somebody edits the object whenever its status is about to be written.
    bench.api.intercept(move |call| {
        if call.path.ends_with("/status") && call.body["status"]["stored"].is_string() {
            let edits = api.calls().len();
            api.edit::<Widget>("team", "one", |object| {
                object["metadata"]["labels"] = json!({ "edit": (edits / 40).to_string() });
            });
        }
        None
    });
    bench.supervised().await;
    assert_eq!(bench.object().status.unwrap().stored.as_deref(), Some("lamp"));
    assert_eq!(bench.calls(), 1);

    let bench = Bench::new();
    bench.api.intercept(|call| {
        call.path
            .ends_with("/status")
            .then(|| Intercept::Answer(Ok(failure(409, "Conflict"))))
    });
    bench.store(Store::Fails(down()));
    let again = bench.supervised().await;
    assert_eq!(again, Action::requeue(Duration::from_millis(250)));
    assert_eq!(bench.events(), []);
    assert!(bench.counts(r#"reconcile_total{controller="widget",outcome="waiting"} 1"#));
}

#[tokio::test]
async fn a_replica_that_does_not_lead_takes_no_step() {
    use super::lease::{Leadership, LeaseConfig};

    let bench = Bench::with(|cx| {
        // A lease that is never acquired, because nothing answers.
        let client = testing::client(|_| std::future::pending());
        let lease = LeaseConfig {
            namespace: "team".to_owned(),
            name: "lease".to_owned(),
            identity: "me".to_owned(),
            duration: Duration::from_secs(15),
        };
        cx.leadership = Leadership::contend(client, lease);
    });
    assert!(matches!(bench.reconcile().await, Err(Error::NotLeader)));
    assert_eq!(bench.calls(), 0);
    assert_eq!(bench.supervised().await, Action::await_change());
    bench.edit(|object| object["spec"]["suspend"] = true.into());
    assert!(matches!(bench.reconcile().await, Err(Error::NotLeader)));
    assert_eq!(bench.statuses(), [json!(null); 0], "nor writes a status");
}

#[tokio::test(start_paused = true)]
async fn a_status_whose_answer_is_lost_is_written_again_and_nothing_is_done_twice() {
    let bench = Bench::new();
    bench.api.intercept(|call| {
        let lost = || Intercept::EffectThen(Err(std::io::ErrorKind::ConnectionReset.into()));
        (call.path.ends_with("/status") && call.body["status"]["conditions"] == json!([])).then(lost)
    });
    bench.supervised().await;
    bench.api.clear_intercept();
    bench.supervised().await;
    assert_eq!((bench.ready_reason().as_str(), bench.calls()), ("Stored", 1));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_delays_an_object_and_costs_nothing() {
    for hangs in [|| Intercept::Hang, || Intercept::HangBefore] {
        let bench = Bench::new();
        bench
            .api
            .intercept(move |call| (call.method == "PATCH").then(hangs));
        ends_early(&bench, "ReconcileTimedOut").await;
        bench.api.clear_intercept();
        bench.supervised().await;
        assert_eq!((bench.ready_reason().as_str(), bench.calls()), ("Stored", 1));
    }
}

/// Each early end becomes an event and a reason in metrics, and the wait grows.
async fn ends_early(bench: &Bench, reason: &str) {
    let first = wait_of(&bench.supervised().await);
    let second = wait_of(&bench.supervised().await);
    assert!(
        second > first && first >= Duration::from_secs(5),
        "{first:?} {second:?}"
    );
    assert_eq!(bench.events()[0], ("Warning".to_owned(), reason.to_owned()));
    let line = format!(r#"failures_total{{controller="widget",reason="{reason}"}} 2"#);
    assert!(bench.counts(&line), "{}", testing::exposition(&bench.registry));
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_hangs_is_ended_and_reported() {
    let bench = Bench::new();
    bench.store(Store::Hangs);
    ends_early(&bench, "ReconcileTimedOut").await;
}

#[tokio::test]
async fn a_panic_is_the_failure_of_one_object() {
    let bench = Bench::new();
    bench.store(Store::Panics);
    ends_early(&bench, "ReconcilePanicked").await;
    bench.store(Store::Works);
    bench.supervised().await;
    assert_eq!(bench.ready_reason(), "Stored");
}

#[tokio::test]
async fn a_status_that_is_refused_is_reported() {
    let bench = Bench::new();
    bench.api.intercept(|call| {
        call.path
            .ends_with("/status")
            .then(|| Intercept::Answer(Ok(failure(403, "Forbidden"))))
    });
    bench.store(Store::Fails(down()));
    ends_early(&bench, "KubernetesApi").await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_reported_and_left_alone() {
    let bench = Bench::new();
    let mut object = json!(bench.object());
    object["spec"]["item"] = json!(["not", "a", "text"]);
    let guarded: DeserializeGuard<Widget> = serde_json::from_value(object).unwrap();
    assert!(guarded.0.is_err());
    let action = Arc::clone(&bench.supervisor).reconcile(Arc::new(guarded)).await;
    assert_eq!(action, Action::await_change());
    assert_eq!(
        bench.events(),
        [("Warning".to_owned(), "InvalidObject".to_owned())]
    );
    assert_eq!(
        *bench.widgets().deleted.lock().unwrap(),
        ["one"],
        "nothing is done for it"
    );
    assert_eq!(bench.calls(), 0);
}

/// Found as an object that stayed for ever after its definition had been rolled back.
#[tokio::test]
async fn an_object_that_cannot_be_read_is_let_go_some_time_after_its_deletion() {
    let bench = Bench::new();
    bench.supervised().await;
    bench.edit(|object| object["metadata"]["deletionTimestamp"] = json!(bench.clock.now()));
    let look = || async {
        let mut object = json!(bench.object());
        object["spec"]["item"] = json!(["not", "a", "text"]);
        let guarded: DeserializeGuard<Widget> = serde_json::from_value(object).unwrap();
        Arc::clone(&bench.supervisor).reconcile(Arc::new(guarded)).await
    };
    assert_eq!(look().await, Action::requeue(Duration::from_hours(2)));
    bench.clock.advance(Duration::from_hours(2));
    assert_eq!(look().await, Action::await_change());
    assert!(bench.api.get::<Widget>("team", "one").is_none());
    let abandoned = ("Warning".to_owned(), "CleanupAbandoned".to_owned());
    assert_eq!(bench.events().last(), Some(&abandoned));
    assert_eq!(bench.calls(), 1, "nothing is done for it");
}

/// Waits, on the paused clock, for something that other tasks bring about.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), waiting)
        .await
        .expect(what);
}

#[tokio::test(start_paused = true)]
async fn the_watch_reconciles_what_changes_and_notices_what_went_while_it_was_interrupted() {
    let bench = Bench::new();
    let (stop, shutdown) = tokio::sync::watch::channel(false);
    let (controller, cx) = (
        Arc::clone(&bench.supervisor.controller),
        Arc::clone(&bench.supervisor.cx),
    );
    let running = tokio::spawn(async move {
        watch::run(controller, cx, &Namespaces::All, &Readiness::default(), shutdown).await;
    });
    let items = || bench.widgets().items.lock().unwrap().clone();
    eventually("the item is stored", || items().contains("lamp")).await;
    eventually("that is recorded", || {
        bench
            .object()
            .status
            .is_some_and(|status| status.stored.is_some())
    })
    .await;

    // Nothing in the cluster tells that the store lost an item; whoever knows wakes the object.
    bench.widgets().items.lock().unwrap().clear();
    bench
        .supervisor
        .cx
        .wake_ups
        .wake(ObjectKey::new(Widgets::NAME, &bench.object()));
    eventually("the item is stored again", || items().contains("lamp")).await;

    let gone = || bench.widgets().deleted.lock().unwrap().clone();
    bench.api.break_watches();
    bench.api.remove::<Widget>("team", "one");
    eventually("its absence is noticed", || gone().contains(&"one".to_owned())).await;

    stop.send_replace(true);
    running.await.unwrap();
}

/// Found as two watches of one namespace, whose reconciles of one object made and deleted each other's accounts.
#[test]
fn a_namespace_that_is_named_twice_is_watched_once() {
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let Namespaces::Only(once) = Namespaces::from_names(&names(&["e", " e ", "", "f"])) else {
        panic!("all namespaces");
    };
    assert_eq!(once, ["e", "f"]);
    assert!(matches!(
        Namespaces::from_names(&names(&["", " "])),
        Namespaces::All
    ));
}
