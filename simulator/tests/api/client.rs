//! A bare client, and a simulator that stands still in time.

use composio_sim::{Clock, Config, DEFAULT_API_KEY, Simulator};
use reqwest::{Method, header::HeaderMap, redirect::Policy};
use serde_json::{Value, json};

/// When the simulators of these tests begin.
pub const START: &str = "2026-03-01T12:00:00.000Z";

/// A simulator and a client that holds its key.
pub struct World {
    pub simulator: Simulator,
    pub http: reqwest::Client,
    pub key: String,
    /// `/api/v3.1` unless a test says otherwise.
    pub prefix: &'static str,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body, given that the call succeeded.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()
    }

    /// Asserts status and code, and returns the error.
    #[track_caller]
    pub fn error(self, status: u16, code: u32) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let error = self.json()["error"].clone();
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(error["status"], status, "{error}");
        assert_eq!(error["request_id"], self.header("x-request-id"), "{error}");
        error
    }
}

pub fn config() -> Config {
    Config {
        clock: Clock::manual(START.parse().unwrap()),
        ..Config::default()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: Config) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        Self {
            simulator: Simulator::start(config).await.unwrap(),
            http: http.build().unwrap(),
            key: DEFAULT_API_KEY.to_owned(),
            prefix: "/api/v3.1",
        }
    }

    /// A simulator with assumptions, as in `page-cap=2`.
    pub async fn assuming(assignments: &[&str]) -> Self {
        let mut config = config();
        for assignment in assignments {
            config.assumptions.set(assignment).unwrap();
        }
        Self::with(config).await
    }

    /// The same simulator with the requests that follow on `/api/v3`.
    pub fn on_v3(self) -> Self {
        Self {
            prefix: "/api/v3",
            ..self
        }
    }

    /// The same simulator with the requests that follow under another key.
    pub fn with_key(self, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..self
        }
    }

    /// A request as the client would send it; also for tests that expect it to fail.
    pub fn request(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let url = format!("{}{}{path}", self.simulator.url(), self.prefix);
        let request = self.http.request(method, url).header("x-api-key", &self.key);
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path, None)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        send(self.request(Method::DELETE, path, None)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        send(self.request(Method::POST, path, Some(&body))).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        send(self.request(Method::PATCH, path, Some(&body))).await
    }

    /// A request to the control API.
    pub async fn control(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.bare(method, &format!("/_sim{path}"), body.as_ref()).await
    }

    /// Something that a person or provider does to an account, such as `consent`.
    pub async fn act(&self, id: &str, action: &str, body: Option<Value>) -> Reply {
        let path = format!("/accounts/{id}/{action}");
        self.control(Method::POST, &path, body).await
    }

    /// A request without a key.
    pub async fn bare(&self, method: Method, url: &str, body: Option<&Value>) -> Reply {
        let url = if url.starts_with("http") {
            url.to_owned()
        } else {
            format!("{}{url}", self.simulator.url())
        };
        let request = self.http.request(method, url);
        send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Submits a form as a browser does.
    pub async fn submit(&self, url: &str, form: &[(&str, &str)]) -> Reply {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = self
            .http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        send(request).await
    }

    /// A link for a Reddit account of that user.
    pub async fn link(&self, user_id: &str) -> Value {
        let body = json!({"auth_config_id": "ac_reddit", "user_id": user_id});
        self.post("/connected_accounts/link", body).await.ok()
    }

    /// A link, and nothing but the account's id.
    pub async fn pending(&self, user_id: &str) -> String {
        id(&self.link(user_id).await)
    }

    /// A working Reddit account of that user.
    pub async fn active(&self, user_id: &str) -> String {
        let id = self.pending(user_id).await;
        self.simulator.consent(&id, None).unwrap();
        id
    }

    pub async fn status(&self, id: &str) -> Value {
        self.account(id).await["status"].clone()
    }

    pub async fn account(&self, id: &str) -> Value {
        self.get(&format!("/connected_accounts/{id}")).await.ok()
    }

    /// Creates an auth config and returns its id.
    pub async fn auth_config(&self, toolkit: &str, auth_config: Value) -> String {
        let body = json!({"toolkit": {"slug": toolkit}, "auth_config": auth_config});
        let made = self.post("/auth_configs", body).await.ok();
        made["auth_config"]["id"].as_str().unwrap().to_owned()
    }

    /// Every item of a list, following its cursors.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        self.pages(path).await.iter().flat_map(items).collect()
    }

    /// Every page of a list, following its cursors.
    pub async fn pages(&self, path: &str) -> Vec<Value> {
        let mut pages = vec![self.get(path).await.ok()];
        while let Some(cursor) = pages[pages.len() - 1]["next_cursor"].as_str() {
            let cursor = cursor.replace('=', "%3D");
            pages.push(self.get(&format!("{path}&cursor={cursor}")).await.ok());
        }
        pages
    }

    /// The ids a list shows, in its order.
    pub async fn ids(&self, query: &str) -> Vec<String> {
        ids(&self.get(&format!("/connected_accounts?{query}")).await.ok())
    }

    pub fn advance(&self, seconds: u64) {
        self.simulator
            .clock()
            .advance(std::time::Duration::from_secs(seconds));
    }
}

/// Sends a request that must be answered.
pub async fn send(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response.text().await.unwrap(),
    }
}

/// The id in a link's answer.
pub fn id(link: &Value) -> String {
    link["connected_account_id"].as_str().unwrap().to_owned()
}

/// The items of a page.
fn items(page: &Value) -> Vec<Value> {
    page["items"].as_array().unwrap().clone()
}

/// One text field of each of a page's items.
fn texts(page: &Value, field: &str) -> Vec<String> {
    let text = |item: &Value| item[field].as_str().unwrap().to_owned();
    page["items"].as_array().unwrap().iter().map(text).collect()
}

/// The ids of a page's items.
pub fn ids(page: &Value) -> Vec<String> {
    texts(page, "id")
}

/// The slugs of a page's items.
pub fn slugs(page: &Value) -> Vec<String> {
    texts(page, "slug")
}

/// Asserts that `actual` has at least the fields of `expected`, at every depth.
#[track_caller]
pub fn assert_has(actual: &Value, expected: &Value) {
    fn has(actual: &Value, expected: &Value) -> bool {
        match expected {
            Value::Object(fields) => fields
                .iter()
                .all(|(name, value)| actual.get(name).is_some_and(|actual| has(actual, value))),
            _ => actual == expected,
        }
    }
    assert!(has(actual, expected), "{actual:#}\nlacks\n{expected:#}");
}
