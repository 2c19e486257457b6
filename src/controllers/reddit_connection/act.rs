//! I/O out: runs one step.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::ExposeSecret;
use serde_json::json;

use super::identity::{self, Identity};
use super::link_secret::{self, Contents};
use super::observed::Subject;
use super::plan::{Doomed, Step};
use super::status::{Acted, Disposal, Published};
use crate::api::reddit_connection::{FINALIZER, LinkPublication, RedditConnection};
use crate::composio::{
    Account, AccountStatus, Client, Connection, Deletion, ExecuteRequest, LinkRequest, Priority, Sight,
};
use crate::controllers::context::{Context, Owner};
use crate::controllers::failure::{Failure, Reason};
use crate::kube_io::apply::{ensure_finalizer, remove_finalizer};

/// What came of a step, and the object if the step changed it.
pub struct Effect {
    /// For the status.
    pub acted: Acted,
    /// The object after a change of its metadata; `Some(None)` once it is gone.
    pub object: Option<Option<RedditConnection>>,
}

impl From<Acted> for Effect {
    fn from(acted: Acted) -> Self {
        Self { acted, object: None }
    }
}

/// Runs one step. Only conflicts come back as errors: the object is not the one that was planned for.
pub async fn act(
    ctx: &Context,
    owner: &Owner,
    object: &RedditConnection,
    step: &Step,
    connection: Option<&Connection<Owner>>,
) -> Result<Effect, kube::Error> {
    if let Some(changed) = change_finalizer(ctx, owner, object, step).await? {
        return Ok(changed);
    }
    let subject = Subject::from(object);
    let secrets = Api::<Secret>::namespaced(ctx.client.clone(), &owner.namespace);
    let secret_name = subject.link_secret_name();
    let connected =
        || connection.ok_or_else(|| Failure::transient(Reason::ApiKeyNotFound, "the API key went away"));
    let acted = match step {
        // Done above.
        Step::AddFinalizer | Step::RemoveFinalizer { .. } => Ok(Acted::Done),
        Step::BeginLink {
            attempt,
            auth_config_id,
            renewal,
            replaces,
        } => match still_as_seen(replaces.as_ref(), connection).await {
            Ok(true) => Ok(Acted::Begun {
                attempt: *attempt,
                auth_config_id: auth_config_id.clone(),
                renewal: *renewal,
            }),
            Ok(false) => Ok(Acted::Done),
            Err(failure) => Err(failure),
        },
        Step::RenewIntent => Ok(Acted::IntentRenewed),
        Step::RecoverAttempt { attempt } => Ok(Acted::Recovered { attempt: *attempt }),
        Step::Adopt {
            account,
            expires_at,
            secret_name,
        } => Ok(Acted::Adopted {
            account: account.clone(),
            expires_at: *expires_at,
            secret_name: secret_name.clone(),
        }),
        Step::PrepareLinkSecret => match link_secret::write(&secrets, &secret_name, object, None).await {
            Ok(_) => Ok(Acted::Done),
            Err(error) => Ok(not_stored(&error)),
        },
        Step::DeleteLeftoverSecret => delete_link_secret(&secrets, &subject, Acted::Done).await,
        Step::DeleteLinkSecret => delete_link_secret(&secrets, &subject, Acted::LinkSecretDeleted).await,
        Step::CreateLink {
            alias,
            auth_config_id,
        } => match connected() {
            Ok(connection) => {
                Ok(create_link(&connection.client, &secrets, object, alias, auth_config_id).await)
            }
            Err(failure) => Err(failure),
        },
        Step::DeleteAccount { id, revoke, role } => match connected() {
            Ok(connection) => Ok(delete_account(&connection.client, &subject, id, *revoke, *role).await),
            Err(failure) => Err(failure),
        },
        Step::SetEnabled { id, enabled } => match connected() {
            Ok(connection) => Ok(set_enabled(connection, id, *enabled).await),
            Err(failure) => Err(failure),
        },
        Step::Identify { id } => match connected() {
            Ok(connection) => Ok(Acted::Identified(
                identify(ctx, &connection.client, &subject, id).await,
            )),
            Err(failure) => Err(failure),
        },
        Step::Refresh { id } => match connected() {
            Ok(connection) => look_now(connection, id).await.map(|_| Acted::Refreshed),
            Err(failure) => Err(failure),
        },
    };
    Ok(acted.unwrap_or_else(Acted::Failed).into())
}

/// Runs a step that changes the object itself; None if this step is none.
async fn change_finalizer(
    ctx: &Context,
    owner: &Owner,
    object: &RedditConnection,
    step: &Step,
) -> Result<Option<Effect>, kube::Error> {
    let objects = Api::<RedditConnection>::namespaced(ctx.client.clone(), &owner.namespace);
    let changed = match step {
        Step::AddFinalizer => Some(ensure_finalizer(&objects, object, FINALIZER).await?),
        Step::RemoveFinalizer { .. } => remove_finalizer(&objects, object, FINALIZER).await?,
        _ => return Ok(None),
    };
    Ok(Some(Effect {
        acted: Acted::Done,
        object: Some(changed),
    }))
}

/// Whether the account that a new link replaces is still as it was when that was planned.
async fn still_as_seen(
    replaces: Option<&(String, AccountStatus)>,
    connection: Option<&Connection<Owner>>,
) -> Result<bool, Failure> {
    let (Some((id, seen)), Some(connection)) = (replaces, connection) else {
        return Ok(true);
    };
    let account = look_now(connection, id).await?;
    Ok(account.is_none_or(|account| account.status == *seen))
}

