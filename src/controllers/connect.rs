//! The way from an object to Composio: its API key, and the connection of that key.

use std::sync::Arc;

use super::context::{Context, Owner};
use super::failure::{Failure, Reason};
use crate::api::SecretKeyRef;
use crate::composio::Connection;

/// The connection for an object of `namespace`, which names `reference`. A rejected key is tried again if a person asked
/// for that with the token `request`, which goes with the object's uid.
pub async fn connect(
    ctx: &Context,
    namespace: &str,
    reference: Option<&SecretKeyRef>,
    request: Option<(&str, &str)>,
) -> Result<Arc<Connection<Owner>>, Failure> {
    let key = ctx.credentials.key(namespace, reference).await?;
    let connection = ctx.composio.connection(&key).map_err(|error| {
        Failure::stalled(
            Reason::ApiKeyRejected,
            format!("the API key cannot be used: {error}"),
        )
    })?;
    if request.is_some_and(|(uid, token)| ctx.requests.is_new(uid, token)) {
        connection.forgive();
    }
    if connection.rejected() {
        return Err(Failure::stalled(
            Reason::ApiKeyRejected,
            match reference {
                Some(SecretKeyRef { name, key }) => format!(
                    "Composio rejects the API key in Secret {name}, key {key}; put a valid project key there. It is looked \
                     at about once a minute, and at once when the object is annotated with \
                     composio-operator.dev/requested-at"
                ),
                None => "Composio rejects the operator's own API key (COMPOSIO_API_KEY); replace it and restart the \
                         operator, or set spec.apiKeySecretRef"
                    .to_owned(),
            },
        ));
    }
    Ok(connection)
}
