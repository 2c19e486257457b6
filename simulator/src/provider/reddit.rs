//! Reddit, as far as identity goes: profiles, preferences, scopes and username checks.
//!
//! A user's data derives from the name alone, so the same person looks the same in every run.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Actor, Execution, Outcome, ProviderMode};

/// Longest name Reddit allows.
const LONGEST_NAME: usize = 20;

/// The Reddit name of a person who did not choose one: the user id reduced to what Reddit allows.
pub(crate) fn username_for(user_id: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String = user_id.chars().filter(allowed).take(LONGEST_NAME).collect();
    if name.len() < 3 {
        format!("user_{name}")
    } else {
        name
    }
}

/// Whether Reddit would allow the name.
pub(crate) fn is_username(name: &str) -> bool {
    (3..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

pub(super) fn run(execution: &Execution<'_>) -> Outcome {
    let Some(actor) = &execution.actor else {
        return Outcome::NotSimulated;
    };
    if let Some(failure) = unreachable(actor) {
        return failure;
    }
    match execution.tool.slug.as_str() {
        "REDDIT_GET_REDDIT_USER_ABOUT" => about(execution, actor),
        "REDDIT_GET_ME_PREFS" => Outcome::Done(preferences(execution.text("fields"))),
        "REDDIT_GET_SCOPES" => Outcome::Done(scopes(execution.text("scopes"))),
        "REDDIT_GET_USERNAME_AVAILABLE" => {
            let name = execution.text("user").unwrap_or_default();
            let taken = name.eq_ignore_ascii_case(&actor.username) || execution.other_user_exists;
            Outcome::Done(json!({"available": is_username(name) && !taken}))
        }
        _ => Outcome::NotSimulated,
    }
}

/// The failure of every call for an account in that mode, if it is one.
pub(crate) fn unreachable(actor: &Actor) -> Option<Outcome> {
    match actor.mode {
        ProviderMode::RevokedAtProvider => Some(Outcome::http_error(
            401,
            "Unauthorized",
            "https://oauth.reddit.com/",
            &json!({"message": "Unauthorized", "error": 401, "reason": "invalid_grant"}),
        )),
        ProviderMode::Down => Some(Outcome::http_error(
            503,
            "Service Unavailable",
            "https://oauth.reddit.com/",
            &json!("<html><head><title>Ow! -- reddit.com</title></head></html>"),
        )),
        ProviderMode::Ok | ProviderMode::Suspended | ProviderMode::Slow { .. } => None,
    }
}

/// `GET /api/v1/me`: the flat profile of the person the account belongs to.
pub(crate) fn me(actor: &Actor) -> Value {
    if actor.mode == ProviderMode::Suspended {
        return json!({"name": actor.username, "is_suspended": true});
    }
    let mut profile = profile(&actor.username);
    if let Some(profile) = profile.as_object_mut() {
        profile.insert("inbox_count".to_owned(), json!(0));
        profile.insert("over_18".to_owned(), json!(false));
        profile.insert("is_suspended".to_owned(), json!(false));
    }
    profile
}

fn about(execution: &Execution<'_>, actor: &Actor) -> Outcome {
    let name = execution.text("username").unwrap_or_default();
    if name.eq_ignore_ascii_case("me") || name.eq_ignore_ascii_case(&actor.username) {
        return Outcome::Done(json!({"kind": "t2", "data": me(actor)}));
    }
    if execution.other_user_exists {
        return Outcome::Done(json!({"kind": "t2", "data": profile(name)}));
    }
    Outcome::http_error(
        404,
        "Not Found",
        &format!("https://oauth.reddit.com/user/{name}/about"),
        &json!({"message": "Not Found", "error": 404}),
    )
}

fn profile(name: &str) -> Value {
    let digest = Sha256::digest(name.to_lowercase().as_bytes());
    let number = |from: usize| {
        digest[from..from + 4]
            .iter()
            .fold(0_u32, |sum, &byte| (sum << 8) | u32::from(byte))
    };
    let (link_karma, comment_karma) = (number(0) % 20_000, number(4) % 80_000);
    // Between June 2010 and roughly 2026.
    let created = f64::from(1_276_000_000 + number(8) % 470_000_000);
    let id = base36(u64::from(number(12)) + 36_u64.pow(6));
    // Reddit escapes `&` in JSON unless asked not to.
    let icon = format!(
        "https://styles.redditmedia.com/t5_{id}/styles/profileIcon_snoo.png?width=256&amp;height=256&amp;crop=256:256,smart&amp;s={:08x}",
        number(16)
    );
    json!({
        "id": id,
        "name": name,
        "icon_img": icon,
        "snoovatar_img": "",
        "subreddit": {
            "display_name": format!("u_{name}"),
            "display_name_prefixed": format!("u/{name}"),
            "url": format!("/user/{name}/"),
            "title": "",
            "icon_img": icon,
            "subreddit_type": "user",
            "over_18": false,
        },
        "created": created,
        "created_utc": created,
        "link_karma": link_karma,
        "comment_karma": comment_karma,
        "total_karma": link_karma + comment_karma,
        "has_verified_email": true,
        "is_employee": false,
        "is_mod": false,
        "is_gold": false,
        "verified": true,
        "accept_followers": true,
    })
}

fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = Vec::new();
    loop {
        // Below 36, so it fits any integer.
        digits.push(char::from(
            DIGITS[usize::try_from(number % 36).unwrap_or_default()],
        ));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

fn preferences(fields: Option<&str>) -> Value {
    let all = json!({
        "lang": "en", "over_18": false, "numsites": 25, "nightmode": true, "threaded_messages": true,
        "hide_downs": false, "email_messages": false, "default_comment_sort": "confidence", "country_code": "US",
    });
    select(all, fields)
}

fn scopes(wanted: Option<&str>) -> Value {
    let scope = |id: &str, description: &str| json!({"id": id, "name": id, "description": description});
    let all = json!({
        "identity": scope("identity", "Access my reddit username and signup date."),
        "read": scope("read", "Access posts and comments through my account."),
        "submit": scope("submit", "Submit links and comments from my account."),
        "edit": scope("edit", "Edit and delete my comments and submissions."),
        "history": scope("history", "Access my voting history and comments or submissions I've saved or hidden."),
        "mysubreddits": scope("mysubreddits", "Access the list of subreddits I moderate, contribute to, and subscribe to."),
        "flair": scope("flair", "Select my subreddit flair. Change link flair on my submissions."),
        "vote": scope("vote", "Submit and change my votes on comments and submissions."),
    });
    select(all, wanted)
}

/// The entries of an object that a comma-separated list names; all of them without a list.
fn select(mut all: Value, wanted: Option<&str>) -> Value {
    if let (Some(wanted), Some(map)) = (wanted, all.as_object_mut()) {
        map.retain(|key, _| wanted.split(',').any(|name| name.trim() == key));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_derive_from_user_ids() {
        for (user_id, expected) in [
            ("user_123", "user_123"),
            ("default/alice@example.com/0000", "defaultaliceexamplec"),
            ("é", "user_"),
            ("a", "user_a"),
        ] {
            assert_eq!(username_for(user_id), expected);
            assert!(is_username(expected));
        }
        assert!(!is_username("ab") && !is_username("white space") && !is_username(&"x".repeat(21)));
    }
}
