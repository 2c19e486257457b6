//! The Secret that holds the link a person opens.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ObjectMeta, Status};
use kube::{Api, Resource};

use super::FIELD_MANAGER;
use super::observed::{LinkSecret, Subject};
use crate::api::{MANAGED_BY, MANAGED_BY_LABEL, RedditConnection};
use crate::kube_io::explain::explain;

const URL: &str = "url";
const EXPIRES_AT: &str = "expiresAt";
const ACCOUNT_ID: &str = "connectedAccountId";

/// Whose Secret this is, and what it holds. Never the link itself.
pub fn inspect(secret: Option<&Secret>, owner: &Subject<'_>) -> LinkSecret {
    let Some(secret) = secret else {
        return LinkSecret::Absent;
    };
    let controller = secret
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    match controller {
        Some(controller) if controller.uid == owner.uid => {}
        // Names are unique: the object with the other uid is gone.
        Some(controller) if is_same_name(controller, owner.name) => return LinkSecret::Leftover,
        _ => return LinkSecret::Foreign,
    }
    let text = |key| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    };
    // Without its link the rest is worth nothing.
    let has_url = text(URL).is_some();
    LinkSecret::Ours {
        account_id: text(ACCOUNT_ID).filter(|_| has_url).map(str::to_owned),
        expires_at: text(EXPIRES_AT)
            .filter(|_| has_url)
            .and_then(|time| time.parse().ok()),
    }
}

fn is_same_name(reference: &OwnerReference, name: &str) -> bool {
    let group = reference.api_version.split('/').next();
    group == Some(&RedditConnection::group(&()))
        && reference.kind == RedditConnection::kind(&())
        && reference.name == name
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

/// Writes the Secret, empty or with a link. The owner reference makes Kubernetes remove it with the object.
///
/// # Errors
/// A conflict if a Secret of that name belongs to somebody else; whatever else the API server answers.
pub async fn write(
    api: &Api<Secret>,
    name: &str,
    owner: &RedditConnection,
    contents: Option<Contents<'_>>,
) -> kube::Result<Secret> {
    let known = api.get_opt(name).await?;
    let uid = match (inspect(known.as_ref(), &Subject::from(owner)), known) {
        (LinkSecret::Ours { .. }, Some(known)) => known.metadata.uid,
        // An apply could not tell a new one from one that somebody made meanwhile.
        (LinkSecret::Absent, _) => {
            api.create(&PostParams::default(), &empty(name, owner))
                .await?
                .metadata
                .uid
        }
        _ => {
            let message = format!("Secret {name} belongs to something else");
            let status = Status::failure(&message, "Conflict").with_code(409);
            return Err(kube::Error::Api(Box::new(status)));
        }
    };
    let data = contents.map(|contents| {
        let mut data = BTreeMap::from([
            (URL.to_owned(), ByteString(contents.url.into())),
            (ACCOUNT_ID.to_owned(), ByteString(contents.account_id.into())),
        ]);
        if let Some(expires_at) = contents.expires_at {
            data.insert(EXPIRES_AT.to_owned(), ByteString(expires_at.to_string().into()));
        }
        data
    });
    let mut secret = Secret {
        data,
        ..empty(name, owner)
    };
    secret.metadata.uid = uid;
    api.patch(
        name,
        &PatchParams::apply(FIELD_MANAGER).force(),
        &Patch::Apply(secret),
    )
    .await
}

fn empty(name: &str, owner: &RedditConnection) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(
                MANAGED_BY_LABEL.to_owned(),
                MANAGED_BY.to_owned(),
            )])),
            owner_references: owner.controller_owner_ref(&()).map(|reference| vec![reference]),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }
}

/// Deletes the Secret if it is still ours, or left by an earlier object of our name. Gone already is fine.
pub async fn delete(api: &Api<Secret>, owner: &Subject<'_>) -> kube::Result<()> {
    let name = &owner.link_secret_name();
    let secret = api.get_opt(name).await?;
    match (inspect(secret.as_ref(), owner), secret) {
        (LinkSecret::Ours { .. } | LinkSecret::Leftover, Some(secret)) => {
            delete_exactly(api, name, secret).await
        }
        _ => Ok(()),
    }
}

async fn delete_exactly(api: &Api<Secret>, name: &str, secret: Secret) -> kube::Result<()> {
    let same_object = DeleteParams {
        preconditions: Some(Preconditions {
            uid: secret.metadata.uid,
            ..Preconditions::default()
        }),
        ..DeleteParams::default()
    };
    match api.delete(name, &same_object).await {
        Err(kube::Error::Api(status)) if !status.is_not_found() && !status.is_conflict() => {
            Err(kube::Error::Api(status))
        }
        Err(error @ kube::Error::Api(_)) => {
            tracing::debug!(error = explain(&error), "the link Secret was gone already");
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::reddit_connection::fixtures::{NAME, UID, object};

    fn look(secret: Option<&Secret>) -> LinkSecret {
        let owner = object(&serde_json::json!({}), &serde_json::json!({}));
        inspect(secret, &Subject::from(&owner))
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
        assert_eq!(look(None), LinkSecret::Absent);
        assert_eq!(look(Some(&Secret::default())), LinkSecret::Foreign);
        assert_eq!(look(Some(&secret("other", "other", &[]))), LinkSecret::Foreign);
        assert_eq!(
            look(Some(&secret(UID, NAME, &[]))),
            LinkSecret::Ours {
                account_id: None,
                expires_at: None
            }
        );
    }

    #[test]
    fn a_secret_of_an_earlier_object_of_the_same_name_is_a_leftover() {
        let mut secret = secret("earlier", NAME, &[]);
        assert_eq!(look(Some(&secret)), LinkSecret::Leftover);
        let owner = &mut secret.metadata.owner_references.as_mut().unwrap()[0];
        owner.kind = "SomethingElse".to_owned();
        assert_eq!(look(Some(&secret)), LinkSecret::Foreign);
    }

    #[test]
    fn an_account_without_its_link_does_not_count() {
        let without = secret(UID, NAME, &[(ACCOUNT_ID, "ca_1")]);
        assert_eq!(
            look(Some(&without)),
            LinkSecret::Ours {
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
            look(Some(&with)),
            LinkSecret::Ours {
                account_id: Some("ca_1".into()),
                expires_at: "2026-01-01T00:00:00Z".parse().ok()
            }
        );
    }

    #[tokio::test]
    async fn a_secret_made_anew_since_it_was_read_is_not_deleted() {
        use crate::kube_io::fake_api::{Answer, Call, client, failure};
        use std::sync::{Arc, Mutex};

        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let log = Arc::clone(&calls);
        let mut read = secret(UID, NAME, &[]);
        read.metadata.uid = Some("as read".to_owned());
        let api = Api::namespaced(
            client(move |call| {
                let answer: Answer = Ok(match call.method.as_str() {
                    "GET" => (200, serde_json::json!(read)),
                    // What the API server says if the uid is another one by now.
                    _ => failure(409, "Conflict"),
                });
                log.lock().unwrap().push(call);
                std::future::ready(answer)
            }),
            "team",
        );
        let owner = object(&serde_json::json!({}), &serde_json::json!({}));
        delete(&api, &Subject::from(&owner)).await.unwrap();
        let calls = calls.lock().unwrap();
        assert_eq!(calls[1].method, "DELETE");
        assert_eq!(calls[1].body["preconditions"]["uid"], "as read");
    }
}
