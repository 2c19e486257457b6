//! Pages as Composio numbers them. A cursor is a page number, not a snapshot: rows that vanish between two pages make
//! the next page skip as many.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::form_urlencoded;

use super::query::Query;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// From 1.
    number: usize,
    limit: usize,
    /// Rows that a fault pretends were inserted before this page; negative: deleted.
    shift: isize,
}

/// The content of a cursor, which is base64 of JSON.
#[derive(Serialize, Deserialize)]
struct Cursor {
    page: usize,
    limit: usize,
    /// See [`Page::shift`].
    #[serde(default, skip_serializing_if = "is_zero")]
    shift: isize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &isize) -> bool {
    *number == 0
}

impl Page {
    /// Reads `cursor` and `limit`. A limit given beside a cursor wins over the cursor's own.
    pub(crate) fn read(query: &mut Query, default_limit: usize, max_limit: usize) -> Self {
        let limit = query.number("limit", 1, max_limit);
        let cursor = query.text("cursor").and_then(|text| {
            let cursor = decode(&text);
            if cursor.is_none() {
                query.fail("cursor", "Invalid cursor");
            }
            cursor
        });
        Self::new(cursor, limit, default_limit)
    }

    /// The page of a cursor and a limit that come from a body; `None`: the cursor is invalid.
    pub(crate) fn from_parts(
        cursor: Option<&str>,
        limit: Option<usize>,
        default_limit: usize,
    ) -> Option<Self> {
        let cursor = match cursor {
            Some(text) => Some(decode(text)?),
            None => None,
        };
        Some(Self::new(cursor, limit, default_limit))
    }

    fn new(cursor: Option<Cursor>, limit: Option<usize>, default_limit: usize) -> Self {
        Self {
            number: cursor.as_ref().map_or(1, |cursor| cursor.page.max(1)),
            shift: cursor.as_ref().map_or(0, |cursor| cursor.shift),
            limit: limit
                .or(cursor.map(|cursor| cursor.limit.max(1)))
                .unwrap_or(default_limit),
        }
    }

    /// The page with at most `most` items; `None`: no such cap.
    pub(crate) fn capped(self, most: Option<usize>) -> Self {
        Self {
            limit: most.map_or(self.limit, |most| self.limit.min(most)),
            ..self
        }
    }

    /// The part of `all` on this page.
    pub(crate) fn of<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let start = (self.number - 1).saturating_mul(self.limit);
        let end = start.saturating_add(self.limit);
        let moved = |row: usize| {
            row.saturating_add_signed(self.shift.saturating_neg())
                .min(all.len())
        };
        &all[moved(start)..moved(end)]
    }

    /// The response body: this page's items and the number of items on all pages.
    pub(crate) fn envelope<T>(&self, items: Vec<T>, total: usize) -> Envelope<T> {
        let pages = total.saturating_add_signed(self.shift).div_ceil(self.limit);
        let next = (self.number < pages).then(|| {
            encode(&Cursor {
                page: self.number + 1,
                limit: self.limit,
                shift: self.shift,
            })
        });
        Envelope {
            items,
            next_cursor: next,
            total_pages: pages,
            current_page: self.number,
            total_items: total,
        }
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
    total_pages: usize,
    current_page: usize,
    total_items: usize,
}

/// The query with its cursor moved by that many more rows; `None`: it has no cursor to move.
pub(crate) fn shifted(query: &str, by: i64) -> Option<String> {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let (_, cursor) = pairs.iter().find(|(key, _)| key == "cursor")?;
    let mut cursor = decode(cursor)?;
    cursor.shift = cursor.shift.saturating_add(isize::try_from(by).ok()?);
    let others = pairs.iter().filter(|(key, _)| key != "cursor");
    let mut shifted = form_urlencoded::Serializer::new(String::new());
    shifted
        .extend_pairs(others)
        .append_pair("cursor", &encode(&cursor));
    Some(shifted.finish())
}

fn encode(cursor: &Cursor) -> String {
    BASE64_STANDARD.encode(json!(cursor).to_string())
}

fn decode(text: &str) -> Option<Cursor> {
    serde_json::from_slice(&BASE64_STANDARD.decode(text).ok()?).ok()
}
