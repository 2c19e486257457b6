//! What went wrong with an object, who can fix it, and when it is tried again.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{FIRST_BACKOFF, MAX_BACKOFF, backoff, jittered};
use crate::api::conditions::whole_seconds;
use crate::api::{Reason, RetryStatus};

/// A rejected key is compared with its Secret this often. It is not sent to Composio each time: the connection of a key
/// remembers for longer that it was rejected.
const KEY_RECHECK: Duration = Duration::from_mins(1);

/// How a failure is retried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// A person must act. It is tried again when the spec changes or somebody asks; what is fixed outside the object, where
    /// no watch tells of it, also after [`Policy::recheck`].
    Stalled,
    /// Something else has to happen first: a rate-limit window ends, a Secret appears. It is tried again after a time.
    Waiting,
    /// It may go away by itself. It is tried again with a growing wait.
    Transient,
}

/// What else would fail in the same way, from little to much.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// Only a part of the object. The rest of the object is not held back.
    Part,
    /// The object.
    Object,
    /// Everything that uses the same API key.
    ApiKey,
    /// Everything that is written to the same namespace or cluster.
    Cluster,
}

/// What follows from a reason, whatever the failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Time alone does not fix it.
    pub needs_person: bool,
    /// A person fixes it outside the object: it is checked again after this time although it is stalled.
    pub recheck: Option<Duration>,
    /// What else would fail.
    pub scope: Scope,
}

impl Reason {
    /// What follows from this reason.
    pub fn policy(self) -> Policy {
        let (needs_person, recheck, scope) = match self {
            Self::ApiKeyNotFound | Self::ApiKeyNotShared => (true, None, Scope::ApiKey),
            Self::ApiKeyRejected => (true, Some(KEY_RECHECK), Scope::ApiKey),
            Self::ApiKeyForbidden => (true, Some(MAX_BACKOFF), Scope::ApiKey),
            Self::AuthConfigNotFound
            | Self::AuthConfigAmbiguous
            | Self::LinkSecretConflict
            | Self::ConfigMapConflict => (true, Some(MAX_BACKOFF), Scope::Object),
            Self::RequestRefused => (true, None, Scope::Object),
            Self::ToolkitNotFound | Self::ToolkitRefused => (true, None, Scope::Part),
            Self::IncompleteResponse => (false, None, Scope::Part),
            Self::RateLimited | Self::WaitingForTurn => (false, None, Scope::ApiKey),
            _ => (false, None, Scope::Object),
        };
        Policy {
            needs_person,
            recheck,
            scope,
        }
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// How it is retried.
    pub class: Class,
    /// Why it happened.
    pub reason: Reason,
    /// What a person should know and do. It holds no secret.
    pub message: String,
    /// Earliest next try that the other side asked for; of a stalled failure, when it is tried again all the same.
    pub retry_after: Option<Duration>,
    /// What else would fail in the same way.
    pub scope: Scope,
}

impl Failure {
    /// A failure that a person has to fix.
    pub fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            class: Class::Stalled,
            reason,
            message: message.into(),
            retry_after: None,
            scope: reason.policy().scope,
        }
    }

    /// A failure that passes when something else has happened.
    pub fn waiting(reason: Reason, message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self {
            class: Class::Waiting,
            retry_after,
            ..Self::stalled(reason, message)
        }
    }

    /// A failure that may go away by itself.
    pub fn transient(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            class: Class::Transient,
            ..Self::stalled(reason, message)
        }
    }

    /// How long to wait after this failure when it is the `failures`-th in a row (from 1). `seed` spreads objects that
    /// failed together; the same object waits the same time for the same count. None: until something changes.
    pub fn wait(&self, failures: i64, seed: u64) -> Option<Duration> {
        let own = || jittered(backoff(FIRST_BACKOFF, failures), failures, seed);
        match (self.class, self.retry_after) {
            (Class::Stalled, Some(after)) => Some(after),
            (Class::Stalled, None) => {
                let recheck = self.reason.policy().recheck;
                recheck.map(|recheck| jittered(recheck, failures, seed))
            }
            (Class::Waiting, Some(after)) => Some(jittered(after, failures, seed)),
            (Class::Transient, Some(after)) => Some(own().max(after)),
            (Class::Waiting | Class::Transient, None) => Some(own()),
        }
    }

    /// The record of this failure in a status, as the `failures`-th in a row.
    pub fn record(&self, failures: i64, seed: u64, now: Timestamp) -> RetryStatus {
        // Times are stored in whole seconds: they are rounded up, never to before Retry-After.
        let next = self
            .wait(failures, seed)
            .and_then(|wait| whole_seconds(now).checked_add(wait + Duration::from_secs(1)).ok());
        RetryStatus {
            failures,
            last_failure_at: Time(whole_seconds(now)),
            next_attempt_at: next.map(|time| Time(whole_seconds(time))),
            reason: self.reason.as_str().to_owned(),
            operation: None,
            request: None,
        }
    }
}

