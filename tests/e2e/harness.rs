//! One real control plane for all tests of this process; for each test a namespace, a simulator, and the built operator
//! with the roles of the chart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use composio_operator::api::RedditConnection;
use composio_operator::api::conditions;
use composio_operator::api::reddit_connection::ConnectionState;
use composio_sim::{AccountSnapshot, Call, Config, Simulator};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use testing::control_plane::ControlPlane;
use testing::installation::Release;
use testing::supervised::{Program, Signal, Supervised};
use tokio::sync::OnceCell;

/// Nothing these tests wait for takes long; a loaded machine may.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub const KEY: &str = "ak_end_to_end_4f8e2c";

static NAMESPACES: AtomicUsize = AtomicUsize::new(1);

/// Everything one test works with.
pub struct World {
    pub plane: &'static ControlPlane,
    pub client: Client,
    pub namespace: String,
    pub simulator: Arc<Simulator>,
    pub kubeconfig: PathBuf,
    pub directory: TempDir,
    operators: AtomicUsize,
}

/// A running operator.
pub struct Operator {
    process: Supervised,
    pub log: PathBuf,
}

impl Operator {
    /// Ends it as a crash would.
    pub async fn kill(self) {
        self.process.kill().await;
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(self) -> bool {
        self.process.signal(Signal::Terminate);
        tokio::time::timeout(PATIENCE, self.process.wait())
            .await
            .expect("the operator stops when asked")
            .success()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The address of its HTTP server, from its log.
    pub async fn http(&self) -> String {
        let line = self
            .process
            .wait_for_line(PATIENCE, |line| line.contains("\"http\""))
            .await
            .unwrap();
        let entry: Value = serde_json::from_str(&line).unwrap();
        format!(
            "http://{}",
            entry["http"]
                .as_str()
                .or(entry["fields"]["http"].as_str())
                .unwrap()
        )
    }
}

/// The control plane, with the CRDs.
pub async fn plane() -> &'static ControlPlane {
    static PREPARED: OnceCell<()> = OnceCell::const_new();
    let plane = ControlPlane::shared().await.unwrap();
    PREPARED
        .get_or_init(|| async {
            testing::installation::apply_crds(plane).await.unwrap();
        })
        .await;
    plane
}

pub async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

impl World {
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// A world whose Composio accepts the operator's own key, and those of `config`.
    pub async fn with(mut config: Config) -> Self {
        let plane = plane().await;
        let namespace = format!("e2e-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed));
        let release = Release {
            name: "operator",
            namespace: &namespace,
            watch_namespaces: &[&namespace],
        };
        let kubeconfig = testing::installation::grant(plane, release).await.unwrap();
        config.keys.push(composio_sim::ApiKey::new(KEY));
        let simulator = Simulator::start(config).await.unwrap();
        Self {
            plane,
            client: client(&plane.kubeconfig_path()).await,
            namespace,
            simulator: Arc::new(simulator),
            kubeconfig,
            directory: TempDir::new().unwrap(),
            operators: AtomicUsize::new(0),
        }
    }

    /// Starts the built binary, watching this world's namespace, with the chart's roles.
    pub fn operator(&self) -> Operator {
        self.operator_with(&[], Some(KEY))
    }

    pub fn operator_with(&self, args: &[&str], key: Option<&str>) -> Operator {
        let number = self.operators.fetch_add(1, Ordering::Relaxed) + 1;
        let log = self.directory.path().join(format!("operator-{number}.log"));
        let program = Program::new(env!("CARGO_BIN_EXE_composio-operator"), &log)
            .args([
                "run",
                "--watch-namespaces",
                &self.namespace,
                "--http-listen",
                "127.0.0.1:0",
            ])
            .args([
                "--log-format",
                "json",
                "--log-filter",
                "info,composio_operator=debug",
            ])
            .args([
                "--composio-request-timeout",
                "5s",
                "--lease-namespace",
                &self.namespace,
            ])
            .args(args.iter().copied())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("COMPOSIO_BASE_URL", self.simulator.url())
            .env("COMPOSIO_API_KEY", key.unwrap_or_default())
            .env("SHARED_KEY_NAMESPACES", "*");
        Operator {
            process: Supervised::spawn(&program).unwrap(),
            log,
        }
    }

    pub fn connections(&self) -> Api<RedditConnection> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object that polls as fast as the CRD allows.
    pub async fn create(&self, name: &str, spec: Value) -> RedditConnection {
        self.try_create(name, spec).await.unwrap()
    }

    pub async fn try_create(&self, name: &str, spec: Value) -> kube::Result<RedditConnection> {
        let mut full = json!({ "userId": format!("user_{name}"), "polling": { "fast": "1s", "slow": "1s", "settled": "1s" } });
        merge(&mut full, spec);
        // Untyped, so that objects can be sent that the types would not allow.
        let resource = ApiResource::erase::<RedditConnection>(&());
        let objects = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let object = DynamicObject::new(name, &resource).data(json!({ "spec": full }));
        let created = objects.create(&PostParams::default(), &object).await?;
        Ok(created.try_parse().unwrap())
    }

    pub async fn patch(&self, name: &str, patch: Value) -> kube::Result<RedditConnection> {
        self.connections()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
    }

    pub async fn request(&self, name: &str, token: &str) {
        let annotations = json!({ composio_operator::api::REQUESTED_AT_ANNOTATION: token });
        self.patch(name, json!({ "metadata": { "annotations": annotations } }))
            .await
            .unwrap();
    }

    pub async fn delete(&self, name: &str) {
        self.connections()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Waits until the object fits, and returns it.
    pub async fn eventually(
        &self,
        name: &str,
        what: &str,
        fits: impl Fn(&RedditConnection) -> bool,
    ) -> RedditConnection {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut last = None;
        let search = async {
            let mut objects = Box::pin(
                watcher::watcher(self.connections(), config)
                    .default_backoff()
                    .applied_objects(),
            );
            while let Ok(Some(object)) = objects.try_next().await {
                if fits(&object) {
                    return object;
                }
                last = Some(object);
            }
            panic!("the watch of {name} ended");
        };
        let Ok(object) = tokio::time::timeout(PATIENCE, search).await else {
            let calls = self.simulator.calls();
            let calls: Vec<_> = calls.iter().rev().take(10).map(Call::operation).collect();
            panic!(
                "{name} never {what}: {:#?}\ncalls: {calls:#?}\noperator: {}",
                last.map(|object| object.status),
                self.last_log()
            );
        };
        object
    }

    pub fn last_log(&self) -> String {
        let newest = self.operators.load(Ordering::Relaxed);
        let log = self.directory.path().join(format!("operator-{newest}.log"));
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub async fn becomes(&self, name: &str, state: ConnectionState) -> RedditConnection {
        self.eventually(name, state.into(), |object| state_of(object) == Some(state))
            .await
    }

    /// Waits until `Ready` gives that reason.
    pub async fn reads(&self, name: &str, reason: &str) -> RedditConnection {
        self.eventually(name, reason, |object| {
            reason_of(object).as_deref() == Some(reason)
        })
        .await
    }

    /// Waits until the object is gone.
    pub async fn vanishes(&self, name: &str) {
        let gone = kube::runtime::wait::await_condition(
            self.connections(),
            name,
            |object: Option<&RedditConnection>| object.is_none(),
        );
        if tokio::time::timeout(PATIENCE, gone).await.is_err() {
            let status = self.connections().get(name).await.unwrap().status;
            panic!("{name} never vanishes: {status:#?}\n{}", self.last_log());
        }
    }

    /// The link in the Secret, once it is there for an account that still waits.
    pub async fn link(&self, name: &str) -> String {
        let object = self
            .eventually(name, "got a link", |object| {
                state_of(object) == Some(ConnectionState::Pending)
                    && object
                        .status
                        .as_ref()
                        .is_some_and(|s| s.connected_account_id.is_some())
            })
            .await;
        if let Some(url) = object.status.and_then(|status| status.link?.redirect_url) {
            return url;
        }
        let secret = self.secrets().get(&format!("{name}-link")).await.unwrap();
        String::from_utf8(secret.data.unwrap()["url"].0.clone()).unwrap()
    }

    /// Does what a person does in a browser: opens the link and clicks Connect.
    pub async fn connect_as(&self, name: &str, username: &str) {
        let url = self.link(name).await;
        let browser = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let page = browser.get(&url).send().await.unwrap();
        assert!(page.status().is_success(), "{}", page.status());
        let account = self.account_of(name).await;
        self.simulator.consent(&account.id, Some(username)).unwrap();
    }

    /// The one account at Composio that is made for this user and not deleted.
    pub async fn account_of(&self, name: &str) -> AccountSnapshot {
        let user = format!("user_{name}");
        self.simulator
            .wait_for_account(|account| account.user_id == user && !account.deleted, PATIENCE)
            .await
            .unwrap()
    }

    /// Accounts of this user at Composio that are not deleted.
    pub fn live_accounts(&self, name: &str) -> Vec<AccountSnapshot> {
        let user = format!("user_{name}");
        self.simulator
            .accounts()
            .into_iter()
            .filter(|a| a.user_id == user && !a.deleted)
            .collect()
    }

    /// How often links were made.
    pub fn links_made(&self) -> usize {
        self.simulator
            .calls()
            .iter()
            .filter(|call| call.operation() == "POST /connected_accounts/link")
            .count()
    }

    /// Waits for that many more calls of an operation.
    pub async fn more_calls(&self, operation: &str, count: usize) {
        let mut after = self.simulator.calls().last().map_or(0, |call| call.seq);
        for _ in 0..count {
            let call = self
                .simulator
                .wait_for_call(|call| call.seq > after && call.operation() == operation, PATIENCE)
                .await
                .unwrap_or_else(|_| panic!("no further {operation}"));
            after = call.seq;
        }
    }

    /// `kubectl describe`, as a person would look.
    pub async fn describe(&self, name: &str) -> String {
        self.plane
            .kubectl([
                "describe",
                "redditconnection",
                name,
                "--namespace",
                &self.namespace,
            ])
            .await
            .unwrap()
            .ok()
            .unwrap()
    }

    pub async fn api_key_secret(&self, name: &str, key: &str) {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "apiKey": key } });
        self.secrets()
            .patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret))
            .await
            .unwrap();
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub fn state_of(object: &RedditConnection) -> Option<ConnectionState> {
    object.status.as_ref()?.state
}

pub fn reason_of(object: &RedditConnection) -> Option<String> {
    let conditions = &object.status.as_ref()?.conditions;
    conditions::find(conditions, conditions::READY).map(|condition| condition.reason.clone())
}

pub fn condition(object: &RedditConnection, type_: &str) -> String {
    let conditions = &object.status.as_ref().unwrap().conditions;
    conditions::find(conditions, type_)
        .map_or_else(|| "absent".to_owned(), |condition| condition.status.clone())
}

pub fn resource_version(object: &RedditConnection) -> String {
    object.resource_version().unwrap()
}
