//! What the account's status at Composio asks for.

use std::time::Duration;

use jiff::Timestamp;

use super::identity::{self, active_phase, identity_mismatch};
use super::link::{renewals_left, replace};
use super::{Plan, Step, fast_until, link, link_start};
use crate::api::Reason;
use crate::api::reddit_connection::{LinkPublication, TOOLKIT};
use crate::composio::{Account, AccountStatus};
use crate::controllers::reddit_connection::observed::{AccountView, LinkSecret, Observed, View};
use crate::controllers::reddit_connection::phase::{Phase, is_credential_rejected};
use crate::runtime::backoff::until;
use crate::runtime::failure::Failure;
use crate::runtime::plan::Position;

/// How often the Secret of a link that nobody opened is read, so that a deleted one is replaced in time.
const LINK_CHECK: Duration = Duration::from_mins(2);

pub(super) fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
    match &observed.account {
        AccountView::None => link::plan(view, observed, now),
        AccountView::Unknown => Plan::rest(Position::Unchanged),
        AccountView::NotFound => {
            if view.is_managed() && view.pending_request().is_some() {
                return replace(view, observed, false);
            }
            Plan::rest(Phase::NotFound {
                managed: view.is_managed(),
                key_differs: observed.key_differs(view.status.api_key.as_ref()),
            })
        }
        AccountView::Found(account) => {
            if let Some(failure) = refusal(view, account) {
                return Plan::rest(Phase::Refused(failure));
            }
            match &account.status {
                status if status.is_pending() => plan_pending(view, observed, account, now),
                AccountStatus::Active => plan_active(view, observed, account, now),
                AccountStatus::Inactive => plan_inactive(view, observed, account),
                AccountStatus::Revoked => plan_dead(view, observed, Phase::Revoked),
                AccountStatus::Failed => plan_dead(view, observed, Phase::ConsentFailed),
                AccountStatus::Expired => plan_expired(view, observed),
                other => Plan::rest(Phase::UnknownStatus(other.as_str().to_owned())),
            }
        }
    }
}

/// Why this account must not be used for this object.
fn refusal(view: &View<'_>, account: &Account) -> Option<Failure> {
    let id = &account.id;
    // A field that Composio leaves out says nothing about an account of our own making; an adopted one has to prove it.
    let differs = |theirs: &str, wanted: &str| theirs != wanted && (view.is_adopted() || !theirs.is_empty());
    if differs(&account.user_id, &view.spec.user_id) {
        // The other person's id is theirs to know.
        return Some(Failure::stalled(
            Reason::UserMismatch,
            format!(
                "account {id} belongs to another userId; delete this object and create one \
                 with an account of this userId, or without connectedAccountId"
            ),
        ));
    }
    if differs(&account.toolkit, TOOLKIT) {
        return Some(Failure::stalled(
            Reason::ToolkitMismatch,
            format!(
                "account {id} belongs to toolkit {:?}, not to {TOOLKIT}; delete this object and create one \
                 for an account of that toolkit",
                account.toolkit
            ),
        ));
    }
    // An account of our own was made with the auth config of its time. What the spec says counts from the next link on.
    match &view.spec.auth_config_id {
        Some(wanted) if view.is_adopted() && account.auth_config_id != *wanted => Some(Failure::stalled(
            Reason::AuthConfigMismatch,
            format!(
                "account {id} was connected with auth config {}, but spec.authConfigId is {wanted}; correct \
                 spec.authConfigId, or leave it out",
                account.auth_config_id
            ),
        )),
        _ => None,
    }
}

/// Whether the link of the account in status is ours to hand out and lies in a Secret.
pub(super) fn holds_own_link(view: &View<'_>) -> bool {
    view.is_own()
        && view
            .status
            .link
            .as_ref()
            .is_some_and(|link| link.redirect_url.is_none())
}

