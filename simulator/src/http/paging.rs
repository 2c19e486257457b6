//! Pages as Composio numbers them. A cursor is a page number, not a snapshot: rows that vanish between two pages make
//! the next page skip as many.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::query::Query;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// From 1.
    number: usize,
    limit: usize,
}

/// What a cursor says, as base64 of JSON.
#[derive(Serialize, Deserialize)]
struct Cursor {
    page: usize,
    limit: usize,
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

    /// The page a cursor and a limit stand for, where they come from elsewhere than a query string.
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
            limit: limit
                .or(cursor.map(|cursor| cursor.limit.max(1)))
                .unwrap_or(default_limit),
        }
    }

    /// The part of `all` on this page.
    pub(crate) fn of<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let start = (self.number - 1).saturating_mul(self.limit).min(all.len());
        let end = start.saturating_add(self.limit).min(all.len());
        &all[start..end]
    }

    /// The list as the wire has it, of this page's items and the number of items on all pages.
    pub(crate) fn envelope<T>(&self, items: Vec<T>, total: usize) -> Envelope<T> {
        let pages = total.div_ceil(self.limit);
        let next = (self.number < pages).then(|| {
            encode(&Cursor {
                page: self.number + 1,
                limit: self.limit,
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

fn encode(cursor: &Cursor) -> String {
    BASE64_STANDARD.encode(json!(cursor).to_string())
}

fn decode(text: &str) -> Option<Cursor> {
    serde_json::from_slice(&BASE64_STANDARD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(raw: &str) -> (Page, bool) {
        let mut query = Query::parse(Some(raw));
        let page = Page::read(&mut query, 20, 100);
        (page, query.finish().is_ok())
    }

    fn cursor(page: usize, limit: usize) -> String {
        encode(&Cursor { page, limit })
            .replace('=', "%3D")
            .replace('+', "%2B")
    }

    #[test]
    fn pages_are_read() {
        let table = [
            (String::new(), Page { number: 1, limit: 20 }),
            ("limit=5".to_owned(), Page { number: 1, limit: 5 }),
            (format!("cursor={}", cursor(3, 7)), Page { number: 3, limit: 7 }),
            (
                format!("cursor={}&limit=9", cursor(3, 7)),
                Page { number: 3, limit: 9 },
            ),
            (format!("cursor={}", cursor(0, 0)), Page { number: 1, limit: 1 }),
        ];
        for (raw, expected) in table {
            assert_eq!(read(&raw), (expected, true), "{raw}");
        }
        for raw in ["cursor=nonsense", "limit=0", "limit=101"] {
            assert!(!read(raw).1, "{raw}");
        }
    }

    #[test]
    fn an_absurd_page_is_empty() {
        let page = Page {
            number: usize::MAX,
            limit: usize::MAX,
        };
        assert_eq!(page.of(&[1, 2, 3]), [0; 0]);
    }

    proptest! {
        #[test]
        fn following_cursors_shows_everything_once(total in 0_usize..60, limit in 1_usize..20) {
            let all: Vec<_> = (0..total).collect();
            let mut seen = Vec::new();
            let mut cursor: Option<String> = None;
            loop {
                let page = Page::from_parts(cursor.as_deref(), Some(limit), 20).unwrap();
                let envelope = page.envelope(page.of(&all).to_vec(), total);
                prop_assert_eq!(envelope.total_items, total);
                seen.extend(envelope.items);
                match envelope.next_cursor {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(seen, all);
        }
    }
}
