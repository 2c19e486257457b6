//! The custom resources of a run: made in bulk, and watched as any client would watch them.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Objects that are created at the same time: enough to keep the API server busy, not enough to be turned away by it.
const CREATED_AT_ONCE: usize = 32;

/// How the objects of a run poll, in seconds.
#[derive(Serialize)]
pub struct Polling {
    /// Seconds between looks while a person is expected.
    pub fast: u32,
    /// Seconds between looks once nothing is expected to change.
    pub settled: u32,
}

impl Polling {
    /// The part of the spec. `fastFor` is longer than any run, so that one cadence holds throughout.
    fn spec(&self) -> Value {
        let Self { fast, settled } = self;
        json!({ "fast": format!("{fast}s"), "fastFor": "1h", "slow": "30s", "settled": format!("{settled}s") })
    }
}

/// When an object was first seen to have come that far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Milestone {
    /// It has a link that a person can open.
    Linked,
    /// Its account is connected.
    Connected,
    /// It is also known who connected: nothing is left to do.
    Settled,
}

impl Milestone {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linked => "linked",
            Self::Connected => "connected",
            Self::Settled => "settled",
        }
    }
}

/// What the watch has shown of one object.
#[derive(Debug, Default)]
struct Sighting {
    account: Option<String>,
    reached: HashMap<Milestone, Instant>,
}

/// What the watch has shown of all objects.
#[derive(Debug, Default)]
pub struct Sightings {
    objects: HashMap<String, Sighting>,
    reached: HashMap<Milestone, usize>,
    /// The watch is broken for good.
    broken: bool,
}

impl Sightings {
    /// Objects that have reached it.
    pub fn count(&self, milestone: Milestone) -> usize {
        self.reached.get(&milestone).copied().unwrap_or_default()
    }

    /// When one object reached it.
    pub fn reached(&self, name: &str, milestone: Milestone) -> Option<Instant> {
        self.objects.get(name)?.reached.get(&milestone).copied()
    }

    /// When the last of those that reached it did.
    pub fn last(&self, milestone: Milestone) -> Option<Instant> {
        self.objects
            .values()
            .filter_map(|object| object.reached.get(&milestone).copied())
            .max()
    }

    /// The account of an object.
    pub fn account(&self, name: &str) -> Option<&str> {
        self.objects.get(name)?.account.as_deref()
    }

    /// The accounts of all objects.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.objects
            .values()
            .filter_map(|object| object.account.as_deref())
    }

    /// The accounts of all objects that reached it, and when they did.
    pub fn accounts_at(&self, milestone: Milestone) -> impl Iterator<Item = (&str, Instant)> {
        self.objects
            .values()
            .filter_map(move |object| Some((object.account.as_deref()?, *object.reached.get(&milestone)?)))
    }

    fn note(&mut self, name: String, status: &Value, now: Instant) {
        let object = self.objects.entry(name).or_default();
        if let Some(account) = status["connectedAccountId"].as_str() {
            object.account = Some(account.to_owned());
        }
        for milestone in milestones(status) {
            object.reached.entry(milestone).or_insert_with(|| {
                *self.reached.entry(milestone).or_default() += 1;
                now
            });
        }
    }
}

/// What a status says has been reached.
fn milestones(status: &Value) -> Vec<Milestone> {
    let has = |field: &str| status[field].is_string();
    let mut reached = Vec::new();
    match status["state"].as_str() {
        Some("pending") if has("connectedAccountId") => reached.push(Milestone::Linked),
        Some("connected") => {
            reached.push(Milestone::Connected);
            if has("displayName") && has("profileUrl") && has("avatarUrl") {
                reached.push(Milestone::Settled);
            }
        }
        _ => {}
    }
    reached
}

