//! What to do next: a pure function of the object, what was observed, and the time.
//!
//! A plan holds at most one step. After each step the object is observed and planned again, so every remote call is
//! followed by a status write, and a crash between any two of them leaves a state that the next plan understands.

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
pub use self::step::{Doomed, Step};
use super::observed::{AccountView, Observed, Subject};
use super::phase::Phase;
use crate::api::reddit_connection::{DeletionPolicy, LinkPublication};
use crate::composio::{Account, AccountStatus, Priority};
use crate::controllers::failure::until;

/// What to do, what the object is now, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// At most one effect.
    pub step: Option<Step>,
    /// Where the object stands.
    pub phase: Phase,
    /// When to plan again if nothing happens before.
    pub wake: Option<Duration>,
}

impl Plan {
    fn step(step: Step, phase: Phase) -> Self {
        Self {
            step: Some(step),
            phase,
            wake: None,
        }
    }

    fn rest(phase: Phase) -> Self {
        Self {
            step: None,
            phase,
            wake: None,
        }
    }

    fn wake_for_retry(self, subject: &Subject<'_>, now: Timestamp) -> Self {
        match subject
            .standing_failure()
            .and_then(|retry| retry.next_attempt_at.as_ref())
        {
            Some(next) => self.wake_in(until(next.0, now)),
            None => self,
        }
    }

    fn wake_in(mut self, wait: Duration) -> Self {
        self.wake = Some(self.wake.map_or(wait, |old| old.min(wait)));
        self
    }
}

/// Which facts `plan` will need besides the account itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Inquiries {
    /// Every account of the person.
    pub inventory: bool,
    /// The auth configs of the toolkit.
    pub auth_configs: bool,
    /// The Secret for the link.
    pub link_secret: bool,
}

/// Which facts are needed, given the account.
pub fn inquiries(subject: &Subject<'_>, account: &AccountView, now: Timestamp) -> Inquiries {
    let nothing = Inquiries::default();
    if subject.deleting {
        let cleans = subject.has_finalizer && subject.deletion_policy() != DeletionPolicy::Retain;
        return Inquiries {
            inventory: cleans && !subject.is_backing_off(now),
            ..nothing
        };
    }
    if subject.spec.suspend || subject.is_backing_off(now) {
        return nothing;
    }
    match account {
        AccountView::None => links(subject),
        AccountView::Found(found) if found.status.is_pending() => Inquiries {
            link_secret: account::holds_own_link(subject),
            ..nothing
        },
        // A request may ask for a new link, which needs to know with which auth config.
        AccountView::Found(_) | AccountView::Gone if subject.open_request().is_some() => Inquiries {
            auth_configs: links(subject).auth_configs,
            ..nothing
        },
        _ => nothing,
    }
}

fn links(subject: &Subject<'_>) -> Inquiries {
    let wanted = subject.is_managed() && subject.spec.enabled;
    Inquiries {
        inventory: wanted,
        // One that the spec names is looked up too: a link for another toolkit must not be handed out.
        auth_configs: wanted && subject.status.auth_config_id.is_none(),
        link_secret: wanted && subject.spec.link.publish == LinkPublication::Secret,
    }
}

/// How often to look at the account, and how urgent that is.
pub fn cadence(subject: &Subject<'_>, account: &AccountView, now: Timestamp) -> (Duration, Priority) {
    let polling = &subject.spec.polling;
    let (fast, slow, settled) = (polling.fast.into(), polling.slow.into(), polling.settled.into());
    let interval = |since: Option<Timestamp>| {
        if fast_until(subject, since) > now {
            fast
        } else {
            slow
        }
    };
    match account {
        AccountView::Found(found) if found.status.is_pending() => {
            (interval(link_start(subject, found)), Priority::Pending)
        }
        AccountView::Found(found) if found.status == AccountStatus::Active && !identity_settled(subject) => (
            interval(subject.status.connected_at.as_ref().map(|t| t.0).or(Some(now))),
            Priority::Pending,
        ),
        // Nothing is known after a start: look once, soon.
        AccountView::Unseen => (slow, Priority::Pending),
        _ => (settled, Priority::Background),
    }
}

fn link_start(subject: &Subject<'_>, account: &Account) -> Option<Timestamp> {
    subject
        .status
        .link
        .as_ref()
        .map(|link| link.requested_at.0)
        .or(account.created_at)
}

fn fast_until(subject: &Subject<'_>, since: Option<Timestamp>) -> Timestamp {
    since
        .and_then(|start| {
            start
                .checked_add(Duration::from(subject.spec.polling.fast_for))
                .ok()
        })
        .unwrap_or(Timestamp::MIN)
}

/// Decides.
pub fn plan(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if subject.deleting {
        return deletion::plan(subject, observed, now);
    }
    if subject.spec.suspend {
        return Plan::rest(Phase::Suspended);
    }
    if let Some(failure) = &observed.failure {
        let phase = if subject.is_backing_off(now) {
            Phase::BackingOff
        } else {
            Phase::Failed(failure.clone())
        };
        return Plan::rest(phase).wake_for_retry(subject, now);
    }
    let needs_finalizer = subject.is_managed() && subject.deletion_policy() != DeletionPolicy::Retain;
    if needs_finalizer && !subject.has_finalizer {
        return Plan::step(Step::AddFinalizer, Phase::Keep);
    }
    let mut plan = account::plan(subject, observed, now);
    if let Some(trouble) = &observed.trouble {
        return Plan {
            step: None,
            phase: Phase::Trouble(trouble.clone()),
            ..plan
        };
    }
    if plan.step.is_none()
        && let (Some(_), Some(id)) = (subject.open_request(), subject.account_id())
        && observed.account != AccountView::Unseen
    {
        plan.step = Some(Step::Refresh { id: id.to_owned() });
    }
    // A failure stays on show until it is tried again, unless the account has moved on meanwhile.
    if subject.is_backing_off(now) && (plan.step.is_some() || plan.phase.state() == subject.status.state) {
        plan = Plan {
            step: None,
            phase: Phase::BackingOff,
            ..plan
        }
        .wake_for_retry(subject, now);
    }
    plan
}
