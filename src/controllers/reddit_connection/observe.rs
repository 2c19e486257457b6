//! I/O in: gathers what the decision needs.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::observed::{AccountView, Observed, View};
use super::{RedditConnections, link_secret, plan};
use crate::api::Reason;
use crate::api::reddit_connection::{ApiKeyStatus, TOOLKIT};
use crate::composio::{AccountState, Connection, Polled, Priority};
use crate::controllers::access::composio_failure;
use crate::runtime::failure::Failure;
use crate::runtime::wake_ups::ObjectKey;
use crate::runtime::{Context, Controller as _};

/// The connection of the object's API key.
pub type Handles = Arc<Connection<ObjectKey>>;

/// Gathers what `plan` needs to know, and the connection that it came through.
pub async fn observe(
    controller: &RedditConnections,
    cx: &Context,
    view: &View<'_>,
    now: Timestamp,
) -> Result<(Observed, Handles), Failure> {
    let access = &controller.access;
    let key = &view.key(RedditConnections::NAME);
    let connection = match access.connect(view, view.spec.api_key_secret_ref.as_ref()).await {
        Ok(connection) => connection,
        Err(failure) => {
            // A key that was taken away is not used any more.
            if matches!(failure.reason, Reason::ApiKeyNotFound | Reason::ApiKeyNotShared) {
                access.unfollow(key, None);
            }
            return Err(failure);
        }
    };
    // An object whose API key changed must not stay with the old one.
    access.unfollow(key, Some(&connection));
    let mut observed = Observed {
        api_key: Some(ApiKeyStatus {
            fingerprint: connection.fingerprint().to_owned(),
            secret_ref: view.spec.api_key_secret_ref.clone(),
        }),
        proofs: controller.proofs,
        ..Observed::default()
    };
    match view.account_id() {
        Some(id) if !view.deleting => {
            (observed.account, observed.poll_failure) = poll(&connection, key, view, id, now);
            observed.look_up = controller.look_ups.of(key, id);
        }
        _ => connection.accounts.unfollow(key),
    }
    let queries = plan::queries(view, &observed.account, now);
    if queries.link_secret {
        let secrets = Api::<Secret>::namespaced(cx.client.clone(), view.namespace);
        let secret = secrets.get_opt(&view.link_secret_name()).await;
        let secret = secret.map_err(|error| Failure::from(&error))?;
        observed.link_secret = Some(link_secret::inspect(secret.as_ref(), view));
    }
    let refused = |error| composio_failure(&error, Reason::RequestRefused);
    if queries.auth_configs {
        let configs = cx
            .slots
            .wait(controller.auth_configs.of(&connection, TOOLKIT))
            .await;
        observed.auth_configs = Some(configs.map_err(refused)?);
    }
    if queries.user_accounts {
        let priority = if view.deleting {
            Priority::Pending
        } else {
            view.link_priority()
        };
        let user = &view.spec.user_id;
        let accounts = connection.accounts.accounts_of_user(user, TOOLKIT, priority);
        let accounts = cx.slots.wait(accounts).await;
        observed.user_accounts = Some(accounts.map_err(refused)?);
    }
    Ok((observed, connection))
}

fn poll(
    connection: &Connection<ObjectKey>,
    key: &ObjectKey,
    view: &View<'_>,
    id: &str,
    now: Timestamp,
) -> (AccountView, Option<Failure>) {
    let (interval, priority) = plan::poll_interval(view, &AccountView::Unknown, now);
    let Polled { state, failure, .. } = connection.accounts.follow(key, id, interval, priority);
    let account = match state {
        None => AccountView::Unknown,
        Some(AccountState::Found(account)) => AccountView::Found(account),
        Some(AccountState::NotFound) => AccountView::NotFound,
    };
    if account != AccountView::Unknown {
        // How often to poll depends on what was seen.
        let (interval, priority) = plan::poll_interval(view, &account, now);
        connection.accounts.follow(key, id, interval, priority);
    }
    // The poller tells of a failure only once it lasts or cannot pass by itself.
    let failure = failure.map(|failure| composio_failure(&failure.error, Reason::RequestRefused));
    (account, failure)
}
