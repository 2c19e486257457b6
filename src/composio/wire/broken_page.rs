//! Reads a page of a list that is not JSON as a whole, because one of its items is not: a bare `NaN`, a line break in a
//! text, bytes that are not UTF-8. The other items are none the worse for it.

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Page, count, text};

/// The page, if its brackets and quotes at least tell where its items begin and end. None if they do not, or if all of it
/// is JSON.
pub(super) fn broken_page(body: &[u8]) -> Option<Page<'_>> {
    let mut page = Page {
        items: Vec::new(),
        unreadable: 0,
        next_cursor: None,
        total_items: None,
    };
    let mut has_items = false;
    let mut fields = Parts::of(body, b'{', b'}')?;
    while let Some(name) = fields.next_part(b':')? {
        let name: String = serde_json::from_slice(name).ok()?;
        let value = fields.next_part(b',')??;
        let read = || serde_json::from_slice::<Value>(value).unwrap_or_default();
        match name.as_str() {
            "items" => {
                has_items = true;
                let mut items = Parts::of(value, b'[', b']')?;
                while let Some(item) = items.next_part(b',')? {
                    match serde_json::from_slice::<&RawValue>(item) {
                        Ok(item) => page.items.push(item),
                        Err(_) => page.unreadable += 1,
                    }
                }
            }
            "next_cursor" => page.next_cursor = text(&read()),
            "total_items" => page.total_items = count(&read()),
            _ => {}
        }
    }
    (has_items && page.unreadable > 0).then_some(page)
}

/// The parts between two brackets.
struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(body: &'a [u8], open: u8, close: u8) -> Option<Self> {
        let inner = body.trim_ascii().strip_prefix(&[open])?.strip_suffix(&[close])?;
        Some(Self {
            rest: inner.trim_ascii(),
        })
    }

    /// The part before the next `separator` that is in no brackets and no quotes; the inner None after the last part. The
    /// outer None if brackets or quotes do not match.
    #[allow(clippy::option_option, reason = "no further part, and no way to tell")]
    fn next_part(&mut self, separator: u8) -> Option<Option<&'a [u8]>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
        for (place, byte) in self.rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1)?,
                byte if *byte == separator && depth == 0 => {
                    let part = self.rest[..place].trim_ascii();
                    self.rest = self.rest[place + 1..].trim_ascii();
                    return Some(Some(part));
                }
                _ => {}
            }
        }
        if depth > 0 || quoted {
            return None;
        }
        Some(Some(std::mem::take(&mut self.rest).trim_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Option<(Vec<&str>, usize)> {
        let page = broken_page(body)?;
        assert_eq!(
            (page.next_cursor.as_deref(), page.total_items),
            (Some("c,1"), Some(3))
        );
        Some((
            page.items.iter().map(|item| item.get()).collect(),
            page.unreadable,
        ))
    }

    #[test]
    fn one_item_that_is_not_json_costs_only_itself() {
        let good = r#"{"slug": "A", "text": "a \" ] and , \\"}"#;
        for bad in [
            &b"{\"slug\": \"B\", \"number\": NaN}"[..],
            b"{\"slug\": \"B\nC\"}",
            b"{\"slug\": \"\xff\xfe\"}",
            b"undefined",
            b"{\"slug\": \"B\", }",
            b"",
        ] {
            for items in [[good.as_bytes(), bad, b"[1]"], [bad, good.as_bytes(), b"[1]"]] {
                let mut body = b" {\"total_items\": 3.0, \"items\": [".to_vec();
                body.extend(items.join(&b", "[..]));
                body.extend(b"], \"next_cursor\": \"c,1\"} ");
                assert_eq!(
                    read(&body),
                    Some((vec![good, "[1]"], 1)),
                    "{}",
                    bad.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_taken_apart_is_left() {
        for body in [
            &b""[..],
            b"<html>",
            b"{}",
            b"{\"items\": [{\"slug\": \"A\"}]}",
            b"{\"items\": [{\"slug\": \"A]}",
            b"{\"items\": [}]}",
            b"{\"items\": {\"a\": NaN}}",
            b"{\"items\"",
        ] {
            assert!(broken_page(body).is_none(), "{}", body.escape_ascii());
        }
    }
}
