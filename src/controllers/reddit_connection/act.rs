//! I/O out: takes one step.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use secrecy::ExposeSecret;
use serde_json::json;

use super::RedditConnections;
use super::identity::{self, Identity};
use super::link_secret::{Contents, LinkSecrets};
use super::observe::Handles;
use super::observed::View;
use super::plan::{DeletionTarget, Step, is_intent_fresh, is_proof_too_old};
use super::status::{DeletionOutcome, Effect, Published};
use crate::api::Reason;
use crate::api::reddit_connection::{LinkPublication, RedditConnection};
use crate::composio::{
    Account, AccountState, AccountStatus, Client, Connection, Deletion, ExecuteRequest, LinkRequest, Priority,
};
use crate::controllers::access::composio_failure;
use crate::runtime::failure::Failure;
use crate::runtime::wake_ups::ObjectKey;
use crate::runtime::{Context, Controller as _};

/// Shortest and longest wait before a look-up that the rate limit holds up asks for its turn again.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Takes one step.
pub async fn act(
    controller: &RedditConnections,
    cx: &Context,
    object: &RedditConnection,
    step: &Step,
    connection: &Connection<ObjectKey>,
) -> Result<Effect, Failure> {
    let view = View::from(object);
    let secrets = LinkSecrets::new(&cx.client, object);
    match step {
        Step::BeginLink {
            attempt,
            auth_config_id,
            renewal,
            replaces,
        } => Ok(if account_unchanged(replaces.as_ref(), connection).await? {
            Effect::Begun {
                attempt: *attempt,
                auth_config_id: auth_config_id.clone(),
                renewal: *renewal,
            }
        } else {
            Effect::Deferred
        }),
        Step::RenewIntent => Ok(Effect::IntentRenewed),
        Step::EndSearch => Ok(Effect::AllAnswered),
        Step::RecordDisabling => Ok(Effect::DisablingRecorded),
        Step::RecoverAttempt { attempt } => Ok(Effect::Recovered { attempt: *attempt }),
        Step::Adopt {
            account,
            expires_at,
            secret_name,
        } => Ok(Effect::Adopted {
            account: account.clone(),
            expires_at: *expires_at,
            secret_name: secret_name.clone(),
        }),
        Step::PrepareLinkSecret => secrets
            .write(None)
            .await
            .map(|()| Effect::Done)
            .map_err(|failure| not_stored(&failure)),
        Step::DeletePreviousSecret => secrets.delete().await.map(|()| Effect::Done),
        Step::DeleteLinkSecret => secrets.delete().await.map(|()| Effect::LinkSecretDeleted),
        Step::CreateLink {
            alias,
            auth_config_id,
        } => {
            if !is_intent_fresh(&view, cx.clock.now()) {
                // It was when this was planned. It is renewed first.
                return Ok(Effect::Deferred);
            }
            create_link(&connection.client, &secrets, &view, alias, auth_config_id).await
        }
        Step::DeleteAccount { id, revoke, target } => {
            let former = former_connection(controller, &view, *target, connection).await?;
            delete_account(&connection.client, former.as_ref(), &view, id, *revoke, *target).await
        }
        Step::SetEnabled { id, enabled } => set_enabled(connection, id, *enabled).await,
        Step::LookUpIdentity { id, again } => {
            start_look_up(controller, cx, &view, connection, id, *again);
            Ok(Effect::LookUpStarted)
        }
        Step::RecordIdentity { identity, at } => {
            let identity_status = view.status.identity.as_ref();
            let failing_since = identity_status.and_then(|status| status.failing_since.as_ref());
            let interval = controller.proofs.interval;
            Ok(Effect::Identified {
                identity: identity.clone(),
                at: *at,
                is_proof_too_old: failing_since.is_some_and(|since| is_proof_too_old(since.0, *at, interval)),
            })
        }
        Step::Refresh { id } => read_now(connection, id).await.map(|_| Effect::Refreshed),
    }
}

