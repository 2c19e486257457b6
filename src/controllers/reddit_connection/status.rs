//! The next status: a pure function of the old one, the plan and what came of it. And the events that follow from it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::identity::{Identity, profile_url};
use super::observed::{AccountView, Observed, Subject};
use super::phase::{CREDENTIAL_REJECTED, Phase, Verdict};
use super::plan::{Doomed, Plan};
use crate::api::conditions::{self, READY, RECONCILING, STALLED, Truth, truncated, whole_seconds};
use crate::api::reddit_connection::{
    CONNECTED, IdentityStatus, LinkStatus, REAUTH_REQUIRED, RedditConnectionStatus, USABLE,
};
use crate::composio::{Account, AccountStatus};
use crate::controllers::failure::{Class, Failure, Reason};
use crate::controllers::retry;

/// What came of a plan's step.
#[derive(Clone, Debug, PartialEq)]
pub enum Acted {
    /// The plan had no step.
    Nothing,
    /// Done, and status has nothing to add.
    Done,
    /// The intent to make a link is on record with this very status write.
    Begun {
        /// Number of the attempt.
        attempt: i64,
        /// Auth config it will use.
        auth_config_id: String,
        /// It uses up one of the renewals.
        renewal: bool,
    },
    /// The attempt found at Composio is on record with this very status write.
    Recovered {
        /// Number of the attempt.
        attempt: i64,
    },
    /// The link is going to be made now, and that is on record with this very status write.
    IntentRenewed,
    /// The link exists and is stored.
    LinkCreated {
        /// The new account.
        account_id: String,
        /// When the link expires.
        expires_at: Option<Timestamp>,
        /// Where the link is.
        published: Published,
    },
    /// An account was found by its alias.
    Adopted {
        /// That account.
        account: Account,
        /// When its link expires, if the link is in the Secret.
        expires_at: Option<Timestamp>,
        /// The Secret made for its link, if there is one.
        secret_name: Option<String>,
    },
    /// An account is not this object's any more.
    Deleted {
        /// What it was to the object.
        role: Doomed,
        /// What became of it.
        outcome: Disposal,
    },
    /// The account is enabled or disabled.
    EnabledSet {
        /// true: enabled.
        enabled: bool,
    },
    /// The Secret with the spent link is gone.
    LinkSecretDeleted,
    /// The identity look-up ended.
    Identified(Identity),
    /// The account was looked at because somebody asked.
    Refreshed,
    /// The step failed.
    Failed(Failure),
}

/// What became of an account that was to be deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disposal {
    /// It is deleted at Composio.
    Deleted,
    /// Somebody else had deleted it.
    WasGone,
    /// It turned out to belong to somebody else.
    LeftAlone,
}

/// Where a link was put.
#[derive(Clone, PartialEq)]
pub enum Published {
    /// In the Secret of this name.
    Secret(String),
    /// In the status, as this URL.
    Status(String),
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret(name) => f.debug_tuple("Secret").field(name).finish(),
            Self::Status(_) => f.write_str("Status([redacted])"),
        }
    }
}

/// Where the object stands after the step.
pub fn final_phase(plan: &Plan, acted: &Acted) -> Phase {
    match acted {
        Acted::Failed(failure) => Phase::Failed(failure.clone()),
        _ => plan.phase.clone(),
    }
}

/// Computes the next status.
pub fn next_status(
    subject: &Subject<'_>,
    observed: &Observed,
    plan: &Plan,
    acted: &Acted,
    now: Timestamp,
) -> RedditConnectionStatus {
    let phase = final_phase(plan, acted);
    let mut status = subject.status.clone();
    if phase != Phase::Keep || *acted != Acted::Nothing {
        status.observed_generation = Some(subject.generation);
    }
    if !matches!(phase, Phase::Deleting | Phase::Suspended | Phase::Refused(_)) {
        note_account(&mut status, subject, &observed.account, now);
    }
    if matches!(phase, Phase::Disabled | Phase::IdentityMismatch { .. })
        && matches!(&observed.account, AccountView::Found(a) if a.status == AccountStatus::Inactive)
    {
        // Whoever disabled it: the spec asks for it, and takes it back when it no longer does.
        status.disabled_by_operator = subject.is_managed();
    }
    note_effect(&mut status, acted, now);
    note_request(&mut status, subject, acted, &phase);
    note_failure(&mut status, subject, acted, &phase, now);
    let phase = match phase {
        Phase::Connected { .. } => Phase::Connected {
            display_name: status.display_name.clone(),
        },
        phase => phase,
    };
    if let Some(verdict) = phase.verdict(subject.status, subject.is_managed()) {
        judge(&mut status, &verdict, subject.generation, now);
    }
    note_usability(&mut status, acted, subject.generation, now);
    status
}

