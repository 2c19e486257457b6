//! Decodes Composio's JSON leniently: fields may be missing, null, unknown, or numbers written as text. Decoding fails only
//! where a field is missing that the operator cannot do without.

mod broken_page;
mod catalogue;
mod error_body;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

pub(super) use self::catalogue::{tool_item, toolkit, toolkit_item};
pub(super) use self::error_body::error_body;
use super::model::{Account, AccountStatus, AuthConfig, Link, ToolResult};

/// Why a body could not be decoded. Never contains a part of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// What is wrong.
    pub message: String,
    /// The body ends early: another attempt may bring the whole.
    pub truncated: bool,
}

impl Unreadable {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            truncated: false,
        }
    }
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        // Serde's own text quotes the offending value, which may be a credential.
        let kind = match error.classify() {
            serde_json::error::Category::Eof => "the JSON ends early",
            serde_json::error::Category::Syntax => "it is not JSON",
            serde_json::error::Category::Data | serde_json::error::Category::Io => {
                "it is not the object that was expected"
            }
        };
        Self {
            message: format!("{kind} (line {}, column {})", error.line(), error.column()),
            truncated: error.is_eof(),
        }
    }
}

/// Decodes an object. Serde itself would also accept an array of the fields in order.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unreadable> {
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Unreadable::new("it is an array instead of an object"));
    }
    Ok(serde_json::from_slice(body)?)
}

/// Reads an object of a list.
fn item<'a, T: Deserialize<'a>>(item: &'a RawValue) -> Result<T, Skipped> {
    object(item.get().as_bytes()).map_err(|_| Skipped::default())
}

/// One page of a list; its items are decoded one by one, so that one bad item does not hide the others.
pub(super) struct Page<'a> {
    pub items: Vec<&'a RawValue>,
    /// Items beside these that are not JSON.
    pub unreadable: usize,
    pub next_cursor: Option<String>,
    pub total_items: Option<u64>,
}

#[derive(Deserialize)]
struct PageWire<'a> {
    // Required: an answer without items is not an empty list.
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    #[serde(default)]
    next_cursor: Value,
    #[serde(default)]
    total_items: Value,
}

pub(super) fn page(body: &[u8]) -> Result<Page<'_>, Unreadable> {
    let wire: PageWire<'_> = match object(body) {
        Ok(wire) => wire,
        Err(unreadable) => return broken_page::broken_page(body).ok_or(unreadable),
    };
    Ok(Page {
        items: wire.items,
        unreadable: 0,
        next_cursor: text(&wire.next_cursor),
        total_items: count(&wire.total_items),
    })
}

/// What can be said about a list item that could not be decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Id of the object, if that much was readable.
    pub id: Option<String>,
    /// Its owner, if that much was readable.
    pub user_id: Option<String>,
}

#[derive(Deserialize)]
struct AccountWire {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    toolkit: Value,
    #[serde(default)]
    auth_config: Value,
    #[serde(default)]
    user_id: Value,
    #[serde(default)]
    status: Value,
    #[serde(default)]
    status_reason: Value,
    #[serde(default)]
    alias: Value,
    #[serde(default)]
    is_disabled: Value,
    #[serde(default)]
    created_at: Value,
    #[serde(default)]
    updated_at: Value,
}

impl AccountWire {
    fn into_account(self) -> Result<Account, Skipped> {
        let user_id = text(&self.user_id);
        let (Some(id), Some(status)) = (text(&self.id), text(&self.status)) else {
            return Err(Skipped {
                id: text(&self.id),
                user_id,
            });
        };
        Ok(Account {
            id,
            toolkit: slug(&self.toolkit),
            auth_config_id: text(&self.auth_config["id"]).unwrap_or_default(),
            auth_config_disabled: flag(&self.auth_config["is_disabled"]).unwrap_or(false),
            user_id: user_id.unwrap_or_default(),
            status: AccountStatus::from(status.as_str()),
            status_reason: text(&self.status_reason),
            alias: text(&self.alias),
            is_disabled: flag(&self.is_disabled).unwrap_or(false),
            created_at: time(&self.created_at),
            updated_at: time(&self.updated_at),
        })
    }
}

pub(super) fn account_item(item: &RawValue) -> Result<Account, Skipped> {
    self::item::<AccountWire>(item)?.into_account()
}

pub(super) fn account(body: &[u8]) -> Result<Account, Unreadable> {
    object::<AccountWire>(body)?
        .into_account()
        .map_err(|_| Unreadable::new("the account has no id or no status"))
}

