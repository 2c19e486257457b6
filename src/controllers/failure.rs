//! What went wrong, in three classes, and the one place that maps a class to a wait.

use std::time::Duration;

use jiff::Timestamp;

use crate::composio;
use crate::kube_io::explain::explain;

/// Longest wait between two tries.
pub const MAX_BACKOFF: Duration = Duration::from_mins(5);
/// Wait after the first failure; doubles with each further one.
pub const FIRST_BACKOFF: Duration = Duration::from_secs(2);

/// A rejected key is compared with the Secret this often. It is not tried at Composio each time: the connection of a
/// key remembers its rejection for longer.
const KEY_RECHECK: Duration = Duration::from_mins(1);

/// Who can mend a failure, and so when it is tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// A person must act. Tried again when the spec changes or somebody asks; what is mended outside the object, now and
    /// then by itself too.
    Stalled,
    /// Something else has to happen first: a rate-limit window ends, a Secret appears. Tried again after a time.
    Waiting,
    /// May go away by itself. Tried again with a growing wait.
    Transient,
}

/// Why: a closed set, used in conditions, events and metrics alike.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// The Secret with the API key, or its key, does not exist.
    ApiKeyNotFound,
    /// The object names no Secret and the operator shares no key with its namespace.
    ApiKeyNotShared,
    /// Composio does not know the API key (401).
    ApiKeyRejected,
    /// The API key may not do this (403).
    ApiKeyForbidden,
    /// No enabled auth config for the toolkit.
    AuthConfigNotFound,
    /// More than one enabled auth config for the toolkit.
    AuthConfigAmbiguous,
    /// The account belongs to another auth config than the spec names.
    AuthConfigMismatch,
    /// The account belongs to another user id.
    UserMismatch,
    /// The account belongs to another toolkit.
    ToolkitMismatch,
    /// Composio holds the alias for an account that it does not list.
    AliasTaken,
    /// The Secret for the link exists and is not ours.
    LinkSecretConflict,
    /// The link could not be stored.
    LinkNotStored,
    /// Composio refused to make a link.
    LinkRefused,
    /// Composio refused another request.
    RequestRefused,
    /// Too many requests; nothing is sent before the limit allows it.
    RateLimited,
    /// Composio does not answer, or answers with an error of its own.
    ComposioUnavailable,
    /// Composio answered something that cannot be understood.
    ComposioAnswerUnreadable,
    /// A ConfigMap of the name exists and is not ours.
    ConfigMapConflict,
    /// Composio knows no such toolkit.
    ToolkitNotFound,
    /// Composio listed no tools, or no toolkits, where there were some.
    EmptyAnswer,
    /// Composio listed fewer than it said there are.
    IncompleteAnswer,
    /// Composio accepted a change and does not show it.
    NoEffect,
    /// The Kubernetes API refused or failed.
    KubernetesApi,
}

impl Reason {
    /// The `PascalCase` spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKeyNotFound => "ApiKeyNotFound",
            Self::ApiKeyNotShared => "ApiKeyNotShared",
            Self::ApiKeyRejected => "ApiKeyRejected",
            Self::ApiKeyForbidden => "ApiKeyForbidden",
            Self::AuthConfigNotFound => "AuthConfigNotFound",
            Self::AuthConfigAmbiguous => "AuthConfigAmbiguous",
            Self::AuthConfigMismatch => "AuthConfigMismatch",
            Self::UserMismatch => "UserMismatch",
            Self::ToolkitMismatch => "ToolkitMismatch",
            Self::AliasTaken => "AliasTaken",
            Self::LinkSecretConflict => "LinkSecretConflict",
            Self::LinkNotStored => "LinkNotStored",
            Self::LinkRefused => "LinkRefused",
            Self::RequestRefused => "RequestRefused",
            Self::RateLimited => "RateLimited",
            Self::ComposioUnavailable => "ComposioUnavailable",
            Self::ComposioAnswerUnreadable => "ComposioAnswerUnreadable",
            Self::ConfigMapConflict => "ConfigMapConflict",
            Self::ToolkitNotFound => "ToolkitNotFound",
            Self::EmptyAnswer => "EmptyAnswer",
            Self::IncompleteAnswer => "IncompleteAnswer",
            Self::NoEffect => "NoEffect",
            Self::KubernetesApi => "KubernetesApi",
        }
    }
}