fn note_account(
    status: &mut RedditConnectionStatus,
    subject: &Subject<'_>,
    account: &AccountView,
    now: Timestamp,
) {
    match account {
        AccountView::None | AccountView::Unseen => {}
        AccountView::Gone => {
            status.provider_status = None;
            status.status_reason = None;
        }
        AccountView::Found(account) => {
            status.connected_account_id = Some(account.id.clone());
            status.adopted = subject.is_adopted();
            if !account.auth_config_id.is_empty() {
                status.auth_config_id = Some(account.auth_config_id.clone());
            }
            let was_active = status.provider_status.as_deref() == Some(AccountStatus::Active.as_str());
            status.provider_status = Some(truncated(account.status.as_str(), 64).to_owned());
            status.status_reason = account
                .status_reason
                .as_deref()
                .map(|r| truncated(r, 256).to_owned());
            if account.status == AccountStatus::Active {
                // Whoever it was before: it may be another person now.
                if !was_active {
                    status.identity = None;
                }
                status.connected_at.get_or_insert(Time(whole_seconds(now)));
                status.link_renewals = 0;
                status.disabled_by_operator = false;
            }
            if !account.status.is_pending()
                && status
                    .link
                    .as_ref()
                    .is_some_and(|link| link.secret_name.is_none())
            {
                status.link = None;
            }
        }
    }
}

fn note_effect(status: &mut RedditConnectionStatus, acted: &Acted, now: Timestamp) {
    match acted {
        Acted::Nothing
        | Acted::Done
        | Acted::Deleted {
            role: Doomed::Stray, ..
        }
        | Acted::Failed(_) => {}
        Acted::Begun {
            attempt,
            auth_config_id,
            renewal,
        } => {
            *status = RedditConnectionStatus {
                observed_generation: status.observed_generation,
                auth_config_id: Some(auth_config_id.clone()),
                link_attempts: *attempt,
                link_renewals: status.link_renewals + i64::from(*renewal),
                link: Some(requested(now)),
                state: status.state,
                last_handled_request_at: status.last_handled_request_at.take(),
                retry: status.retry.take(),
                conditions: std::mem::take(&mut status.conditions),
                ..RedditConnectionStatus::default()
            };
        }
        Acted::Recovered { attempt } => {
            status.link_attempts = *attempt;
            status.link = Some(requested(now));
        }
        Acted::IntentRenewed => {
            status.link.get_or_insert(requested(now)).requested_at = Time(whole_seconds(now));
        }
        Acted::LinkCreated {
            account_id,
            expires_at,
            published,
        } => {
            status.connected_account_id = Some(account_id.clone());
            let link = status.link.get_or_insert(requested(now));
            link.expires_at = expires_at.map(|t| Time(whole_seconds(t)));
            match published {
                Published::Secret(name) => link.secret_name = Some(name.clone()),
                Published::Status(url) => link.redirect_url = Some(url.clone()),
            }
        }
        Acted::Adopted {
            account,
            expires_at,
            secret_name,
        } => {
            status.connected_account_id = Some(account.id.clone());
            let link = status.link.get_or_insert(requested(now));
            link.expires_at = expires_at.map(|t| Time(whole_seconds(t)));
            link.secret_name.clone_from(secret_name);
        }
        Acted::Deleted {
            role: Doomed::Current,
            ..
        } => {
            status.connected_account_id = None;
            status.link = None;
        }
        Acted::EnabledSet { enabled } => status.disabled_by_operator = !enabled,
        Acted::LinkSecretDeleted => status.link = None,
        Acted::Identified(identity) => note_identity(status, identity, now),
        Acted::Refreshed => status.identity = None,
    }
}

fn requested(now: Timestamp) -> LinkStatus {
    LinkStatus {
        requested_at: Time(whole_seconds(now)),
        expires_at: None,
        secret_name: None,
        redirect_url: None,
    }
}

fn note_identity(status: &mut RedditConnectionStatus, identity: &Identity, now: Timestamp) {
    let attempts = status.identity.as_ref().map_or(0, |old| old.attempts) + 1;
    let (attempts, last_error) = match identity {
        Identity::Known {
            display_name,
            avatar_url,
        } => {
            status.display_name = Some(truncated(display_name, 128).to_owned());
            status.profile_url = Some(profile_url(truncated(display_name, 128)));
            status.avatar_url = avatar_url.as_ref().filter(|url| url.len() <= 1024).cloned();
            (if status.avatar_url.is_some() { 0 } else { attempts }, None)
        }
        Identity::Rejected { message } | Identity::Unknown { message } => (
            attempts,
            Some(truncated(message, conditions::MAX_MESSAGE_BYTES).to_owned()),
        ),
    };
    status.identity = Some(IdentityStatus {
        attempts,
        last_attempt_at: Time(whole_seconds(now)),
        last_error,
    });
}

