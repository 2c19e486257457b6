//! The schema caches of a run, and what they keep in ConfigMaps.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Label of the ConfigMaps of a cache; its value is the name of the cache.
const CACHE_LABEL: &str = "composio-operator.dev/schema-cache";
/// Annotation that asks for a refresh.
const REQUESTED_AT: &str = "composio-operator.dev/requested-at";
/// ConfigMaps with content that are listed at once.
const PAGE: u32 = 20;
/// How often it is asked whether the ConfigMaps of a deleted cache are gone.
const GONE_INTERVAL: Duration = Duration::from_millis(200);

/// The caches of one namespace.
pub struct Caches {
    api: Api<DynamicObject>,
    resource: ApiResource,
    config_maps: Api<ConfigMap>,
}

impl Caches {
    /// Those of that namespace.
    pub fn new(client: &Client, namespace: &str) -> Self {
        let kind = GroupVersionKind::gvk("composio-operator.dev", "v1alpha1", "ComposioSchemaCache");
        let resource = ApiResource::from_gvk(&kind);
        Self {
            api: Api::namespaced_with(client.clone(), namespace, &resource),
            resource,
            config_maps: Api::namespaced(client.clone(), namespace),
        }
    }

    /// All ConfigMaps of the namespace.
    pub fn config_maps(&self) -> &Api<ConfigMap> {
        &self.config_maps
    }

    /// Creates a cache and waits until its first sync has ended. Returns the time that took and its status.
    pub async fn create(&self, name: &str, spec: &Value) -> Result<(Duration, Value)> {
        let object = DynamicObject::new(name, &self.resource).data(json!({ "spec": spec }));
        let started = Instant::now();
        let creating = async {
            let created = self.api.create(&PostParams::default(), &object).await;
            created.with_context(|| format!("cannot create the cache {name}"))
        };
        let (_, (status, finished)) = futures::try_join!(creating, self.becomes(name, is_finished))?;
        Ok((finished - started, status))
    }

    /// Asks for a refresh and waits until it has ended. Returns the time that took and the status.
    pub async fn refresh(&self, name: &str, token: &str) -> Result<(Duration, Value)> {
        let patch = json!({ "metadata": { "annotations": { REQUESTED_AT: token } } });
        let started = Instant::now();
        self.patch(name, patch).await?;
        let handled = |object: &Value| {
            object["status"]["lastHandledRequestAt"].as_str() == Some(token) && is_finished(object)
        };
        let (status, finished) = self.becomes(name, handled).await?;
        Ok((finished - started, status))
    }

    /// Changes the spec and waits until a sync with it has ended.
    pub async fn change(&self, name: &str, spec: &Value) -> Result<()> {
        self.patch(name, json!({ "spec": spec })).await?;
        self.becomes(name, is_finished).await?;
        Ok(())
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<()> {
        let patched = self
            .api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched
            .map(drop)
            .with_context(|| format!("cannot change the cache {name}"))
    }

    /// Deletes a cache and waits until its ConfigMaps are gone.
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.api.delete(name, &DeleteParams::default()).await?;
        while !self.versions(name).await?.is_empty() {
            tokio::time::sleep(GONE_INTERVAL).await;
        }
        Ok(())
    }

    /// The resource version of each of its ConfigMaps, by name: any write changes it.
    pub async fn versions(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let list = self.config_maps.list_metadata(&selector(name)).await;
        let list = list.context("cannot list the ConfigMaps")?;
        let version = |map: &kube::core::PartialObjectMeta<ConfigMap>| {
            (map.name_any(), map.resource_version().unwrap_or_default())
        };
        Ok(list.items.iter().map(version).collect())
    }

    /// The bytes in each of its ConfigMaps, as Kubernetes counts them against its limit of 1 MiB, by name.
    pub async fn sizes(&self, name: &str) -> Result<BTreeMap<String, usize>> {
        let mut sizes = BTreeMap::new();
        let mut parameters = selector(name).limit(PAGE);
        loop {
            let page = self.config_maps.list(&parameters).await?;
            let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
            sizes.extend(page.items.iter().map(|map| (map.name_any(), size(map))));
            match next {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(sizes),
            }
        }
    }

    /// Waits for a state of a cache. Returns its status and when it was seen.
    async fn becomes(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Result<(Value, Instant)> {
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(
            watcher::watcher(self.api.clone(), only)
                .default_backoff()
                .applied_objects()
        );
        while let Some(event) = events.next().await {
            // An interrupted watch starts again by itself.
            let Ok(object) = event else { continue };
            let now = Instant::now();
            let object = json!({ "generation": object.metadata.generation, "status": object.data["status"] });
            if fits(&object) {
                return Ok((object["status"].clone(), now));
            }
        }
        bail!("the watch of the cache {name} ended")
    }
}

fn selector(name: &str) -> ListParams {
    ListParams::default().labels(&format!("{CACHE_LABEL}={name}"))
}

/// Whether a sync of the present spec has ended and nothing of it is to be tried again.
fn is_finished(object: &Value) -> bool {
    let status = &object["status"];
    status["observedGeneration"] == object["generation"]
        && status["progress"].is_null()
        && status["retry"].is_null()
        && matches!(status["state"].as_str(), Some("synced" | "degraded"))
}

/// Kubernetes counts values only.
fn size(map: &ConfigMap) -> usize {
    let plain = map.data.iter().flatten().map(|(_, value)| value.len());
    let binary = map.binary_data.iter().flatten().map(|(_, value)| value.0.len());
    plain.chain(binary).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_has_ended_when_nothing_of_the_present_spec_is_open() {
        let synced = json!({"generation": 2, "status": {"observedGeneration": 2, "state": "synced"}});
        assert!(is_finished(&synced));
        for open in [
            json!({"observedGeneration": 1}),
            json!({"state": "syncing"}),
            json!({"state": "failed"}),
            json!({"progress": {"done": 1}}),
            json!({"retry": {"failures": 1}}),
        ] {
            let mut object = synced.clone();
            for (key, value) in open.as_object().into_iter().flatten() {
                object["status"][key] = value.clone();
            }
            assert!(!is_finished(&object), "{object}");
        }
    }

    #[test]
    fn text_and_binary_count_towards_the_size() {
        let map = serde_json::from_value(json!({
            "metadata": {"name": "a"}, "data": {"x": "four"}, "binaryData": {"y": "AAAA"}
        }));
        assert_eq!(size(&map.unwrap()), 4 + 3);
    }
}
