//! I/O in: gathers what the decision needs.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::link_secret;
use super::observed::{AccountView, Observed, Subject};
use super::plan;
use crate::api::reddit_connection::{DeletionPolicy, TOOLKIT};
use crate::composio::{Connection, Look, Priority, Sight};
use crate::controllers::connect::connect;
use crate::controllers::context::{Context, Owner};
use crate::controllers::failure::{Failure, Reason};

/// The facts, and the connection they came through.
pub struct Observation {
    /// The facts.
    pub observed: Observed,
    /// Composio; None if the object has no usable API key, or none is needed.
    pub connection: Option<Arc<Connection<Owner>>>,
}

impl Observation {
    fn failed(failure: Failure) -> Self {
        Self {
            observed: Observed {
                failure: Some(failure),
                ..Observed::default()
            },
            connection: None,
        }
    }
}

/// Gathers what `plan` needs to know about `subject`.
pub async fn observe(ctx: &Context, owner: &Owner, subject: &Subject<'_>, now: Timestamp) -> Observation {
    let retains = !subject.has_finalizer || subject.deletion_policy() == DeletionPolicy::Retain;
    if (subject.deleting && retains) || (subject.spec.suspend && !subject.deleting) {
        ctx.composio.unfollow(owner, None);
        return Observation {
            observed: Observed::default(),
            connection: None,
        };
    }
    let reference = subject.spec.api_key_secret_ref.as_ref();
    let request = subject.open_request().map(|token| (subject.uid, token));
    let connection = match connect(ctx, &owner.namespace, reference, request).await {
        Ok(connection) => connection,
        Err(failure) => {
            // A key that was taken away is not used any more.
            if matches!(failure.reason, Reason::ApiKeyNotFound | Reason::ApiKeyNotShared) {
                ctx.composio.unfollow(owner, None);
            }
            return Observation::failed(failure);
        }
    };
    // An object whose API key changed must not stay with the old one.
    ctx.composio.unfollow(owner, Some(&connection));
    let mut observed = Observed::default();
    match subject.account_id() {
        Some(id) if !subject.deleting => {
            (observed.account, observed.trouble) = look(&connection, owner, subject, id, now);
        }
        _ => connection.reader.unfollow(owner),
    }
    let inquiries = plan::inquiries(subject, &observed.account, now);
    if inquiries.link_secret {
        let secrets = Api::<Secret>::namespaced(ctx.client.clone(), &owner.namespace);
        match secrets.get_opt(&subject.link_secret_name()).await {
            Ok(secret) => observed.link_secret = Some(link_secret::inspect(secret.as_ref(), subject)),
            Err(error) => return Observation::failed(Failure::from(&error)),
        }
    }
    if inquiries.auth_configs {
        match ctx.auth_configs.of(&connection, TOOLKIT).await {
            Ok(configs) => observed.auth_configs = Some(configs),
            Err(error) => return Observation::failed(Failure::from_composio(&error, Reason::RequestRefused)),
        }
    }
    if inquiries.inventory {
        let priority = if subject.deleting {
            Priority::Pending
        } else {
            Priority::Interactive
        };
        match connection
            .reader
            .accounts_of_user(&subject.spec.user_id, priority)
            .await
        {
            Ok(accounts) => observed.inventory = Some(accounts),
            Err(error) => return Observation::failed(Failure::from_composio(&error, Reason::RequestRefused)),
        }
    }
    Observation {
        observed,
        connection: Some(connection),
    }
}

fn look(
    connection: &Connection<Owner>,
    owner: &Owner,
    subject: &Subject<'_>,
    id: &str,
    now: Timestamp,
) -> (AccountView, Option<Failure>) {
    let (interval, priority) = plan::cadence(subject, &AccountView::Unseen, now);
    let Look { sight, trouble, .. } = connection.reader.follow(owner, id, interval, priority);
    let account = match sight {
        None => AccountView::Unseen,
        Some(Sight::Found(account)) => AccountView::Found(account),
        Some(Sight::Gone) => AccountView::Gone,
    };
    if account != AccountView::Unseen {
        // How often to look depends on what was seen.
        let (interval, priority) = plan::cadence(subject, &account, now);
        connection.reader.follow(owner, id, interval, priority);
    }
    // The reader tells of trouble only once it lasts or cannot pass by itself.
    let trouble = trouble.map(|trouble| Failure::from_composio(&trouble.error, Reason::RequestRefused));
    (account, trouble)
}
