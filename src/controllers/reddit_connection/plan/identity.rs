//! When to ask who the account is, and whether it is the person that was expected.

use std::time::Duration;

use jiff::Timestamp;

use super::fast_until;
use crate::controllers::reddit_connection::observed::View;
use crate::controllers::reddit_connection::phase::Phase;
use crate::runtime::backoff::until;

/// Identity look-ups before the operator stops trying by itself.
const MAX_IDENTITY_TRIES: i64 = 30;

pub(super) fn identity_mismatch(view: &View<'_>) -> Option<Phase> {
    let expected = view.spec.expected_username.as_ref()?;
    let actual = view.status.display_name.as_ref()?;
    // Reddit user names are case-insensitive.
    (!expected.eq_ignore_ascii_case(actual)).then(|| Phase::IdentityMismatch {
        expected: expected.clone(),
        actual: actual.clone(),
    })
}

/// Whether nothing more is to be learnt about the person.
pub(super) fn identity_settled(view: &View<'_>) -> bool {
    let status = &view.status;
    let tries = status.identity.as_ref().map_or(0, |identity| identity.attempts);
    let complete = status.display_name.is_some()
        && status.profile_url.is_some()
        && status.avatar_url.is_some()
        && tries == 0;
    // No look-up on record: it was never done, or somebody asked for it again.
    (complete && status.identity.is_some()) || tries >= MAX_IDENTITY_TRIES
}

/// Time until the next identity look-up: `fast` within `fastFor`, then `slow`, doubling up to `settled`.
pub(super) fn identity_wait(view: &View<'_>, now: Timestamp) -> Duration {
    let Some(identity) = &view.status.identity else {
        return Duration::ZERO;
    };
    let polling = &view.spec.polling;
    let interval = if fast_until(view, view.status.connected_at.as_ref().map(|t| t.0)) > now {
        Duration::from(polling.fast)
    } else {
        let doublings = u32::try_from(identity.attempts.clamp(1, 12) - 1).unwrap_or(0);
        let slow = Duration::from(polling.slow);
        slow.saturating_mul(2_u32.pow(doublings.saturating_sub(4)))
            .min(slow.max(polling.settled.into()))
    };
    identity
        .last_attempt_at
        .0
        .checked_add(interval)
        .map_or(Duration::ZERO, |due| until(due, now))
}
