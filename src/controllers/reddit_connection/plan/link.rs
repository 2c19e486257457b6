//! Making a link, once: from a recorded intent over the deletion of orphans to the account in status.

use std::time::Duration;

use jiff::Timestamp;

use super::{DeletionTarget, Plan, Step};
use crate::api::Reason;
use crate::api::reddit_connection::{LinkPublication, TOOLKIT};
use crate::composio::{Account, AccountStatus, AuthConfig};
use crate::controllers::reddit_connection::observed::{
    AccountView, LinkSecret, Observed, View, alias, attempt_of,
};
use crate::controllers::reddit_connection::phase::Phase;
use crate::runtime::backoff::until;
use crate::runtime::failure::Failure;
use crate::runtime::plan::Position;

/// A recorded intent is renewed before a link is made if it is older than this.
const FRESH_INTENT: Duration = Duration::from_secs(10);

/// A create whose answer never came may still be committed this long after its intent was recorded: until the call was
/// sent, until it was given up, and a while for Composio. Until then a list that does not show the account is not
/// believed by whoever has to be sure that there is none.
pub const UNANSWERED_CREATE: Duration = Duration::from_secs(75);

/// Refusals of an alias, without an account that shows it, before the next alias is used. With the backoff between them
/// they take about a minute, in which a list that lags behind shows the account.
const MAX_ALIAS_REFUSALS: i64 = 5;

/// Starts a new link in place of the account in status. The old account, if it was made for this object, is swept
/// away as an orphan before the new one is made; an adopted one is left alone.
pub(super) fn replace(view: &View<'_>, observed: &Observed, renewal: bool) -> Plan {
    let replaces = match &observed.account {
        AccountView::Found(account) => Some((account.id.clone(), account.status.clone())),
        _ => None,
    };
    match resolve_auth_config(view, observed) {
        Ok(auth_config_id) => {
            let attempt = view.status.link_attempts + 1;
            Plan::step(
                Step::BeginLink {
                    attempt,
                    auth_config_id,
                    renewal,
                    replaces,
                },
                Phase::CreatingLink,
            )
        }
        Err(failure) => Plan::fail(failure),
    }
}

pub(super) fn renewals_left(view: &View<'_>) -> bool {
    view.status.link_renewals < i64::from(view.spec.link.renewals)
}

pub(super) fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if !view.spec.enabled {
        return plan_disabled(view, observed, now);
    }
    // They are not asked for while backing off.
    let Some(user_accounts) = &observed.user_accounts else {
        return Plan::rest(Position::Unchanged);
    };
    let attempt = view.status.link_attempts;
    let own = own_accounts(view, user_accounts);
    if let Some((newest, _)) = own.last().filter(|(newest, _)| *newest > attempt) {
        return Plan::step(Step::RecoverAttempt { attempt: *newest }, Phase::CreatingLink);
    }
    if let Some((_, orphan)) = own.iter().find(|(number, _)| *number < attempt) {
        return delete(&orphan.id, DeletionTarget::Orphan, Phase::CreatingLink);
    }
    // It may be in the project of another API key, or the list lags behind.
    if let Some(replaced) = &view.status.replaced {
        return delete(&replaced.id, DeletionTarget::Replaced, Phase::CreatingLink);
    }
    if let Some((_, account)) = own.last() {
        return plan_found(view, observed, account);
    }
    let auth_config_id = match resolve_auth_config(view, observed) {
        Ok(id) => id,
        Err(failure) => return Plan::fail(failure),
    };
    let link = view.status.link.as_ref();
    if link.is_none_or(|link| link.alias_refusals >= MAX_ALIAS_REFUSALS) {
        return replace(view, observed, false);
    }
    if view.spec.link.publish == LinkPublication::Status {
        if matches!(
            observed.link_secret,
            Some(LinkSecret::Owned { .. } | LinkSecret::PreviousOwner)
        ) {
            return Plan::step(Step::DeletePreviousSecret, Phase::CreatingLink);
        }
    } else {
        match observed.link_secret {
            Some(LinkSecret::Owned { .. }) => {}
            Some(LinkSecret::PreviousOwner) => {
                return Plan::step(Step::DeletePreviousSecret, Phase::CreatingLink);
            }
            Some(LinkSecret::NotOwned) => {
                return Plan::fail(Failure::stalled(
                    Reason::LinkSecretConflict,
                    format!(
                        "Secret {} exists and does not belong to this RedditConnection; rename or delete it",
                        view.link_secret_name()
                    ),
                ));
            }
            Some(LinkSecret::Absent) | None => {
                return Plan::step(Step::PrepareLinkSecret, Phase::CreatingLink);
            }
        }
    }
    if !is_intent_fresh(view, now) {
        return Plan::step(Step::RenewIntent, Phase::CreatingLink);
    }
    let secret = (view.spec.link.publish == LinkPublication::Secret).then(|| view.link_secret_name());
    Plan::step(
        Step::CreateLink {
            alias: alias(view.uid, attempt),
            auth_config_id,
        },
        Phase::AwaitingConsent {
            opened: false,
            secret,
        },
    )
}

