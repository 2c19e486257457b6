//! Cleaning up after a deleted object.

use jiff::Timestamp;

use super::link::{is_own, unanswered_until};
use super::{DeletionTarget, Plan, Step};
use crate::api::reddit_connection::{DeletionPolicy, TOOLKIT};
use crate::composio::Account;
use crate::controllers::reddit_connection::observed::{Observed, View};
use crate::runtime::backoff::until;
use crate::runtime::plan::Position;

pub(super) fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
    let accounts = observed.user_accounts.as_deref().unwrap_or_default();
    if let Some((id, target)) = next_target(view, accounts) {
        let revoke = view.deletion_policy() == DeletionPolicy::Revoke;
        let id = id.to_owned();
        return Plan::step(Step::DeleteAccount { id, revoke, target }, Position::Unchanged);
    }
    match unanswered_until(view) {
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
    if let Some(id) = known {
        return Some((id, DeletionTarget::Current));
    }
    let listed = accounts.iter().find_map(|account| {
        if Some(account.id.as_str()) == adopted && account.toolkit == TOOLKIT {
            return Some((account.id.as_str(), DeletionTarget::Current));
        }
        is_own(view, account).then_some((account.id.as_str(), DeletionTarget::Orphan))
    });
    let replaced = view.status.replaced.as_ref();
    listed.or_else(|| replaced.map(|replaced| (replaced.id.as_str(), DeletionTarget::Replaced)))
}
