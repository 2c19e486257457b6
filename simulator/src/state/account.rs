//! One connected account.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::{EnumString, VariantNames};

use super::lifecycle::{AccountStatus, Lifecycle};
use crate::provider::ProviderMode;

/// Who may use an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, EnumString, VariantNames)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum AccountType {
    /// Its owner alone; the only kind that lists show unless asked otherwise.
    #[default]
    Private,
    /// Others too, by an access list.
    Shared,
}

/// One change of an account's status, or a notable event that left the status alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When, by the simulator's clock.
    pub at: Timestamp,
    /// The status before; absent for the creation.
    pub from: Option<AccountStatus>,
    /// The status after.
    pub to: AccountStatus,
    /// The event in a word or two: `created`, `opened`, `consented`, `denied`, `link expired`, ...
    pub event: String,
}

/// A connected account. No `Debug`: it holds the link token and credentials.
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) uuid: String,
    pub(crate) word_id: String,
    pub(crate) user_id: String,
    pub(crate) toolkit: String,
    pub(crate) auth_config_id: String,
    pub(crate) auth_scheme: String,
    pub(crate) alias: Option<String>,
    pub(crate) callback_url: Option<String>,
    pub(crate) kind: AccountType,
    pub(crate) acl: Option<Value>,
    /// Fields filled in before consent, such as a subdomain.
    pub(crate) initiation: Map<String, Value>,
    /// Secrets from a request or the form. OAuth accounts have none, because the simulator has no tokens.
    pub(crate) credentials: Map<String, Value>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) link_token: Option<String>,
    /// The person's name at the provider, known from consent on.
    pub(crate) username: Option<String>,
    pub(crate) provider: ProviderMode,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    /// Whether the tokens were revoked at the provider.
    pub(crate) revoked_upstream: bool,
    pub(crate) history: Vec<Transition>,
}

impl Account {
    pub(crate) fn status(&self) -> AccountStatus {
        self.lifecycle.status
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }
}

/// What a create call decides about an account.
#[derive(Default)]
pub(crate) struct NewAccount {
    pub(crate) user_id: String,
    pub(crate) toolkit: String,
    pub(crate) auth_config_id: String,
    pub(crate) auth_scheme: String,
    pub(crate) alias: Option<String>,
    pub(crate) callback_url: Option<String>,
    pub(crate) account_type: AccountType,
    pub(crate) acl: Option<Value>,
    pub(crate) initiation: Map<String, Value>,
    /// Present: the account starts ACTIVE and has no link.
    pub(crate) credentials: Option<Map<String, Value>>,
}
