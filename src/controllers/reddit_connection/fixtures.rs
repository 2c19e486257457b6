//! Objects and accounts for the tests of the pure phases. Names differ from each other wherever they could be mixed up.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::api::reddit_connection::{FINALIZER, RedditConnection};
use crate::composio::{Account, AccountStatus, AuthConfig};

pub const UID: &str = "3f6c1d52-7a0e-4d0c-9a3b-0a1b2c3d4e5f";
pub const NAME: &str = "alice";
pub const USER: &str = "user_123";
pub const AUTH_CONFIG: &str = "ac_reddit";

/// 2026-01-01T00:00:00Z and so many seconds.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

/// An object as the API server would hand it out: spec over `userId`, our finalizer in place.
pub fn object(spec: &Value, status: &Value) -> RedditConnection {
    let mut full = json!({ "userId": USER });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    let mut object: RedditConnection = serde_json::from_value(json!({
        "apiVersion": "composio-operator.dev/v1alpha1",
        "kind": "RedditConnection",
        "metadata": { "name": NAME, "namespace": "team", "uid": UID, "generation": 1, "finalizers": [FINALIZER] },
        "spec": full,
    }))
    .unwrap();
    object.status = Some(serde_json::from_value(status.clone()).unwrap());
    object
}

pub fn requested(mut object: RedditConnection, token: &str) -> RedditConnection {
    object
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(crate::api::REQUESTED_AT_ANNOTATION.to_owned(), token.to_owned());
    object
}

pub fn deleted(mut object: RedditConnection) -> RedditConnection {
    object.metadata.deletion_timestamp = Some(Time(at(0)));
    object.metadata.generation = Some(2);
    object
}

pub fn account(id: &str, status: AccountStatus, alias: Option<String>) -> Account {
    Account {
        id: id.to_owned(),
        toolkit: "reddit".to_owned(),
        auth_config_id: AUTH_CONFIG.to_owned(),
        auth_config_disabled: false,
        user_id: USER.to_owned(),
        status,
        status_reason: None,
        alias,
        is_disabled: false,
        created_at: Some(at(0)),
        updated_at: Some(at(0)),
    }
}

pub fn auth_config(id: &str, enabled: bool) -> AuthConfig {
    AuthConfig {
        id: id.to_owned(),
        name: format!("name of {id}"),
        toolkit: "reddit".to_owned(),
        enabled,
        is_composio_managed: Some(true),
        auth_scheme: Some("OAUTH2".to_owned()),
    }
}
