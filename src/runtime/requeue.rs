//! When an object is reconciled again if nothing happens before.

use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;

use super::backoff::{spread, until};
use super::failure::CurrentFailure;
use crate::api::RetryStatus;

/// A settled object is reconciled again after this time, in case a change was missed. It costs no remote call.
const RESYNC: Duration = Duration::from_hours(1);

/// Times in status are whole seconds; a reconcile a moment early would only be repeated.
const MARGIN: Duration = Duration::from_millis(50);

/// The earliest of what was planned, the next try after a failure, and the resync.
pub(super) fn after(
    planned: Option<Duration>,
    retry: Option<&RetryStatus>,
    seed: u64,
    now: Timestamp,
) -> Action {
    let resync = RESYNC.mul_f64(1.0 + spread(seed) / 10.0);
    // A time that has passed says nothing: what was due has just been done, or waits for something else.
    let retry = retry
        .and_then(|retry| CurrentFailure::from(retry).next_attempt_at)
        .filter(|next| *next > now);
    let earliest = [planned, retry.map(|next| until(next, now))]
        .into_iter()
        .flatten()
        .min();
    Action::requeue(earliest.map_or(resync, |wait| wait.min(resync) + MARGIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::runtime::failure::Failure;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).unwrap()
    }

    fn requeue(next: Option<i64>, planned: Option<u64>) -> Action {
        let retry = next.map(|next| RetryStatus {
            next_attempt_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(next))),
            ..Failure::transient(Reason::RateLimited, "").record(3, 0, at(-60))
        });
        after(planned.map(Duration::from_secs), retry.as_ref(), 7, at(0))
    }

    #[test]
    fn the_earliest_time_counts() {
        let secs = |seconds| Action::requeue(Duration::from_secs(seconds) + MARGIN);
        assert_eq!(requeue(Some(10), None), secs(10));
        assert_eq!(requeue(Some(10), Some(4)), secs(4));
        assert_eq!(
            requeue(None, Some(100_000)),
            requeue(None, Some(200_000)),
            "resync comes first"
        );
    }

    /// Found as one reconcile after the other without a pause, while Composio was unavailable, and of an object that was
    /// suspended after it had failed.
    #[test]
    fn a_time_to_try_again_that_has_passed_causes_no_reconcile() {
        for passed in [Some(-50), Some(0)] {
            assert_eq!(requeue(passed, Some(4)), requeue(None, Some(4)));
            assert_eq!(
                requeue(passed, None),
                requeue(None, None),
                "not before the next resync"
            );
        }
    }
}