/// The connection of the API key that an account was last seen with, if that is another key by now. Inside is None if that
/// key is not at hand any more.
async fn former_connection(
    controller: &RedditConnections,
    view: &View<'_>,
    target: DeletionTarget,
    connection: &Connection<ObjectKey>,
) -> Result<Option<Option<Handles>>, Failure> {
    let seen_with = match target {
        DeletionTarget::Replaced => view.status.replaced.as_ref().and_then(|it| it.api_key.as_ref()),
        DeletionTarget::Current => view.status.api_key.as_ref(),
        DeletionTarget::Orphan => None,
    };
    Ok(match seen_with {
        Some(key) if key.fingerprint != connection.fingerprint() => {
            Some(controller.access.former(view.namespace, key).await?)
        }
        _ => None,
    })
}

/// Starts to ask, beside the reconciles, who the account is.
fn start_look_up(
    controller: &RedditConnections,
    cx: &Context,
    view: &View<'_>,
    connection: &Connection<ObjectKey>,
    id: &str,
    again: bool,
) {
    let priority = if again {
        Priority::Background
    } else {
        Priority::Identity
    };
    let request = ExecuteRequest {
        user_id: view.spec.user_id.clone(),
        connected_account_id: id.to_owned(),
        arguments: json!({ "username": identity::MYSELF }),
        version: controller.toolkit_version.clone(),
    };
    let client = connection.client.clone();
    let look_up = async move { identify(&client, priority, &request).await };
    let (clock, wake_ups) = (cx.clock.clone(), cx.wake_ups.clone());
    let key = view.key(RedditConnections::NAME);
    let object = key.clone();
    let ended = move || wake_ups.wake(object);
    controller
        .look_ups
        .start(&key, id, move || clock.now(), look_up, ended);
}

/// Whether the account that a new link replaces is still as it was when that was planned.
async fn account_unchanged(
    replaces: Option<&(String, AccountStatus)>,
    connection: &Connection<ObjectKey>,
) -> Result<bool, Failure> {
    let Some((id, seen)) = replaces else {
        return Ok(true);
    };
    let account = read_now(connection, id).await?;
    Ok(account.is_none_or(|account| account.status == *seen))
}

/// Makes the link, then stores it before anything else happens: without it the account is worth nothing.
async fn create_link(
    client: &Client,
    secrets: &LinkSecrets<'_>,
    view: &View<'_>,
    alias: &str,
    auth_config_id: &str,
) -> Result<Effect, Failure> {
    let request = LinkRequest {
        auth_config_id: auth_config_id.to_owned(),
        user_id: view.spec.user_id.clone(),
        alias: alias.to_owned(),
        callback_url: view.spec.callback_url.clone(),
    };
    let link = match client.create_link(view.link_priority(), &request).await {
        Ok(link) => link,
        Err(error) if error.is_alias_taken() => {
            return Err(Failure::transient(
                Reason::AliasTaken,
                "Composio has an account for this attempt already; listing accounts to find it",
            ));
        }
        Err(error) if error.is_not_found() => {
            return Err(Failure::stalled(
                Reason::AuthConfigNotFound,
                format!(
                    "auth config {auth_config_id} does not exist in the API key's Composio project; set another \
                     spec.authConfigId"
                ),
            ));
        }
        Err(error) => return Err(composio_failure(&error, Reason::LinkRefused)),
    };
    let url = link.redirect_url.expose_secret();
    let published = match view.spec.link.publish {
        LinkPublication::Status => Published::Status(url.to_owned()),
        LinkPublication::Secret => {
            let contents = Contents {
                account_id: &link.connected_account_id,
                url,
                expires_at: link.expires_at,
            };
            let retry_policy = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(200))
                .with_max_times(4);
            let write = || secrets.write(Some(&contents));
            // If it fails for good, the account is found by its alias and replaced, because nobody can open its link.
            write
                .retry(retry_policy)
                .await
                .map_err(|failure| not_stored(&failure))?;
            Published::Secret(view.link_secret_name())
        }
    };
    Ok(Effect::LinkCreated {
        account_id: link.connected_account_id.clone(),
        expires_at: link.expires_at,
        published,
    })
}

