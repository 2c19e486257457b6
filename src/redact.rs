//! Removes credentials from text before it is logged, published or kept.
//!
//! All log lines, those about panics included, pass through here, as do the notes of Kubernetes events, and what Composio
//! answers before it becomes part of an error. This is the last line of defence, not the first: code that holds a key or a
//! connect link never formats it. Texts written elsewhere may still quote one.

/// Prefixes of Composio's credentials: API keys of a project (`ak_`), a user (`uak_`) and an organization (`oak_`), and
/// link tokens (`lk_`, `ln_`). Anything behind them is a credential.
const COMPOSIO_PREFIXES: [&str; 5] = ["ak_", "uak_", "oak_", "lk_", "ln_"];

/// Prefixes of other services' credentials: keys of OpenAI-compatible endpoints, Slack tokens, JSON web tokens.
const OTHER_PREFIXES: [&str; 6] = ["sk-", "xoxb-", "xoxp-", "xoxa-", "xapp-", "eyJ"];

/// Shortest text, in bytes, behind one of [`OTHER_PREFIXES`] that counts as a credential: prose may hold a bare "sk-".
const MIN_SECRET_LEN: usize = 4;

/// A word of at least this many characters is taken for a token rather than prose.
const OPAQUE_WORD: usize = 40;

/// Shortest API key, in bytes, that is removed literally. A shorter one would be found inside of ordinary words.
const MIN_KEY_LEN: usize = 6;

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

/// Replaces a removed text.
const REDACTED: &str = "…";

/// Who wrote a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Author {
    /// This program or the libraries it uses, possibly quoting others. Names of objects and tools have many characters,
    /// but separators between them; URLs mostly grant nothing.
    Own,
    /// The remote side: nothing is known about its words, nor about what its URLs grant.
    Remote,
}

/// Replaces API keys, tokens, URLs that may grant access, and values whose name announces a secret, by `…`; control
/// characters become blanks.
///
/// Of a credential with a known prefix the prefix stays, of a URL its scheme and host, so that a reader still sees what
/// was there. A URL is shortened if it carries user information, a query or a fragment, or if its path contains the word
/// `link`, another URL or a credential; other URLs stay whole.
///
/// ```
/// use composio_operator::redact::redact;
/// assert_eq!(redact("Invalid API key: ak_0123456789"), "Invalid API key: ak_…");
/// assert_eq!(redact("see https://connect.composio.dev/link/lk_abcdef now"), "see https://connect.composio.dev/… now");
/// ```
pub fn redact(text: &str) -> String {
    on_one_line(text, Author::Own)
}

/// The same for a log line, in which line ends and colours are control characters.
pub(crate) fn log_line(line: &str) -> String {
    without_secrets(line, Author::Own)
}

/// Makes a text of the remote side fit to be shown. Stricter than [`redact`]: every URL is shortened to its host, long
/// words count as tokens whatever they consist of, `key` is removed literally, and at most `limit` characters are kept.
pub(crate) fn remote_text(text: &str, key: &str, limit: usize) -> String {
    let clean = if key.len() >= MIN_KEY_LEN {
        on_one_line(&text.replace(key, REDACTED), Author::Remote)
    } else {
        on_one_line(text, Author::Remote)
    };
    cut(clean.trim(), limit)
}

/// At most `limit` characters of `text`, with an ellipsis where something is missing.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    if text.char_indices().nth(limit).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

fn on_one_line(text: &str, author: Author) -> String {
    let clean = without_secrets(text, author);
    if !clean.contains(char::is_control) {
        return clean;
    }
    // Once more, because words that were joined by a control character are separate now.
    let line: String = clean
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    without_secrets(&line, author)
}