impl Reason {
    /// Whether a person mends this outside the object, where no watch tells of it. Such a failure is looked at again
    /// now and then although it is stalled.
    fn is_mended_elsewhere(self) -> bool {
        matches!(
            self,
            Self::ApiKeyRejected
                | Self::ApiKeyForbidden
                | Self::AuthConfigNotFound
                | Self::AuthConfigAmbiguous
                | Self::LinkSecretConflict
                | Self::ConfigMapConflict
                | Self::ToolkitNotFound
        )
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Who can mend it.
    pub class: Class,
    /// Why.
    pub reason: Reason,
    /// What a person should know and do.
    pub message: String,
    /// Earliest next try that the other side asked for.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that a person has to mend.
    pub fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            class: Class::Stalled,
            reason,
            message: message.into(),
            retry_after: None,
        }
    }

    /// A failure that passes when something else has happened.
    pub fn waiting(reason: Reason, message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self {
            class: Class::Waiting,
            reason,
            message: message.into(),
            retry_after,
        }
    }

    /// A failure that may go away by itself.
    pub fn transient(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            class: Class::Transient,
            reason,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Classifies an answer of Composio. `refused` is the reason when Composio rejects the request itself (4xx).
    pub fn from_composio(error: &composio::Error, refused: Reason) -> Self {
        let message = error.to_string();
        if error.is_unauthorized() {
            return Self::stalled(
                Reason::ApiKeyRejected,
                // Without Composio's own words, which quote the beginning of the key.
                "Composio rejects the API key (401); replace it with a valid project key",
            );
        }
        if error.is_forbidden() {
            return Self::stalled(
                Reason::ApiKeyForbidden,
                format!("the API key lacks the scope for this; use a key that may. {message}"),
            );
        }
        if error.is_throttled() {
            // The number of seconds is left out of the message: it would change on every pass.
            return Self::waiting(
                Reason::RateLimited,
                "the request budget of the API key is used up; continues when the limit allows it",
                error.retry_after(),
            );
        }
        match error {
            composio::Error::Decode { .. } => Self::transient(Reason::ComposioAnswerUnreadable, message),
            _ if error.is_transient() => Self {
                retry_after: error.retry_after(),
                ..Self::transient(Reason::ComposioUnavailable, message)
            },
            _ => Self::stalled(refused, message),
        }
    }

    /// How long to wait after this failure when it is the `failures`-th in a row (from 1). `seed` spreads objects that
    /// failed together; the same object waits the same time for the same count. None: until something changes.
    pub fn wait(&self, failures: i64, seed: u64) -> Option<Duration> {
        match self.class {
            Class::Stalled => {
                let pause = if self.reason == Reason::ApiKeyRejected {
                    KEY_RECHECK
                } else {
                    MAX_BACKOFF
                };
                self.reason
                    .is_mended_elsewhere()
                    .then(|| jittered(pause, failures, seed))
            }
            Class::Waiting => Some(jittered(
                self.retry_after.unwrap_or_else(|| backoff(failures)),
                failures,
                seed,
            )),
            Class::Transient => {
                let own = jittered(backoff(failures), failures, seed);
                Some(own.max(self.retry_after.unwrap_or_default()))
            }
        }
    }
}

impl From<&kube::Error> for Failure {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() => Self {
                retry_after: Some(MAX_BACKOFF),
                ..Self::waiting(Reason::KubernetesApi, status.message.clone(), None)
            },
            _ => Self::transient(Reason::KubernetesApi, explain(error)),
        }
    }
}

/// 2 s, 4 s, 8 s ... at most [`MAX_BACKOFF`].
fn backoff(failures: i64) -> Duration {
    let doublings = u32::try_from(failures.clamp(1, 16) - 1).unwrap_or(0);
    FIRST_BACKOFF
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(MAX_BACKOFF)
}

/// Adds up to a quarter, the same for the same seed and count.
fn jittered(wait: Duration, failures: i64, seed: u64) -> Duration {
    let spread = spread(seed ^ failures.unsigned_abs());
    wait + wait.mul_f64(spread / 4.0)
}

/// A number in 0..1 that looks random but is the same for the same seed.
#[allow(clippy::cast_precision_loss)] // 53 bits are all that is kept
pub fn spread(seed: u64) -> f64 {
    // Finaliser of SplitMix64: neighbouring seeds end far apart.
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Time from `now` until `then`, zero if it has passed.
pub fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
    fn a_stalled_failure_is_not_retried_by_time_unless_it_is_mended_outside_the_object() {
        assert_eq!(Failure::stalled(Reason::LinkRefused, "").wait(3, 1), None);
        assert!(
            Failure::stalled(Reason::AuthConfigAmbiguous, "")
                .wait(1, 1)
                .unwrap()
                >= MAX_BACKOFF
        );
    }

    #[test]
    fn objects_that_fail_together_spread_out() {
        let failure = Failure::transient(Reason::ComposioUnavailable, "");
        let mut waits: Vec<_> = (0..100).map(|seed| failure.wait(5, seed).unwrap()).collect();
        waits.sort();
        waits.dedup();
        assert!(waits.len() > 90);
    }
}
