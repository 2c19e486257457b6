//! Fault injection: rules that match calls and say what goes wrong with them.
//!
//! Choosing a fault and rewriting an answer are pure; the HTTP layer does the closing, waiting and repeating.

use std::{collections::HashSet, sync::Mutex};

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use url::form_urlencoded;

use crate::lock;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// The answer comes late, in real time.
    Delay {
        /// How late.
        millis: u64,
        /// Wait after the effect rather than before it.
        #[serde(default)]
        after_commit: bool,
    },
    /// The request takes effect, then the connection is closed without an answer.
    DropAfterCommit,
    /// The connection is closed without effect or answer.
    DropBeforeCommit,
    /// The request takes effect, then nothing is answered until the rule is released or removed.
    Hang {
        /// Wait before the effect instead; a release lets it happen.
        #[serde(default)]
        before_commit: bool,
    },
    /// Some other answer, as a gateway would give it.
    Status {
        /// Its HTTP status.
        status: u16,
        /// Its body; absent: a gateway's HTML page.
        #[serde(default)]
        body: Option<String>,
        /// Its content type; absent: `text/html`.
        #[serde(default)]
        content_type: Option<String>,
        /// Let the request take effect first.
        #[serde(default)]
        commit: bool,
    },
    /// The request takes effect and half of the answer's JSON arrives, as a complete HTTP message.
    TruncateJson,
    /// The request takes effect and the connection breaks in the middle of the answer.
    AbortBody,
    /// Accounts in the answer carry a status no client knows.
    UnknownStatus {
        /// The status.
        value: String,
    },
    /// The rate limiter's answer, without effect.
    RateLimited {
        /// Seconds in `Retry-After`.
        retry_after: u64,
    },
    /// The first page of a list lacks its newest rows.
    StaleFirstPage {
        /// How many.
        #[serde(default = "one_row")]
        rows: usize,
    },
    /// The request is delivered twice; the second answer is given.
    Duplicate,
    /// A list is empty, as if nothing existed.
    EmptyList,
    /// A list lacks these rows.
    MissingIds {
        /// Their ids.
        ids: Vec<String>,
    },
}

const fn one_row() -> usize {
    1
}

impl Fault {
    /// The kind as rules and the call log spell it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay",
            Self::DropAfterCommit => "dropAfterCommit",
            Self::DropBeforeCommit => "dropBeforeCommit",
            Self::Hang { .. } => "hang",
            Self::Status { .. } => "status",
            Self::TruncateJson => "truncateJson",
            Self::AbortBody => "abortBody",
            Self::UnknownStatus { .. } => "unknownStatus",
            Self::RateLimited { .. } => "rateLimited",
            Self::StaleFirstPage { .. } => "staleFirstPage",
            Self::Duplicate => "duplicate",
            Self::EmptyList => "emptyList",
            Self::MissingIds { .. } => "missingIds",
        }
    }

    /// What this fault makes of a successful answer's JSON. `query` tells first pages from later ones.
    pub(crate) fn rewrite(&self, query: &str, mut answer: Value) -> Value {
        match self {
            Self::UnknownStatus { value } => match answer.get_mut("items") {
                Some(Value::Array(items)) => items.iter_mut().for_each(|item| set_status(item, value)),
                _ => set_status(&mut answer, value),
            },
            Self::StaleFirstPage { rows } => {
                let first = !form_urlencoded::parse(query.as_bytes())
                    .any(|(key, value)| key == "cursor" && !value.is_empty());
                if first {
                    let newest = newest_ids(&answer, *rows);
                    remove_items(&mut answer, &newest);
                }
            }
            Self::MissingIds { ids } => remove_items(&mut answer, &ids.iter().cloned().collect()),
            Self::EmptyList => {
                if let Some(list) = answer.as_object_mut().filter(|list| list.contains_key("items")) {
                    for (key, value) in [
                        ("items", Value::Array(Vec::new())),
                        ("next_cursor", Value::Null),
                        ("total_items", 0.into()),
                        ("total_pages", 0.into()),
                        ("current_page", 1.into()),
                    ] {
                        list.insert(key.to_owned(), value);
                    }
                }
            }
            _ => {}
        }
        answer
    }
}