/// A request token counts as handled once the work it asked for was done, was tried, or turned out to be nothing.
fn note_request(status: &mut RedditConnectionStatus, subject: &Subject<'_>, acted: &Acted, phase: &Phase) {
    let Some(token) = subject.open_request() else {
        return;
    };
    let handled = match acted {
        Acted::Begun { .. } => {
            status.link_renewals = 0;
            true
        }
        Acted::Refreshed | Acted::Failed(_) => true,
        Acted::Nothing => !matches!(
            phase,
            Phase::Keep | Phase::BackingOff | Phase::Suspended | Phase::Deleting | Phase::Trouble(_)
        ),
        _ => false,
    };
    if handled {
        status.last_handled_request_at = Some(token.to_owned());
    }
}

fn note_failure(
    status: &mut RedditConnectionStatus,
    subject: &Subject<'_>,
    acted: &Acted,
    phase: &Phase,
    now: Timestamp,
) {
    match phase {
        Phase::Failed(failure) => {
            // Deletion is tried again by time whatever failed, or the object would hang.
            let failure = match (subject.deleting, failure.class) {
                (true, Class::Stalled) => Failure {
                    class: Class::Transient,
                    ..failure.clone()
                },
                _ => failure.clone(),
            };
            let mut retry = retry::after(subject.standing_failure(), &failure, subject.seed(), now);
            // A limit says when to come back; it does not bring the end of a clean-up nearer.
            if subject.deleting && failure.reason == Reason::RateLimited {
                retry.failures = subject.standing_failure().map_or(0, |retry| retry.failures);
            }
            status.retry = Some(retry);
        }
        Phase::Keep | Phase::BackingOff | Phase::Trouble(_) if *acted == Acted::Nothing => {}
        // A link that could not be stored is followed by another attempt, which must not start from scratch every time.
        _ if *acted != Acted::Nothing
            && !matches!(acted, Acted::LinkCreated { .. } | Acted::Adopted { .. })
            && status
                .retry
                .as_ref()
                .is_some_and(|retry| retry.reason == Reason::LinkNotStored.as_str()) =>
        {
            if let Some(retry) = &mut status.retry {
                retry.next_attempt_at = Some(Time(whole_seconds(now)));
            }
        }
        _ => status.retry = None,
    }
}

fn judge(status: &mut RedditConnectionStatus, verdict: &Verdict, generation: i64, now: Timestamp) {
    if let Some(state) = verdict.state {
        status.state = Some(state);
    }
    let mut set = |type_, truth, message: &str| {
        conditions::set(
            &mut status.conditions,
            type_,
            truth,
            verdict.reason,
            message,
            Some(generation),
            now,
        );
    };
    let abnormal = |set_: bool| {
        if set_ {
            (Truth::True, verdict.message.as_str())
        } else {
            (Truth::False, "")
        }
    };
    set(READY, verdict.ready, &verdict.message);
    let (truth, message) = abnormal(verdict.reconciling);
    set(RECONCILING, truth, message);
    let (truth, message) = abnormal(verdict.stalled);
    set(STALLED, truth, message);
    if let Some(connected) = verdict.connected {
        set(CONNECTED, connected, "");
    }
    if let Some(reauth) = verdict.reauth {
        let (truth, message) = abnormal(reauth);
        set(REAUTH_REQUIRED, truth, message);
    }
    for type_ in [CONNECTED, REAUTH_REQUIRED] {
        if conditions::find(&status.conditions, type_).is_none() {
            conditions::set(
                &mut status.conditions,
                type_,
                Truth::Unknown,
                verdict.reason,
                "",
                Some(generation),
                now,
            );
        }
    }
}

fn note_usability(status: &mut RedditConnectionStatus, acted: &Acted, generation: i64, now: Timestamp) {
    let connected = conditions::is_true(&status.conditions, CONNECTED);
    let old = conditions::find(&status.conditions, USABLE).map(|c| c.reason.clone());
    let (truth, reason, message) = match acted {
        Acted::Identified(Identity::Known { .. }) => (Truth::True, "IdentityResolved", ""),
        Acted::Identified(Identity::Rejected { message }) => {
            (Truth::False, CREDENTIAL_REJECTED, message.as_str())
        }
        _ if !connected && status.conditions.is_empty() => return,
        _ if !connected => (Truth::False, "NotConnected", ""),
        // What was proven stays; one unanswered look-up proves nothing.
        _ if matches!(old.as_deref(), None | Some("NotConnected")) => (Truth::Unknown, "NotProbed", ""),
        _ => return,
    };
    conditions::set(
        &mut status.conditions,
        USABLE,
        truth,
        reason,
        message,
        Some(generation),
        now,
    );
}
