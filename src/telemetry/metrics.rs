//! The operator's metrics: a fixed set of families with closed label values, so that cardinality is known in advance.
//!
//! The names, all with the prefix `composio_operator_`, are part of the operator's interface; dashboards and alerts
//! read them. Label values are `&'static str`: no id or message of an object ever becomes a label. Names do for schema caches
//! alone, of which there are few; how many are shown is bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use strum::IntoStaticStr;

use super::process::ProcessCollector;

/// Upper bounds, in seconds, for one reconcile. One that finds nothing to do reads caches only and takes well below 1 ms;
/// a status write takes 5 to 25 ms, a remote call 50 ms to a few seconds.
const RECONCILE_BUCKETS: [f64; 11] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

/// Upper bounds, in seconds, for one call to Composio: doubling from a nearby, fast answer to the request timeout of 30 s.
const CALL_BUCKETS: [f64; 11] = [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 30.0];

/// How one reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Outcome {
    /// Something was changed, here or at Composio.
    Applied,
    /// Everything was as it should be. An installation in which nothing changes shows only this outcome.
    Unchanged,
    /// A person, a rate limit or a dependency has to come first. Reconciled again at a known time.
    Waiting,
    /// A transient failure; retried with backoff.
    Failed,
    /// A failure that only a person can resolve; not retried before the spec or the request changes.
    Stalled,
    /// Cut short by a timeout, a shutdown or an early return: neither success nor failure of the object.
    Abandoned,
}

/// What became of an event that a controller wanted to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum EventOutcome {
    /// A new event was written.
    Created,
    /// The count of an existing event was raised.
    Updated,
    /// Nothing was written: a later write contains this repetition in its count.
    Suppressed,
    /// The API server did not take it.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    controller: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    controller: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CrdLabels {
    crd: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    outcome: &'static str,
}

/// Every metric of the operator. Cheap to clone: all clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    failures: Family<FailureLabels, Counter>,
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<OperationLabels, Histogram, fn() -> Histogram>,
    budget_limit: Gauge,
    budget_remaining: Gauge,
    objects: Family<StateLabels, Gauge>,
    leader: Gauge,
    crd_missing: Family<CrdLabels, Gauge>,
    events: Family<EventLabels, Counter>,
    cache_verified: Family<CacheLabels, Gauge>,
}