fn set_status(account: &mut Value, status: &str) {
    let is_account = account["id"].as_str().is_some_and(|id| id.starts_with("ca_"));
    if !is_account {
        return;
    }
    for pointer in ["/status", "/state/val/status", "/data/status"] {
        if let Some(field) = account.pointer_mut(pointer) {
            *field = Value::String(status.to_owned());
        }
    }
}

fn newest_ids(answer: &Value, rows: usize) -> HashSet<String> {
    let mut items: Vec<_> = answer["items"].as_array().into_iter().flatten().collect();
    items.sort_by(|a, b| b["created_at"].as_str().cmp(&a["created_at"].as_str()));
    items
        .iter()
        .take(rows)
        .filter_map(|item| item["id"].as_str().map(str::to_owned))
        .collect()
}

fn remove_items(answer: &mut Value, ids: &HashSet<String>) {
    let Some(items) = answer.get_mut("items").and_then(Value::as_array_mut) else {
        return;
    };
    let before = items.len();
    items.retain(|item| item["id"].as_str().is_none_or(|id| !ids.contains(id)));
    let removed = before - items.len();
    if let Some(total) = answer.get_mut("total_items") {
        *total = total
            .as_u64()
            .unwrap_or_default()
            .saturating_sub(removed as u64)
            .into();
    }
}

/// Which calls a fault applies to, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Its name; one is made up if absent. A new rule of the same name replaces the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// An HTTP method; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A pattern for the path after the version prefix, or for the whole path if it begins with `/api/`. `*` stands
    /// for any characters, `/` included. Absent: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Text that must occur in the decoded query or in the body; absent: no condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// How often it applies; null: for ever.
    #[serde(default = "once")]
    pub count: Option<u64>,
    /// Matching calls to let pass first.
    #[serde(default)]
    pub skip: u64,
    /// The chance, from 0 to 1, with which it applies to a matching call.
    #[serde(default = "always")]
    pub probability: f64,
    /// What goes wrong.
    pub fault: Fault,
}

// Absent means once and null means for ever, so the default has the field's own type.
#[allow(clippy::unnecessary_wraps)]
const fn once() -> Option<u64> {
    Some(1)
}

const fn always() -> f64 {
    1.0
}

impl Rule {
    /// A rule that applies to the next call, whatever it is.
    pub fn new(fault: Fault) -> Self {
        Self {
            id: None,
            method: None,
            path: None,
            contains: None,
            count: once(),
            skip: 0,
            probability: always(),
            fault,
        }
    }

    /// Only for calls of that method and path pattern.
    #[must_use]
    pub fn on(self, method: &str, path: &str) -> Self {
        Self {
            method: Some(method.to_owned()),
            path: Some(path.to_owned()),
            ..self
        }
    }

    /// Only for calls whose query or body contains `text`.
    #[must_use]
    pub fn containing(self, text: &str) -> Self {
        Self {
            contains: Some(text.to_owned()),
            ..self
        }
    }

    /// For that many calls.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self {
            count: Some(count),
            ..self
        }
    }

    /// For every call until the rule is removed.
    #[must_use]
    pub fn for_ever(self) -> Self {
        Self { count: None, ..self }
    }

    /// Lets that many matching calls pass first.
    #[must_use]
    pub fn after(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    fn matches(&self, call: &Facts<'_>) -> bool {
        let path_matches = |pattern: &String| {
            let subject = if pattern.starts_with("/api/") {
                call.path
            } else {
                call.versionless_path()
            };
            glob(pattern, subject)
        };
        self.method
            .as_ref()
            .is_none_or(|method| method.eq_ignore_ascii_case(call.method))
            && self.path.as_ref().is_none_or(path_matches)
            && self.contains.as_ref().is_none_or(|text| call.contains(text))
    }
}

/// What rules look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
}