/// The objects of one namespace. The watch ends when this is dropped.
pub struct Objects {
    api: Api<DynamicObject>,
    resource: ApiResource,
    sightings: watch::Receiver<Sightings>,
    watching: JoinHandle<()>,
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Objects {
    /// Starts the watch.
    pub fn watch(client: Client, namespace: &str) -> Self {
        let kind = GroupVersionKind::gvk("composio-operator.dev", "v1alpha1", "RedditConnection");
        let resource = ApiResource::from_gvk(&kind);
        let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
        let (sender, sightings) = watch::channel(Sightings::default());
        let watching = tokio::spawn(follow(api.clone(), sender));
        Self {
            api,
            resource,
            sightings,
            watching,
        }
    }

    /// Creates `count` objects, one person each.
    pub async fn create(&self, count: usize, polling: &Polling) -> Result<()> {
        let polling = polling.spec();
        futures::stream::iter(0..count)
            .map(|number| {
                let spec = json!({ "userId": format!("user_{number}"), "polling": polling });
                let object = DynamicObject::new(&name(number), &self.resource).data(json!({ "spec": spec }));
                async move { self.api.create(&PostParams::default(), &object).await }
            })
            .buffer_unordered(CREATED_AT_ONCE)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .context("cannot create the objects")
    }

    /// What the watch has shown so far. Do not hold it over an await: the watch waits for it.
    pub fn sightings(&self) -> watch::Ref<'_, Sightings> {
        self.sightings.borrow()
    }

    /// Returns when `count` objects have reached it.
    pub async fn reach(&self, milestone: Milestone, count: usize) -> Result<()> {
        let mut sightings = self.sightings.clone();
        let done = sightings
            .wait_for(|seen| seen.broken || seen.count(milestone) >= count)
            .await;
        anyhow::ensure!(
            done.is_ok_and(|seen| !seen.broken),
            "the watch of the objects ended"
        );
        Ok(())
    }

    /// The resource version of every object, by name: any write changes it.
    pub async fn versions(&self) -> Result<BTreeMap<String, String>> {
        let list = self
            .api
            .list_metadata(&ListParams::default())
            .await
            .context("cannot list the objects")?;
        let version = |object: &kube::core::PartialObjectMeta<DynamicObject>| {
            (object.name_any(), object.resource_version().unwrap_or_default())
        };
        Ok(list.items.iter().map(version).collect())
    }
}

/// The name of object `number`.
pub fn name(number: usize) -> String {
    format!("person-{number}")
}

/// Objects whose version is another one, or that are there only once.
pub fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> usize {
    let gone = before.keys().filter(|name| !after.contains_key(*name)).count();
    let other = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version))
        .count();
    gone + other
}

async fn follow(api: Api<DynamicObject>, sender: watch::Sender<Sightings>) {
    let mut events = std::pin::pin!(
        watcher::watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    while let Some(event) = events.next().await {
        // An interrupted watch starts again by itself.
        if let Ok(object) = event {
            let now = Instant::now();
            sender.send_modify(|seen| seen.note(object.name_any(), &object.data["status"], now));
        }
    }
    sender.send_modify(|seen| seen.broken = true);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn milestones_are_read_from_the_status() {
        use Milestone::{Connected, Linked, Settled};
        let identity = json!({
            "state": "connected", "connectedAccountId": "ca_1", "displayName": "a", "profileUrl": "b", "avatarUrl": "c"
        });
        for (status, expected) in [
            (Value::Null, vec![]),
            (json!({ "state": "pending" }), vec![]),
            (
                json!({ "state": "pending", "connectedAccountId": "ca_1" }),
                vec![Linked],
            ),
            (json!({ "state": "error", "connectedAccountId": "ca_1" }), vec![]),
            (
                json!({ "state": "connected", "connectedAccountId": "ca_1" }),
                vec![Connected],
            ),
            (identity, vec![Connected, Settled]),
        ] {
            assert_eq!(milestones(&status), expected, "{status}");
        }
    }

    #[test]
    fn the_first_sighting_counts() {
        let mut seen = Sightings::default();
        let first = Instant::now();
        let second = first + std::time::Duration::from_secs(1);
        let pending = json!({ "state": "pending", "connectedAccountId": "ca_1" });
        seen.note("a".to_owned(), &pending, first);
        seen.note("a".to_owned(), &pending, second);
        seen.note(
            "b".to_owned(),
            &json!({ "state": "pending", "connectedAccountId": "ca_2" }),
            second,
        );
        assert_eq!(seen.count(Milestone::Linked), 2);
        assert_eq!(seen.count(Milestone::Connected), 0);
        assert_eq!(seen.reached("a", Milestone::Linked), Some(first));
        assert_eq!(seen.last(Milestone::Linked), Some(second));
        assert_eq!(seen.account("b"), Some("ca_2"));
    }

    #[test]
    fn every_difference_counts_once() {
        let before = versions(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(changed(&before, &before), 0);
        let after = versions(&[("a", "1"), ("b", "4"), ("d", "5")]);
        assert_eq!(changed(&before, &after), 3);
    }
}