/// `spec.enabled` is false, and no account is known. One may exist all the same: of an answer that never came, or of a
/// status that was lost.
fn plan_disabled(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if !view.is_managed() || view.is_settled_without_account() {
        return Plan::rest(Phase::Disabled);
    }
    let Some(user_accounts) = &observed.user_accounts else {
        return Plan::rest(Position::Unchanged);
    };
    let own = own_accounts(view, user_accounts);
    if let Some((newest, account)) = own.last() {
        let is_connected = matches!(account.status, AccountStatus::Active | AccountStatus::Inactive);
        if !is_connected {
            return delete(&account.id, DeletionTarget::Orphan, Phase::Disabling);
        }
        if *newest > view.status.link_attempts {
            return Plan::step(Step::RecoverAttempt { attempt: *newest }, Phase::Disabling);
        }
        return Plan::step(
            Step::Adopt {
                account: (*account).clone(),
                expires_at: None,
                secret_name: matches!(observed.link_secret, Some(LinkSecret::Owned { .. }))
                    .then(|| view.link_secret_name()),
            },
            Phase::Disabling,
        );
    }
    if matches!(observed.link_secret, Some(LinkSecret::Owned { .. })) {
        return Plan::step(Step::DeletePreviousSecret, Phase::Disabling);
    }
    match unanswered_until(view) {
        Some(end) if now < end => Plan::rest(Phase::Disabling).requeue_in(until(end, now)),
        _ => Plan::rest(Phase::Disabled),
    }
}

/// Whether a link may be made on the strength of the intent on record.
pub fn is_intent_fresh(view: &View<'_>, now: Timestamp) -> bool {
    let recorded = view.status.link.as_ref().map(|link| link.requested_at.0);
    recorded.is_some_and(|recorded| until(now, recorded) < FRESH_INTENT)
}

/// Whether it is time to look once more for accounts whose creation was not answered.
pub(super) fn is_search_due(view: &View<'_>, now: Timestamp) -> bool {
    let until = view.status.unanswered_until.as_ref();
    view.is_own() && until.is_some_and(|until| until.0 <= now)
}

/// Deletes what such a creation left beside the account in status; otherwise the plan stays what it is.
pub(super) fn search(view: &View<'_>, observed: &Observed, plan: Plan, now: Timestamp) -> Plan {
    let (Some(until_then), true) = (&view.status.unanswered_until, view.is_own()) else {
        return plan;
    };
    if !is_search_due(view, now) {
        return plan.requeue_in(until(until_then.0, now));
    }
    let Some(user_accounts) = &observed.user_accounts else {
        return plan;
    };
    let current = view.account_id();
    let orphan = own_accounts(view, user_accounts)
        .into_iter()
        .find(|(_, account)| Some(account.id.as_str()) != current);
    let step = match orphan {
        Some((_, account)) => Step::DeleteAccount {
            id: account.id.clone(),
            revoke: false,
            target: DeletionTarget::Orphan,
        },
        None => Step::EndSearch,
    };
    Plan {
        step: Some(step),
        ..plan
    }
}

/// Until when an account may appear whose creation was never answered.
pub(super) fn unanswered_until(view: &View<'_>) -> Option<Timestamp> {
    let link = view.status.link.as_ref();
    link.filter(|_| view.status.connected_account_id.is_none())
        .and_then(|link| link.requested_at.0.checked_add(UNANSWERED_CREATE).ok())
}