fn without_secrets(text: &str, author: Author) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (word, after) = split_at_first(rest, |c| !is_word(c));
        if let Some(prefix) = secret_prefix(rest) {
            out.push_str(prefix);
            out.push_str(REDACTED);
            rest = split_value(rest).1;
        } else if !word.is_empty() && after.starts_with("://") {
            let (url, after) = split_value(rest);
            push_url(&mut out, url, author);
            rest = after;
        } else if let Some(token) = opaque_word(rest, author) {
            out.push_str(REDACTED);
            rest = &rest[token.len()..];
        } else if word.is_empty() {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else if let Some(gap) = announces_secret(word, after) {
            out.push_str(word);
            out.push_str(gap);
            let (value, after) = split_value(&after[gap.len()..]);
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

/// The value that `text` begins with, and the rest. A name at the value's end that announces a secret
/// belongs to what follows.
fn split_value(text: &str) -> (&str, &str) {
    let (value, after) = split_at_first(text, ends_value);
    let (value, after) = if value.contains("://") {
        split_at_first(text, ends_url)
    } else {
        (value, after)
    };
    let name_end = value.trim_end_matches([':', '=']).len();
    let name_start = value[..name_end].trim_end_matches(is_word).len();
    if name_start > 0 && announces_secret(&text[name_start..name_end], &text[name_end..]).is_some() {
        text.split_at(name_start)
    } else {
        (value, after)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Ends a value; a `.`, `:` or `/` does not, because tokens contain them.
fn ends_value(c: char) -> bool {
    c.is_whitespace() || "\"'`\\,;<>()[]{}".contains(c)
}

/// Ends a URL, whose path may contain more than a token does.
fn ends_url(c: char) -> bool {
    c.is_whitespace() || "\"'`\\,<>)".contains(c)
}

/// The known prefix of the credential that `text` begins with.
fn secret_prefix(text: &str) -> Option<&'static str> {
    let (value, _) = split_at_first(text, ends_value);
    let begins_with =
        |prefix: &str, least: usize| value.strip_prefix(prefix).is_some_and(|tail| tail.len() >= least);
    let composio = COMPOSIO_PREFIXES
        .into_iter()
        .find(|prefix| begins_with(prefix, 1));
    composio.or_else(|| {
        OTHER_PREFIXES
            .into_iter()
            .find(|prefix| begins_with(prefix, MIN_SECRET_LEN))
    })
}

/// The word that `text` begins with, if it is too long for prose.
fn opaque_word(text: &str, author: Author) -> Option<&str> {
    let (word, is_opaque) = match author {
        Author::Own => {
            let (word, _) = split_at_first(text, |c| !is_word(c));
            let mut parts = word.split(|c: char| !c.is_ascii_alphanumeric());
            (word, parts.any(|part| part.len() >= OPAQUE_WORD))
        }
        Author::Remote => {
            let (word, _) = split_at_first(text, |c| !(is_word(c) || matches!(c, '.' | '+' | '*')));
            (word, word.chars().count() >= OPAQUE_WORD)
        }
    };
    is_opaque.then_some(word)
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

/// Appends a URL, without what stands behind its host if that may grant access.
fn push_url(out: &mut String, url: &str, author: Author) {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    let (authority, path) = split_at_first(rest, |c| matches!(c, '/' | '?' | '#'));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let is_clean = without_secrets(authority, author) == authority;
    let grants_access = match author {
        Author::Own => {
            rest.contains(['?', '#'])
                || rest.contains("://")
                || path
                    .split(|c| !is_word(c))
                    .any(|part| part.eq_ignore_ascii_case("link"))
                || without_secrets(path, author) != path
        }
        Author::Remote => !path.is_empty(),
    };
    if without_secrets(scheme, author) != scheme {
        out.push_str(REDACTED);
        return;
    }
    out.push_str(scheme);
    out.push_str("://");
    out.push_str(if is_clean { host } else { REDACTED });
    if grants_access || !is_clean || host != authority {
        out.push('/');
        out.push_str(REDACTED);
    } else {
        out.push_str(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 300;

    fn remote(text: &str) -> String {
        remote_text(text, "", LIMIT)
    }

    /// What both functions make of a text.
    const ALIKE: [(&str, &str); 32] = [
        (
            "nothing to hide: task-list, ask_me, sk-",
            "nothing to hide: task-list, ask_me, sk-",
        ),
        ("Invalid API key: ak_abcdef", "Invalid API key: ak_…"),
        ("Invalid API key: ak_live_123", "Invalid API key: ak_…"),
        ("keys uak_12345, oak_12345.", "keys uak_…, oak_…"),
        ("short ones: ak_1, lk_.x, ln_1/2", "short ones: ak_…, lk_…, ln_…"),
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
        ("ak_12345/Bearer abc", "ak_…Bearer …"),
        ("https://ak_12345/x", "https://…/…"),
        ("token expired", "token expired"),
        ("redirectUrl: https://x.test/plain", "redirectUrl: …"),
        (
            "https://connect.composio.dev/link/lk_abcdef",
            "https://connect.composio.dev/…",
        ),
        (
            "open https://connect.composio.dev/link/lk_abc now",
            "open https://connect.composio.dev/… now",
        ),
        (
            "see connect.composio.dev/link/lk_abc",
            "see connect.composio.dev/link/lk_…",
        ),
        ("(http://127.0.0.1:8080/link/x)", "(http://127.0.0.1:8080/…)"),
        ("http://[::1]:8080/link/x;y", "http://[::1]:8080/…"),
        ("https://u:p@host.test/x", "https://host.test/…"),
        ("HTTPS://user:pass@host/x?y", "HTTPS://host/…"),
        ("https://host.test/s/lk_abcdef", "https://host.test/…"),
        ("https://host.test/s;token=abc", "https://host.test/…"),
        (
            "https://www.reddit.com/authorize?state=1&x=2 y",
            "https://www.reddit.com/… y",
        ),
        ("https://x.dev", "https://x.dev"),
        (
            "use POST /api/v3/connected_accounts/link",
            "use POST /api/v3/connected_accounts/link",
        ),
        (
            "Alias \"alice-1\" is already in use",
            "Alias \"alice-1\" is already in use",
        ),
        ("käse ak_ä1234 ö", "käse ak_… ö"),
        ("a\nb\u{7}c", "a b c"),
    ];

    #[test]
    fn credentials_are_taken_out_and_the_rest_is_kept() {
        for (text, want) in ALIKE {
            assert_eq!(redact(text), want, "{text}");
            assert_eq!(remote(text), want, "{text}");
        }
        let token = "x".repeat(OPAQUE_WORD);
        for clean in [redact, remote] {
            assert_eq!(clean(&format!("bearing a_{token}!")), "bearing …!");
        }
    }

    #[test]
    fn text_of_the_remote_side_is_trusted_less() {
        let url = "GET https://api.test/v3/tools failed";
        assert_eq!(redact(url), url);
        assert_eq!(remote(url), "GET https://api.test/… failed");
        let name_behind_url = "https://h/;password: abc";
        assert_eq!(redact(name_behind_url), "https://h/;password: …");
        assert_eq!(remote(name_behind_url), "https://h/…password: …");
        let name = "GITHUB_CREATE_A_FINE_GRAINED_PERSONAL_ACCESS_LIST";
        assert_eq!(redact(name), name);
        assert_eq!(remote(name), "…");
        assert_eq!(remote_text("key topsecret.", "topsecret", LIMIT), "key ….");
        assert_eq!(remote_text("a key", "a", LIMIT), "a key");
    }

    #[test]
    fn a_log_line_keeps_its_form() {
        let line = "\u{1b}[32mINFO\u{1b}[0m ak_secret\n";
        assert_eq!(log_line(line), "\u{1b}[32mINFO\u{1b}[0m ak_…\n");
        let json = r#"{"message":"bad token:","url":"https://h/?x","password":"p"}"#;
        let want = r#"{"message":"bad token:","url":"https://h/…","password":"…"}"#;
        assert_eq!(log_line(json), want);
    }

    #[test]
    fn text_is_cut_on_a_character_boundary() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(remote_text(&"wört ".repeat(100), "", 53).chars().count(), 53);
    }

    proptest! {
        #[test]
        fn no_key_survives_whatever_stands_around_it(before in ".{0,20}", key in "[a-z0-9]{12}", after in ".{0,20}") {
            // A separator, because in "xak_…" the prefix is not the beginning of a word.
            let text = format!("{before} ak_{key} {after}");
            prop_assert!(!redact(&text).contains(&key));
            prop_assert!(!remote(&text).contains(&key));
        }

        #[test]
        fn redacting_twice_changes_nothing_more(text in ".{0,60}") {
            let once = redact(&text);
            prop_assert_eq!(redact(&once), once);
        }
    }
}
