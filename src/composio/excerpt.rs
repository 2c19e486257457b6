//! What is shown of a body of Composio's that is not the JSON that was expected.

use crate::redact::remote_text;

/// Longest explanation that is kept, in characters.
pub(super) const MESSAGE_LIMIT: usize = 300;
/// Longest excerpt of a body that could not be decoded, in characters.
pub(super) const EXCERPT_LIMIT: usize = 200;

/// What a body that is not a JSON error envelope says: the title of an HTML page, else the text itself.
pub(super) fn plain_text(body: &str) -> &str {
    let body = body.trim();
    if !body.starts_with('<') {
        return body;
    }
    // Lower-casing ASCII keeps byte positions, so that they are valid in the original as well.
    let lower = body.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|tag| {
        let start = tag + lower[tag..].find('>')? + 1;
        let end = start + lower[start..].find("</title")?;
        Some(body[start..end].trim())
    });
    title.filter(|title| !title.is_empty()).unwrap_or("an HTML page")
}

/// The beginning of a body for a decode error: of JSON only the structure, because the values may be credentials.
pub(super) fn excerpt(body: &[u8], key: &str) -> String {
    // Four bytes is the longest character, so this prefix always covers the limit.
    let text = String::from_utf8_lossy(&body[..body.len().min(16 * EXCERPT_LIMIT)]);
    let text = text.trim_start();
    if text.starts_with(['{', '[', '"']) {
        remote_text(&json_skeleton(text), key, EXCERPT_LIMIT)
    } else {
        remote_text(plain_text(text), key, EXCERPT_LIMIT)
    }
}

/// JSON, whole or truncated, with every string replaced that is not the name of a field.
fn json_skeleton(text: &str) -> String {
    let mut skeleton = String::new();
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        skeleton.push_str(&rest[..quote]);
        let literal = &rest[quote + 1..];
        let mut escaped = false;
        let end = literal.find(|c: char| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some(end) = end else {
            skeleton.push_str("\"…");
            return skeleton;
        };
        let after = &literal[end + 1..];
        let is_name = after.trim_start().starts_with(':');
        skeleton.push('"');
        skeleton.push_str(if is_name { &literal[..end] } else { "…" });
        skeleton.push('"');
        rest = after;
    }
    skeleton.push_str(rest);
    skeleton
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_becomes_its_title() {
        assert_eq!(
            plain_text("<html><HEAD><Title x=1>502 Bad Gateway</title></head>"),
            "502 Bad Gateway"
        );
        assert_eq!(plain_text("<html>no title"), "an HTML page");
        assert_eq!(plain_text(" upstream down \n"), "upstream down");
    }

    #[test]
    fn an_excerpt_of_json_shows_names_but_no_values() {
        let body = br#"{"items":[{"id":"ca_1","state":{"access_token":"s3cr\"et"},"n":4,"list":["hush"]},{"x":"unfin"#;
        let shown = excerpt(body, "");
        assert_eq!(
            shown,
            r#"{"items":[{"id":"…","state":{"access_token":"…"},"n":4,"list":["…"]},{"x":"…"#
        );
        assert_eq!(excerpt(b"<html><title>Oops</title>", ""), "Oops");
        assert!(excerpt("x ".repeat(4000).as_bytes(), "").chars().count() <= EXCERPT_LIMIT);
        assert_eq!(excerpt(b"\xff\xfe", ""), "\u{fffd}\u{fffd}");
    }
}