impl From<&kube::Error> for Failure {
    fn from(error: &kube::Error) -> Self {
        match error {
            // A quota or a missing permission: the next object of the kind would be refused as well.
            kube::Error::Api(status) if status.is_forbidden() => Self {
                scope: Scope::Cluster,
                ..Self::waiting(Reason::KubernetesApi, status.message.clone(), Some(MAX_BACKOFF))
            },
            _ => Self::transient(Reason::KubernetesApi, explain(error)),
        }
    }
}

/// The failure that a status records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurrentFailure {
    /// Why it happened; None if a version of the operator with other words recorded it.
    pub reason: Option<Reason>,
    /// Failures in a row.
    pub failures: i64,
    /// When it is tried again. None: when the spec changes or somebody asks.
    pub next_attempt_at: Option<Timestamp>,
}

impl From<&RetryStatus> for CurrentFailure {
    fn from(retry: &RetryStatus) -> Self {
        Self {
            reason: retry.reason.parse().ok(),
            failures: retry.failures,
            next_attempt_at: retry.next_attempt_at.as_ref().map(|next| next.0),
        }
    }
}

impl CurrentFailure {
    /// Whether it is too early to try again.
    pub fn is_early(&self, now: Timestamp) -> bool {
        self.next_attempt_at.is_none_or(|next| now < next)
    }

    /// Whether it is about the whole object, and not only about a part of it.
    pub fn concerns_all(&self) -> bool {
        self.reason
            .is_none_or(|reason| reason.policy().scope != Scope::Part)
    }

    /// Whether the whole object waits for the next try.
    pub fn holds_back(&self, now: Timestamp) -> bool {
        self.is_early(now) && self.concerns_all()
    }
}

