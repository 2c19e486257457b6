//! Reads who an account is from the answer of Reddit's user tool. Best effort: shapes differ between tool versions.

use serde_json::Value;

use crate::api::conditions::truncated;
use crate::composio::ToolResult;

/// Tool that answers with the account of a Reddit user.
pub const TOOL: &str = "REDDIT_GET_REDDIT_USER_ABOUT";
/// User name that stands for the connected account itself.
pub const MYSELF: &str = "me";

/// Words in a tool's error that say the credential itself is dead. Composio keeps such an account ACTIVE; its own
/// command line client tells these cases apart by the same words.
const DEAD_CREDENTIAL_WORDS: [&str; 10] = [
    "account_inactive",
    "expired_token",
    "invalid_auth",
    "invalid_client",
    "invalid_grant",
    "invalid_token",
    "not_authed",
    "token_expired",
    "token_revoked",
    "unauthorized_client",
];

/// Phrases with the same meaning.
const DEAD_CREDENTIAL_PHRASES: [&str; 3] = [
    "bad credentials",
    "invalidauthenticationtoken",
    "token has been expired or revoked",
];

/// Longest user name that is kept, in bytes. Reddit's own limit is 20.
const MAX_NAME: usize = 128;
/// Longest address of a picture that is kept, in bytes.
const MAX_URL: usize = 1024;

/// Outcome of one look-up.
#[derive(Clone, Debug, PartialEq)]
pub enum Identity {
    /// Who it is.
    Known {
        /// Reddit user name.
        display_name: String,
        /// Profile picture, if there is one.
        avatar_url: Option<String>,
    },
    /// The credential does not work any more.
    Rejected {
        /// What Reddit said.
        message: String,
    },
    /// Not known this time.
    Unknown {
        /// Why.
        message: String,
    },
}

/// Address of a user's profile.
pub fn profile_url(display_name: &str) -> String {
    format!("https://www.reddit.com/user/{display_name}")
}

/// Reads the answer of [`TOOL`].
pub fn read(result: &ToolResult) -> Identity {
    if !result.successful || result.error.is_some() {
        let message = result
            .error
            .clone()
            .unwrap_or_else(|| "the tool failed without saying why".to_owned());
        return if is_dead_credential(&message) {
            Identity::Rejected { message }
        } else {
            Identity::Unknown { message }
        };
    }
    match find_user(&result.data) {
        Some(user) => Identity::Known {
            display_name: truncated(user["name"].as_str().unwrap_or_default(), MAX_NAME).to_owned(),
            avatar_url: ["snoovatar_img", "icon_img"]
                .iter()
                .filter_map(|field| user[*field].as_str())
                .map(unescape)
                .find(|url| url.starts_with("https://") || url.starts_with("http://"))
                .filter(|url| url.len() <= MAX_URL),
        },
        None => Identity::Unknown {
            message: "the tool's answer holds no user name".to_owned(),
        },
    }
}

/// Whether an error text says that the credential is dead.
pub fn is_dead_credential(error: &str) -> bool {
    let error = error.to_lowercase();
    let is_word_part = |c: char| c.is_alphanumeric() || c == '_';
    error
        .split(|c| !is_word_part(c))
        .any(|word| DEAD_CREDENTIAL_WORDS.contains(&word))
        || DEAD_CREDENTIAL_PHRASES
            .iter()
            .any(|phrase| error.contains(phrase))
}

/// Descends through wrappers named `data` or `response_data` until an object has a name.
fn find_user(mut value: &Value) -> Option<&Value> {
    for _ in 0..5 {
        if value["name"].as_str().is_some_and(|name| !name.is_empty()) {
            return Some(value);
        }
        value = ["data", "response_data"]
            .iter()
            .map(|key| &value[*key])
            .find(|inner| inner.is_object())?;
    }
    None
}

/// Reddit escapes ampersands in addresses.
fn unescape(url: &str) -> String {
    url.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ok(data: Value) -> ToolResult {
        ToolResult {
            data,
            error: None,
            successful: true,
            log_id: None,
        }
    }

    fn failed(error: &str) -> ToolResult {
        ToolResult {
            data: Value::Null,
            error: Some(error.to_owned()),
            successful: false,
            log_id: None,
        }
    }

    #[test]
    fn the_user_is_found_at_every_known_depth() {
        let user =
            json!({"name": "alice", "icon_img": "https://i.redd.it/a.png?w=1&amp;s=2", "snoovatar_img": ""});
        let expected = Identity::Known {
            display_name: "alice".into(),
            avatar_url: Some("https://i.redd.it/a.png?w=1&s=2".into()),
        };
        for data in [
            user.clone(),
            json!({"data": user}),
            json!({"kind": "t2", "data": user}),
            json!({"data": {"kind": "t2", "data": user}}),
            json!({"response_data": {"data": user}}),
        ] {
            assert_eq!(read(&ok(data)), expected);
        }
    }

    #[test]
    fn a_snoovatar_is_preferred_and_a_missing_picture_is_no_failure() {
        let with = |avatar: Value| match read(&ok(
            json!({"name": "a", "snoovatar_img": avatar, "icon_img": "https://i/x"}),
        )) {
            Identity::Known { avatar_url, .. } => avatar_url,
            other => panic!("{other:?}"),
        };
        assert_eq!(with(json!("https://s/y")).as_deref(), Some("https://s/y"));
        assert_eq!(with(json!("")).as_deref(), Some("https://i/x"));
        assert_eq!(with(json!("javascript:alert(1)")).as_deref(), Some("https://i/x"));
        let suspended = read(&ok(json!({"data": {"name": "b", "is_suspended": true}})));
        assert_eq!(
            suspended,
            Identity::Known {
                display_name: "b".into(),
                avatar_url: None
            }
        );
    }

    #[test]
    fn only_whole_words_condemn_a_credential() {
        for dead in [
            "401 invalid_grant",
            "error: TOKEN_REVOKED.",
            "Bad credentials",
            "(invalid_token)",
        ] {
            assert!(matches!(read(&failed(dead)), Identity::Rejected { .. }), "{dead}");
        }
        for alive in [
            "503 Service Unavailable",
            "invalid_grants",
            "rate limited",
            "my_invalid_token_list",
        ] {
            assert!(
                matches!(read(&failed(alive)), Identity::Unknown { .. }),
                "{alive}"
            );
        }
    }

    #[test]
    fn an_unreadable_answer_is_unknown() {
        for data in [
            json!(null),
            json!([]),
            json!({"data": []}),
            json!({"name": ""}),
            json!("x"),
            json!({"name": 7}),
        ] {
            assert!(matches!(read(&ok(data)), Identity::Unknown { .. }));
        }
    }
}
