//! The Secret that holds the link a person opens.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};

use super::RedditConnections;
use super::observed::{LinkSecret, View};
use crate::api::{GROUP, MANAGED_BY, MANAGED_BY_LABEL, Reason, RedditConnection};
use crate::runtime::Controller;
use crate::runtime::failure::Failure;
use crate::runtime::owned::{Children, Ownership, ownership};

const URL: &str = "url";
const EXPIRES_AT: &str = "expiresAt";
const ACCOUNT_ID: &str = "connectedAccountId";

/// Whose Secret this is, and what it holds. Never the link itself.
pub fn inspect(secret: Option<&Secret>, owner: &View<'_>) -> LinkSecret {
    let Some(secret) = secret else {
        return LinkSecret::Absent;
    };
    match ownership::<RedditConnection>(owner.name, owner.uid, &secret.metadata) {
        Ownership::Owned => {}
        Ownership::PreviousOwner => return LinkSecret::PreviousOwner,
        Ownership::NotOwned => return LinkSecret::NotOwned,
    }
    let text = |key| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    };
    // Without its link the rest is worth nothing.
    let has_url = text(URL).is_some();
    LinkSecret::Owned {
        account_id: text(ACCOUNT_ID).filter(|_| has_url).map(str::to_owned),
        expires_at: text(EXPIRES_AT)
            .filter(|_| has_url)
            .and_then(|time| time.parse().ok()),
    }
}

/// What is stored.
pub struct Contents<'a> {
    /// The account the link belongs to.
    pub account_id: &'a str,
    /// The link.
    pub url: &'a str,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

/// The link Secret of one object.
pub struct LinkSecrets<'a> {
    children: Children<'a, RedditConnection, Secret>,
    name: String,
}

impl<'a> LinkSecrets<'a> {
    /// The Secret of this object, whether or not it exists.
    pub fn new(client: &Client, owner: &'a RedditConnection) -> Self {
        let namespace = owner.namespace().unwrap_or_default();
        Self {
            name: View::from(owner).link_secret_name(),
            children: Children {
                api: Api::namespaced(client.clone(), &namespace),
                owner,
                manager: format!("{GROUP}/{}", RedditConnections::NAME),
            },
        }
    }

    /// Writes the Secret, empty or with a link. Kubernetes deletes it with its owner.
    pub async fn write(&self, contents: Option<&Contents<'_>>) -> Result<(), Failure> {
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(BTreeMap::from([(
                    MANAGED_BY_LABEL.to_owned(),
                    MANAGED_BY.to_owned(),
                )])),
                owner_references: self.children.owner_references(),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        };
        let claim = self.children.claim(&secret, false).await.map_err(|error| {
            let message = format!("Secret {} belongs to something else", self.name);
            error.into_failure(|| Failure::transient(Reason::KubernetesApi, message))
        })?;
        if claim.created.is_some() && contents.is_none() {
            return Ok(());
        }
        secret.metadata.uid = claim.metadata.uid;
        secret.data = contents.map(|contents| {
            let mut data = BTreeMap::from([
                (URL.to_owned(), ByteString(contents.url.into())),
                (ACCOUNT_ID.to_owned(), ByteString(contents.account_id.into())),
            ]);
            if let Some(expires_at) = contents.expires_at {
                data.insert(EXPIRES_AT.to_owned(), ByteString(expires_at.to_string().into()));
            }
            data
        });
        let applied = self.children.apply(&secret).await;
        applied.map(drop).map_err(|error| Failure::from(&error))
    }

    /// Deletes the Secret, if it belongs to this object or an earlier one of its name.
    pub async fn delete(&self) -> Result<(), Failure> {
        let deleted = self.children.delete_named(&self.name).await;
        deleted.map_err(|error| Failure::from(&error))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::Resource;

    use super::*;
    use crate::controllers::reddit_connection::fixtures::{NAME, UID, object};

    fn inspected(secret: Option<&Secret>) -> LinkSecret {
        let owner = object(&serde_json::json!({}), &serde_json::json!({}));
        inspect(secret, &View::from(&owner))
    }

    fn secret(owner_uid: &str, owner_name: &str, data: &[(&str, &str)]) -> Secret {
        Secret {
            metadata: ObjectMeta {
                owner_references: Some(vec![OwnerReference {
                    api_version: RedditConnection::api_version(&()).into_owned(),
                    kind: RedditConnection::kind(&()).into_owned(),
                    name: owner_name.to_owned(),
                    uid: owner_uid.to_owned(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            data: Some(
                data.iter()
                    .map(|(k, v)| ((*k).to_owned(), ByteString((*v).into())))
                    .collect(),
            ),
            ..Secret::default()
        }
    }

    #[test]
    fn only_our_own_secret_counts() {
        assert_eq!(inspected(None), LinkSecret::Absent);
        assert_eq!(inspected(Some(&Secret::default())), LinkSecret::NotOwned);
        assert_eq!(
            inspected(Some(&secret("other", "other", &[]))),
            LinkSecret::NotOwned
        );
        assert_eq!(
            inspected(Some(&secret(UID, NAME, &[]))),
            LinkSecret::Owned {
                account_id: None,
                expires_at: None
            }
        );
    }

    #[test]
    fn a_secret_of_an_earlier_object_of_the_same_name_is_a_leftover() {
        let mut secret = secret("earlier", NAME, &[]);
        assert_eq!(inspected(Some(&secret)), LinkSecret::PreviousOwner);
        let owner = &mut secret.metadata.owner_references.as_mut().unwrap()[0];
        owner.kind = "SomethingElse".to_owned();
        assert_eq!(inspected(Some(&secret)), LinkSecret::NotOwned);
    }

    #[test]
    fn an_account_without_its_link_does_not_count() {
        let without = secret(UID, NAME, &[(ACCOUNT_ID, "ca_1")]);
        assert_eq!(
            inspected(Some(&without)),
            LinkSecret::Owned {
                account_id: None,
                expires_at: None
            }
        );
        let with = secret(
            UID,
            NAME,
            &[
                (ACCOUNT_ID, "ca_1"),
                (URL, "https://x"),
                (EXPIRES_AT, "2026-01-01T00:00:00Z"),
            ],
        );
        assert_eq!(
            inspected(Some(&with)),
            LinkSecret::Owned {
                account_id: Some("ca_1".into()),
                expires_at: "2026-01-01T00:00:00Z".parse().ok()
            }
        );
    }

    #[tokio::test]
    async fn a_secret_made_anew_since_it_was_read_is_not_deleted() {
        use std::sync::{Arc, Mutex};

        use crate::runtime::testing::{Answer, Call, client, failure};

        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let log = Arc::clone(&calls);
        let mut read = secret(UID, NAME, &[]);
        read.metadata.name = Some("alice-link".to_owned());
        read.metadata.uid = Some("as read".to_owned());
        let client = client(move |call| {
            let answer: Answer = Ok(match call.method.as_str() {
                "GET" => (200, serde_json::json!(read)),
                // What the API server says if the uid is another one by now.
                _ => failure(409, "Conflict"),
            });
            log.lock().unwrap().push(call);
            std::future::ready(answer)
        });
        let owner = object(&serde_json::json!({}), &serde_json::json!({}));
        LinkSecrets::new(&client, &owner).delete().await.unwrap();
        let calls = calls.lock().unwrap();
        assert_eq!(calls[1].method, "DELETE");
        assert_eq!(calls[1].body["preconditions"]["uid"], "as read");
    }
}