#[derive(Deserialize)]
struct AuthConfigWire {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    toolkit: Value,
    #[serde(default)]
    status: Value,
    #[serde(default)]
    is_composio_managed: Value,
    #[serde(default)]
    auth_scheme: Value,
}

pub(super) fn auth_config_item(item: &RawValue) -> Result<AuthConfig, Skipped> {
    let wire: AuthConfigWire = self::item(item)?;
    Ok(AuthConfig {
        id: text(&wire.id).ok_or_else(Skipped::default)?,
        name: text(&wire.name).unwrap_or_default(),
        toolkit: slug(&wire.toolkit),
        // A config that says nothing about its status can be tried; an unknown status cannot be trusted.
        enabled: text(&wire.status).is_none_or(|status| status == "ENABLED"),
        is_composio_managed: flag(&wire.is_composio_managed),
        auth_scheme: text(&wire.auth_scheme),
    })
}

pub(super) fn link(body: &[u8]) -> Result<Link, Unreadable> {
    #[derive(Deserialize)]
    struct LinkWire {
        #[serde(default)]
        connected_account_id: Value,
        #[serde(default)]
        redirect_url: Value,
        #[serde(default)]
        expires_at: Value,
    }
    let wire: LinkWire = object(body)?;
    Ok(Link {
        connected_account_id: text(&wire.connected_account_id)
            .ok_or_else(|| Unreadable::new("the link has no connected_account_id"))?,
        redirect_url: text(&wire.redirect_url)
            .ok_or_else(|| Unreadable::new("the link has no redirect_url"))?
            .into(),
        expires_at: time(&wire.expires_at),
    })
}

pub(super) fn tool_result(body: &[u8]) -> Result<ToolResult, Unreadable> {
    #[derive(Deserialize)]
    struct ResultWire {
        #[serde(default)]
        data: Value,
        #[serde(default)]
        error: Value,
        #[serde(default)]
        successful: Value,
        #[serde(default)]
        log_id: Value,
    }
    let wire: ResultWire = object(body)?;
    let error = match &wire.error {
        Value::Null => None,
        Value::String(error) => Some(error.clone()).filter(|error| !error.is_empty()),
        other => Some(text(&other["message"]).unwrap_or_else(|| other.to_string())),
    };
    Ok(ToolResult {
        successful: flag(&wire.successful)
            .ok_or_else(|| Unreadable::new("the result does not say whether it was successful"))?,
        data: wire.data,
        error,
        log_id: text(&wire.log_id),
    })
}

/// Whether a mutation was carried out; an answer that does not say so succeeded by its status.
pub(super) fn success(body: &[u8]) -> Result<bool, Unreadable> {
    #[derive(Deserialize)]
    struct Success {
        #[serde(default)]
        success: Value,
    }
    if body.trim_ascii().is_empty() {
        return Ok(true);
    }
    Ok(flag(&object::<Success>(body)?.success).unwrap_or(true))
}

/// A non-empty string; numbers are written out, whole ones without a fraction.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(_) => Some(count(value).map_or_else(|| value.to_string(), |whole| whole.to_string())),
        _ => None,
    }
}

/// A count, whether written as `2`, `2.0` or `"2"`.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.parse().ok().or_else(|| whole(text.parse().ok()?)),
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be whole and in range"
)]
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
}

fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Value::Number(_) => count(value).map(|number| number != 0),
        _ => None,
    }
}

fn slug(toolkit: &Value) -> String {
    text(&toolkit["slug"])
        .or_else(|| text(toolkit))
        .unwrap_or_default()
}

