//! The conditions under which a fault applies to a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::Fault;

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
    /// Patterns, as for `path`, that query parameters must fit: with their whole decoded value, or with one entry of a
    /// comma list. Null: the parameter must be absent or empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Option<String>>,
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
            query: BTreeMap::new(),
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

    /// Only for calls whose query parameter `name` fits the pattern, whole or in one entry of a comma list.
    #[must_use]
    pub fn with_query(mut self, name: &str, pattern: &str) -> Self {
        self.query.insert(name.to_owned(), Some(pattern.to_owned()));
        self
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

    fn matches(&self, call: &RequestParts<'_>) -> bool {
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
            && self
                .query
                .iter()
                .all(|(name, pattern)| call.query_fits(name, pattern.as_deref()))
            && self.contains.as_ref().is_none_or(|text| call.contains(text))
    }
}

/// The parts of a request that rules can match.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestParts<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
}

impl RequestParts<'_> {
    fn versionless_path(&self) -> &str {
        ["/api/v3.1", "/api/v3"]
            .iter()
            .find_map(|prefix| self.path.strip_prefix(prefix))
            .unwrap_or(self.path)
    }

    /// `None`: whether the parameter is absent.
    fn query_fits(&self, name: &str, pattern: Option<&str>) -> bool {
        let mut values = form_urlencoded::parse(self.query.as_bytes())
            .filter(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value);
        match pattern {
            None => values.next().is_none(),
            Some(pattern) => values
                .any(|value| glob(pattern, &value) || value.split(',').any(|entry| glob(pattern, entry))),
        }
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
    pub(super) fn consider(&mut self, call: &RequestParts<'_>, roll: f64) -> bool {
        if self.rule.count.is_some_and(|count| self.hits >= count) || !self.rule.matches(call) {
            return false;
        }
        self.matched += 1;
        let applies = self.matched > self.rule.skip && roll < self.rule.probability;
        self.hits += u64::from(applies);
        applies
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(mut conditions: Value) -> Rule {
        conditions["fault"] = json!({"kind": "duplicate"});
        serde_json::from_value(conditions).unwrap()
    }

    #[test]
    fn conditions() {
        // `METHOD path?query body`.
        let list = "GET /api/v3.1/connected_accounts?user_ids=u%201,v&limit=9 ";
        let link = r#"POST /api/v3/connected_accounts/link? {"user_id":"u2"}"#;
        let next = "GET /api/v3.1/tools?toolkit_slug=slack&toolkit_slug=github&cursor=abc ";
        let table = [
            (json!({}), vec![list, link, next]),
            (json!({"method": "get"}), vec![list, next]),
            (json!({"path": "/connected_accounts"}), vec![list]),
            (json!({"path": "/connected_accounts*"}), vec![list, link]),
            (json!({"path": "/connected_accounts/*"}), vec![link]),
            (json!({"path": "*a*link"}), vec![link]),
            (json!({"path": "/api/v3.1/*"}), vec![list, next]),
            (json!({"path": ""}), vec![]),
            (json!({"contains": "user_ids=u 1"}), vec![list]),
            (json!({"contains": "\"u2\""}), vec![link]),
            (json!({"query": {"user_ids": "v"}}), vec![list]),
            (json!({"query": {"user_ids": "u 1,v"}}), vec![list]),
            (json!({"query": {"toolkit_slug": "git*"}}), vec![next]),
            (json!({"query": {"toolkit_slug": "git"}}), vec![]),
            (json!({"query": {"cursor": "*"}}), vec![next]),
            (json!({"query": {"cursor": null}}), vec![list, link]),
            (
                json!({"method": "GET", "query": {"limit": "9", "cursor": null}}),
                vec![list],
            ),
        ];
        for (conditions, expected) in table {
            let matches = |call: &&str| {
                let (method, rest) = call.split_once(' ').unwrap();
                let (target, body) = rest.split_once(' ').unwrap();
                let (path, query) = target.split_once('?').unwrap();
                let body = body.as_bytes();
                rule(conditions.clone()).matches(&RequestParts {
                    method,
                    path,
                    query,
                    body,
                })
            };
            let matching: Vec<_> = [list, link, next].into_iter().filter(&matches).collect();
            assert_eq!(matching, expected, "{conditions}");
        }
        let misspelt = json!({"qeury": {}, "fault": {"kind": "hang"}});
        assert!(serde_json::from_value::<Rule>(misspelt).is_err());
    }

    #[test]
    fn skip_count_and_probability() {
        let request = RequestParts {
            method: "GET",
            path: "/api/v3.1/tools",
            query: "",
            body: b"",
        };
        let table = [
            (json!({}), [1, 0, 0, 0, 0, 0]),
            (json!({"count": 2, "skip": 1}), [0, 1, 1, 0, 0, 0]),
            (json!({"count": null, "skip": 3}), [0, 0, 0, 1, 1, 1]),
            (json!({"probability": 0.5}), [0; 6]),
            (json!({"probability": 0.51}), [1, 0, 0, 0, 0, 0]),
        ];
        for (bounds, expected) in table {
            let mut state = RuleState {
                rule: rule(bounds.clone()),
                matched: 0,
                hits: 0,
            };
            let applied = [(); 6].map(|()| u8::from(state.consider(&request, 0.5)));
            assert_eq!(applied, expected, "{bounds}");
        }
    }

    #[test]
    fn every_kind_of_fault_is_read_as_documented() {
        for kind in [
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
            json!({"kind": "apiError", "status": 404}),
            json!({"kind": "emptyItems"}),
            json!({"kind": "shiftedPage", "by": -1}),
            json!({"kind": "falseTotal", "by": 3}),
            json!({"kind": "lyingLastPage", "rows": 50}),
            json!({"kind": "badItems", "item": {"slug": 7}, "rows": 2}),
        ] {
            let fault: Fault = serde_json::from_value(kind.clone()).unwrap();
            assert_eq!(kind["kind"], <&str>::from(&fault));
        }
    }
}
