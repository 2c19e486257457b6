//! When to ask who the account is, and whether it is the person that was expected.
//!
//! ACTIVE does not prove that a credential works: a look-up does, and so it is repeated.

use std::time::Duration;

use jiff::Timestamp;

use super::{Plan, Step, fast_until};
use crate::api::conditions::{self, whole_seconds};
use crate::api::reddit_connection::{RedditConnectionStatus, USABLE};
use crate::controllers::reddit_connection::identity::Identity;
use crate::controllers::reddit_connection::observed::{LookUp, Observed, View};
use crate::controllers::reddit_connection::phase::{Phase, is_credential_rejected};
use crate::runtime::backoff::{spread, until};

/// How long a connection may be used by somebody who may not be the expected user before it stalls.
const UNVERIFIED: Duration = Duration::from_mins(10);

/// Wait if too many look-ups are under way.
const NO_ROOM: Duration = Duration::from_secs(10);

pub(super) fn identity_mismatch(view: &View<'_>) -> Option<Phase> {
    let expected = view.spec.expected_username.as_ref()?;
    let actual = view.status.display_name.as_ref()?;
    // Reddit user names are case-insensitive.
    (!expected.eq_ignore_ascii_case(actual)).then(|| Phase::IdentityMismatch {
        expected: expected.clone(),
        actual: actual.clone(),
    })
}

/// Where an ACTIVE account stands.
pub(super) fn active_phase(view: &View<'_>, auth_config_disabled: bool, now: Timestamp) -> Phase {
    if auth_config_disabled {
        let id = view.status.auth_config_id.clone();
        return Phase::AuthConfigDisabled { id };
    }
    if is_credential_rejected(&view.status) {
        return Phase::CredentialRejected;
    }
    match (&view.spec.expected_username, &view.status.display_name) {
        (Some(expected), None) => Phase::VerifyingIdentity {
            expected: expected.clone(),
            overdue: unverified_until(view).is_some_and(|end| end <= now),
        },
        _ => Phase::Connected,
    }
}

/// When it is too late for an expected user to be verified.
fn unverified_until(view: &View<'_>) -> Option<Timestamp> {
    let since = view.status.connected_at.as_ref()?.0;
    since.checked_add(UNVERIFIED).ok()
}

/// Looks up who the account is, or rests in `phase` until that is due.
pub(super) fn plan(view: &View<'_>, observed: &Observed, id: &str, phase: Phase, now: Timestamp) -> Plan {
    let mut plan = Plan::rest(phase.clone());
    if let (Phase::VerifyingIdentity { overdue: false, .. }, Some(end)) = (&phase, unverified_until(view)) {
        plan = plan.requeue_in(until(end, now));
    }
    let ended = match &observed.look_up {
        LookUp::Running => return plan,
        LookUp::Found { identity, at } if is_news(&view.status, identity, *at, observed.proofs.interval) => {
            let (identity, at) = (identity.clone(), *at);
            return Plan::step(Step::RecordIdentity { identity, at }, phase);
        }
        LookUp::Found { at, .. } | LookUp::Ended(at) => Some(*at),
        LookUp::NoRoom { ended } => *ended,
        LookUp::None => None,
    };
    let wait = until(due(view, observed, ended), now);
    if !wait.is_zero() {
        return plan.requeue_in(wait);
    }
    if matches!(observed.look_up, LookUp::NoRoom { .. }) {
        return plan.requeue_in(NO_ROOM);
    }
    let again = is_identity_known(view);
    let id = id.to_owned();
    Plan::step(Step::LookUpIdentity { id, again }, phase)
}

/// Whether the person is known, and the last look-up brought no failure.
fn is_identity_known(view: &View<'_>) -> bool {
    let identity = view.status.identity.as_ref();
    view.status.display_name.is_some() && identity.is_some_and(|identity| identity.failing_since.is_none())
}

/// Whether the account is polled as one from which no news is expected.
pub(super) fn identity_settled(view: &View<'_>, now: Timestamp) -> bool {
    let failing_since = view
        .status
        .identity
        .as_ref()
        .and_then(|identity| identity.failing_since.as_ref());
    let is_failing_for_long = || {
        let settled = Duration::from(view.spec.polling.settled);
        failing_since.is_some_and(|since| until(now, since.0) >= settled * FAILING_GROWTH)
    };
    is_identity_known(view) || is_failing_for_long()
}

/// While look-ups fail, the wait between them is the time for which they have failed, divided by this.
const FAILING_GROWTH: u32 = 4;

/// When the next look-up is due. `ended`: when the last one ended that is not on record. While nothing is known: `fast`
/// within `fastFor`, then `slow`, growing up to `settled`. A proof of what is known: after the interval.
fn due(view: &View<'_>, observed: &Observed, ended: Option<Timestamp>) -> Timestamp {
    let Some(identity) = &view.status.identity else {
        return Timestamp::MIN;
    };
    let last = ended.unwrap_or(Timestamp::MIN).max(identity.last_attempt_at.0);
    let after = |start: Timestamp, wait: Duration| start.checked_add(wait).unwrap_or(Timestamp::MAX);
    let Some(failing_since) = &identity.failing_since else {
        let interval = observed.proofs.interval;
        let due = after(last, interval.mul_f64(1.0 - spread(view.seed()) / 10.0));
        return if last < observed.proofs.since {
            // A restart must not prove everything at once.
            due.max(after(
                observed.proofs.since,
                interval.mul_f64(spread(view.seed())),
            ))
        } else {
            due
        };
    };
    let polling = &view.spec.polling;
    let (fast, slow) = (Duration::from(polling.fast), Duration::from(polling.slow));
    let connected_at = view.status.connected_at.as_ref().map(|time| time.0);
    if fast_until(view, connected_at) > last {
        return after(last, fast);
    }
    let grown = until(last, failing_since.0) / FAILING_GROWTH;
    after(last, grown.clamp(slow, slow.max(polling.settled.into())))
}

/// Whether what was found changes the status. An unchanged identity of a working credential does not.
fn is_news(status: &RedditConnectionStatus, found: &Identity, at: Timestamp, interval: Duration) -> bool {
    let Some(identity) = &status.identity else {
        return true;
    };
    if identity.last_attempt_at.0 >= whole_seconds(at) {
        return false;
    }
    let failing_since = identity.failing_since.as_ref().map(|since| since.0);
    let is_usable = conditions::is_true(&status.conditions, USABLE);
    match found {
        Identity::Known {
            display_name,
            avatar_url,
        } => {
            status.display_name.as_ref() != Some(display_name)
                || (avatar_url.is_some() && status.avatar_url != *avatar_url)
                || !is_usable
                || failing_since.is_some()
        }
        Identity::Rejected { .. } => failing_since.is_none() || !is_credential_rejected(status),
        Identity::Unknown { .. } => match failing_since {
            None => true,
            Some(since) => is_usable && is_proof_too_old(since, at, interval),
        },
    }
}

/// Whether look-ups have failed for so long that what was proven before them says nothing any more.
pub fn is_proof_too_old(failing_since: Timestamp, now: Timestamp, interval: Duration) -> bool {
    until(now, failing_since) >= interval
}