fn delete(id: &str, target: DeletionTarget, phase: Phase) -> Plan {
    let (id, revoke) = (id.to_owned(), false);
    Plan::step(Step::DeleteAccount { id, revoke, target }, phase)
}

/// An account of the current attempt exists although status does not know it: the answer to its creation was lost.
fn plan_found(view: &View<'_>, observed: &Observed, account: &Account) -> Plan {
    let expires_at = match &observed.link_secret {
        Some(LinkSecret::Owned {
            account_id,
            expires_at,
        }) if account_id.as_deref() == Some(account.id.as_str()) => *expires_at,
        // Nobody can open a link that was lost. An account that is past that point can be used.
        _ if account.status == AccountStatus::Initializing => return replace(view, observed, false),
        _ => None,
    };
    let secret_name =
        matches!(observed.link_secret, Some(LinkSecret::Owned { .. })).then(|| view.link_secret_name());
    Plan::step(
        Step::Adopt {
            account: account.clone(),
            expires_at,
            secret_name,
        },
        Phase::CreatingLink,
    )
}

/// Accounts made for this object, by attempt.
fn own_accounts<'a>(view: &View<'_>, user_accounts: &'a [Account]) -> Vec<(i64, &'a Account)> {
    let mut own: Vec<_> = user_accounts
        .iter()
        .filter_map(|account| Some((own_attempt(view, account)?, account)))
        .collect();
    own.sort_by_key(|(attempt, _)| *attempt);
    own
}

/// Whether an account was made for this object.
pub(super) fn is_own(view: &View<'_>, account: &Account) -> bool {
    own_attempt(view, account).is_some()
}

/// The attempt that made the account for this object. 0 for one that status calls replaced, whatever its alias: somebody
/// may have changed that.
fn own_attempt(view: &View<'_>, account: &Account) -> Option<i64> {
    let by_alias = account
        .alias
        .as_deref()
        .and_then(|alias| attempt_of(view.uid, alias));
    let replaced = view.status.replaced.as_ref();
    let is_replaced = replaced.is_some_and(|replaced| replaced.id == account.id);
    by_alias.or_else(|| (is_replaced && !view.is_of_another(account)).then_some(0))
}

fn resolve_auth_config(view: &View<'_>, observed: &Observed) -> Result<String, Failure> {
    if let Some(id) = &view.spec.auth_config_id {
        let Some(known) = &observed.auth_configs else {
            return Ok(id.clone());
        };
        let fits = |config: &&AuthConfig| config.id == *id && config.enabled && config.toolkit == TOOLKIT;
        return match known.iter().find(fits) {
            Some(_) => Ok(id.clone()),
            None => Err(Failure::stalled(
                Reason::AuthConfigNotFound,
                format!(
                    "{id} is no enabled {TOOLKIT} auth config of the API key's project; create or enable it in Composio, \
                     or set another spec.authConfigId"
                ),
            )),
        };
    }
    let used_before = view.status.auth_config_id.as_ref();
    // It is checked again before the link is made.
    if let (None, Some(id)) = (&observed.auth_configs, used_before) {
        return Ok(id.clone());
    }
    let all = observed.auth_configs.as_deref().unwrap_or_default();
    let enabled: Vec<_> = all
        .iter()
        .filter(|config| config.enabled && config.toolkit == TOOLKIT)
        .collect();
    if let Some(id) = used_before.filter(|id| enabled.iter().any(|config| config.id == **id)) {
        return Ok(id.clone());
    }
    match enabled.as_slice() {
        [only] => Ok(only.id.clone()),
        [] => Err(Failure::stalled(
            Reason::AuthConfigNotFound,
            format!(
                "the Composio project has no enabled {TOOLKIT} auth config; create or enable one in Composio, or set \
                 spec.authConfigId"
            ),
        )),
        several => Err(Failure::stalled(
            Reason::AuthConfigAmbiguous,
            format!(
                "the Composio project has {} enabled {TOOLKIT} auth configs; set spec.authConfigId to one of: {}",
                several.len(),
                several
                    .iter()
                    .map(|c| format!("{} ({})", c.id, c.name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )),
    }
}
