//! Composio's objects as far as the operator needs them. Credentials inside an account are never decoded.

use std::fmt;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;
use strum::{AsRefStr, EnumString};

/// Lifecycle state of a connected account. `ACTIVE` says that the flow completed and a credential is stored, not that
/// the provider still accepts it.
#[derive(AsRefStr, Clone, Debug, EnumString, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "UPPERCASE")]
pub enum AccountStatus {
    /// The account exists; its user has not opened the link.
    Initializing,
    /// The user opened the link and has not consented yet.
    Initiated,
    /// Named by older documentation for what is now initializing or initiated.
    Pending,
    /// The user consented and a credential is stored.
    Active,
    /// Disabled through the API or the dashboard; can be enabled again.
    Inactive,
    /// Consent was denied, or the exchange with the provider failed.
    Failed,
    /// The link was not used in time, or the credential can no longer be refreshed: the status reason tells which.
    Expired,
    /// The tokens were revoked through Composio.
    Revoked,
    /// A value that this version does not know, verbatim.
    #[strum(default, transparent)]
    Other(String),
}

impl AccountStatus {
    /// Whether a person still has to finish the hosted flow.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self, Self::Initializing | Self::Initiated | Self::Pending)
    }

    /// The values that the list endpoint accepts as a filter. They are always sent: what the endpoint shows without a
    /// filter is not documented.
    pub(super) const LISTED: &'static str = "INITIALIZING,INITIATED,ACTIVE,FAILED,EXPIRED,INACTIVE,REVOKED";

    /// The value as Composio spells it.
    pub(crate) fn as_str(&self) -> &str {
        self.as_ref()
    }
}

/// One connected account. A text field that Composio left out is empty: unknown, not wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `ca_…`; unique, case-sensitive, may begin or end with `-` or `_` behind the prefix.
    pub id: String,
    /// Slug of the toolkit, in lower case, for example `reddit`.
    pub toolkit: String,
    /// Id of the auth config that the account was made with.
    pub auth_config_id: String,
    /// The auth config is disabled: the account cannot be used although it may read `ACTIVE`.
    pub auth_config_disabled: bool,
    /// Owner of the account, in the words of whoever created it.
    pub user_id: String,
    /// Lifecycle state.
    pub status: AccountStatus,
    /// Why the status is what it is, verbatim.
    pub status_reason: Option<String>,
    /// Name given at creation, unique per user and toolkit.
    pub alias: Option<String>,
    /// The account is disabled.
    pub is_disabled: bool,
    /// When the account was created.
    pub created_at: Option<Timestamp>,
    /// When the account last changed.
    pub updated_at: Option<Timestamp>,
}

impl Account {
    /// Whether followers of the account have no reason to act on `other`. Timestamps do not count: they change without
    /// consequence.
    pub(super) fn same_for_followers(&self, other: &Self) -> bool {
        // Taken apart without `..` so that a new field has to be judged here.
        let Self {
            id,
            toolkit,
            auth_config_id,
            auth_config_disabled,
            user_id,
            status,
            status_reason,
            alias,
            is_disabled,
            created_at: _,
            updated_at: _,
        } = self;
        *id == other.id
            && *toolkit == other.toolkit
            && *auth_config_id == other.auth_config_id
            && *auth_config_disabled == other.auth_config_disabled
            && *user_id == other.user_id
            && *status == other.status
            && *status_reason == other.status_reason
            && *alias == other.alias
            && *is_disabled == other.is_disabled
    }
}

/// Which accounts to list; an empty list does not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountQuery {
    /// Owners.
    pub user_ids: Vec<String>,
    /// Account ids.
    pub ids: Vec<String>,
    /// Toolkit slugs.
    pub toolkits: Vec<String>,
}

