//! Writes of a status, by server-side apply.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::core::Status;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How often a status that has to be written is computed over a newer version, before the last conflict is told.
const MAX_CONFLICTS: u32 = 10;

/// How sure a status has to be of the object it is written to.
pub enum Guard<'a, K> {
    /// The object is still the version that was read. For a status that depends on the spec that was read, and for an
    /// intent that is recorded before a call that must happen once.
    Version,
    /// It is still the same object, and this is true of it. For what happened and cannot be found out again.
    Object(&'a (dyn Fn(&K) -> bool + Send + Sync)),
}

/// Applies the whole status of `object`, owned by the field manager `manager`.
///
/// Server-side apply removes what the last apply of the same manager set and this one leaves out, so `status` must be
/// complete, and its absent options must not be serialised. Force takes over fields that someone else wrote: the status
/// belongs to the controller. An apply that changes nothing leaves the object's resource version as it is.
///
/// Never written to another object of the same name: a namesake created since has another resource version, and another
/// uid. The API server does not compare the uid itself where a status is applied: metadata that differs is ignored there.
///
/// # Errors
/// Whatever the API server answers: not found if the object is gone, a conflict (see [`is_conflict`]) if `guard` does
/// not hold.
pub async fn apply_status<K>(
    api: &Api<K>,
    object: &K,
    guard: Guard<'_, K>,
    manager: &str,
    status: &(impl Serialize + Sync),
) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
    let mut result = apply_to_version(api, object, manager, &status).await;
    let Guard::Object(still_concerns) = guard else {
        return result;
    };
    let name = object.name_any();
    for _ in 0..MAX_CONFLICTS {
        match &result {
            Err(error) if is_conflict(error) => {}
            _ => return result,
        }
        let current = api.get(&name).await?;
        if current.uid() != object.uid() {
            return Err(conflict(&format!(
                "{name} is another object of the same name by now"
            )));
        }
        if !still_concerns(&current) {
            return Err(conflict(&format!("{name} has moved on meanwhile")));
        }
        result = apply_to_version(api, &current, manager, &status).await;
    }
    result
}

fn conflict(message: &str) -> kube::Error {
    kube::Error::Api(Box::new(Status::failure(message, "Conflict").with_code(409)))
}

/// Applies the status to the very version of `object`.
async fn apply_to_version<K>(api: &Api<K>, object: &K, manager: &str, status: &Value) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let name = object.name_any();
    let applied = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": object.uid(), "resourceVersion": object.resource_version() },
        "status": status,
    });
    let written = api
        .patch_status(
            &name,
            &PatchParams::apply(manager).force(),
            &Patch::Apply(applied),
        )
        .await?;
    let stored = serde_json::to_value(&written).map_err(kube::Error::SerdeError)?;
    if !holds_more(&stored["status"], status) {
        return Ok(written);
    }
    // An apply leaves what somebody else has written too. Nobody else has a say in a status.
    let replace = serde_json::from_value(json!([
        test("/metadata/uid", &json!(object.uid())),
        { "op": "replace", "path": "/status", "value": status },
    ]));
    let replace = replace.map_err(kube::Error::SerdeError)?;
    let parameters = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(&name, &parameters, &Patch::<()>::Json(replace))
        .await
}

/// Whether `stored` has fields or items that `applied` lacks.
fn holds_more(stored: &Value, applied: &Value) -> bool {
    match (stored, applied) {
        (Value::Object(stored), Value::Object(applied)) => stored
            .iter()
            .any(|(key, value)| applied.get(key).is_none_or(|applied| holds_more(value, applied))),
        (Value::Array(stored), Value::Array(applied)) => stored.len() > applied.len(),
        _ => false,
    }
}

/// Whether a write was refused because the object is no longer the one that was read. Read it again and decide anew.
///
/// That is 409, or 422 of a JSON patch whose `test` failed. The latter comes without field causes, whereas a 422 for an
/// object that breaks its schema names the fields.
pub fn is_conflict(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            let names_fields = status
                .details
                .as_ref()
                .is_some_and(|details| !details.causes.is_empty());
            status.is_conflict() || (status.is_invalid() && !names_fields)
        }
        _ => false,
    }
}

