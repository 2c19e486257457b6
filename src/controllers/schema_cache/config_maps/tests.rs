//! What a write of a ConfigMap asks of the API server, and what it makes of the answers.

use std::sync::{Arc, Mutex};

use kube::Resource;

use super::*;
use crate::runtime::testing::{self, Answer, Call, failure};

fn cache() -> ComposioSchemaCache {
    serde_json::from_value(json!({
        "apiVersion": "composio-operator.dev/v1alpha1", "kind": "ComposioSchemaCache",
        "metadata": {"name": "tools", "namespace": "agents", "uid": "u-1"}, "spec": {},
    }))
    .unwrap()
}

/// Writes one ConfigMap where the API server knows `known`, and answers the write with `answer`.
async fn write(known: Option<Value>, answer: (u16, Value)) -> (Result<Option<String>, Failure>, Vec<Call>) {
    let known_before = known.is_some();
    let answers = move |call: &Call| match (call.method.as_str(), &known) {
        ("GET", Some(known)) => (200, json!({ "metadata": known })),
        ("GET", None) => failure(404, "NotFound"),
        _ => answer.clone(),
    };
    write_to(known_before, answers).await
}

/// Writes one ConfigMap to an API server that answers like that.
async fn write_to(
    known_before: bool,
    answers: impl Fn(&Call) -> (u16, Value) + Clone + Send + 'static,
) -> (Result<Option<String>, Failure>, Vec<Call>) {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let log = calls.clone();
    let client = testing::client(move |call| {
        let answer: Answer = Ok(answers(&call));
        log.lock().unwrap().push(call);
        std::future::ready(answer)
    });
    let owner = cache();
    let config_maps = ConfigMaps::new(&client, &owner);
    let part = Part {
        name: "schemas-reddit".to_owned(),
        ..Part::default()
    };
    let result = config_maps
        .write(
            Role::Toolkit,
            Some("reddit"),
            &part,
            known_before,
            BTreeMap::new(),
        )
        .await;
    let calls = calls.lock().unwrap().clone();
    (result, calls)
}

fn written() -> (u16, Value) {
    (
        200,
        json!({ "metadata": { "name": "schemas-reddit", "uid": "m-7", "resourceVersion": "7" } }),
    )
}

#[tokio::test]
async fn one_that_somebody_made_meanwhile_is_not_taken() {
    let (result, calls) = write(None, written()).await;
    assert_eq!(result, Ok(Some("7".to_owned())));
    let methods: Vec<_> = calls.iter().map(|call| call.method.as_str()).collect();
    assert_eq!(methods, ["POST"]);
    // Found as ConfigMaps that policies on labels refused, and that pods mounted empty.
    let metadata = &calls[0].body["metadata"];
    assert_eq!(metadata["labels"][TOOLKIT_LABEL], "reddit");
    assert!(metadata["annotations"][CHECKSUM].is_string() && metadata["ownerReferences"].is_array());
    assert!(
        calls[0]
            .query
            .contains("fieldManager=composio-operator.dev%2Fu-1")
    );
    let (result, calls) = write(None, failure(409, "AlreadyExists")).await;
    assert_eq!(result.unwrap_err().reason, Reason::ConfigMapConflict);
    assert!(calls.iter().all(|call| call.method != "PATCH"));
    let (result, _) = write(None, failure(422, "Invalid")).await;
    assert_eq!(
        result.unwrap_err().reason,
        Reason::KubernetesApi,
        "an admission policy"
    );
}

#[tokio::test]
async fn ours_is_taken_back_and_only_that_very_one() {
    let ours = json!({ "name": "schemas-reddit", "uid": "m-1", "ownerReferences": [cache().controller_owner_ref(&())] });
    let (result, calls) = write(Some(ours), written()).await;
    assert_eq!(result, Ok(Some("7".to_owned())));
    assert!(calls[1].query.contains("force=true"));
    assert_eq!(calls[1].body["metadata"]["uid"], "m-1");
}

/// An apply takes out only what was applied before: what was there from the creation counts as applied from then on.
#[tokio::test]
async fn fields_from_the_creation_become_those_of_an_apply() {
    let entry = |operation: &str| json!({ "manager": "composio-operator.dev/u-1", "operation": operation });
    for (operation, is_changed) in [("Update", true), ("Apply", false)] {
        let ours = json!({ "name": "schemas-reddit", "uid": "m-1", "ownerReferences": [cache().controller_owner_ref(&())],
            "managedFields": [{ "manager": "kubectl", "operation": "Update" }, entry(operation)] });
        let (result, calls) = write(Some(ours), written()).await;
        assert_eq!(result, Ok(Some("7".to_owned())));
        let changes = calls
            .iter()
            .any(|call| call.body[2]["path"] == "/metadata/managedFields/1/operation");
        assert_eq!(changes, is_changed, "{operation}");
    }
}

#[tokio::test]
async fn one_of_somebody_else_is_not_touched() {
    let (result, calls) = write(Some(json!({ "name": "schemas-reddit", "uid": "m-1" })), written()).await;
    assert_eq!(result.unwrap_err().reason, Reason::ConfigMapConflict);
    assert!(calls.iter().all(|call| call.method == "GET"));
}

/// What an admission webhook adds is seen in the answer: an apply would leave it.
#[tokio::test]
async fn what_was_put_in_while_it_was_made_is_taken_out() {
    let (result, calls) = write_to(false, |call| {
        let mut map = written().1;
        if call.body["data"] != json!({ "theirs": null }) {
            map["data"] = json!({ "theirs": "1" });
        }
        (200, map)
    })
    .await;
    assert_eq!(result, Ok(Some("7".to_owned())));
    let methods: Vec<_> = calls.iter().map(|call| call.method.as_str()).collect();
    assert_eq!(methods, ["POST", "PATCH"]);
    assert_eq!(calls[1].body["metadata"]["resourceVersion"], Value::Null);
}
