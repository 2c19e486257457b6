//! The client over HTTP: what goes over the wire, what is sent again and what is not, and what each answer means.

mod catalogue;
mod failures;
mod reads;
mod writes;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use wiremock::matchers::{body_json, header, method, path, query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::accounts::AccountPoller;
use super::budget::{Budget, BudgetOptions};
use super::wire::Skipped;
use super::*;

const KEY: &str = "ak_test_key_1234";

#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<(&'static str, &'static str)>>,
    budgets: Mutex<Vec<(u64, u64)>>,
    changes_nothing: AtomicBool,
}

impl Surroundings for Recorder {
    fn call(&self, operation: &'static str, outcome: &'static str, _elapsed: Duration) {
        self.calls.lock().unwrap().push((operation, outcome));
    }

    fn budget(&self, limit: u64, remaining: u64) {
        self.budgets.lock().unwrap().push((limit, remaining));
    }

    fn may_change(&self) -> bool {
        !self.changes_nothing.load(Ordering::Relaxed)
    }
}

struct Rig {
    server: MockServer,
    client: Client,
    recorder: Arc<Recorder>,
}

fn client(base_url: String, recorder: Arc<Recorder>) -> Client {
    let options = ClientOptions {
        base_url,
        request_timeout: Duration::from_millis(700),
        ..ClientOptions::default()
    };
    Client::new(
        &options,
        KEY.into(),
        Budget::new(BudgetOptions::default()),
        recorder,
    )
    .unwrap()
}

impl Rig {
    async fn new() -> Self {
        let server = MockServer::start().await;
        let recorder = Arc::new(Recorder::default());
        Self {
            client: client(server.uri(), Arc::clone(&recorder)),
            server,
            recorder,
        }
    }

    async fn answers(&self, verb: &str, at: &str, response: ResponseTemplate) {
        Mock::given(method(verb))
            .and(path(at))
            .respond_with(response)
            .mount(&self.server)
            .await;
    }

    /// Gives the answers one after the other, the last one for ever.
    async fn answers_in_turn(&self, verb: &str, at: &str, responses: Vec<ResponseTemplate>) {
        let turn = AtomicUsize::new(0);
        let respond = move |_: &Request| {
            let turn = turn.fetch_add(1, Ordering::SeqCst);
            responses[turn.min(responses.len() - 1)].clone()
        };
        Mock::given(method(verb))
            .and(path(at))
            .respond_with(respond)
            .mount(&self.server)
            .await;
    }

    async fn requests(&self) -> Vec<Request> {
        self.server.received_requests().await.unwrap()
    }

    fn calls(&self) -> Vec<(&'static str, &'static str)> {
        self.recorder.calls.lock().unwrap().clone()
    }
}

const ACCOUNTS: &str = "/api/v3.1/connected_accounts";
const ACCOUNT: &str = "/api/v3.1/connected_accounts/ca_1";
const LINK: &str = "/api/v3.1/connected_accounts/link";
const EXECUTE: &str = "/api/v3.1/tools/execute/REDDIT_GET_REDDIT_USER_ABOUT";

fn account(id: &str, user_id: &str) -> Value {
    json!({"id": id, "user_id": user_id, "status": "ACTIVE", "toolkit": {"slug": "reddit"}})
}

fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

fn error(status: u16, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status)
        .set_body_json(json!({"error": {"message": message, "code": 1, "slug": "S"}}))
}

fn link_request() -> LinkRequest {
    LinkRequest {
        auth_config_id: "ac_1".into(),
        user_id: "user_1".into(),
        alias: "one".into(),
        callback_url: None,
    }
}

fn execute_request() -> ExecuteRequest {
    ExecuteRequest {
        user_id: "user_1".into(),
        connected_account_id: "ca_1".into(),
        arguments: json!({"username": "me"}),
        version: "20260424_00".into(),
    }
}

const TOOL: &str = "REDDIT_GET_REDDIT_USER_ABOUT";
