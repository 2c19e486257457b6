//! This resource's own fields in its status, and what its positions mean for the conditions: pure functions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::RedditConnections;
use super::identity::{Identity, profile_url};
use super::observed::{AccountView, View};
use super::phase::{CREDENTIAL_REJECTED, Phase, Summary, failed_state};
use super::plan::{DeletionTarget, Step, UNANSWERED_CREATE};
use crate::api::Reason;
use crate::api::conditions::{self, Truth, truncated, whole_seconds};
use crate::api::reddit_connection::{
    CONNECTED, IdentityStatus, LinkStatus, RedditConnectionStatus, ReplacedAccount, USABLE,
};
use crate::composio::{Account, AccountStatus};
use crate::runtime;
use crate::runtime::failure::Class;
use crate::runtime::plan::Position;
use crate::runtime::summary::Extra;

type Turn<'a> = runtime::Turn<'a, RedditConnections>;

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Done, and status has nothing to add.
    Done,
    /// Not done: things changed since the step was planned. It is planned anew.
    Deferred,
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
    /// No account is left whose creation was not answered.
    AllAnswered,
    /// That the account is going to be disabled is on record with this very status write.
    DisablingRecorded,
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
    /// An identity look-up has begun.
    LookUpStarted,
    /// What an identity look-up found is on record with this very status write.
    Identified {
        /// What it found.
        identity: Identity,
        /// When.
        at: Timestamp,
        /// It has failed for so long that what was proven before says nothing any more.
        is_proof_too_old: bool,
    },
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
    /// The project of the API key does not have it, but it was last seen with another key, which is not at hand.
    OutOfReach,
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
        matches!(
            self,
            Self::Begun { .. } | Self::LinkCreated { .. } | Self::Refreshed
        )
    }

    /// An account that is found after all shows that the link was made.
    fn clears(&self, failed: Option<&str>, step: &str) -> bool {
        match self {
            Self::Deferred => false,
            Self::Adopted { .. } => true,
            _ => failed.is_none_or(|failed| failed == step),
        }
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
        if matches!(turn.observed.account, AccountView::Found(_)) && turn.observed.api_key.is_some() {
            status.api_key.clone_from(&turn.observed.api_key);
        }
    }
    if matches!(phase, Some(Phase::Disabled | Phase::IdentityMismatch { .. }))
        && matches!(&turn.observed.account, AccountView::Found(a) if a.status == AccountStatus::Inactive)
    {
        // Whoever disabled it: the spec asks for it, and takes it back when it no longer does.
        status.disabled_by_operator = view.is_managed();
    }
    if let Some(effect) = turn.effect {
        if matches!(effect, Effect::Begun { .. }) {
            status.replaced = replaced(view, &status).or(status.replaced.take());
        }
        record_effect(&mut status, effect, turn.now);
        let is_deleted = |replaced: &ReplacedAccount| matches!(turn.step, Some(Step::DeleteAccount { id, .. }) if *id == replaced.id);
        if status.replaced.as_ref().is_some_and(is_deleted) {
            status.replaced = None;
        }
        if let Effect::Begun { .. } = effect {
            status.api_key.clone_from(&turn.observed.api_key);
            if view.pending_request().is_some() {
                (status.link_renewals, status.links_opened) = (0, 0);
            }
        }
    }
    if let (Position::Failed(failure), Some(Step::CreateLink { .. })) = (turn.position, turn.step) {
        if failure.class == Class::Transient {
            status.unanswered_until = unanswered_until(turn.now);
        }
        if let Some(link) = status
            .link
            .as_mut()
            .filter(|_| failure.reason == Reason::AliasTaken)
        {
            link.alias_refusals += 1;
        }
    }
    status
}

fn unanswered_until(asked_at: Timestamp) -> Option<Time> {
    let until = whole_seconds(asked_at).checked_add(UNANSWERED_CREATE);
    until.ok().map(Time)
}

/// The account that a new link takes the place of, if it was made for this object.
fn replaced(view: &View<'_>, status: &RedditConnectionStatus) -> Option<ReplacedAccount> {
    let id = status.connected_account_id.clone()?;
    (!view.is_adopted()).then(|| ReplacedAccount {
        id,
        api_key: status.api_key.clone(),
    })
}

