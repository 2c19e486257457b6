//! The things that can go wrong, and what they make of an answer.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded;

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
    /// A refusal in Composio's own envelope, without effect.
    ApiError {
        /// Its HTTP status.
        status: u16,
        /// Its message; absent: the status' name.
        #[serde(default)]
        message: Option<String>,
    },
    /// A list ends here without any items, while its totals stay true.
    EmptyItems,
    /// This page of a list, and those its cursor leads to, begin elsewhere, as if rows before it had come or gone since
    /// the page before. First pages stay as they are, and so does the total.
    ShiftedPage {
        /// Rows that came, which the page repeats; negative: rows that went, so that the page skips as many.
        by: i64,
    },
    /// A list states a wrong total.
    FalseTotal {
        /// By how much, at most down to 0.
        by: i64,
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
            Self::ApiError { .. } => "apiError",
            Self::EmptyItems => "emptyItems",
            Self::ShiftedPage { .. } => "shiftedPage",
            Self::FalseTotal { .. } => "falseTotal",
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
            Self::EmptyList => overwrite_list(
                &mut answer,
                [
                    ("items", Value::Array(Vec::new())),
                    ("next_cursor", Value::Null),
                    ("total_items", 0.into()),
                    ("total_pages", 0.into()),
                    ("current_page", 1.into()),
                ],
            ),
            Self::EmptyItems => overwrite_list(
                &mut answer,
                [("items", Value::Array(Vec::new())), ("next_cursor", Value::Null)],
            ),
            Self::FalseTotal { by } => {
                let total = answer["total_items"].as_u64().unwrap_or_default();
                overwrite_list(
                    &mut answer,
                    [("total_items", total.saturating_add_signed(*by).into())],
                );
            }
            _ => {}
        }
        answer
    }
}

fn overwrite_list<const N: usize>(answer: &mut Value, fields: [(&str, Value); N]) {
    if let Some(list) = answer.as_object_mut().filter(|list| list.contains_key("items")) {
        list.extend(fields.map(|(name, value)| (name.to_owned(), value)));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        let ended = Fault::EmptyItems.rewrite("", page());
        assert_eq!((ids(&ended), &ended["total_items"]), (vec![], &json!(3)));
        for (by, total) in [(2, 5), (-1, 2), (-9, 0)] {
            let lying = Fault::FalseTotal { by }.rewrite("", page());
            assert_eq!((ids(&lying).len(), &lying["total_items"]), (3, &json!(total)));
        }
        let single = json!({"slug": "reddit"});
        assert_eq!(Fault::FalseTotal { by: 1 }.rewrite("", single.clone()), single);
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
}