impl Facts<'_> {
    fn versionless_path(&self) -> &str {
        ["/api/v3.1", "/api/v3"]
            .iter()
            .find_map(|prefix| self.path.strip_prefix(prefix))
            .unwrap_or(self.path)
    }

    fn contains(&self, text: &str) -> bool {
        let in_query = form_urlencoded::parse(self.query.as_bytes())
            .any(|(key, value)| format!("{key}={value}").contains(text));
        in_query || String::from_utf8_lossy(self.body).contains(text)
    }
}

/// Whether `subject` fits `pattern`, in which `*` stands for any run of characters.
fn glob(pattern: &str, subject: &str) -> bool {
    let mut parts = pattern.split('*');
    // `split` yields at least one part.
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = subject.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(found) = rest.find(part) else {
            return false;
        };
        rest = &rest[found + part.len()..];
    }
    true
}

/// A rule and what it did so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleState {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// Calls that matched, whether or not the fault applied.
    pub matched: u64,
    /// Calls it was applied to.
    pub hits: u64,
}

impl RuleState {
    /// Counts the call if it matches; whether the fault applies to it. `roll` is uniform in [0, 1).
    fn consider(&mut self, call: &Facts<'_>, roll: f64) -> bool {
        if self.rule.count.is_some_and(|count| self.hits >= count) || !self.rule.matches(call) {
            return false;
        }
        self.matched += 1;
        let applies = self.matched > self.rule.skip && roll < self.rule.probability;
        self.hits += u64::from(applies);
        applies
    }
}

/// A fault chosen for a call.
#[derive(Debug)]
pub(crate) struct Fired {
    pub(crate) fault: Fault,
    /// Turns true, or closes, when the rule is released or removed.
    pub(crate) released: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rules: Vec<(RuleState, watch::Sender<bool>)>,
    named: u64,
}

impl Faults {
    /// Adds a rule behind the others and returns its name.
    pub(crate) fn inject(&self, mut rule: Rule) -> String {
        let mut inner = lock(&self.0);
        let id = rule.id.clone().unwrap_or_else(|| {
            inner.named += 1;
            format!("rule-{}", inner.named)
        });
        rule.id = Some(id.clone());
        inner
            .rules
            .retain(|(state, _)| state.rule.id.as_ref() != Some(&id));
        inner.rules.push((
            RuleState {
                rule,
                matched: 0,
                hits: 0,
            },
            watch::Sender::new(false),
        ));
        id
    }

    /// The fault of the first rule that applies.
    pub(crate) fn choose(&self, call: &Facts<'_>) -> Option<Fired> {
        let mut inner = lock(&self.0);
        let (state, release) = inner.rules.iter_mut().find_map(|(state, release)| {
            state
                .consider(call, rand::rng().random())
                .then_some((state, release))
        })?;
        Some(Fired {
            fault: state.rule.fault.clone(),
            released: release.subscribe(),
        })
    }

    pub(crate) fn list(&self) -> Vec<RuleState> {
        lock(&self.0)
            .rules
            .iter()
            .map(|(state, _)| state.clone())
            .collect()
    }

    /// Lets the calls that hang at this rule go on, now and in future. `false` if there is no such rule.
    pub(crate) fn release(&self, id: &str) -> bool {
        let inner = lock(&self.0);
        let found = inner
            .rules
            .iter()
            .find(|(state, _)| state.rule.id.as_deref() == Some(id));
        found.is_some_and(|(_, release)| {
            release.send_replace(true);
            true
        })
    }