fn plan_pending(view: &View<'_>, observed: &Observed, account: &Account, now: Timestamp) -> Plan {
    let opened = account.status != AccountStatus::Initializing;
    let link_is_lost = match &observed.link_secret {
        Some(LinkSecret::Owned { account_id, .. }) => account_id.as_deref() != Some(account.id.as_str()),
        Some(LinkSecret::Absent | LinkSecret::PreviousOwner | LinkSecret::NotOwned) => true,
        None => false,
    };
    // Whoever moves the link means the one that is out, too.
    let is_elsewhere = view.is_own()
        && view
            .status
            .link
            .as_ref()
            .is_some_and(|link| match view.spec.link.publish {
                LinkPublication::Secret => link.redirect_url.is_some(),
                LinkPublication::Status => link.secret_name.is_some(),
            });
    let asked = view.is_own() && view.pending_request().is_some();
    if asked || (is_elsewhere && !opened) {
        return replace(view, observed, false);
    }
    // Also after it was opened: a mail scanner may have done that, and a person without a link can do nothing.
    if link_is_lost && holds_own_link(view) {
        if renewals_left(view) {
            return replace(view, observed, true);
        }
        return Plan::rest(Phase::LinkLost);
    }
    if account.auth_config_disabled {
        return Plan::rest(Phase::AuthConfigDisabled {
            id: view.status.auth_config_id.clone(),
        });
    }
    let secret = view
        .status
        .link
        .as_ref()
        .and_then(|link| link.secret_name.clone());
    let mut plan = Plan::rest(Phase::AwaitingConsent { opened, secret });
    if observed.link_secret.is_some() {
        // Secrets are not watched: whether this one still exists is found out by reading it.
        plan = plan.requeue_in(LINK_CHECK);
    }
    match fast_until(view, link_start(view, account)) {
        // The interval changes then.
        end if end > now => plan.requeue_in(until(end, now)),
        _ => plan,
    }
}

fn plan_active(view: &View<'_>, observed: &Observed, account: &Account, now: Timestamp) -> Plan {
    let mismatch = identity_mismatch(view);
    if view.is_managed() && !wants_enabled(view) {
        // On record before it is done, so that whoever takes it back knows that it may have been done.
        return if view.status.disabled_by_operator {
            set_enabled(account, false)
        } else {
            Plan::step(Step::RecordDisabling, Position::Unchanged)
        };
    }
    if view.is_managed() && view.status.disabled_by_operator && mismatch.is_none() {
        // Disabling it may be under way although it does not show yet.
        return set_enabled(account, true);
    }
    let phase = active_phase(view, account.auth_config_disabled, now);
    if view.has_link_secret() {
        return Plan::step(Step::DeleteLinkSecret, phase);
    }
    if let Some(phase) = mismatch {
        return Plan::rest(phase);
    }
    if view.pending_request().is_some() {
        if view.is_managed() && is_credential_rejected(&view.status) {
            return replace(view, observed, false);
        }
        // It is handled before the next identity look-up: what that finds must not turn this request into one for a new link.
        return Plan::rest(phase);
    }
    identity::plan(view, observed, &account.id, phase, now)
}

fn set_enabled(account: &Account, enabled: bool) -> Plan {
    let id = account.id.clone();
    Plan::step(Step::SetEnabled { id, enabled }, Position::Unchanged)
}

fn plan_inactive(view: &View<'_>, observed: &Observed, account: &Account) -> Plan {
    if view.has_link_secret() {
        return Plan::step(Step::DeleteLinkSecret, Position::Unchanged);
    }
    if !view.spec.enabled {
        return Plan::rest(Phase::Disabled);
    }
    if let Some(phase) = identity_mismatch(view) {
        return plan_dead(view, observed, phase);
    }
    let asked = view.pending_request().is_some();
    if view.is_managed() && (view.status.disabled_by_operator || asked) {
        return set_enabled(account, true);
    }
    Plan::rest(Phase::DisabledElsewhere {
        managed: view.is_managed(),
    })
}

fn plan_expired(view: &View<'_>, observed: &Observed) -> Plan {
    // Composio calls both a link that nobody used and a dead credential EXPIRED.
    if view.is_adopted() || view.status.connected_at.is_some() {
        return plan_dead(view, observed, Phase::CredentialExpired);
    }
    if view.is_own() && renewals_left(view) && view.spec.enabled {
        return replace(view, observed, true);
    }
    let phase = match view.status.links_opened {
        0 => Phase::LinkExpired,
        opened => Phase::ConsentTimedOut { opened },
    };
    plan_dead(view, observed, phase)
}

/// An account that only a new consent can bring back: wait until somebody asks for a link.
fn plan_dead(view: &View<'_>, observed: &Observed, phase: Phase) -> Plan {
    if view.pending_request().is_some() && view.is_managed() && view.spec.enabled {
        return replace(view, observed, false);
    }
    if view.has_link_secret() {
        return Plan::step(Step::DeleteLinkSecret, phase);
    }
    Plan::rest(phase)
}

/// An account of the wrong person is disabled, so that no agent acts with it; an adopted one may serve others.
fn wants_enabled(view: &View<'_>) -> bool {
    view.spec.enabled && (view.is_adopted() || identity_mismatch(view).is_none())
}
