//! The controller between the simulator and an API server in memory: for what can only be seen in the order and the
//! details of its calls.

use std::sync::Arc;

use composio_sim::{ApiKey, Config, SeedAuthConfig, Simulator};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;
use serde_json::json;

use crate::api::RedditConnection;
use crate::composio::{
    Account, AccountState, ClientOptions, Connection, Connections, NoSurroundings, PollerOptions, Priority,
};
use crate::controllers::access::{Access, SharedWith};
use crate::controllers::auth_configs::AuthConfigs;
use crate::controllers::reddit_connection::RedditConnections;
use crate::controllers::reddit_connection::fixtures::NAME;
use crate::controllers::reddit_connection::look_ups::LookUps;
use crate::controllers::reddit_connection::observed::Proofs;
use crate::runtime::reconcile::{Error, reconcile};
use crate::runtime::testing::{self, ApiServer, Call, Intercept, failure};
use crate::runtime::wake_ups::ObjectKey;
use crate::runtime::{Clock, Context, Controller};
use crate::telemetry::metrics::Outcome;

/// The operator's own key.
pub const KEY: &str = "ak_shared_by_all";
/// Another key of another project.
pub const OTHER_KEY: &str = "ak_of_another_project";

/// The controller and its surroundings.
pub struct Rig {
    pub controller: RedditConnections,
    pub cx: Context,
    pub simulator: Simulator,
    pub api: ApiServer,
    connections: Arc<Connections<ObjectKey>>,
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
        let api = ApiServer::new();
        let (cx, _) = testing::context(api.client(), Clock::system());
        let options = ClientOptions {
            base_url: simulator.url().to_owned(),
            ..ClientOptions::default()
        };
        let poller = PollerOptions::default();
        let connections = Connections::new(options, poller, Arc::new(NoSurroundings), Arc::new(|_| {}));
        let connections = Arc::new(connections.unwrap());
        let controller = RedditConnections {
            access: access(&api, &connections),
            auth_configs: AuthConfigs::default(),
            toolkit_version: "latest".to_owned(),
            look_ups: LookUps::default(),
            proofs: Proofs::default(),
        };
        api.create(object);
        Self {
            controller,
            cx,
            simulator,
            api,
            connections,
        }
    }

    /// Makes `object` the one that the API server holds.
    pub fn store(&self, object: &RedditConnection) -> RedditConnection {
        match self.api.get::<RedditConnection>("team", NAME) {
            Some(_) => self.api.replace(object),
            None => self.api.create(object),
        }
    }

    /// The object as the API server holds it.
    pub fn stored(&self) -> RedditConnection {
        self.api.get("team", NAME).unwrap()
    }

    /// Says 403 to some requests.
    pub fn refuse(&self, refuses: impl Fn(&Call) -> bool + Send + Sync + 'static) {
        self.api
            .intercept(move |call| refuses(call).then(|| Intercept::Answer(Ok(failure(403, "Forbidden")))));
    }

    /// The statuses that were applied.
    pub fn applied(&self) -> Vec<Call> {
        let mut calls = self.api.calls();
        calls.retain(|call| call.path.ends_with("/status"));
        calls
    }

    /// Reconciles the object as a watch would have delivered it just now.
    pub async fn reconcile(&self) -> Result<Outcome, Error> {
        self.reconcile_older(self.stored()).await
    }

    /// Reconciles what an older watch event said.
    pub async fn reconcile_older(&self, object: RedditConnection) -> Result<Outcome, Error> {
        let reconciled = Box::pin(reconcile(&self.controller, &self.cx, object)).await?;
        Ok(reconciled.outcome)
    }

    /// Reconciles until the object is connected, with the person's consent and with its identity.
    pub async fn connected(&self) -> RedditConnection {
        self.reconcile().await.unwrap();
        let id = self.account_id();
        self.simulator.consent(&id, Some("alice")).unwrap();
        loop {
            self.poll(&id).await;
            self.reconcile().await.unwrap();
            let object = self.stored();
            if object.status.as_ref().unwrap().display_name.is_some() {
                return object;
            }
        }
    }

    /// The poller learns at once how the account is, as its next poll would show.
    pub async fn poll(&self, id: &str) {
        let connection = self.connection(KEY);
        let account: Account = connection
            .client
            .account(Priority::Interactive, id)
            .await
            .unwrap()
            .unwrap();
        connection.accounts.changed(id, AccountState::Found(account));
    }

    pub fn account_id(&self) -> String {
        let status = self.stored().status.unwrap();
        status.connected_account_id.expect("it has an account")
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(RedditConnections::NAME, &self.stored())
    }

    /// What belongs to an API key.
    pub fn connection(&self, key: &str) -> Arc<Connection<ObjectKey>> {
        self.connections.connection(&SecretString::from(key)).unwrap()
    }

    /// How many objects have their account polled with an API key.
    pub fn followers(&self, key: &str) -> usize {
        self.connection(key).accounts.followers()
    }

    /// Calls that Composio got since the last count, as `METHOD /path`.
    pub fn new_calls(&self) -> Vec<String> {
        let calls = self.simulator.calls();
        self.simulator.clear_calls();
        calls.iter().map(composio_sim::Call::operation).collect()
    }

    /// Puts an API key into the Secret that objects name.
    pub fn store_key(&self, name: &str, key: &str) {
        let secret = json!({
            "metadata": { "name": name, "namespace": "team" },
            "data": { "apiKey": ByteString(key.into()) },
        });
        self.api
            .create::<Secret>(&serde_json::from_value(secret).unwrap());
    }

    /// Puts another API key into that Secret; the one that was read a moment ago is forgotten.
    pub fn replace_key(&mut self, name: &str, key: &str) {
        let data = json!({ "apiKey": ByteString(key.into()) });
        self.api
            .edit::<Secret>("team", name, |secret| secret["data"] = data);
        self.controller.access = access(&self.api, &self.connections);
    }

    /// What people were told.
    pub fn event_notes(&self) -> Vec<String> {
        let calls = self.api.calls();
        let events = calls.iter().filter(|call| call.path.ends_with("/events"));
        events.map(|call| call.body["note"].to_string()).collect()
    }
}

fn access(api: &ApiServer, connections: &Arc<Connections<ObjectKey>>) -> Arc<Access> {
    Arc::new(Access::new(
        api.client(),
        Arc::clone(connections),
        Some(SecretString::from(KEY)),
        SharedWith::All,
    ))
}
