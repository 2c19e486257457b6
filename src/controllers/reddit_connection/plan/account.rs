//! What the account's state at Composio asks for.

use std::time::Duration;

use jiff::Timestamp;

use super::identity::{identity_mismatch, identity_settled, identity_wait};
use super::link::{renewals_left, replace};
use super::{Plan, Step, fast_until, link, link_start};
use crate::api::reddit_connection::{LinkPublication, TOOLKIT};
use crate::composio::{Account, AccountStatus};
use crate::controllers::failure::{Failure, Reason, until};
use crate::controllers::reddit_connection::observed::{AccountView, LinkSecret, Observed, Subject};
use crate::controllers::reddit_connection::phase::Phase;

/// How often the Secret of a link that nobody opened is looked for, so that a deleted one is replaced in its time.
const LINK_CHECK: Duration = Duration::from_mins(2);

/// Composio's reason for a link that nobody used in time.
const LINK_EXPIRED_REASON: &str = "Connection initiation did not complete within 10 minutes";

pub(super) fn plan(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> Plan {
    match &observed.account {
        AccountView::None => link::plan(subject, observed, now),
        AccountView::Unseen => Plan::rest(Phase::Keep),
        AccountView::Gone => {
            if subject.is_managed() && subject.open_request().is_some() {
                return replace(subject, observed, false);
            }
            Plan::rest(Phase::Gone {
                managed: subject.is_managed(),
            })
        }
        AccountView::Found(account) => {
            if let Some(failure) = refusal(subject, account) {
                return Plan::rest(Phase::Refused(failure));
            }
            match &account.status {
                status if status.is_pending() => plan_pending(subject, observed, account, now),
                AccountStatus::Active => plan_active(subject, observed, account, now),
                AccountStatus::Inactive => plan_inactive(subject, observed, account),
                AccountStatus::Revoked => plan_dead(subject, observed, Phase::Revoked),
                AccountStatus::Failed => plan_dead(subject, observed, Phase::ConsentFailed),
                AccountStatus::Expired => plan_expired(subject, observed, account),
                other => Plan::rest(Phase::UnknownStatus(other.as_str().to_owned())),
            }
        }
    }
}

/// Why this account must not be used for this object.
fn refusal(subject: &Subject<'_>, account: &Account) -> Option<Failure> {
    let id = &account.id;
    // A field that Composio leaves out says nothing about an account of our own making; an adopted one has to prove it.
    let differs =
        |theirs: &str, wanted: &str| theirs != wanted && (subject.is_adopted() || !theirs.is_empty());
    if differs(&account.user_id, &subject.spec.user_id) {
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
    match &subject.spec.auth_config_id {
        Some(wanted) if differs(&account.auth_config_id, wanted) => Some(Failure::stalled(
            Reason::AuthConfigMismatch,
            format!(
                "account {id} was connected with auth config {}, but spec.authConfigId is {wanted}; delete this object \
                 and create one without authConfigId, or with that one",
                account.auth_config_id
            ),
        )),
        _ => None,
    }
}

/// Whether the account in status was made for this object, so that the operator may delete it.
fn is_own(subject: &Subject<'_>) -> bool {
    subject.is_managed() && !subject.is_adopted()
}

/// Whether the link of the account in status is ours to hand out and lies in a Secret.
pub(super) fn holds_own_link(subject: &Subject<'_>) -> bool {
    is_own(subject)
        && subject
            .status
            .link
            .as_ref()
            .is_some_and(|link| link.redirect_url.is_none())
}

fn plan_pending(subject: &Subject<'_>, observed: &Observed, account: &Account, now: Timestamp) -> Plan {
    let opened = account.status != AccountStatus::Initializing;
    let link_is_lost = match &observed.link_secret {
        Some(LinkSecret::Ours { account_id, .. }) => account_id.as_deref() != Some(account.id.as_str()),
        Some(LinkSecret::Absent | LinkSecret::Leftover | LinkSecret::Foreign) => true,
        None => false,
    };
    // Whoever moves the link means the one that is out, too.
    let is_elsewhere = is_own(subject)
        && subject
            .status
            .link
            .as_ref()
            .is_some_and(|link| match subject.spec.link.publish {
                LinkPublication::Secret => link.redirect_url.is_some(),
                LinkPublication::Status => link.secret_name.is_some(),
            });
    if is_elsewhere && !opened {
        return replace(subject, observed, false);
    }
    // Once the person has opened it, they have the link; a consent under way must not be cut off.
    if link_is_lost && !opened && holds_own_link(subject) {
        if renewals_left(subject) || subject.open_request().is_some() {
            return replace(subject, observed, true);
        }
        return Plan::rest(Phase::LinkLost);
    }
    let secret = subject
        .status
        .link
        .as_ref()
        .and_then(|link| link.secret_name.clone());
    let mut plan = Plan::rest(Phase::AwaitingConsent { opened, secret });
    if observed.link_secret.is_some() && !opened {
        // Secrets are not watched: whether this one is still there is seen by looking.
        plan = plan.wake_in(LINK_CHECK);
    }
    match fast_until(subject, link_start(subject, account)) {
        // The interval changes then.
        end if end > now => plan.wake_in(until(end, now)),
        _ => plan,
    }
}

fn plan_active(subject: &Subject<'_>, observed: &Observed, account: &Account, now: Timestamp) -> Plan {
    let mismatch = identity_mismatch(subject);
    if subject.is_managed() && !wants_enabled(subject) {
        return Plan::step(
            Step::SetEnabled {
                id: account.id.clone(),
                enabled: false,
            },
            Phase::Keep,
        );
    }
    if subject
        .status
        .link
        .as_ref()
        .is_some_and(|link| link.secret_name.is_some())
    {
        return Plan::step(Step::DeleteLinkSecret, active_phase(subject));
    }
    if let Some(phase) = mismatch {
        return Plan::rest(phase);
    }
    if subject.open_request().is_some()
        && subject.is_managed()
        && Phase::is_credential_rejected(subject.status)
    {
        return replace(subject, observed, false);
    }
    let plan = Plan::rest(active_phase(subject));
    if subject.open_request().is_some() {
        // Answered before the next identity look-up: what that finds must not turn this request into one for a new link.
        return plan;
    }
    if identity_settled(subject) {
        return plan;
    }
    match identity_wait(subject, now) {
        Duration::ZERO => Plan::step(
            Step::Identify {
                id: account.id.clone(),
            },
            active_phase(subject),
        ),
        wait => plan.wake_in(wait),
    }
}

fn active_phase(subject: &Subject<'_>) -> Phase {
    if Phase::is_credential_rejected(subject.status) {
        return Phase::CredentialRejected;
    }
    match (&subject.spec.expected_username, &subject.status.display_name) {
        (Some(expected), None) => Phase::VerifyingIdentity {
            expected: expected.clone(),
        },
        _ => Phase::Connected {
            display_name: subject.status.display_name.clone(),
        },
    }
}

fn plan_inactive(subject: &Subject<'_>, observed: &Observed, account: &Account) -> Plan {
    if subject
        .status
        .link
        .as_ref()
        .is_some_and(|link| link.secret_name.is_some())
    {
        return Plan::step(Step::DeleteLinkSecret, Phase::Keep);
    }
    if !subject.spec.enabled {
        return Plan::rest(Phase::Disabled);
    }
    if let Some(phase) = identity_mismatch(subject) {
        return plan_dead(subject, observed, phase);
    }
    let asked = subject.open_request().is_some();
    if subject.is_managed() && (subject.status.disabled_by_operator || asked) {
        return Plan::step(
            Step::SetEnabled {
                id: account.id.clone(),
                enabled: true,
            },
            Phase::Keep,
        );
    }
    Plan::rest(Phase::DisabledElsewhere {
        managed: subject.is_managed(),
    })
}

fn plan_expired(subject: &Subject<'_>, observed: &Observed, account: &Account) -> Plan {
    let unused = match account.status_reason.as_deref() {
        Some(reason) => reason == LINK_EXPIRED_REASON,
        None => subject.status.connected_at.is_none(),
    };
    if !unused {
        return plan_dead(subject, observed, Phase::CredentialExpired);
    }
    if is_own(subject) && renewals_left(subject) && subject.spec.enabled {
        return replace(subject, observed, true);
    }
    plan_dead(subject, observed, Phase::LinkExpired)
}

/// An account that only a new consent can bring back: wait until somebody asks for a link.
fn plan_dead(subject: &Subject<'_>, observed: &Observed, phase: Phase) -> Plan {
    if subject.open_request().is_some() && subject.is_managed() && subject.spec.enabled {
        return replace(subject, observed, false);
    }
    if subject
        .status
        .link
        .as_ref()
        .is_some_and(|link| link.secret_name.is_some())
    {
        return Plan::step(Step::DeleteLinkSecret, phase);
    }
    Plan::rest(phase)
}

/// An account of the wrong person is disabled, so that no agent acts with it; an adopted one may serve others.
fn wants_enabled(subject: &Subject<'_>) -> bool {
    subject.spec.enabled && (subject.is_adopted() || identity_mismatch(subject).is_none())
}
