//! What the lease says, and what may be done about it. Pure: time and lease come as arguments.
//!
//! The rule is client-go's: a holder counts as gone if its record did not change for the lease's duration *as observed
//! here, by the local monotonic clock*. The times inside the record were written by another machine's clock; they serve
//! to see that the record changed, and are compared with nothing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

/// The lease's record, and since when it has looked like that from here.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// The record as it was last read or written.
    pub spec: LeaseSpec,
    /// When this very record was first seen. It was written before that.
    pub since: Instant,
}

impl Sighting {
    /// Takes a record read at `now` into account: only a record that changed restarts the wait for its holder.
    pub fn observe(previous: Option<Self>, spec: LeaseSpec, now: Instant) -> Self {
        match previous {
            Some(previous) if previous.spec == spec => previous,
            _ => Self { spec, since: now },
        }
    }
}

/// What a contender may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody holds it, or its holder is gone: try to take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Somebody else holds it; unless its record changes, it may be taken at `until`.
    Yield {
        /// The earliest moment at which the holder counts as gone.
        until: Instant,
    },
}

/// Judges the lease for the contender `identity`. A record that names no duration is given `duration`, our own.
pub fn evaluate(seen: Option<&Sighting>, identity: &str, now: Instant, duration: Duration) -> Verdict {
    let Some(seen) = seen else { return Verdict::Acquire };
    match seen.spec.holder_identity.as_deref() {
        None | Some("") => Verdict::Acquire,
        Some(holder) if holder == identity => Verdict::Renew,
        Some(_) => {
            // The holder lives by the duration it wrote, whatever ours is.
            let written = seen
                .spec
                .lease_duration_seconds
                .and_then(|s| u64::try_from(s).ok())
                .filter(|s| *s > 0);
            let until = seen.since + written.map_or(duration, Duration::from_secs);
            if now >= until {
                Verdict::Acquire
            } else {
                Verdict::Yield { until }
            }
        }
    }
}

