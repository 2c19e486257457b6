//! Cleaning up after a deleted object.

use std::time::Duration;

use jiff::Timestamp;

use super::{Doomed, Plan, Step};
use crate::api::reddit_connection::{DeletionPolicy, TOOLKIT};
use crate::composio::Account;
use crate::controllers::failure::{Reason, until};
use crate::controllers::reddit_connection::observed::{Observed, Subject, attempt_of};
use crate::controllers::reddit_connection::phase::Phase;

/// A create whose answer never came may still be committed this long after its intent was recorded: until the call was
/// sent, until it was given up, and a while for Composio. Deletion waits that long before it believes a listing that
/// does not show the account.
const UNANSWERED_CREATE: Duration = Duration::from_secs(75);

/// Cleanup tries before an object is released although a person could mend the failure; about ten minutes.
const MAX_CLEANUP_TRIES_UNMENDED: i64 = 8;
/// Cleanup tries before an object is released although Composio does not answer, a bit more than two hours.
const MAX_CLEANUP_TRIES: i64 = 30;

pub(super) fn plan(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if !subject.has_finalizer {
        return Plan::rest(Phase::Keep);
    }
    if subject.deletion_policy() == DeletionPolicy::Retain {
        return Plan::step(Step::RemoveFinalizer { abandoned: None }, Phase::Deleting);
    }
    if subject.is_backing_off(now) {
        return Plan::rest(Phase::BackingOff).wake_for_retry(subject, now);
    }
    if let Some(reason) = cleanup_given_up(subject) {
        return Plan::step(
            Step::RemoveFinalizer {
                abandoned: Some(reason.to_owned()),
            },
            Phase::Deleting,
        );
    }
    if let Some(failure) = &observed.failure {
        return Plan::rest(Phase::Failed(failure.clone()));
    }
    let Some(inventory) = &observed.inventory else {
        return Plan::rest(Phase::Deleting);
    };
    if let Some((id, role)) = doomed(subject, inventory) {
        let revoke = subject.deletion_policy() == DeletionPolicy::Revoke;
        return Plan::step(
            Step::DeleteAccount {
                id: id.to_owned(),
                revoke,
                role,
            },
            Phase::Deleting,
        );
    }
    let unanswered_until = subject
        .status
        .link
        .as_ref()
        .filter(|_| subject.status.connected_account_id.is_none())
        .and_then(|link| link.requested_at.0.checked_add(UNANSWERED_CREATE).ok());
    match unanswered_until {
        Some(end) if now < end => Plan::rest(Phase::Deleting).wake_in(until(end, now)),
        _ => Plan::step(Step::RemoveFinalizer { abandoned: None }, Phase::Deleting),
    }
}

/// The next account to delete. An adopted account is only taken from the person's own listing, so that naming somebody
/// else's account never deletes it.
fn doomed<'a>(subject: &Subject<'a>, inventory: &'a [Account]) -> Option<(&'a str, Doomed)> {
    let known = subject
        .status
        .connected_account_id
        .as_deref()
        .filter(|_| !subject.is_adopted());
    let adopted = subject.account_id().filter(|_| subject.is_adopted());
    known.map(|id| (id, Doomed::Current)).or_else(|| {
        inventory.iter().find_map(|account| {
            if Some(account.id.as_str()) == adopted && account.toolkit == TOOLKIT {
                return Some((account.id.as_str(), Doomed::Current));
            }
            attempt_of(subject.uid, account.alias.as_deref()?)?;
            Some((account.id.as_str(), Doomed::Stray))
        })
    })
}

/// The failure that cleanup was tried often enough against: an object must not hang for ever.
fn cleanup_given_up<'a>(subject: &Subject<'a>) -> Option<&'a str> {
    let retry = subject
        .status
        .retry
        .as_ref()
        .filter(|_| subject.standing_failure().is_some())?;
    let unmended = [
        Reason::ApiKeyNotFound,
        Reason::ApiKeyNotShared,
        Reason::ApiKeyRejected,
        Reason::ApiKeyForbidden,
        Reason::RequestRefused,
    ];
    let limit = if unmended.iter().any(|reason| reason.as_str() == retry.reason) {
        MAX_CLEANUP_TRIES_UNMENDED
    } else {
        MAX_CLEANUP_TRIES
    };
    (retry.failures >= limit).then_some(retry.reason.as_str())
}