/// The cause of `error` for a log line, a condition or an event: what the API server says, with its reason.
///
/// The `Display` of an API error repeats the whole response in its debug form. Errors of the connection are shown with
/// their causes, which alone say what happened.
pub fn explain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return match status.reason.as_str() {
            "" => format!("{} ({})", status.message, status.code),
            reason => format!("{} ({reason})", status.message),
        };
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        // Many errors already quote their cause.
        if !text.contains(&told) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {told}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn backoff_doubles_and_is_capped() {
        let failure = Failure::transient(Reason::ComposioUnavailable, "");
        let waits: Vec<_> = (1..=20).map(|n| failure.wait(n, 7).unwrap()).collect();
        assert!(waits[0] >= FIRST_BACKOFF && waits[0] <= FIRST_BACKOFF * 5 / 4);
        assert!(waits.iter().all(|w| *w <= MAX_BACKOFF * 5 / 4));
        assert!(waits[3] > waits[0] * 4);
    }

    #[test]
    fn retry_after_is_never_undercut() {
        let asked = Duration::from_secs(90);
        let limited = Failure::waiting(Reason::RateLimited, "", Some(asked));
        let down = Failure {
            retry_after: Some(asked),
            ..Failure::transient(Reason::ComposioUnavailable, "")
        };
        for seed in 0..100 {
            assert!(limited.wait(1, seed).unwrap() >= asked);
            assert!(down.wait(1, seed).unwrap() >= asked);
        }
    }

    #[test]
    fn a_stalled_failure_is_not_retried_by_time_unless_it_is_fixed_outside_the_object() {
        assert_eq!(Failure::stalled(Reason::LinkRefused, "").wait(3, 1), None);
        let recheck = Failure::stalled(Reason::AuthConfigAmbiguous, "").wait(1, 1);
        assert!(recheck.unwrap() >= MAX_BACKOFF);
        let own = Failure {
            retry_after: Some(Duration::from_hours(6)),
            ..Failure::stalled(Reason::RequestRefused, "")
        };
        assert_eq!(own.wait(9, 1), Some(Duration::from_hours(6)));
    }

    #[test]
    fn objects_that_fail_together_spread_out() {
        let failure = Failure::transient(Reason::ComposioUnavailable, "");
        let mut waits: Vec<_> = (0..100).map(|seed| failure.wait(5, seed).unwrap()).collect();
        waits.sort();
        waits.dedup();
        assert!(waits.len() > 90);
    }

    proptest! {
        #[test]
        fn times_in_whole_seconds_never_undercut_retry_after(
            nanos in 0..1_000_000_000_i32, asked in 1_u64..3_600, failures in 1..20_i64, seed: u64,
        ) {
            let now = Timestamp::new(1_767_225_600, nanos).unwrap();
            let failure = Failure::waiting(Reason::RateLimited, "", Some(Duration::from_secs(asked)));
            let record = failure.record(failures, seed, now);
            let at = record.next_attempt_at.clone().unwrap().0;
            prop_assert!(at >= now.checked_add(Duration::from_secs(asked)).unwrap(), "{at} for {asked} s after {now}");
            let current = CurrentFailure::from(&record);
            prop_assert_eq!((current.reason, current.failures), (Some(Reason::RateLimited), failures));
            prop_assert!(current.is_early(now) && !current.is_early(at));
        }
    }

    #[test]
    fn what_waits_for_a_change_is_always_early() {
        let record = Failure::stalled(Reason::LinkRefused, "").record(1, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(record.next_attempt_at, None);
        assert!(CurrentFailure::from(&record).is_early(Timestamp::MAX));
    }

    #[test]
    fn a_failure_of_a_part_does_not_hold_back_the_rest_and_an_unknown_reason_does() {
        let held = |reason: &str| {
            let record = RetryStatus {
                reason: reason.to_owned(),
                ..Failure::stalled(Reason::LinkRefused, "").record(1, 1, Timestamp::UNIX_EPOCH)
            };
            CurrentFailure::from(&record).holds_back(Timestamp::UNIX_EPOCH)
        };
        assert!(!held("ToolkitNotFound") && held("LinkRefused") && held("WordOfAnotherVersion"));
    }

    #[test]
    fn an_error_is_explained_in_the_servers_words() {
        let refused = Status::failure("widgets \"w\" not found", "NotFound").with_code(404);
        assert_eq!(
            explain(&kube::Error::Api(refused.boxed())),
            "widgets \"w\" not found (NotFound)"
        );
        let terse = Status::failure("busy", "").with_code(503);
        assert_eq!(explain(&kube::Error::Api(terse.boxed())), "busy (503)");
    }

    #[test]
    fn a_broken_connection_is_explained_with_its_causes_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot connect")]
        struct Outer(#[source] std::io::Error);
        let inner = std::io::Error::other("no route");
        let error = kube::Error::Service(Box::new(Outer(inner)));
        assert_eq!(explain(&error), "ServiceError: cannot connect: no route");
    }
}