/// The record by which `identity` takes or renews the lease at `now`.
///
/// Renewing keeps the time of acquisition; taking it from another holder, a former self included, counts a transition.
pub fn claimed(before: Option<&LeaseSpec>, identity: &str, now: Timestamp, duration: Duration) -> LeaseSpec {
    let before = before.cloned();
    let fresh = before.is_none();
    let before = before.unwrap_or_default();
    let ours = before.holder_identity.as_deref() == Some(identity);
    let transitions = before.lease_transitions.unwrap_or(0);
    LeaseSpec {
        acquire_time: before.acquire_time.filter(|_| ours).or(Some(MicroTime(now))),
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(whole_seconds(duration)),
        lease_transitions: Some(if ours || fresh {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        renew_time: Some(MicroTime(now)),
        ..before
    }
}

/// The record that gives the lease up: without a holder, so that the next contender need not wait.
pub fn released(before: LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        renew_time: Some(MicroTime(now)),
        ..before
    }
}

/// Rounded up, because others must wait at least as long as we act; the API server refuses less than 1.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0));
    i32::try_from(seconds).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Duration = Duration::from_secs(15);

    fn held_by(holder: &str, seconds: Option<i32>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn the_lease_is_judged_by_what_was_seen_here() {
        let since = Instant::now();
        let after = |seconds: u64| since + Duration::from_secs(seconds);
        let until = |seconds| Verdict::Yield {
            until: after(seconds),
        };
        // Their clock is a century ahead or behind: it makes no difference.
        let skewed = |year: &str| LeaseSpec {
            renew_time: Some(MicroTime(format!("{year}-01-01T00:00:00Z").parse().unwrap())),
            ..held_by("other", Some(10))
        };
        for (name, spec, now, want) in [
            ("no lease", None, after(0), Verdict::Acquire),
            ("released", Some(LeaseSpec::default()), after(0), Verdict::Acquire),
            (
                "released with an empty name",
                Some(held_by("", Some(10))),
                after(0),
                Verdict::Acquire,
            ),
            ("ours", Some(held_by("me", Some(10))), after(0), Verdict::Renew),
            (
                "ours, though late",
                Some(held_by("me", Some(10))),
                after(60),
                Verdict::Renew,
            ),
            (
                "theirs, just seen",
                Some(held_by("other", Some(10))),
                after(0),
                until(10),
            ),
            (
                "theirs, nearly over",
                Some(held_by("other", Some(10))),
                after(9),
                until(10),
            ),
            (
                "theirs, over",
                Some(held_by("other", Some(10))),
                after(10),
                Verdict::Acquire,
            ),
            (
                "theirs, longer than ours",
                Some(held_by("other", Some(60))),
                after(15),
                until(60),
            ),
            (
                "theirs, no duration",
                Some(held_by("other", None)),
                after(14),
                until(15),
            ),
            (
                "theirs, no duration, over",
                Some(held_by("other", None)),
                after(15),
                Verdict::Acquire,
            ),
            (
                "theirs, senseless duration",
                Some(held_by("other", Some(-1))),
                after(14),
                until(15),
            ),
            ("their clock is behind", Some(skewed("1926")), after(9), until(10)),
            (
                "their clock is ahead",
                Some(skewed("2126")),
                after(10),
                Verdict::Acquire,
            ),
        ] {
            let seen = spec.map(|spec| Sighting { spec, since });
            assert_eq!(evaluate(seen.as_ref(), "me", now, OURS), want, "{name}");
        }
    }

    #[test]
    fn only_a_changed_record_restarts_the_wait() {
        let first = Instant::now();
        let later = first + Duration::from_secs(5);
        let spec = held_by("other", Some(10));
        let seen = Sighting::observe(None, spec.clone(), first);
        let seen = Sighting::observe(Some(seen), spec.clone(), later);
        assert_eq!(seen.since, first);
        // A renewal whose time runs backwards is a renewal: their clock was set, they are alive.
        let renewed = LeaseSpec {
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..spec
        };
        let seen = Sighting::observe(Some(seen), renewed, later);
        assert_eq!(seen.since, later);
    }

    #[test]
    fn a_claim_keeps_count_of_holders_and_the_time_of_acquisition() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = claimed(None, "me", at(1), OURS);
        assert_eq!(first.holder_identity.as_deref(), Some("me"));
        assert_eq!(
            (first.lease_transitions, first.lease_duration_seconds),
            (Some(0), Some(15))
        );
        assert_eq!(
            (first.acquire_time.clone(), first.renew_time.clone()),
            (Some(MicroTime(at(1))), Some(MicroTime(at(1))))
        );

        let renewed = claimed(Some(&first), "me", at(2), OURS);
        assert_eq!(renewed.lease_transitions, Some(0));
        assert_eq!(
            (renewed.acquire_time.clone(), renewed.renew_time.clone()),
            (Some(MicroTime(at(1))), Some(MicroTime(at(2))))
        );

        let taken = claimed(Some(&renewed), "other", at(9), OURS);
        assert_eq!(
            (taken.lease_transitions, taken.acquire_time.clone()),
            (Some(1), Some(MicroTime(at(9))))
        );

        let given_up = released(taken, at(10));
        assert_eq!(
            (given_up.holder_identity.clone(), given_up.lease_transitions),
            (None, Some(1))
        );
        assert_eq!(
            claimed(Some(&given_up), "me", at(11), OURS).lease_transitions,
            Some(2)
        );
    }

    #[test]
    fn a_claim_leaves_fields_it_does_not_know_alone() {
        let before = LeaseSpec {
            preferred_holder: Some("third".into()),
            ..held_by("other", Some(10))
        };
        assert_eq!(
            claimed(Some(&before), "me", Timestamp::UNIX_EPOCH, OURS)
                .preferred_holder
                .as_deref(),
            Some("third")
        );
    }

    #[test]
    fn durations_are_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (15_000, 15)] {
            assert_eq!(
                whole_seconds(Duration::from_millis(millis)),
                seconds,
                "{millis} ms"
            );
        }
        assert_eq!(whole_seconds(Duration::MAX), i32::MAX);
    }
}
