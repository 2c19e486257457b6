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
use crate::runtime::failure::{CurrentFailure, Failure};
use crate::runtime::plan::Position;

/// A recorded intent is renewed before a link is made if it is older than this.
pub(super) const FRESH_INTENT: Duration = Duration::from_secs(10);

/// Refusals of an alias in a row, without an account that shows it, before the next alias is used.
const MAX_ALIAS_TRIES: i64 = 3;

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
        return Plan::rest(Phase::Disabled);
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
        return Plan::step(
            Step::DeleteAccount {
                id: orphan.id.clone(),
                revoke: false,
                target: DeletionTarget::Orphan,
            },
            Phase::CreatingLink,
        );
    }
    if let Some((_, account)) = own.last() {
        return plan_found(view, observed, account);
    }
    let auth_config_id = match resolve_auth_config(view, observed) {
        Ok(id) => id,
        Err(failure) => return Plan::fail(failure),
    };
    let retry = view.status.retry.as_ref().map(CurrentFailure::from);
    let alias_is_stuck = retry.is_some_and(|failure| {
        failure.reason == Some(Reason::AliasTaken) && failure.failures >= MAX_ALIAS_TRIES
    });
    let begun = view.status.link.is_some();
    if !begun || alias_is_stuck {
        return replace(view, observed, false);
    }
    if view.spec.link.publish == LinkPublication::Secret {
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
    let recorded = view.status.link.as_ref().map(|link| link.requested_at.0);
    if recorded.is_none_or(|recorded| until(now, recorded) >= FRESH_INTENT) {
        return Plan::step(Step::RenewIntent, Phase::CreatingLink);
    }
    Plan::step(
        Step::CreateLink {
            alias: alias(view.uid, attempt),
            auth_config_id,
        },
        Phase::CreatingLink,
    )
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
        .filter_map(|account| Some((attempt_of(view.uid, account.alias.as_deref()?)?, account)))
        .collect();
    own.sort_by_key(|(attempt, _)| *attempt);
    own
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
                     or delete this object and create one with another spec.authConfigId"
                ),
            )),
        };
    }
    if let Some(id) = &view.status.auth_config_id {
        return Ok(id.clone());
    }
    let all = observed.auth_configs.as_deref().unwrap_or_default();
    let enabled: Vec<_> = all
        .iter()
        .filter(|config| config.enabled && config.toolkit == TOOLKIT)
        .collect();
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