fn not_stored(failure: &Failure) -> Failure {
    Failure {
        reason: Reason::LinkNotStored,
        message: format!("the Secret for the link cannot be written: {}", failure.message),
        ..failure.clone()
    }
}

/// Deletes an account. What status says is not believed blindly: it may have been restored from elsewhere. `former` is the
/// connection of the API key that the account was last seen with, if that is another one: that an account is not found with
/// one key says nothing about the project of another. Inside is None if that key is not at hand any more.
async fn delete_account(
    client: &Client,
    former: Option<&Option<Handles>>,
    view: &View<'_>,
    id: &str,
    revoke: bool,
    target: DeletionTarget,
) -> Result<Effect, Failure> {
    let refused = |error| composio_failure(&error, Reason::RequestRefused);
    let (client, account) = match (
        client.account(Priority::Pending, id).await.map_err(refused)?,
        former,
    ) {
        (None, Some(None)) => {
            let outcome = DeletionOutcome::OutOfReach;
            return Ok(Effect::Deleted { target, outcome });
        }
        (None, Some(Some(former))) => {
            let account = former
                .client
                .account(Priority::Pending, id)
                .await
                .map_err(refused)?;
            (&former.client, account)
        }
        (account, _) => (client, account),
    };
    let is_believed = target == DeletionTarget::Orphan || view.is_adopted();
    let outcome = match account {
        Some(account) if !is_believed && view.is_of_another(&account) => DeletionOutcome::NotOwned,
        _ => match client.delete_account(id, revoke).await.map_err(refused)? {
            Deletion::AlreadyGone if target == DeletionTarget::Orphan => {
                return Err(Failure::transient(
                    Reason::ChangeNotApplied,
                    "Composio still lists an account that is deleted; listing again",
                ));
            }
            Deletion::AlreadyGone => DeletionOutcome::NotFound,
            Deletion::Deleted => DeletionOutcome::Deleted,
        },
    };
    Ok(Effect::Deleted { target, outcome })
}

async fn set_enabled(connection: &Connection<ObjectKey>, id: &str, enabled: bool) -> Result<Effect, Failure> {
    let changed = connection.client.set_account_enabled(id, enabled).await;
    changed.map_err(|error| composio_failure(&error, Reason::RequestRefused))?;
    match read_now(connection, id).await? {
        Some(account) if (account.status == AccountStatus::Inactive) == enabled => {
            let what = if enabled { "enabled" } else { "disabled" };
            Err(Failure::transient(
                Reason::ChangeNotApplied,
                format!(
                    "Composio says that account {id} is {what} and still shows it as {}",
                    account.status.as_str()
                ),
            ))
        }
        _ => Ok(Effect::EnabledSet { enabled }),
    }
}

/// Reads the account again and tells the poller, whose memory is out of date.
async fn read_now(connection: &Connection<ObjectKey>, id: &str) -> Result<Option<Account>, Failure> {
    let account = connection.client.account(Priority::Interactive, id).await;
    let account = account.map_err(|error| composio_failure(&error, Reason::RequestRefused))?;
    let state = account
        .clone()
        .map_or(AccountState::NotFound, AccountState::Found);
    connection.accounts.changed(id, state);
    Ok(account)
}

/// Asks until an answer comes. What waits for its turn at Composio is no try.
async fn identify(client: &Client, priority: Priority, request: &ExecuteRequest) -> Identity {
    loop {
        match client.execute(priority, identity::TOOL, request).await {
            Ok(result) => return identity::read(&result),
            Err(error) if error.is_throttled() => {
                let wait = error.retry_after().unwrap_or(SHORTEST_WAIT);
                tokio::time::sleep(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)).await;
            }
            Err(error) => {
                return Identity::Unknown {
                    message: error.to_string(),
                };
            }
        }
    }
}
