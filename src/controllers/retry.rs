//! The record of failures in a row that every resource keeps in its status.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::failure::Failure;
use crate::api::RetryStatus;
use crate::api::conditions::whole_seconds;

/// The record after `failure`, which follows on the failures of `standing`. `seed` spreads objects that failed together.
pub fn after(standing: Option<&RetryStatus>, failure: &Failure, seed: u64, now: Timestamp) -> RetryStatus {
    let failures = standing.map_or(0, |retry| retry.failures) + 1;
    // Times are stored in whole seconds: round up, never to before Retry-After.
    let next = failure
        .wait(failures, seed)
        .and_then(|wait| whole_seconds(now).checked_add(wait + Duration::from_secs(1)).ok());
    RetryStatus {
        failures,
        last_failure_at: Time(whole_seconds(now)),
        next_attempt_at: next.map(|time| Time(whole_seconds(time))),
        reason: failure.reason.as_str().to_owned(),
    }
}

/// Whether it is too early to try again.
pub fn is_early(standing: Option<&RetryStatus>, now: Timestamp) -> bool {
    standing.is_some_and(|retry| retry.next_attempt_at.as_ref().is_none_or(|next| now < next.0))
}

/// Seed for jitter: the same for the same object.
pub fn seed(uid: &str) -> u64 {
    uid.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::controllers::failure::Reason;

    proptest! {
        #[test]
        fn times_in_whole_seconds_never_undercut_retry_after(
            nanos in 0..1_000_000_000_i32, asked in 1_u64..3_600, failures in 0..20_i64, seed: u64,
        ) {
            let now = Timestamp::new(1_767_225_600, nanos).unwrap();
            let failure = Failure::waiting(Reason::RateLimited, "", Some(Duration::from_secs(asked)));
            let standing = RetryStatus { failures, ..after(None, &failure, seed, now) };
            let next = after(Some(&standing), &failure, seed, now);
            prop_assert_eq!(next.failures, failures + 1);
            let at = next.next_attempt_at.clone().unwrap().0;
            prop_assert!(at >= now.checked_add(Duration::from_secs(asked)).unwrap(), "{at} for {asked} s after {now}");
            prop_assert!(is_early(Some(&next), now) && !is_early(Some(&next), at));
        }
    }

    #[test]
    fn what_waits_for_a_change_is_always_early() {
        let now = Timestamp::UNIX_EPOCH;
        let stalled = after(None, &Failure::stalled(Reason::LinkRefused, ""), 1, now);
        assert_eq!(stalled.next_attempt_at, None);
        assert!(is_early(Some(&stalled), Timestamp::MAX) && !is_early(None, now));
    }
}
