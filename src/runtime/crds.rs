//! Waits until the API server serves the operator's own CRDs.
//!
//! Under `GitOps` the operator often starts before its CRDs. That is no reason to crash: it stays alive, not ready, and
//! asks again. It reads the discovery documents, which every authenticated client may read, so that no permission on
//! CRDs is needed.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::{Client, Resource};
use tokio::time::{sleep, timeout};

use super::failure::explain;

/// Time between two requests at first; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Longest time between two requests: what somebody who just applied the CRDs is ready to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest time for one answer. The client itself would repeat a refused request for minutes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A custom resource the API server should serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crd {
    group_version: String,
    /// `<plural>.<group>`
    name: String,
    plural: String,
}

impl Crd {
    /// The CRD behind the type `K`.
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        let plural = K::plural(&()).into_owned();
        let (group, version) = (K::group(&()), K::version(&()));
        Self {
            name: format!("{plural}.{group}"),
            group_version: format!("{group}/{version}"),
            plural,
        }
    }

    /// The name of the CRD object: `<plural>.<group>`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The API server refuses to say what it serves; waiting will not change that.
#[derive(Debug, thiserror::Error)]
#[error(
    "the API server does not let this identity read /apis/{group_version}: check the service account's token and that \
     the ClusterRole system:discovery is bound to it"
)]
pub struct DiscoveryDenied {
    /// What was asked for, `<group>/<version>`.
    pub group_version: String,
    /// The API server's answer: 401 or 403.
    pub source: kube::Error,
}

/// Returns once all of `wanted` are served.
///
/// `on_missing` is told the names of those that are not, whenever that set differs from the one before; its last call,
/// with none, comes before this returns. As long as the API server cannot be asked, what was not seen counts as missing.
///
/// # Errors
/// If the API server refuses to answer (401, 403). Any other failure is waited out.
pub async fn wait_for_crds(
    client: &Client,
    wanted: &[Crd],
    mut on_missing: impl FnMut(&[String]),
) -> Result<(), DiscoveryDenied> {
    let mut reported: Option<Vec<String>> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let missing = missing(client, wanted).await?;
        if reported.as_ref() != Some(&missing) {
            on_missing(&missing);
        }
        if missing.is_empty() {
            return Ok(());
        }
        reported = Some(missing);
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The names of those of `wanted` that are not served, in the order of `wanted`.
async fn missing(client: &Client, wanted: &[Crd]) -> Result<Vec<String>, DiscoveryDenied> {
    let mut served = BTreeSet::new();
    let group_versions: BTreeSet<&str> = wanted.iter().map(|crd| crd.group_version.as_str()).collect();
    for group_version in group_versions {
        for plural in plurals_served(client, group_version).await? {
            served.insert((group_version.to_owned(), plural));
        }
    }
    let lacks = |crd: &&Crd| !served.contains(&(crd.group_version.clone(), crd.plural.clone()));
    Ok(wanted.iter().filter(lacks).map(|crd| crd.name.clone()).collect())
}

async fn plurals_served(client: &Client, group_version: &str) -> Result<Vec<String>, DiscoveryDenied> {
    match timeout(REQUEST_TIMEOUT, client.list_api_group_resources(group_version)).await {
        Ok(Ok(list)) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
        Ok(Err(source)) if is_denied(&source) => Err(DiscoveryDenied {
            group_version: group_version.to_owned(),
            source,
        }),
        // Without any CRD of the group its path does not exist, and the answer is no Status: only the code tells.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(vec![]),
        Ok(Err(error)) => {
            tracing::warn!(
                group_version,
                error = explain(&error),
                "cannot ask the API server for its resources; asking again"
            );
            Ok(vec![])
        }
        Err(_elapsed) => {
            tracing::warn!(group_version, "the API server does not answer; asking again");
            Ok(vec![])
        }
    }
}

fn is_denied(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::testing::{self, Answer, failure};
    use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
    use serde_json::{Value, json};
    use std::io;
    use std::sync::{Arc, Mutex};
    use tokio::time::Instant;

    fn served(names: &[&str]) -> (u16, Value) {
        let resources: Vec<Value> = names
            .iter()
            .map(|name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "K", "verbs": []}))
            .collect();
        (
            200,
            json!({"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": resources}),
        )
    }

    /// Waits for two resources while the server gives `answers` one after the other; returns what was reported, and
    /// how long it took.
    async fn wait(answers: Vec<Answer>) -> (Result<(), DiscoveryDenied>, Vec<Vec<String>>, Duration) {
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let left = answers.clone();
        let client = testing::client(move |call| {
            assert_eq!(
                (call.method.as_str(), call.path.as_str()),
                ("GET", "/apis/apps/v1")
            );
            std::future::ready(
                answers
                    .lock()
                    .unwrap()
                    .next()
                    .expect("one request more than expected"),
            )
        });
        let started = Instant::now();
        let mut reports = vec![];
        let wanted = [Crd::of::<Deployment>(), Crd::of::<ReplicaSet>()];
        let outcome = wait_for_crds(&client, &wanted, |missing| reports.push(missing.to_vec())).await;
        assert_eq!(
            left.lock().unwrap().next().map(|answer| answer.is_ok()),
            None,
            "one request less than expected"
        );
        (outcome, reports, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_through_every_failure_that_may_pass() {
        let (waited, reports, took) = wait(vec![
            Ok((404, json!("404 page not found"))),
            Ok(failure(404, "NotFound")),
            Err(io::ErrorKind::ConnectionRefused.into()),
            Ok(failure(503, "ServiceUnavailable")),
            Ok(failure(429, "TooManyRequests")),
            Ok(served(&["deployments", "deployments/status"])),
            Ok(failure(500, "InternalError")),
            Ok(served(&["replicasets", "deployments"])),
        ])
        .await;
        waited.unwrap();
        let (deployments, replica_sets) = ("deployments.apps".to_owned(), "replicasets.apps".to_owned());
        let both = vec![deployments, replica_sets.clone()];
        assert_eq!(reports, [both.clone(), vec![replica_sets], both, vec![]]);
        assert_eq!(took, Duration::from_secs(2 + 4 + 8 + 10 + 10 + 10 + 10));
    }

    #[tokio::test(start_paused = true)]
    async fn it_returns_at_once_when_all_are_served() {
        let (waited, reports, took) = wait(vec![Ok(served(&["deployments", "replicasets"]))]).await;
        waited.unwrap();
        assert_eq!((reports, took), (vec![vec![]], Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_an_error_that_says_what_to_check() {
        for (code, reason) in [(401, "Unauthorized"), (403, "Forbidden")] {
            let (waited, reports, _) = wait(vec![Ok(failure(code, reason))]).await;
            let message = waited.unwrap_err().to_string();
            assert!(
                message.contains("/apis/apps/v1") && message.contains("system:discovery"),
                "{message}"
            );
            assert_eq!(reports, Vec::<Vec<String>>::new());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_is_given_up_and_asked_for_again() {
        let count = Arc::new(Mutex::new(0));
        let seen = count.clone();
        let client = testing::client(move |_| {
            let first = {
                let mut count = count.lock().unwrap();
                *count += 1;
                *count == 1
            };
            async move {
                if first {
                    std::future::pending().await
                } else {
                    Ok(served(&["deployments"]))
                }
            }
        });
        wait_for_crds(&client, &[Crd::of::<Deployment>()], |_| ())
            .await
            .unwrap();
        assert_eq!(*seen.lock().unwrap(), 2);
    }
}
