//! Which calls a fault applies to.

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

    /// Only for calls without the query parameter `name`.
    #[must_use]
    pub fn without_query(mut self, name: &str) -> Self {
        self.query.insert(name.to_owned(), None);
        self
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
            && self
                .query
                .iter()
                .all(|(name, pattern)| call.query_fits(name, pattern.as_deref()))
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
    pub(super) fn consider(&mut self, call: &Facts<'_>, roll: f64) -> bool {
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
    fn rules_match_query_parameters() {
        let call = |query| facts("GET", "/api/v3.1/tools", query, b"");
        let rule = || Rule::new(Fault::Duplicate);
        let github = rule().with_query("toolkit_slug", "github");
        let table = [
            (github.clone(), "toolkit_slug=github&limit=9", true),
            (github.clone(), "toolkit_slug=slack%2Cgithub", true),
            (github.clone(), "toolkit_slug=slack&toolkit_slug=github", true),
            (github.clone(), "toolkit_slug=github_enterprise", false),
            (github.clone(), "search=github", false),
            (github.clone(), "", false),
            (
                rule().with_query("toolkit_slug", "git*"),
                "toolkit_slug=slack,github",
                true,
            ),
            (rule().with_query("tool_slugs", "A,B"), "tool_slugs=A,B", true),
            (rule().with_query("cursor", "*"), "cursor=abc", true),
            (rule().with_query("cursor", "*"), "cursor=", false),
            (rule().without_query("cursor"), "cursor=", true),
            (rule().without_query("cursor"), "cursor=abc", false),
            (
                github.clone().without_query("cursor"),
                "toolkit_slug=github",
                true,
            ),
            (
                github.without_query("cursor"),
                "toolkit_slug=github&cursor=abc",
                false,
            ),
        ];
        for (rule, query, expected) in table {
            assert_eq!(
                rule.matches(&call(query)),
                expected,
                "{:?} on {query}",
                rule.query
            );
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
        let by_query: Rule = serde_json::from_value(json!({
            "query": {"toolkit_slug": "github", "cursor": null}, "fault": {"kind": "emptyItems"}
        }))
        .unwrap();
        assert_eq!(
            by_query,
            Rule::new(Fault::EmptyItems)
                .with_query("toolkit_slug", "github")
                .without_query("cursor")
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
            json!({"kind": "apiError", "status": 404}),
            json!({"kind": "emptyItems"}),
            json!({"kind": "shiftedPage", "by": -1}),
            json!({"kind": "falseTotal", "by": 3}),
        ];
        for kind in every_kind {
            let fault: Fault = serde_json::from_value(kind.clone()).unwrap();
            assert_eq!(kind["kind"], fault.kind());
        }
        assert!(serde_json::from_value::<Rule>(json!({"fault": {"kind": "explode"}})).is_err());
        assert!(serde_json::from_value::<Rule>(json!({"fualt": {"kind": "hang"}})).is_err());
    }
}
