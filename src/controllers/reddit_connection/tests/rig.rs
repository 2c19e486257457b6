//! The controller between the simulator and an API server that is a map: for what can only be seen in the order and
//! the details of its calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use composio_sim::{ApiKey, Config, SeedAuthConfig, Simulator};
use kube::runtime::events::Reporter;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::super::{FIELD_MANAGER, RedditConnections};
use crate::api::RedditConnection;
use crate::composio::{Account, ClientOptions, Connection, NoObserver, ReaderOptions, Registry};
use crate::controllers::auth_configs::AuthConfigs;
use crate::controllers::context::{Context, Owner, Requests};
use crate::controllers::credentials::{Credentials, SharedWith};
use crate::controllers::driver::{Error, Reconciler, owner_of};
use crate::controllers::schema_cache::memory::Memory;
use crate::kube_io::events::Publisher;
use crate::kube_io::fake_api::{self, Answer, Call, failure};
use crate::kube_io::lease::Leadership;
use crate::telemetry::metrics::{Metrics, Outcome};

/// The operator's own key.
pub const KEY: &str = "ak_shared_by_all";
/// Another key of another project.
pub const OTHER_KEY: &str = "ak_of_another_project";

/// What the API server holds, and what it was asked.
#[derive(Default)]
pub struct Cluster {
    /// The object; null if there is none.
    pub object: Value,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Value>,
    /// Every call, in order.
    pub calls: Vec<Call>,
    /// Somebody edits the object whenever a Secret is written.
    pub busy: bool,
    /// Says 403 to a call.
    pub refuses: Option<fn(&Call) -> bool>,
}

impl Cluster {
    fn answer(&mut self, call: &Call) -> (u16, Value) {
        self.calls.push(call.clone());
        if self.refuses.is_some_and(|refuses| refuses(call)) {
            return failure(403, "Forbidden");
        }
        let (_, path) = call.path.split_once("/namespaces/team/").unwrap();
        match (
            call.method.as_str(),
            path.split('/').collect::<Vec<_>>().as_slice(),
        ) {
            ("GET", ["redditconnections", _]) if self.object.is_null() => failure(404, "NotFound"),
            ("GET", ["redditconnections", _]) => (200, self.object.clone()),
            ("PATCH", ["redditconnections", _, "status"]) => self.apply_status(&call.body),
            ("GET", ["secrets", name]) => match self.secrets.get(*name) {
                Some(secret) => (200, secret.clone()),
                None => failure(404, "NotFound"),
            },
            ("POST", ["secrets"]) => {
                let name = call.body["metadata"]["name"].as_str().unwrap();
                self.secrets.insert(name.to_owned(), call.body.clone());
                (201, call.body.clone())
            }
            ("PATCH", ["secrets", name]) => {
                self.secrets.insert((*name).to_owned(), call.body.clone());
                if self.busy {
                    self.object["metadata"]["resourceVersion"] =
                        json!(format!("edited {}", self.calls.len()));
                }
                (200, call.body.clone())
            }
            ("DELETE", ["secrets", name]) => (200, self.secrets.remove(*name).unwrap()),
            ("POST", ["events"]) => (201, call.body.clone()),
            _ => panic!("{} {} is not expected", call.method, call.path),
        }
    }

    fn apply_status(&mut self, applied: &Value) -> (u16, Value) {
        let metadata = &applied["metadata"];
        // The uid is not compared: the API server ignores it here.
        let version = &metadata["resourceVersion"];
        if !version.is_null() && *version != self.object["metadata"]["resourceVersion"] {
            return failure(409, "Conflict");
        }
        self.object["status"] = applied["status"].clone();
        self.object["metadata"]["resourceVersion"] = json!(format!("after {}", self.calls.len()));
        (200, self.object.clone())
    }

    /// The statuses that were applied, each with the metadata it was applied with.
    pub fn applied(&self) -> Vec<&Value> {
        let patches = self.calls.iter().filter(|call| call.path.ends_with("/status"));
        patches.map(|call| &call.body).collect()
    }
}

/// The controller's surroundings.
pub struct Rig {
    pub ctx: Context,
    pub simulator: Simulator,
    cluster: Arc<Mutex<Cluster>>,
}