/// A moment; one without an offset is UTC, as the rest of the API is.
fn time(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    text.parse().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    #[test]
    fn a_documented_account_is_read_without_its_credentials() {
        let read = account_item(&raw(&json!({
            "id": "ca_-l3FzWqTw58L", "toolkit": {"slug": "reddit"},
            "auth_config": {"id": "ac_1", "auth_scheme": "OAUTH2", "is_composio_managed": true, "is_disabled": false},
            "user_id": "user_123", "status": "ACTIVE", "status_reason": null, "alias": "one", "word_id": "reddit_red",
            "is_disabled": false, "state": {"authScheme": "OAUTH2", "val": {"access_token": "hush"}},
            "data": {"access_token": "hush"}, "created_at": "2026-09-01T10:00:00.000Z",
            "updated_at": "2026-09-01T12:00:00+02:00", "brand_new_field": [1]
        })))
        .unwrap();
        assert_eq!(read.id, "ca_-l3FzWqTw58L");
        assert_eq!(read.toolkit, "reddit");
        assert_eq!(read.auth_config_id, "ac_1");
        assert_eq!(read.status, AccountStatus::Active);
        assert_eq!(read.alias.as_deref(), Some("one"));
        assert_eq!(read.created_at, read.updated_at);
        assert!(!format!("{read:?}").contains("hush"));
    }

    #[test]
    fn missing_null_and_oddly_typed_fields_do_not_hide_an_account() {
        let read = account_item(&raw(&json!({
            "id": "ca_1", "toolkit": "reddit", "auth_config": null, "user_id": 42.0, "status": "HIBERNATING",
            "alias": "", "is_disabled": "true", "created_at": "2026-09-01T10:00:00", "updated_at": 5
        })))
        .unwrap();
        assert_eq!(read.toolkit, "reddit");
        assert_eq!(read.auth_config_id, "");
        assert_eq!(read.user_id, "42");
        assert_eq!(read.status.as_str(), "HIBERNATING");
        assert_eq!(read.alias, None);
        assert!(read.is_disabled);
        assert_eq!(read.created_at, Some("2026-09-01T10:00:00Z".parse().unwrap()));
        assert_eq!(read.updated_at, None);
    }

    #[test]
    fn an_account_without_id_or_status_is_skipped_but_attributed() {
        let skipped =
            account_item(&raw(&json!({"id": "ca_1", "user_id": "u", "status": {"x": 1}}))).unwrap_err();
        assert_eq!(
            skipped,
            Skipped {
                id: Some("ca_1".into()),
                user_id: Some("u".into())
            }
        );
        for nonsense in [json!("nonsense"), json!(["ca_1", {}, {}, "u", "ACTIVE"])] {
            assert_eq!(account_item(&raw(&nonsense)).unwrap_err(), Skipped::default());
        }
        assert!(account(b"{\"id\":\"ca_1\"}").is_err());
    }

    #[test]
    fn a_page_needs_its_items_and_tolerates_odd_numbers() {
        let read = page(br#"{"items":[{"a":1},null],"next_cursor":"","total_items":2.0,"total_pages":1.0}"#)
            .unwrap();
        assert_eq!(
            (read.items.len(), read.next_cursor, read.total_items),
            (2, None, Some(2))
        );
        for bad in [&br#"{"items":null}"#[..], b"[]", b" [[]]"] {
            assert!(page(bad).is_err());
        }
        assert!(page(br#"{"total_items":0}"#).is_err());
        assert!(
            page(br#"{"items":[{"a":"#)
                .err()
                .is_some_and(|error| error.truncated)
        );
    }

    #[test]
    fn decode_errors_do_not_quote_the_body() {
        let error = serde_json::from_str::<u64>("\"hush\"").unwrap_err();
        assert!(
            error.to_string().contains("hush"),
            "the reason for our own wording"
        );
        assert!(!Unreadable::from(error).message.contains("hush"));
    }

    #[test]
    fn tool_results_report_failure_as_an_answer() {
        let failed =
            tool_result(br#"{"data":{},"error":{"message":"invalid_grant"},"successful":false}"#).unwrap();
        assert_eq!(
            (failed.successful, failed.error.as_deref()),
            (false, Some("invalid_grant"))
        );
        let good =
            tool_result(br#"{"data":{"name":"a"},"error":null,"successful":true,"log_id":"log_1"}"#).unwrap();
        assert_eq!(
            (good.successful, good.error, good.log_id.as_deref()),
            (true, None, Some("log_1"))
        );
        assert!(tool_result(br#"{"data":{}}"#).is_err());
    }

    #[test]
    fn links_need_an_id_and_an_address() {
        assert!(
            link(br#"{"connected_account_id":"ca_1","redirect_url":"https://x/lk_1","expires_at":null}"#)
                .is_ok()
        );
        for bad in [
            &br#"{"redirect_url":"https://x/lk_1"}"#[..],
            br#"{"connected_account_id":"ca_1"}"#,
            b"[]",
        ] {
            assert!(!link(bad).unwrap_err().message.contains("lk_1"));
        }
    }

    #[test]
    fn only_an_explicit_false_is_a_refusal() {
        for (body, expected) in [(&b"{}"[..], true), (b"", true), (b"{\"success\":true}", true)] {
            assert_eq!(success(body), Ok(expected));
        }
        assert_eq!(success(b"{\"success\":false}"), Ok(false));
        assert!(success(b"<html>").is_err());
    }
}
