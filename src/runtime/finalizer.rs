//! Puts a finalizer on an object and takes it off, by guarded patches.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::status::test;

/// Makes sure that `object` carries `finalizer`, and returns it as it then is; no request if it does already.
///
/// The patch holds only for the very object that was read, with the finalizers it had: neither a namesake created
/// since nor a second copy of the finalizer can come of it.
///
/// # Errors
/// A conflict (see [`is_conflict`](super::status::is_conflict)) if the object's finalizers changed since it was read; not found if it is gone.
pub async fn ensure_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if position(object, finalizer).is_some() {
        return Ok(object.clone());
    }
    let add = if object.finalizers().is_empty() {
        // An absent list tests as null. The API server never stores an empty one.
        json!([
            test("/metadata/finalizers", &Value::Null),
            { "op": "add", "path": "/metadata/finalizers", "value": [finalizer] },
        ])
    } else {
        json!([
            test("/metadata/finalizers", &json!(object.finalizers())),
            { "op": "add", "path": "/metadata/finalizers/-", "value": finalizer },
        ])
    };
    patch_same_object(api, object, add).await
}

/// Takes `finalizer` off `object`; `None` if the object is gone, which is what whoever removes a finalizer waits for.
///
/// # Errors
/// A conflict (see [`is_conflict`](super::status::is_conflict)) if the object's finalizers changed since it was read.
pub async fn remove_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> kube::Result<Option<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let Some(index) = position(object, finalizer) else {
        return Ok(Some(object.clone()));
    };
    let path = format!("/metadata/finalizers/{index}");
    // The index was read a moment ago; the test keeps us from taking off somebody else's finalizer.
    let remove = json!([test(&path, &json!(finalizer)), { "op": "remove", "path": path }]);
    match patch_same_object(api, object, remove).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn position(object: &impl ResourceExt, finalizer: &str) -> Option<usize> {
    object.finalizers().iter().position(|f| f == finalizer)
}

/// Sends the JSON patch `operations`, preceded by a test that the object still is the one with this uid.
async fn patch_same_object<K>(api: &Api<K>, object: &K, operations: Value) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut all = vec![test("/metadata/uid", &json!(object.uid()))];
    all.extend(operations.as_array().into_iter().flatten().cloned());
    let patch = serde_json::from_value(Value::Array(all)).map_err(kube::Error::SerdeError)?;
    api.patch(
        &object.name_any(),
        &PatchParams::default(),
        &Patch::<()>::Json(patch),
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::status::is_conflict;
    use crate::runtime::status::tests::{FINALIZER, api, pod, stored_pod};
    use crate::runtime::testing::failure;

    #[tokio::test]
    async fn a_finalizer_is_added_only_to_the_list_that_was_read() {
        let uid = json!({"op": "test", "path": "/metadata/uid", "value": "u-1"});
        for (before, operations) in [
            (
                vec![],
                json!([
                    uid,
                    {"op": "test", "path": "/metadata/finalizers", "value": null},
                    {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]},
                ]),
            ),
            (
                vec!["other"],
                json!([
                    uid,
                    {"op": "test", "path": "/metadata/finalizers", "value": ["other"]},
                    {"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER},
                ]),
            ),
        ] {
            let (api, calls) = api(|| Ok(stored_pod()));
            let after = ensure_finalizer(&api, &pod(&before), FINALIZER).await.unwrap();
            assert_eq!(
                after.finalizers(),
                ["seen"],
                "the object the server returned is handed on"
            );
            let calls = calls.lock().unwrap();
            assert_eq!(calls.len(), 1);
            assert_eq!(calls[0].path, "/api/v1/namespaces/team/pods/alice");
            assert_eq!(calls[0].content_type, "application/json-patch+json");
            assert_eq!(calls[0].body, operations);
        }
    }

    #[tokio::test]
    async fn a_finalizer_is_removed_at_its_place_only() {
        let (api, calls) = api(|| Ok(stored_pod()));
        remove_finalizer(&api, &pod(&["other", FINALIZER]), FINALIZER)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            calls.lock().unwrap()[0].body,
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u-1"},
                {"op": "test", "path": "/metadata/finalizers/1", "value": FINALIZER},
                {"op": "remove", "path": "/metadata/finalizers/1"},
            ])
        );
    }

    #[tokio::test]
    async fn nothing_is_sent_when_there_is_nothing_to_change() {
        let (api, calls) = api(|| Ok(stored_pod()));
        ensure_finalizer(&api, &pod(&[FINALIZER]), FINALIZER)
            .await
            .unwrap();
        remove_finalizer(&api, &pod(&["other"]), FINALIZER)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*calls.lock().unwrap(), []);
    }

    #[tokio::test]
    async fn removal_from_an_object_that_is_gone_succeeds() {
        let (gone, _) = api(|| Ok(failure(404, "NotFound")));
        assert!(
            remove_finalizer(&gone, &pod(&[FINALIZER]), FINALIZER)
                .await
                .unwrap()
                .is_none()
        );
        let error = ensure_finalizer(&gone, &pod(&[]), FINALIZER).await.unwrap_err();
        assert!(
            !is_conflict(&error),
            "adding to one that is gone is no success: {error}"
        );
        let (raced, _) = api(|| Ok(failure(422, "Invalid")));
        let error = remove_finalizer(&raced, &pod(&[FINALIZER]), FINALIZER)
            .await
            .unwrap_err();
        assert!(is_conflict(&error), "{error}");
    }
}