impl Rig {
    /// A cluster that holds `object`, and a Composio that knows both keys.
    pub async fn new(object: &RedditConnection) -> Self {
        let config = Config {
            keys: vec![ApiKey::new(KEY), ApiKey::new(OTHER_KEY).project("other")],
            auth_configs: vec![SeedAuthConfig::managed("reddit")],
            ..Config::default()
        };
        let simulator = Simulator::start(config).await.unwrap();
        let cluster = Arc::new(Mutex::new(Cluster::default()));
        let answering = Arc::clone(&cluster);
        let client = fake_api::client(move |call| {
            let answer: Answer = Ok(answering.lock().unwrap().answer(&call));
            std::future::ready(answer)
        });
        let (metrics, _) = Metrics::new();
        let options = ClientOptions {
            base_url: simulator.url().to_owned(),
            ..ClientOptions::default()
        };
        let reader = ReaderOptions::default();
        let composio = Registry::new(options, reader, Arc::new(NoObserver), Arc::new(|_: Owner| {})).unwrap();
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: None,
        };
        let ctx = Context {
            credentials: Credentials::new(client.clone(), Some(SecretString::from(KEY)), SharedWith::All),
            events: Publisher::new(client.clone(), reporter, metrics.clone()),
            client,
            composio,
            auth_configs: AuthConfigs::default(),
            toolkit_version: "latest".to_owned(),
            requests: Requests::default(),
            schemas: Memory::default(),
            metrics,
            leadership: Leadership::without_election(),
            pass_timeout: Duration::from_mins(1),
        };
        let rig = Self {
            ctx,
            simulator,
            cluster,
        };
        rig.store(object);
        rig
    }

    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    /// Makes `object` the one that the API server holds.
    pub fn store(&self, object: &RedditConnection) {
        let mut object = json!(object);
        let version = &mut object["metadata"]["resourceVersion"];
        if version.is_null() {
            *version = json!("as created");
        }
        self.cluster().object = object;
    }

    /// The object as the API server holds it.
    pub fn stored(&self) -> RedditConnection {
        serde_json::from_value(self.cluster().object.clone()).unwrap()
    }

    /// One pass over the object as a watch would have delivered it just now.
    pub async fn pass(&self) -> Result<Outcome, Error> {
        self.pass_over(self.stored()).await
    }

    /// One pass over what an older watch event said.
    pub async fn pass_over(&self, object: RedditConnection) -> Result<Outcome, Error> {
        let (_, outcome) = RedditConnections::pass(&self.ctx, object).await?;
        Ok(outcome)
    }

    /// Passes until the object is connected, with the person's consent and with its identity.
    pub async fn connected(&self) -> RedditConnection {
        self.pass().await.unwrap();
        let id = self.account_id();
        self.simulator.consent(&id, Some("alice")).unwrap();
        loop {
            self.look(&id).await;
            self.pass().await.unwrap();
            let object = self.stored();
            if object.status.as_ref().unwrap().display_name.is_some() {
                return object;
            }
        }
    }

    /// The reader learns at once how the account is, as its next poll would tell it.
    async fn look(&self, id: &str) {
        use crate::composio::{Priority, Sight};
        let connection = self.connection(KEY);
        let account: Account = connection
            .client
            .account(Priority::Interactive, id)
            .await
            .unwrap()
            .unwrap();
        connection.reader.changed(id, Sight::Found(account));
    }

    pub fn account_id(&self) -> String {
        let status = self.stored().status.unwrap();
        status.connected_account_id.expect("it has an account")
    }

    pub fn owner(&self) -> Owner {
        owner_of(&self.stored())
    }

    /// What belongs to `key`.
    pub fn connection(&self, key: &str) -> Arc<Connection<Owner>> {
        self.ctx.composio.connection(&SecretString::from(key)).unwrap()
    }

    /// How many objects have their account polled with `key`.
    pub fn followers(&self, key: &str) -> usize {
        self.connection(key).reader.followers()
    }

    /// Calls that Composio got since the last count, as `METHOD /path`.
    pub fn new_calls(&self) -> Vec<String> {
        let calls = self.simulator.calls();
        self.simulator.clear_calls();
        calls.iter().map(composio_sim::Call::operation).collect()
    }

    /// Puts an API key into the Secret that objects name.
    pub fn store_key(&self, name: &str, key: &str) {
        use k8s_openapi::ByteString;
        let data = json!({ "apiKey": ByteString(key.into()) });
        let secret = json!({ "metadata": { "name": name, "namespace": "team" }, "data": data });
        self.cluster().secrets.insert(name.to_owned(), secret);
    }
}