/// One `test` operation of a JSON patch.
pub(super) fn test(path: &str, value: &Value) -> Value {
    json!({ "op": "test", "path": path, "value": value })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::runtime::testing::{self, Answer, Call, failure};
    use k8s_openapi::api::core::v1::{Pod, PodStatus};
    use std::sync::{Arc, Mutex};

    pub(in crate::runtime) const FINALIZER: &str = "composio-operator.dev/cleanup";

    /// Answers every call alike and keeps them.
    pub(in crate::runtime) fn api(
        answer: impl Fn() -> Answer + Clone + Send + Sync + 'static,
    ) -> (Api<Pod>, Arc<Mutex<Vec<Call>>>) {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let log = calls.clone();
        let client = testing::client(move |call| {
            log.lock().unwrap().push(call);
            std::future::ready(answer())
        });
        (Api::namespaced(client, "team"), calls)
    }

    pub(in crate::runtime) fn pod(finalizers: &[&str]) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "alice", "namespace": "team", "uid": "u-1", "finalizers": finalizers},
        }))
        .unwrap()
    }

    pub(in crate::runtime) fn stored_pod() -> (u16, Value) {
        (200, json!(pod(&["seen"])))
    }

    #[tokio::test]
    async fn status_is_applied_with_force_under_the_managers_name() {
        let (api, calls) = api(|| Ok(stored_pod()));
        let status = PodStatus {
            phase: Some("Running".into()),
            ..PodStatus::default()
        };
        let mut pod = pod(&[]);
        pod.metadata.resource_version = Some("7".into());
        apply_status(&api, &pod, Guard::Version, "composio-operator/test", &status)
            .await
            .unwrap();
        let calls = calls.lock().unwrap();
        assert_eq!(calls[0].method, "PATCH");
        assert_eq!(calls[0].path, "/api/v1/namespaces/team/pods/alice/status");
        assert_eq!(
            calls[0].query,
            "&force=true&fieldManager=composio-operator%2Ftest"
        );
        assert_eq!(calls[0].content_type, "application/apply-patch+yaml");
        assert_eq!(
            calls[0].body,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "alice", "uid": "u-1", "resourceVersion": "7"},
                "status": {"phase": "Running"},
            })
        );
    }

    /// An API server that holds this pod, at a new version at each request.
    fn busy(uid: &'static str) -> (Api<Pod>, Arc<Mutex<Vec<Call>>>) {
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let log = calls.clone();
        let client = testing::client(move |call| {
            let mut log = log.lock().unwrap();
            log.push(call.clone());
            let mut stored = json!(pod(&[]));
            stored["metadata"]["uid"] = uid.into();
            stored["metadata"]["resourceVersion"] = log.len().to_string().into();
            let answer: Answer = Ok(match call.method.as_str() {
                // Somebody else was quicker, once.
                "PATCH" if log.len() < 3 => failure(409, "Conflict"),
                _ => (200, stored),
            });
            std::future::ready(answer)
        });
        (Api::namespaced(client, "team"), calls)
    }

    #[tokio::test]
    async fn what_happened_is_written_over_whatever_version_there_is() {
        let (api, calls) = busy("u-1");
        let mut seen_before = pod(&[]);
        seen_before.metadata.resource_version = Some("0".into());
        apply_status(&api, &seen_before, Guard::Object(&|_| true), "test", &json!({}))
            .await
            .unwrap();
        let calls = calls.lock().unwrap();
        let seen: Vec<_> = calls
            .iter()
            .map(|call| {
                (
                    call.method.as_str(),
                    call.body["metadata"]["resourceVersion"].as_str(),
                )
            })
            .collect();
        assert_eq!(seen, [("PATCH", Some("0")), ("GET", None), ("PATCH", Some("2"))]);
    }

    /// Found when the late answer to a create of an attempt that had been given up put its dead link on record.
    #[tokio::test]
    async fn what_happened_is_not_written_over_what_it_does_not_concern_any_more() {
        let (api, calls) = busy("u-1");
        let error = apply_status(&api, &pod(&[]), Guard::Object(&|_| false), "test", &json!({}))
            .await
            .unwrap_err();
        assert!(is_conflict(&error), "{error}");
        let calls = calls.lock().unwrap();
        let methods: Vec<_> = calls.iter().map(|call| call.method.as_str()).collect();
        assert_eq!(methods, ["PATCH", "GET"]);
    }

    /// Found when the answer to a create that came after its object was deleted ended up in the status of a namesake: the
    /// API server ignores the uid of what is applied to a status.
    #[tokio::test]
    async fn what_happened_is_not_written_to_a_namesake() {
        let (api, calls) = busy("u-2");
        let error = apply_status(&api, &pod(&[]), Guard::Object(&|_| true), "test", &json!({}))
            .await
            .unwrap_err();
        assert!(is_conflict(&error), "{error}");
        let calls = calls.lock().unwrap();
        let methods: Vec<_> = calls.iter().map(|call| call.method.as_str()).collect();
        assert_eq!(
            methods,
            ["PATCH", "GET"],
            "refused by its version, and not tried again"
        );
    }

    /// Found when somebody had edited a status with kubectl: what they put in never went away again.
    #[tokio::test]
    async fn what_somebody_else_wrote_into_a_status_is_taken_out() {
        let foreign = || {
            let mut pod = json!(pod(&[]));
            pod["status"] = json!({"phase": "Running", "hostIP": "6.6.6.6"});
            (200, pod)
        };
        let (api, calls) = api(move || Ok(foreign()));
        let status = json!({"phase": "Running"});
        apply_status(&api, &pod(&[]), Guard::Version, "composio-operator/test", &status)
            .await
            .unwrap();
        let calls = calls.lock().unwrap();
        assert_eq!(calls[1].content_type, "application/json-patch+json");
        assert_eq!(
            calls[1].body,
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u-1"},
                {"op": "replace", "path": "/status", "value": {"phase": "Running"}},
            ])
        );
    }

    fn broken_schema() -> Value {
        json!({"kind": "Status", "status": "Failure", "code": 422, "reason": "Invalid", "message": "m",
            "details": {"causes": [{"reason": "FieldValueInvalid", "field": "spec.x", "message": "no"}]}})
    }

    #[tokio::test]
    async fn conflicts_are_told_from_other_refusals() {
        type Case = (&'static str, fn() -> Answer, bool);
        let cases: [Case; 5] = [
            ("conflict", || Ok(failure(409, "Conflict")), true),
            ("failed test", || Ok(failure(422, "Invalid")), true),
            ("broken schema", || Ok((422, broken_schema())), false),
            ("forbidden", || Ok(failure(403, "Forbidden")), false),
            (
                "connection lost",
                || Err(std::io::ErrorKind::ConnectionReset.into()),
                false,
            ),
        ];
        for (name, answer, conflict) in cases {
            let (api, _) = api(answer);
            let error = crate::runtime::finalizer::ensure_finalizer(&api, &pod(&[]), FINALIZER)
                .await
                .unwrap_err();
            assert_eq!(is_conflict(&error), conflict, "{name}: {error}");
        }
    }
}