/// The blueprint that accounts of one toolkit are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// `ac_…`.
    pub id: String,
    /// Display name; not unique.
    pub name: String,
    /// Slug of the toolkit.
    pub toolkit: String,
    /// New accounts can be made with it.
    pub enabled: bool,
    /// Composio's own OAuth app is used instead of the customer's.
    pub is_composio_managed: Option<bool>,
    /// For example `OAUTH2`.
    pub auth_scheme: Option<String>,
}

/// Asks for a new account and the link that its user completes it with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LinkRequest {
    /// Auth config to use.
    pub auth_config_id: String,
    /// Owner of the new account.
    pub user_id: String,
    /// Name of the new account, unique per user and toolkit: what makes a repeated request fail instead of making a twin.
    pub alias: String,
    /// Where the browser goes afterwards.
    pub callback_url: Option<String>,
}

impl fmt::Debug for LinkRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkRequest")
            .field("auth_config_id", &self.auth_config_id)
            .field("user_id", &self.user_id)
            .field("alias", &self.alias)
            // Its query belongs to the application and may hold a login token.
            .field("callback_url", &self.callback_url.as_ref().map(|_| "…"))
            .finish()
    }
}

/// A new account and its link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Id of the account; it exists from now on and does not change when the user consents.
    pub connected_account_id: String,
    /// The page to open. Whoever completes it attaches their own account: hand it to one person, never log it.
    pub redirect_url: SecretString,
    /// When the link stops working.
    pub expires_at: Option<Timestamp>,
}

/// What a deletion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The account existed and is now deleted.
    Deleted,
    /// The account was deleted before, or never existed.
    AlreadyGone,
}

/// One tool call.
#[derive(Clone, PartialEq)]
pub(crate) struct ExecuteRequest {
    /// Owner of the account; Composio refuses an account id without its owner.
    pub user_id: String,
    /// Account to act with.
    pub connected_account_id: String,
    /// Arguments of the tool, a JSON object.
    pub arguments: Value,
    /// Version of the toolkit, `YYYYMMDD_NN` or `latest`; outputs change shape between versions.
    pub version: String,
}

impl fmt::Debug for ExecuteRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecuteRequest")
            .field("user_id", &self.user_id)
            .field("connected_account_id", &self.connected_account_id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What a tool answered. A tool that failed is an answer too: `successful` is false and `error` says why.
#[derive(Clone, PartialEq)]
pub struct ToolResult {
    /// Output of the tool.
    pub data: Value,
    /// Why the tool failed, in the provider's words, without keys and links.
    pub error: Option<String>,
    /// The provider did what was asked.
    pub successful: bool,
    /// Composio's log entry of this call.
    pub log_id: Option<String>,
}

impl fmt::Debug for ToolResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolResult")
            .field("successful", &self.successful)
            .field("error", &self.error)
            .field("log_id", &self.log_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_kept_verbatim() {
        let listed = AccountStatus::LISTED.split(',');
        for value in listed.chain(["PENDING", "HIBERNATING", "active", ""]) {
            assert_eq!(AccountStatus::from(value).as_str(), value);
        }
        assert_eq!(
            AccountStatus::from("HIBERNATING"),
            AccountStatus::Other("HIBERNATING".to_owned())
        );
    }

    #[test]
    fn debug_output_holds_no_payload() {
        let link = LinkRequest {
            auth_config_id: "ac".into(),
            user_id: "u".into(),
            alias: "a".into(),
            callback_url: Some("https://app/cb?token=hush".into()),
        };
        let call = ExecuteRequest {
            user_id: "u".into(),
            connected_account_id: "ca".into(),
            arguments: serde_json::json!({"text": "hush"}),
            version: "latest".into(),
        };
        let result = ToolResult {
            data: serde_json::json!({"text": "hush"}),
            error: None,
            successful: true,
            log_id: None,
        };
        let made = Link {
            connected_account_id: "ca".into(),
            redirect_url: "https://connect/hush".into(),
            expires_at: None,
        };
        let shown = format!("{link:?} {call:?} {result:?} {made:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }
}