impl Metrics {
    /// Makes the metrics and the registry that shows them, with the metrics of the process beside them.
    pub(crate) fn new() -> (Self, Arc<Registry>) {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(|| Histogram::new(RECONCILE_BUCKETS)),
            failures: Family::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(|| Histogram::new(CALL_BUCKETS)),
            budget_limit: Gauge::default(),
            budget_remaining: Gauge::default(),
            objects: Family::default(),
            leader: Gauge::default(),
            crd_missing: Family::default(),
            events: Family::default(),
            cache_verified: Family::default(),
        };
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix("composio_operator"));
        registry.register_collector(Box::new(ProcessCollector));
        (metrics, Arc::new(registry))
    }

    /// Counters get their `_total`, durations their `_seconds`, from the encoder.
    fn register(&self, registry: &mut Registry) {
        // No `..`: a family that is not registered here would silently be missing from the exposition.
        let Self {
            reconciles,
            reconcile_seconds,
            failures,
            calls,
            call_seconds,
            budget_limit,
            budget_remaining,
            objects,
            leader,
            crd_missing,
            events,
            cache_verified,
        } = self.clone();
        registry.register("reconcile", "Reconciles by how they ended", reconciles);
        let help = "Time one reconcile took, remote calls included";
        registry.register_with_unit("reconcile_duration", help, Unit::Seconds, reconcile_seconds);
        registry.register(
            "failures",
            "Failures by the reason shown in conditions and events",
            failures,
        );
        registry.register("composio_calls", "Calls to Composio by how they ended", calls);
        let help = "Time one call to Composio took, until the whole answer was read";
        registry.register_with_unit("composio_call_duration", help, Unit::Seconds, call_seconds);
        let help = "Requests Composio allows in its window, by the newest answer";
        registry.register("composio_budget_limit", help, budget_limit);
        let help = "Requests left in Composio's window, by the newest answer";
        registry.register("composio_budget_remaining", help, budget_remaining);
        registry.register("objects", "Custom resources by state", objects);
        registry.register("leader", "1 while this replica leads, else 0", leader);
        registry.register(
            "crd_missing",
            "1 while the API server does not serve this CRD, else 0",
            crd_missing,
        );
        registry.register("events", "Kubernetes events by what became of them", events);
        let help = "When all schemas of a cache were last found or brought up to date, in seconds since 1970";
        registry.register(
            "schema_cache_last_verified_timestamp_seconds",
            help,
            cache_verified,
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the operator", build);
    }

    /// Starts the clock of one reconcile.
    pub(crate) fn reconcile(&self, controller: &'static str) -> ReconcileTimer {
        ReconcileTimer {
            metrics: self.clone(),
            controller,
            started: Instant::now(),
            outcome: Outcome::Abandoned,
        }
    }

    /// Counts one failure under its closed, `PascalCase` reason.
    pub(crate) fn failure(&self, controller: &'static str, reason: &'static str) {
        self.failures
            .get_or_create(&FailureLabels { controller, reason })
            .inc();
    }

    /// Records one call to Composio; `outcome` is a closed label of the client's, such as `ok` or `timeout`.
    pub(crate) fn composio_call(&self, operation: &'static str, outcome: &'static str, elapsed: Duration) {
        self.calls.get_or_create(&CallLabels { operation, outcome }).inc();
        self.call_seconds
            .get_or_create(&OperationLabels { operation })
            .observe(elapsed.as_secs_f64());
    }

    /// Shows the rate budget by the newest answer. With several API keys, this is an answer to any of them.
    pub(crate) fn budget(&self, limit: u64, remaining: u64) {
        self.budget_limit.set(saturate(limit));
        self.budget_remaining.set(saturate(remaining));
    }

    /// Shows how many objects of a controller are in a state. A state that emptied is set to 0 by the same call.
    pub(crate) fn objects(&self, controller: &'static str, state: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.objects
            .get_or_create(&StateLabels { controller, state })
            .set(count);
    }

    /// Shows whether this replica leads.
    pub(crate) fn leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Shows whether the API server lacks the CRD called `crd`, such as `redditconnections.composio-operator.dev`. The
    /// name is one of the operator's own CRDs, never an input.
    pub(crate) fn crd_missing(&self, crd: &str, missing: bool) {
        self.crd_missing
            .get_or_create(&CrdLabels { crd: crd.to_owned() })
            .set(missing.into());
    }

    /// Shows when a schema cache was last verified; None: it is gone.
    pub(crate) fn cache_verified(&self, namespace: &str, name: &str, at: Option<jiff::Timestamp>) {
        let labels = CacheLabels {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        match at {
            Some(at) => {
                self.cache_verified.get_or_create(&labels).set(at.as_second());
            }
            None => {
                self.cache_verified.remove(&labels);
            }
        }
    }

    /// Counts what became of one event.
    pub(crate) fn event(&self, outcome: EventOutcome) {
        let outcome = outcome.into();
        self.events.get_or_create(&EventLabels { outcome }).inc();
    }
}

/// Gauges are signed; a number that large is not seen in practice, and must not wrap if it is.
fn saturate(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Times one reconcile and counts it once, when dropped.
///
/// Dropped without [`finish`](Self::finish), it counts as [`Outcome::Abandoned`]: an early return, a timeout or a
/// cancelled task needs no bookkeeping, and is not mistaken for a failure of the object.
#[derive(Debug)]
#[must_use = "dropped at once, it records an abandoned reconcile"]
pub(crate) struct ReconcileTimer {
    metrics: Metrics,
    controller: &'static str,
    started: Instant,
    outcome: Outcome,
}

impl ReconcileTimer {
    /// Ends the reconcile with its outcome.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for ReconcileTimer {
    fn drop(&mut self) {
        let Self { controller, .. } = *self;
        let outcome = self.outcome.into();
        self.metrics
            .reconciles
            .get_or_create(&ReconcileLabels { controller, outcome })
            .inc();
        let elapsed = self.started.elapsed().as_secs_f64();
        self.metrics
            .reconcile_seconds
            .get_or_create(&ControllerLabels { controller })
            .observe(elapsed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposition(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    fn assert_line(registry: &Registry, line: &str) {
        let text = exposition(registry);
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }

    #[test]
    fn every_family_appears_under_its_documented_name() {
        let (metrics, registry) = Metrics::new();
        metrics.reconcile("redditconnection").finish(Outcome::Applied);
        metrics.failure("channelsync", "RateLimited");
        metrics.composio_call("list_accounts", "ok", Duration::from_millis(60));
        metrics.budget(2000, u64::MAX);
        metrics.objects("syncschedule", "active", 3);
        metrics.leader(true);
        metrics.crd_missing("redditconnections.composio-operator.dev", true);
        metrics.event(EventOutcome::Suppressed);
        metrics.cache_verified(
            "agents",
            "tools",
            jiff::Timestamp::from_second(1_767_225_600).ok(),
        );
        for line in [
            r#"composio_operator_schema_cache_last_verified_timestamp_seconds{namespace="agents",name="tools"} 1767225600"#,
            r#"composio_operator_reconcile_total{controller="redditconnection",outcome="applied"} 1"#,
            r#"composio_operator_reconcile_duration_seconds_count{controller="redditconnection"} 1"#,
            r#"composio_operator_failures_total{controller="channelsync",reason="RateLimited"} 1"#,
            r#"composio_operator_composio_calls_total{operation="list_accounts",outcome="ok"} 1"#,
            r#"composio_operator_composio_call_duration_seconds_bucket{le="0.05",operation="list_accounts"} 0"#,
            r#"composio_operator_composio_call_duration_seconds_bucket{le="0.1",operation="list_accounts"} 1"#,
            "composio_operator_composio_budget_limit 2000",
            "composio_operator_composio_budget_remaining 9223372036854775807",
            r#"composio_operator_objects{controller="syncschedule",state="active"} 3"#,
            "composio_operator_leader 1",
            r#"composio_operator_crd_missing{crd="redditconnections.composio-operator.dev"} 1"#,
            r#"composio_operator_events_total{outcome="suppressed"} 1"#,
            concat!(
                r#"composio_operator_build_info{version=""#,
                env!("CARGO_PKG_VERSION"),
                r#""} 1"#
            ),
            "# UNIT composio_operator_reconcile_duration_seconds seconds",
            "# EOF",
        ] {
            assert_line(&registry, line);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_shown_without_our_prefix() {
        let (_, registry) = Metrics::new();
        let text = exposition(&registry);
        for name in [
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
            "process_open_fds ",
            "process_threads ",
        ] {
            assert!(
                text.lines().any(|line| line.starts_with(name)),
                "no {name} in\n{text}"
            );
        }
    }

    #[test]
    fn a_timer_that_is_dropped_counts_as_abandoned() {
        let (metrics, registry) = Metrics::new();
        let fails_early = || -> Result<(), &str> {
            let timer = metrics.reconcile("channelsync");
            Err("early")?;
            timer.finish(Outcome::Applied);
            Ok(())
        };
        fails_early().unwrap_err();
        assert_line(
            &registry,
            r#"composio_operator_reconcile_total{controller="channelsync",outcome="abandoned"} 1"#,
        );
        assert!(!exposition(&registry).contains("applied"));
    }

    #[test]
    fn a_finished_timer_counts_once() {
        let (metrics, registry) = Metrics::new();
        metrics.reconcile("composioschemacache").finish(Outcome::Stalled);
        let text = exposition(&registry);
        let counted: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("composio_operator_reconcile_total{"))
            .collect();
        assert_eq!(
            counted,
            [r#"composio_operator_reconcile_total{controller="composioschemacache",outcome="stalled"} 1"#]
        );
    }

    #[test]
    fn gauges_fall_back_when_things_end() {
        let (metrics, registry) = Metrics::new();
        metrics.leader(true);
        metrics.leader(false);
        metrics.objects("redditconnection", "error", 2);
        metrics.objects("redditconnection", "error", 0);
        metrics.crd_missing("x", true);
        metrics.crd_missing("x", false);
        assert_line(&registry, "composio_operator_leader 0");
        assert_line(
            &registry,
            r#"composio_operator_objects{controller="redditconnection",state="error"} 0"#,
        );
        assert_line(&registry, r#"composio_operator_crd_missing{crd="x"} 0"#);
    }
}
