//! Cleaning up after a deleted object.

use std::time::Duration;

use jiff::Timestamp;

use super::{DeletionTarget, Plan, Step};
use crate::api::reddit_connection::{DeletionPolicy, TOOLKIT};
use crate::composio::Account;
use crate::controllers::reddit_connection::observed::{Observed, View, attempt_of};
use crate::runtime::backoff::until;
use crate::runtime::plan::Position;

/// A create whose answer never came may still be committed this long after its intent was recorded: until the call was
/// sent, until it was given up, and a while for Composio. Deletion waits that long before it believes a list that
/// does not show the account.
const UNANSWERED_CREATE: Duration = Duration::from_secs(75);

pub(super) fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
    let accounts = observed.user_accounts.as_deref().unwrap_or_default();
    if let Some((id, target)) = next_target(view, accounts) {
        let revoke = view.deletion_policy() == DeletionPolicy::Revoke;
        let id = id.to_owned();
        return Plan::step(Step::DeleteAccount { id, revoke, target }, Position::Unchanged);
    }
    let unanswered_until = view
        .status
        .link
        .as_ref()
        .filter(|_| view.status.connected_account_id.is_none())
        .and_then(|link| link.requested_at.0.checked_add(UNANSWERED_CREATE).ok());
    match unanswered_until {
        Some(end) if now < end => Plan::rest(Position::Unchanged).requeue_in(until(end, now)),
        _ => Plan::rest(Position::Unchanged),
    }
}

/// The next account to delete. An adopted account is only taken from the list of the person's own accounts, so that naming somebody
/// else's account never deletes it.
fn next_target<'a>(view: &'a View<'_>, accounts: &'a [Account]) -> Option<(&'a str, DeletionTarget)> {
    let known = view
        .status
        .connected_account_id
        .as_deref()
        .filter(|_| !view.is_adopted());
    let adopted = view.account_id().filter(|_| view.is_adopted());
    known.map(|id| (id, DeletionTarget::Current)).or_else(|| {
        accounts.iter().find_map(|account| {
            if Some(account.id.as_str()) == adopted && account.toolkit == TOOLKIT {
                return Some((account.id.as_str(), DeletionTarget::Current));
            }
            attempt_of(view.uid, account.alias.as_deref()?)?;
            Some((account.id.as_str(), DeletionTarget::Orphan))
        })
    })
}