/// What the position means for state and conditions.
pub fn summary(turn: &Turn<'_>, status: &RedditConnectionStatus) -> Option<Summary> {
    let mut summary = match turn.position {
        Position::Unchanged => return None,
        // It does not stand where the step would have brought it.
        Position::At(_) if turn.effect == Some(&Effect::Deferred) => return None,
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
        Some(Effect::Identified {
            identity: Identity::Known { .. },
            ..
        }) => (Truth::True, "IdentityResolved", ""),
        Some(Effect::Identified {
            identity: Identity::Rejected { message },
            ..
        }) => (Truth::False, CREDENTIAL_REJECTED, message.as_str()),
        Some(Effect::Identified {
            identity: Identity::Unknown { message },
            is_proof_too_old: true,
            ..
        }) if old == Some("IdentityResolved") => (Truth::Unknown, "ProofTooOld", message.as_str()),
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
                (status.link_renewals, status.links_opened) = (0, 0);
            }
            let is_opened = account.status.is_pending() && account.status != AccountStatus::Initializing;
            if let Some(link) = status
                .link
                .as_mut()
                .filter(|link| is_opened && link.opened_at.is_none())
            {
                link.opened_at = Some(Time(whole_seconds(now)));
                status.links_opened += 1;
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
        | Effect::Deferred
        | Effect::LookUpStarted
        | Effect::Deleted {
            target: DeletionTarget::Orphan | DeletionTarget::Replaced,
            ..
        } => {}
        Effect::AllAnswered => status.unanswered_until = None,
        Effect::DisablingRecorded => status.disabled_by_operator = true,
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
                links_opened: status.links_opened,
                replaced: status.replaced.take(),
                unanswered_until: status.unanswered_until.take(),
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
            // Whether the intent was carried out before a crash is not known.
            let asked_at = status.link.as_ref().map(|link| link.requested_at.0);
            status.unanswered_until = asked_at
                .and_then(unanswered_until)
                .max(status.unanswered_until.take());
            status.link.get_or_insert(requested(now)).requested_at = Time(whole_seconds(now));
        }
        Effect::LinkCreated {
            account_id,
            expires_at,
            published,
        } => {
            status.connected_account_id = Some(account_id.clone());
            // It was swept away before.
            status.replaced = None;
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
        Effect::Identified { identity, at, .. } => record_identity(status, identity, *at),
        Effect::Refreshed => status.identity = None,
    }
}

fn requested(now: Timestamp) -> LinkStatus {
    LinkStatus {
        requested_at: Time(whole_seconds(now)),
        expires_at: None,
        opened_at: None,
        alias_refusals: 0,
        secret_name: None,
        redirect_url: None,
    }
}

fn record_identity(status: &mut RedditConnectionStatus, identity: &Identity, at: Timestamp) {
    let at = Time(whole_seconds(at));
    let (failing_since, last_error) = match identity {
        Identity::Known {
            display_name,
            avatar_url,
        } => {
            status.display_name = Some(display_name.clone());
            status.profile_url = Some(profile_url(display_name));
            status.avatar_url.clone_from(avatar_url);
            (None, None)
        }
        Identity::Rejected { message } | Identity::Unknown { message } => {
            let before = status.identity.as_ref().and_then(|old| old.failing_since.clone());
            let message = truncated(message, conditions::MAX_MESSAGE_BYTES).to_owned();
            (Some(before.unwrap_or_else(|| at.clone())), Some(message))
        }
    };
    status.identity = Some(IdentityStatus {
        last_attempt_at: at,
        failing_since,
        last_error,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::conditions::{READY, find};
    use crate::controllers::reddit_connection::fixtures::{at, object};
    use crate::controllers::reddit_connection::observed::Observed;
    use crate::runtime::summary::next_status;

    /// The status after a link was about to be made and was not.
    fn after_a_deferred_link(status: &serde_json::Value) -> RedditConnectionStatus {
        let object = object(&json!({}), status);
        let step = Step::CreateLink {
            alias: String::new(),
            auth_config_id: String::new(),
        };
        let turn = Turn {
            view: &View::from(&object),
            observed: &Observed::default(),
            step: Some(&step),
            effect: Some(&Effect::Deferred),
            position: &Position::At(Phase::AwaitingConsent {
                opened: false,
                secret: None,
            }),
            now: at(60),
        };
        next_status(&turn).0
    }

    #[test]
    fn what_was_put_off_is_not_shown_as_done() {
        let failed = json!({
            "retry": {
                "failures": 3, "reason": "LinkRefused", "operation": "CreateLink",
                "lastFailureAt": at(0), "nextAttemptAt": at(50),
            },
            "conditions": [{
                "type": READY, "status": "False", "reason": "LinkRefused", "message": "", "lastTransitionTime": at(0),
            }],
        });
        let status = after_a_deferred_link(&failed);
        assert_eq!(status.retry.unwrap().failures, 3);
        assert_eq!(find(&status.conditions, READY).unwrap().reason, "LinkRefused");
        let status = after_a_deferred_link(&json!({}));
        assert_eq!(find(&status.conditions, READY).unwrap().reason, "Progressing");
    }
}
