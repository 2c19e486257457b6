//! The kinds of faults, and how they change a response.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::IntoStaticStr;
use url::form_urlencoded;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// The response is late, in real time.
    Delay {
        /// The delay.
        millis: u64,
        /// Wait after the effect rather than before it.
        #[serde(default)]
        after_commit: bool,
    },
    /// The request takes effect, then the connection is closed without a response.
    DropAfterCommit,
    /// The connection is closed without effect or response.
    DropBeforeCommit,
    /// The request takes effect, then no response is sent until the rule is released or removed.
    Hang {
        /// Wait before the effect instead; it happens after the release.
        #[serde(default)]
        before_commit: bool,
    },
    /// Another response, as a gateway in between would send it.
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
    /// The request takes effect and half of the response's JSON arrives, as a complete HTTP message.
    TruncateJson,
    /// The request takes effect and the connection breaks in the middle of the response.
    AbortBody,
    /// Accounts in the response carry a status no client knows.
    UnknownStatus {
        /// The status.
        value: String,
    },
    /// The rate limiter's response, without effect.
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
    /// The request is handled twice; the second response is sent.
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
    /// This page of a list, and those its cursor leads to, start at another row, as if rows before it had been inserted
    /// or deleted since the page before. First pages stay as they are, and so does the total.
    ShiftedPage {
        /// Inserted rows, so that the page repeats as many; negative: deleted rows, so that it skips as many.
        by: i64,
    },
    /// A list states a wrong total.
    FalseTotal {
        /// By how much, at most down to 0.
        by: i64,
    },
    /// A page of more rows than this ends after them and calls itself the only page, while the total stays true. Pages of
    /// no more rows than this are as they should be.
    LyingLastPage {
        /// Rows that are left.
        rows: usize,
        /// These, too, call themselves the only page.
        #[serde(default)]
        always: bool,
    },
    /// Some items of a list are not what they should be.
    BadItems {
        /// What stands in their place.
        item: Value,
        /// How many, from the first one on.
        #[serde(default = "one_row")]
        rows: usize,
    },
}

const fn one_row() -> usize {
    1
}

impl Fault {
    /// Rewrites the JSON of a successful response. `query` tells first pages from later ones.
    pub(crate) fn rewrite(&self, query: &str, mut response: Value) -> Value {
        match self {
            Self::UnknownStatus { value } => match response.get_mut("items") {
                Some(Value::Array(items)) => items.iter_mut().for_each(|item| set_status(item, value)),
                _ => set_status(&mut response, value),
            },
            Self::StaleFirstPage { rows } => {
                let first = !form_urlencoded::parse(query.as_bytes())
                    .any(|(key, value)| key == "cursor" && !value.is_empty());
                if first {
                    let newest = newest_ids(&response, *rows);
                    remove_items(&mut response, &newest);
                }
            }
            Self::MissingIds { ids } => remove_items(&mut response, &ids.iter().cloned().collect()),
            Self::EmptyList => overwrite_list(
                &mut response,
                [
                    ("items", Value::Array(Vec::new())),
                    ("next_cursor", Value::Null),
                    ("total_items", 0.into()),
                    ("total_pages", 0.into()),
                    ("current_page", 1.into()),
                ],
            ),
            Self::EmptyItems => overwrite_list(
                &mut response,
                [("items", Value::Array(Vec::new())), ("next_cursor", Value::Null)],
            ),
            Self::FalseTotal { by } => {
                let total = response["total_items"].as_u64().unwrap_or_default();
                overwrite_list(
                    &mut response,
                    [("total_items", total.saturating_add_signed(*by).into())],
                );
            }
            Self::LyingLastPage { rows, always } if *always || has_more_items(&response, *rows) => {
                let mut items = response["items"].take();
                if let Some(items) = items.as_array_mut() {
                    items.truncate(*rows);
                }
                overwrite_list(
                    &mut response,
                    [
                        ("items", items),
                        ("next_cursor", Value::Null),
                        ("total_pages", 1.into()),
                    ],
                );
            }
            Self::BadItems { item, rows } => {
                let items = response.get_mut("items").and_then(Value::as_array_mut);
                items
                    .into_iter()
                    .flatten()
                    .take(*rows)
                    .for_each(|found| *found = item.clone());
            }
            _ => {}
        }
        response
    }
}

fn has_more_items(response: &Value, rows: usize) -> bool {
    response["items"]
        .as_array()
        .is_some_and(|items| items.len() > rows)
}

fn overwrite_list<const N: usize>(response: &mut Value, fields: [(&str, Value); N]) {
    if let Some(list) = response.as_object_mut().filter(|list| list.contains_key("items")) {
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

fn newest_ids(response: &Value, rows: usize) -> HashSet<String> {
    let mut items: Vec<_> = response["items"].as_array().into_iter().flatten().collect();
    items.sort_by(|a, b| b["created_at"].as_str().cmp(&a["created_at"].as_str()));
    items
        .iter()
        .take(rows)
        .filter_map(|item| item["id"].as_str().map(str::to_owned))
        .collect()
}

fn remove_items(response: &mut Value, ids: &HashSet<String>) {
    let Some(items) = response.get_mut("items").and_then(Value::as_array_mut) else {
        return;
    };
    let before = items.len();
    items.retain(|item| item["id"].as_str().is_none_or(|id| !ids.contains(id)));
    let removed = before - items.len();
    if let Some(total) = response.get_mut("total_items") {
        *total = total
            .as_u64()
            .unwrap_or_default()
            .saturating_sub(removed as u64)
            .into();
    }
}
