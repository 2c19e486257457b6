//! What to do next: a pure function of the object, what was observed, and the time.
//!
//! Every remote change is followed by a status write, and a crash between any two of them leaves a state that the next
//! plan understands.

mod account;
mod deletion;
mod identity;
mod link;
mod step;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use self::identity::identity_settled;
pub use self::identity::is_proof_too_old;
pub use self::link::{UNANSWERED_CREATE, is_intent_fresh};
pub use self::step::{DeletionTarget, Step};
use super::observed::{AccountView, Observed, View};
use super::phase::Phase;
use crate::composio::{Account, AccountStatus, Priority};
use crate::runtime;

/// What to do, where the object stands, and when to come back.
pub type Plan = runtime::plan::Plan<Step, Phase>;

/// Which facts `plan` will need besides the account itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Queries {
    /// Every account of the person.
    pub user_accounts: bool,
    /// The auth configs of the toolkit.
    pub auth_configs: bool,
    /// The Secret for the link.
    pub link_secret: bool,
}

/// Which facts are needed, given the account.
pub fn queries(view: &View<'_>, account: &AccountView, now: Timestamp) -> Queries {
    let nothing = Queries::default();
    if view.deleting {
        return Queries {
            user_accounts: true,
            ..nothing
        };
    }
    if view.is_backing_off(now) {
        return nothing;
    }
    match account {
        AccountView::None if view.spec.enabled => links(view),
        // Whether there is nothing to disable is found out once.
        AccountView::None => Queries {
            user_accounts: view.is_managed() && !view.is_settled_without_account(),
            link_secret: view.is_managed() && !view.is_settled_without_account(),
            ..nothing
        },
        AccountView::Found(found) if found.status.is_pending() => Queries {
            link_secret: account::holds_own_link(view),
            user_accounts: link::is_search_due(view, now),
            ..nothing
        },
        // A request may ask for a new link, which needs to know with which auth config.
        AccountView::Found(_) | AccountView::NotFound => Queries {
            auth_configs: view.pending_request().is_some() && view.status.auth_config_id.is_none(),
            user_accounts: link::is_search_due(view, now),
            ..nothing
        },
        AccountView::Unknown => nothing,
    }
}

fn links(view: &View<'_>) -> Queries {
    let wanted = view.is_managed();
    Queries {
        user_accounts: wanted,
        // Also one that was used before or that the spec names: it may be gone, or of another toolkit.
        auth_configs: wanted,
        // Also if links are published elsewhere: an earlier one may have left a Secret.
        link_secret: wanted,
    }
}

/// How often to poll the account, and how urgent that is.
pub fn poll_interval(view: &View<'_>, account: &AccountView, now: Timestamp) -> (Duration, Priority) {
    let polling = &view.spec.polling;
    let (fast, slow, settled) = (polling.fast.into(), polling.slow.into(), polling.settled.into());
    let interval = |since: Option<Timestamp>| {
        if fast_until(view, since) > now { fast } else { slow }
    };
    match account {
        AccountView::Found(found) if found.status.is_pending() => {
            (interval(link_start(view, found)), Priority::Pending)
        }
        AccountView::Found(found)
            if found.status == AccountStatus::Active && !identity_settled(view, now) =>
        {
            (
                interval(view.status.connected_at.as_ref().map(|t| t.0).or(Some(now))),
                Priority::Pending,
            )
        }
        // Nothing is known after a start: it is polled once, soon.
        AccountView::Unknown => (slow, Priority::Pending),
        _ => (settled, Priority::Background),
    }
}

fn link_start(view: &View<'_>, account: &Account) -> Option<Timestamp> {
    view.status
        .link
        .as_ref()
        .map(|link| link.requested_at.0)
        .or(account.created_at)
}

fn fast_until(view: &View<'_>, since: Option<Timestamp>) -> Timestamp {
    since
        .and_then(|start| start.checked_add(Duration::from(view.spec.polling.fast_for)).ok())
        .unwrap_or(Timestamp::MIN)
}

/// Decides.
pub fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if view.deleting {
        return deletion::plan(view, observed, now);
    }
    let mut plan = account::plan(view, observed, now);
    if plan.step.is_none() {
        plan = link::search(view, observed, plan, now);
    }
    if let Some(failure) = &observed.poll_failure {
        return Plan {
            requeue_after: plan.requeue_after,
            ..Plan::rest(Phase::PollingFailed(failure.clone()))
        };
    }
    if plan.step.is_none()
        && let (Some(_), Some(id)) = (view.pending_request(), view.account_id())
        && observed.account != AccountView::Unknown
    {
        plan.step = Some(Step::Refresh { id: id.to_owned() });
    }
    plan
}
