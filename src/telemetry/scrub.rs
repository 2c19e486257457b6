//! Takes credentials out of free text before it is logged or published.
//!
//! This is the last line of defence, not the first: code that holds a key or a connect link never formats it. Texts
//! written elsewhere (a panic in a dependency, a message of a remote server) may still quote one.

/// Prefixes by which credentials are recognised wherever they stand.
///
/// Composio: `ak_` (project), `uak_` (user), `oak_` (organisation), `lk_` (link token). The others are the shapes of the
/// credentials that syncs come across: Slack tokens, keys of OpenAI-compatible endpoints, JSON web tokens.
const SECRET_PREFIXES: [&str; 10] = [
    "ak_", "uak_", "oak_", "lk_", "sk-", "xoxb-", "xoxp-", "xoxa-", "xapp-", "eyJ",
];

/// Shortest text behind a prefix that counts as a credential, so that a bare "sk-" in prose is left alone.
const MIN_SECRET_LEN: usize = 4;

/// Names whose value is a credential whatever it looks like; compared in lower case without `-` and `_`.
const SECRET_NAMES: [&str; 12] = [
    "apikey",
    "xapikey",
    "xorgapikey",
    "xuserapikey",
    "authorization",
    "token",
    "linktoken",
    "accesstoken",
    "refreshtoken",
    "redirecturl",
    "clientsecret",
    "password",
];

/// What stands in the place of a removed text.
const REDACTED: &str = "…";

/// Replaces API keys, tokens, and URLs that may grant access, by `…`.
///
/// Of a credential with a known prefix the prefix stays, of a URL its scheme and host, so that a reader still sees what
/// was there. A URL is shortened if it carries user information, a query or a fragment, or if its path has a segment
/// `link` or a credential; plain URLs stay whole.
///
/// ```
/// use composio_operator::telemetry::scrub::scrub;
/// assert_eq!(scrub("Invalid API key: ak_0123456789"), "Invalid API key: ak_…");
/// assert_eq!(scrub("see https://connect.composio.dev/link/lk_abcdef now"), "see https://connect.composio.dev/… now");
/// ```
pub fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (word, after) = split_at_first(rest, |c| !is_word(c));
        if word.is_empty() {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else if after.starts_with("://") {
            let (url, after) = split_at_first(rest, ends_value);
            out.push_str(&shorten_url(url));
            rest = after;
        } else if let Some(prefix) = secret_prefix(word) {
            out.push_str(prefix);
            out.push_str(REDACTED);
            rest = split_at_first(rest, ends_value).1;
        } else if let Some(gap) = announces_secret(word, after) {
            out.push_str(word);
            out.push_str(gap);
            let (value, after) = split_at_first(&after[gap.len()..], ends_value);
            if is_scheme(value) {
                // "Authorization: Bearer x": the word that announces the secret is this one.
                rest = &rest[word.len() + gap.len()..];
            } else {
                out.push_str(if value.is_empty() { "" } else { REDACTED });
                rest = after;
            }
        } else {
            out.push_str(word);
            rest = after;
        }
    }
    out
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Ends a URL or a value; a `.`, `:` or `/` does not, because tokens contain them.
fn ends_value(c: char) -> bool {
    c.is_whitespace() || "\"'`\\,;<>()[]{}".contains(c)
}

fn secret_prefix(word: &str) -> Option<&'static str> {
    SECRET_PREFIXES.into_iter().find(|prefix| {
        word.strip_prefix(prefix)
            .is_some_and(|tail| tail.len() >= MIN_SECRET_LEN)
    })
}

fn is_scheme(word: &str) -> bool {
    word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

/// The text between a name and its secret value, if `word` is such a name: `": "` in `"apiKey": "x"`.
fn announces_secret<'a>(word: &str, after: &'a str) -> Option<&'a str> {
    let (gap, _) = split_at_first(after, |c| !(c.is_whitespace() || "\"'\\:=".contains(c)));
    let name: String = word
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .collect::<String>()
        .to_lowercase();
    let named = SECRET_NAMES.contains(&name.as_str()) && gap.contains([':', '=']);
    let schemed = is_scheme(word) && !gap.is_empty() && gap.chars().all(char::is_whitespace);
    (named || schemed).then_some(gap)
}

fn shorten_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return REDACTED.to_owned();
    };
    let (authority, path) = split_at_first(rest, |c| matches!(c, '/' | '?' | '#'));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let telling = host.len() < authority.len()
        || path.contains(['?', '#'])
        || path
            .split('/')
            .any(|segment| segment.eq_ignore_ascii_case("link") || secret_prefix(segment).is_some());
    if telling {
        format!("{scheme}://{host}/{REDACTED}")
    } else {
        url.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_are_taken_out_and_the_rest_is_kept() {
        for (text, want) in [
            (
                "nothing to hide: task-list, ask_me, sk-",
                "nothing to hide: task-list, ask_me, sk-",
            ),
            ("Invalid API key: ak_abcdef", "Invalid API key: ak_…"),
            ("keys uak_12345, oak_12345.", "keys uak_…, oak_…"),
            ("xoxb-123-456-abc!", "xoxb-…"),
            ("jwt eyJhbGciOi.eyJzdWIi.sig-_ end", "jwt eyJ… end"),
            (
                "{\"link_token\":\"anything at all\"}",
                "{\"link_token\":\"… at all\"}",
            ),
            ("{\\\"apiKey\\\": \\\"hunter2\\\"}", "{\\\"apiKey\\\": \\\"…\\\"}"),
            ("x-api-key=hunter2; y", "x-api-key=…; y"),
            ("Authorization: Bearer abc.def ghi", "Authorization: Bearer … ghi"),
            ("authorization: abc", "authorization: …"),
            ("Bearer of news", "Bearer … news"),
            ("token expired", "token expired"),
            ("redirectUrl: https://x.test/plain", "redirectUrl: …"),
            (
                "GET https://api.test/v3/tools failed",
                "GET https://api.test/v3/tools failed",
            ),
            (
                "https://connect.composio.dev/link/lk_abcdef",
                "https://connect.composio.dev/…",
            ),
            ("(http://127.0.0.1:8080/link/x)", "(http://127.0.0.1:8080/…)"),
            ("https://u:p@host.test/x", "https://host.test/…"),
            (
                "https://www.reddit.com/authorize?state=1&x=2 y",
                "https://www.reddit.com/… y",
            ),
            ("https://host.test/s/lk_abcdef", "https://host.test/…"),
            ("käse ak_ä1234 ö", "käse ak_… ö"),
        ] {
            assert_eq!(scrub(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_key_survives_whatever_stands_around_it(before in ".{0,20}", key in "[a-z0-9]{12}", after in ".{0,20}") {
            // A separator, because in "xak_…" the prefix is not the beginning of a word.
            let scrubbed = scrub(&format!("{before} ak_{key} {after}"));
            prop_assert!(!scrubbed.contains(&key));
        }

        #[test]
        fn scrubbing_twice_changes_nothing_more(text in ".{0,60}") {
            let once = scrub(&text);
            prop_assert_eq!(scrub(&once), once);
        }
    }
}