async fn delete_link_secret(
    secrets: &Api<Secret>,
    subject: &Subject<'_>,
    done: Acted,
) -> Result<Acted, Failure> {
    match link_secret::delete(secrets, subject).await {
        Ok(()) => Ok(done),
        Err(error) => Err(Failure::from(&error)),
    }
}

/// Makes the link, then stores it before anything else happens: without it the account is worth nothing.
async fn create_link(
    client: &Client,
    secrets: &Api<Secret>,
    object: &RedditConnection,
    alias: &str,
    auth_config_id: &str,
) -> Acted {
    let subject = Subject::from(object);
    let request = LinkRequest {
        auth_config_id: auth_config_id.to_owned(),
        user_id: subject.spec.user_id.clone(),
        alias: alias.to_owned(),
        callback_url: subject.spec.callback_url.clone(),
    };
    let link = match client.create_link(&request).await {
        Ok(link) => link,
        Err(error) if error.is_alias_taken() => {
            return Acted::Failed(Failure::transient(
                Reason::AliasTaken,
                "Composio has an account for this attempt already; looking for it",
            ));
        }
        Err(error) if error.is_not_found() => {
            return Acted::Failed(Failure::stalled(
                Reason::AuthConfigNotFound,
                format!(
                    "Composio knows no auth config {auth_config_id} in the API key's project; delete this object and create one \
                     with another spec.authConfigId"
                ),
            ));
        }
        Err(error) => return Acted::Failed(Failure::from_composio(&error, Reason::LinkRefused)),
    };
    let url = link.redirect_url.expose_secret();
    let published = match subject.spec.link.publish {
        LinkPublication::Status => Published::Status(url.to_owned()),
        LinkPublication::Secret => {
            let name = subject.link_secret_name();
            let store = || {
                let contents = Contents {
                    account_id: &link.connected_account_id,
                    url,
                    expires_at: link.expires_at,
                };
                link_secret::write(secrets, &name, object, Some(contents))
            };
            let quickly = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(200))
                .with_max_times(4);
            if let Err(error) = store.retry(quickly).await {
                // The account is found by its alias and replaced, because nobody can open its link.
                return not_stored(&error);
            }
            Published::Secret(name)
        }
    };
    Acted::LinkCreated {
        account_id: link.connected_account_id.clone(),
        expires_at: link.expires_at,
        published,
    }
}

fn not_stored(error: &kube::Error) -> Acted {
    let failure = Failure::from(error);
    Acted::Failed(Failure {
        reason: Reason::LinkNotStored,
        message: format!("the Secret for the link cannot be written: {}", failure.message),
        ..failure
    })
}

/// Deletes an account. What status says is not believed blindly: it may have been restored from elsewhere.
async fn delete_account(
    client: &Client,
    subject: &Subject<'_>,
    id: &str,
    revoke: bool,
    role: Doomed,
) -> Acted {
    let failed = |error| Acted::Failed(Failure::from_composio(&error, Reason::RequestRefused));
    match client.account(Priority::Pending, id).await {
        Ok(Some(account))
            if role == Doomed::Current && !subject.is_adopted() && subject.is_of_another(&account) =>
        {
            let outcome = Disposal::LeftAlone;
            return Acted::Deleted { role, outcome };
        }
        Ok(_) => {}
        Err(error) => return failed(error),
    }
    match client.delete_account(id, revoke).await {
        Ok(Deletion::AlreadyGone) if role == Doomed::Stray => Acted::Failed(Failure::transient(
            Reason::NoEffect,
            "Composio still lists an account that is deleted; looking again",
        )),
        Ok(Deletion::Deleted) => Acted::Deleted {
            role,
            outcome: Disposal::Deleted,
        },
        Ok(Deletion::AlreadyGone) => Acted::Deleted {
            role,
            outcome: Disposal::WasGone,
        },
        Err(error) => failed(error),
    }
}

async fn set_enabled(connection: &Connection<Owner>, id: &str, enabled: bool) -> Acted {
    if let Err(error) = connection.client.set_account_enabled(id, enabled).await {
        return Acted::Failed(Failure::from_composio(&error, Reason::RequestRefused));
    }
    match look_now(connection, id).await {
        Ok(Some(account)) if (account.status == AccountStatus::Inactive) == enabled => {
            let what = if enabled { "enabled" } else { "disabled" };
            Acted::Failed(Failure::transient(
                Reason::NoEffect,
                format!(
                    "Composio says that account {id} is {what} and still shows it as {}",
                    account.status.as_str()
                ),
            ))
        }
        Ok(_) => Acted::EnabledSet { enabled },
        Err(failure) => Acted::Failed(failure),
    }
}

/// Reads the account again and tells the reader, whose memory is out of date.
async fn look_now(connection: &Connection<Owner>, id: &str) -> Result<Option<Account>, Failure> {
    let account = connection
        .client
        .account(Priority::Interactive, id)
        .await
        .map_err(|error| Failure::from_composio(&error, Reason::RequestRefused))?;
    let sight = account.clone().map_or(Sight::Gone, Sight::Found);
    connection.reader.changed(id, sight);
    Ok(account)
}

async fn identify(ctx: &Context, client: &Client, subject: &Subject<'_>, id: &str) -> Identity {
    let request = ExecuteRequest {
        user_id: subject.spec.user_id.clone(),
        connected_account_id: id.to_owned(),
        arguments: json!({ "username": identity::MYSELF }),
        version: ctx.toolkit_version.clone(),
    };
    match client.execute(Priority::Identity, identity::TOOL, &request).await {
        Ok(result) => identity::read(&result),
        Err(error) => Identity::Unknown {
            message: error.to_string(),
        },
    }
}
