//! This resource's own fields in its status, and what its positions mean for the conditions: pure functions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::RedditConnections;
use super::identity::{Identity, profile_url};
use super::observed::{AccountView, View};
use super::phase::{CREDENTIAL_REJECTED, Phase, Summary, failed_state};
use super::plan::DeletionTarget;
use crate::api::conditions::{self, Truth, truncated, whole_seconds};
use crate::api::reddit_connection::{CONNECTED, IdentityStatus, LinkStatus, RedditConnectionStatus, USABLE};
use crate::composio::{Account, AccountStatus};
use crate::runtime;
use crate::runtime::plan::Position;
use crate::runtime::summary::Extra;

type Turn<'a> = runtime::Turn<'a, RedditConnections>;

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
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
        target: DeletionTarget,
        /// What became of it.
        outcome: DeletionOutcome,
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
    /// The account was read because somebody asked.
    Refreshed,
}

/// What became of an account that was to be deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeletionOutcome {
    /// It is deleted at Composio.
    Deleted,
    /// Somebody else had deleted it.
    NotFound,
    /// It turned out to belong to somebody else, and stays.
    NotOwned,
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

impl runtime::Effect for Effect {
    fn answers_request(&self) -> bool {
        matches!(self, Self::Begun { .. } | Self::Refreshed)
    }

    /// An account that is found after all shows that the link was made.
    fn clears(&self, failed: Option<&str>, step: &str) -> bool {
        failed.is_none_or(|failed| failed == step) || matches!(self, Self::Adopted { .. })
    }
}

/// The status with its own fields brought up to date.
pub fn status(turn: &Turn<'_>) -> RedditConnectionStatus {
    let view = turn.view;
    let mut status = view.status.clone().into_owned();
    let phase = match turn.position {
        Position::At(phase) => Some(phase),
        Position::Unchanged | Position::Failed(_) => None,
    };
    if !view.deleting && !matches!(phase, Some(Phase::Refused(_))) {
        record_account(&mut status, view, &turn.observed.account, turn.now);
    }
    if matches!(phase, Some(Phase::Disabled | Phase::IdentityMismatch { .. }))
        && matches!(&turn.observed.account, AccountView::Found(a) if a.status == AccountStatus::Inactive)
    {
        // Whoever disabled it: the spec asks for it, and takes it back when it no longer does.
        status.disabled_by_operator = view.is_managed();
    }
    if let Some(effect) = turn.effect {
        record_effect(&mut status, effect, turn.now);
        if matches!(effect, Effect::Begun { .. }) && view.pending_request().is_some() {
            status.link_renewals = 0;
        }
    }
    status
}

/// What the position means for state and conditions.
pub fn summary(turn: &Turn<'_>, status: &RedditConnectionStatus) -> Option<Summary> {
    let mut summary = match turn.position {
        Position::Unchanged => return None,
        Position::Failed(failure) => Summary {
            state: failed_state(status, failure.class),
            ..Summary::failure(failure)
        },
        Position::At(phase) => phase.summary(status, turn.view.is_managed()),
    };
    let connected = summary.extra.iter().find(|extra| extra.type_ == CONNECTED);
    let connected = match connected {
        Some(extra) => extra.truth == Truth::True,
        None => conditions::is_true(&status.conditions, CONNECTED),
    };
    summary.extra.extend(usable(turn.effect, connected, status));
    Some(summary)
}

/// `Usable`: whether a call through the account succeeded. None keeps the old value: what was proven stays, and one
/// look-up without an answer proves nothing.
fn usable(effect: Option<&Effect>, connected: bool, status: &RedditConnectionStatus) -> Option<Extra> {
    let old = conditions::find(&status.conditions, USABLE).map(|old| old.reason.as_str());
    let (truth, reason, message) = match effect {
        Some(Effect::Identified(Identity::Known { .. })) => (Truth::True, "IdentityResolved", ""),
        Some(Effect::Identified(Identity::Rejected { message })) => {
            (Truth::False, CREDENTIAL_REJECTED, message.as_str())
        }
        _ if !connected => (Truth::False, "NotConnected", ""),
        _ if matches!(old, None | Some("NotConnected")) => (Truth::Unknown, "NotProbed", ""),
        _ => return None,
    };
    Some(Extra {
        type_: USABLE,
        truth,
        reason: Some(reason),
        message: message.to_owned(),
    })
}

fn record_account(
    status: &mut RedditConnectionStatus,
    view: &View<'_>,
    account: &AccountView,
    now: Timestamp,
) {
    match account {
        AccountView::None | AccountView::Unknown => {}
        AccountView::NotFound => {
            status.provider_status = None;
            status.status_reason = None;
        }
        AccountView::Found(account) => {
            status.connected_account_id = Some(account.id.clone());
            status.adopted = view.is_adopted();
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

fn record_effect(status: &mut RedditConnectionStatus, effect: &Effect, now: Timestamp) {
    match effect {
        Effect::Done
        | Effect::Deleted {
            target: DeletionTarget::Orphan,
            ..
        } => {}
        Effect::Begun {
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
        Effect::Recovered { attempt } => {
            status.link_attempts = *attempt;
            status.link = Some(requested(now));
        }
        Effect::IntentRenewed => {
            status.link.get_or_insert(requested(now)).requested_at = Time(whole_seconds(now));
        }
        Effect::LinkCreated {
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
        Effect::Adopted {
            account,
            expires_at,
            secret_name,
        } => {
            status.connected_account_id = Some(account.id.clone());
            let link = status.link.get_or_insert(requested(now));
            link.expires_at = expires_at.map(|t| Time(whole_seconds(t)));
            link.secret_name.clone_from(secret_name);
        }
        Effect::Deleted {
            target: DeletionTarget::Current,
            ..
        } => {
            status.connected_account_id = None;
            status.link = None;
        }
        Effect::EnabledSet { enabled } => status.disabled_by_operator = !enabled,
        Effect::LinkSecretDeleted => status.link = None,
        Effect::Identified(identity) => record_identity(status, identity, now),
        Effect::Refreshed => status.identity = None,
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

fn record_identity(status: &mut RedditConnectionStatus, identity: &Identity, now: Timestamp) {
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