    /// Removes a rule and releases what hangs at it.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let mut inner = lock(&self.0);
        let before = inner.rules.len();
        inner
            .rules
            .retain(|(state, _)| state.rule.id.as_deref() != Some(id));
        inner.rules.len() < before
    }

    /// Removes every rule and releases what hangs at them.
    pub(crate) fn clear(&self) {
        lock(&self.0).rules.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts<'a>(method: &'a str, path: &'a str, query: &'a str, body: &'a [u8]) -> Facts<'a> {
        Facts {
            method,
            path,
            query,
            body,
        }
    }

    fn state(rule: Rule) -> RuleState {
        RuleState {
            rule,
            matched: 0,
            hits: 0,
        }
    }

    #[test]
    fn patterns() {
        let table = [
            ("/connected_accounts", "/connected_accounts", true),
            ("/connected_accounts", "/connected_accounts/link", false),
            ("/connected_accounts*", "/connected_accounts/link", true),
            ("/connected_accounts/*", "/connected_accounts", false),
            (
                "/connected_accounts/*/status",
                "/connected_accounts/ca_1/status",
                true,
            ),
            ("/connected_accounts/*/status", "/connected_accounts/ca_1", false),
            (
                "/tools/execute/REDDIT_*",
                "/tools/execute/REDDIT_GET_SCOPES",
                true,
            ),
            ("*", "/anything", true),
            ("*a*b", "/xaxbxb", true),
            ("*a*b", "/xbxa", false),
            ("", "/", false),
        ];
        for (pattern, subject, expected) in table {
            assert_eq!(glob(pattern, subject), expected, "{pattern} on {subject}");
        }
    }

    #[test]
    fn rules_match_method_path_and_content() {
        let list = facts("GET", "/api/v3.1/connected_accounts", "user_ids=u%201", b"");
        let link = facts(
            "POST",
            "/api/v3/connected_accounts/link",
            "",
            br#"{"user_id":"u2"}"#,
        );
        let table = [
            (Rule::new(Fault::Duplicate), true, true),
            (
                Rule::new(Fault::Duplicate).on("get", "/connected_accounts"),
                true,
                false,
            ),
            (
                Rule::new(Fault::Duplicate).on("POST", "/connected_accounts/*"),
                false,
                true,
            ),
            (
                Rule::new(Fault::Duplicate).on("POST", "/api/v3.1/*"),
                false,
                false,
            ),
            (Rule::new(Fault::Duplicate).on("POST", "/api/v3/*"), false, true),
            (Rule::new(Fault::Duplicate).containing("u 1"), true, false),
            (Rule::new(Fault::Duplicate).containing("\"u2\""), false, true),
        ];
        for (rule, on_list, on_link) in table {
            assert_eq!(rule.matches(&list), on_list, "{rule:?} on the list");
            assert_eq!(rule.matches(&link), on_link, "{rule:?} on the link");
        }
    }

    #[test]
    fn skip_and_count_bound_a_rule() {
        let call = facts("GET", "/api/v3.1/tools", "", b"");
        let applied = |rule: Rule| {
            let mut state = state(rule);
            (0..6)
                .map(|_| u8::from(state.consider(&call, 0.5)))
                .collect::<Vec<_>>()
        };
        assert_eq!(applied(Rule::new(Fault::Duplicate)), [1, 0, 0, 0, 0, 0]);
        assert_eq!(
            applied(Rule::new(Fault::Duplicate).times(2).after(1)),
            [0, 1, 1, 0, 0, 0]
        );
        assert_eq!(
            applied(Rule::new(Fault::Duplicate).for_ever().after(3)),
            [0, 0, 0, 1, 1, 1]
        );
        assert_eq!(
            applied(Rule {
                probability: 0.5,
                ..Rule::new(Fault::Duplicate)
            }),
            [0; 6]
        );
        assert_eq!(
            applied(Rule {
                probability: 0.51,
                ..Rule::new(Fault::Duplicate)
            }),
            [1, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn rules_are_read_as_documented() {
        let rule: Rule = serde_json::from_value(json!({
            "method": "POST", "path": "/connected_accounts/link", "fault": {"kind": "dropAfterCommit"}
        }))
        .unwrap();
        assert_eq!(
            rule,
            Rule::new(Fault::DropAfterCommit).on("POST", "/connected_accounts/link")
        );
        let for_ever: Rule =
            serde_json::from_value(json!({"count": null, "fault": {"kind": "rateLimited", "retryAfter": 7}}))
                .unwrap();
        assert_eq!(
            for_ever,
            Rule::new(Fault::RateLimited { retry_after: 7 }).for_ever()
        );
        let every_kind = [
            json!({"kind": "delay", "millis": 5}),
            json!({"kind": "dropAfterCommit"}),
            json!({"kind": "dropBeforeCommit"}),
            json!({"kind": "hang"}),
            json!({"kind": "status", "status": 502, "body": "<html>", "contentType": "text/html"}),
            json!({"kind": "truncateJson"}),
            json!({"kind": "abortBody"}),
            json!({"kind": "unknownStatus", "value": "HIBERNATING"}),
            json!({"kind": "rateLimited", "retryAfter": 7}),
            json!({"kind": "staleFirstPage"}),
            json!({"kind": "duplicate"}),
            json!({"kind": "emptyList"}),
            json!({"kind": "missingIds", "ids": ["ca_1"]}),
        ];
        for kind in every_kind {
            let fault: Fault = serde_json::from_value(kind.clone()).unwrap();
            assert_eq!(kind["kind"], fault.kind());
        }
        assert!(serde_json::from_value::<Rule>(json!({"fault": {"kind": "explode"}})).is_err());
        assert!(serde_json::from_value::<Rule>(json!({"fualt": {"kind": "hang"}})).is_err());
    }

    fn page() -> Value {
        let item = |id: &str, at: &str| json!({"id": id, "status": "ACTIVE", "state": {"val": {"status": "ACTIVE"}}, "created_at": at});
        json!({
            "items": [item("ca_1", "2026-01-01"), item("ca_3", "2026-01-03"), item("ca_2", "2026-01-02")],
            "total_items": 3, "total_pages": 1, "current_page": 1, "next_cursor": null
        })
    }

    fn ids(page: &Value) -> Vec<&str> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn answers_are_rewritten() {
        let stale = Fault::StaleFirstPage { rows: 2 };
        assert_eq!(ids(&stale.rewrite("limit=3", page())), ["ca_1"]);
        assert_eq!(stale.rewrite("limit=3", page())["total_items"], 1);
        assert_eq!(
            stale.rewrite("cursor=abc", page()),
            page(),
            "later pages stay whole"
        );
        let missing = Fault::MissingIds {
            ids: vec!["ca_2".to_owned()],
        };
        assert_eq!(ids(&missing.rewrite("", page())), ["ca_1", "ca_3"]);
        let empty = Fault::EmptyList.rewrite("", page());
        assert_eq!((ids(&empty), &empty["total_items"]), (vec![], &json!(0)));
        let unknown = Fault::UnknownStatus {
            value: "HIBERNATING".to_owned(),
        };
        let rewritten = unknown.rewrite("", page());
        assert_eq!(rewritten["items"][1]["status"], "HIBERNATING");
        assert_eq!(rewritten["items"][1]["state"]["val"]["status"], "HIBERNATING");
        let single = unknown.rewrite("", json!({"id": "ca_1", "status": "ACTIVE"}));
        assert_eq!(single["status"], "HIBERNATING");
        let config = json!({"id": "ac_1", "status": "ENABLED"});
        assert_eq!(unknown.rewrite("", config.clone()), config, "only accounts");
    }

    #[test]
    fn removing_or_releasing_a_rule_lets_go_of_its_calls() {
        let faults = Faults::default();
        let call = facts("GET", "/api/v3.1/tools", "", b"");
        let hang = || Rule::new(Fault::Hang { before_commit: false });
        let id = faults.inject(hang());
        let fired = faults.choose(&call).unwrap();
        assert!(!*fired.released.borrow());
        assert!(faults.release(&id));
        assert!(*fired.released.borrow());
        let removed = faults.inject(hang());
        let fired = faults.choose(&call).unwrap();
        assert!(faults.remove(&removed));
        assert!(
            fired.released.has_changed().is_err(),
            "the channel closes with the rule"
        );
        assert!(!faults.remove(&removed));
        assert!(faults.choose(&call).is_none());
    }
}
