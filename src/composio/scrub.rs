//! Makes text of the remote side fit to be shown: no keys, no links that grant access, no walls of HTML.

/// Longest text of the remote side that is kept as an explanation, in characters.
pub(super) const MESSAGE_LIMIT: usize = 300;
/// Longest excerpt of a body that could not be understood, in characters.
pub(super) const EXCERPT_LIMIT: usize = 200;

/// A word of at least this many characters without a blank is taken for a token rather than prose.
const OPAQUE_WORD: usize = 40;
/// Composio's prefixes of API keys and of link tokens.
const SECRET_PREFIXES: [&str; 5] = ["ak_", "uak_", "oak_", "lk_", "ln_"];

/// Replaces what may grant access (API keys, link tokens, everything of a URL behind its host, long opaque words) and
/// control characters, then cuts to `limit` characters. `key` is removed literally wherever it stands.
pub(super) fn scrub(text: &str, key: &str, limit: usize) -> String {
    let without_key;
    let text = if key.len() >= 6 && text.contains(key) {
        without_key = text.replace(key, "…");
        &without_key
    } else {
        text
    };
    let mut clean = String::with_capacity(text.len().min(4 * limit));
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if let Some(url_end) = url_length(rest) {
            push_host(&mut clean, &rest[..url_end]);
            rest = &rest[url_end..];
        } else if word_end > 0 {
            push_word(&mut clean, &rest[..word_end]);
            rest = &rest[word_end..];
        } else {
            clean.push(if first.is_control() { ' ' } else { first });
            rest = &rest[first.len_utf8()..];
        }
    }
    cut(clean.trim(), limit)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '*')
}

/// Length in bytes of the absolute web address that `text` begins with.
fn url_length(text: &str) -> Option<usize> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })?;
    let tail = &text[scheme.len()..];
    let end = tail
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ')' | '`' | '\\' | ','))
        .unwrap_or(tail.len());
    Some(scheme.len() + end)
}

fn push_host(clean: &mut String, url: &str) {
    let (scheme, tail) = url.split_once("://").unwrap_or(("https", url));
    let authority = tail.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    clean.push_str(scheme);
    clean.push_str("://");
    clean.push_str(host);
    if tail.len() > authority.len() {
        clean.push_str("/…");
    }
}

fn push_word(clean: &mut String, word: &str) {
    if let Some(prefix) = SECRET_PREFIXES
        .iter()
        .find(|prefix| word.starts_with(**prefix) && word.len() > prefix.len())
    {
        clean.push_str(prefix);
        clean.push('…');
    } else if word.chars().count() >= OPAQUE_WORD {
        clean.push('…');
    } else {
        clean.push_str(word);
    }
}

/// At most `limit` characters of `text`, with an ellipsis where something is missing.
pub(super) fn cut(text: &str, limit: usize) -> String {
    if text.char_indices().nth(limit).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

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
        scrub(&json_skeleton(text), key, EXCERPT_LIMIT)
    } else {
        scrub(plain_text(text), key, EXCERPT_LIMIT)
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
    fn what_grants_access_is_removed_and_the_rest_is_kept() {
        let cases = [
            ("Invalid API key: ak_live_123", "Invalid API key: ak_…"),
            (
                "open https://connect.composio.dev/link/lk_abc now",
                "open https://connect.composio.dev/… now",
            ),
            (
                "see connect.composio.dev/link/lk_abc",
                "see connect.composio.dev/link/lk_…",
            ),
            ("HTTPS://user:pass@host/x?y", "HTTPS://host/…"),
            (
                "use POST /api/v3/connected_accounts/link",
                "use POST /api/v3/connected_accounts/link",
            ),
            (
                "Alias \"alice-1\" is already in use",
                "Alias \"alice-1\" is already in use",
            ),
            ("a\nb\u{7}c", "a b c"),
            ("https://x.dev", "https://x.dev"),
        ];
        for (text, clean) in cases {
            assert_eq!(scrub(text, "", MESSAGE_LIMIT), clean);
        }
        assert_eq!(scrub("key topsecret.", "topsecret", MESSAGE_LIMIT), "key ….");
        let token = "x".repeat(OPAQUE_WORD);
        assert_eq!(scrub(&format!("bearer {token}!"), "", MESSAGE_LIMIT), "bearer …!");
    }

    #[test]
    fn text_is_cut_on_a_character_boundary() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(scrub(&"wört ".repeat(100), "", 53).chars().count(), 53);
    }

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
