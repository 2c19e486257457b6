//! The facts that a decision needs: plain data, gathered by `observe.rs` and read by `plan`.

use jiff::Timestamp;

use crate::api::reddit_connection::{DeletionPolicy, ManagementPolicy, RedditConnection};
use crate::composio::{Account, AuthConfig};
use crate::runtime;
use crate::runtime::failure::Failure;

/// What the alias of every account begins with that this operator makes.
const ALIAS_PREFIX: &str = "composio-operator-";

/// What a decision sees of the object.
pub type View<'a> = runtime::view::View<'a, RedditConnection>;

impl View<'_> {
    /// The account to poll: the one in status, else the one to adopt. An adopted account that was replaced by a link
    /// of our own does not come back.
    pub fn account_id(&self) -> Option<&str> {
        self.status.connected_account_id.as_deref().or_else(|| {
            let not_replaced = self.status.link_attempts == 0;
            self.spec.connected_account_id.as_deref().filter(|_| not_replaced)
        })
    }

    /// Whether the account existed before this object.
    pub fn is_adopted(&self) -> bool {
        self.spec.connected_account_id.is_some()
            && self.spec.connected_account_id.as_deref() == self.account_id()
    }

    /// Whether an account, which status calls this object's own, was made for somebody or something else.
    pub fn is_of_another(&self, account: &Account) -> bool {
        let other_person = !account.user_id.is_empty() && account.user_id != self.spec.user_id;
        let other_object = account
            .alias
            .as_deref()
            .is_some_and(|alias| alias.starts_with(ALIAS_PREFIX) && attempt_of(self.uid, alias).is_none());
        other_person || other_object
    }

    /// Whether the operator may change anything at Composio.
    pub fn is_managed(&self) -> bool {
        self.spec.management_policy == ManagementPolicy::Manage
    }

    /// What deletion of the object does.
    pub fn deletion_policy(&self) -> DeletionPolicy {
        if !self.is_managed() {
            return DeletionPolicy::Retain;
        }
        self.spec.deletion_policy.unwrap_or(if self.is_adopted() {
            DeletionPolicy::Retain
        } else {
            DeletionPolicy::Delete
        })
    }

    /// Name of the Secret that holds the link.
    pub fn link_secret_name(&self) -> String {
        format!("{}-link", self.name)
    }
}

/// Alias of the account made by attempt `attempt` for the object with this uid. Composio keeps aliases unique per
/// person and toolkit, so a repeated create with the same alias is refused instead of making a second account.
pub fn alias(uid: &str, attempt: i64) -> String {
    format!("{}{attempt}", alias_prefix(uid))
}

/// The attempt an alias was made by; None if it is not one of this object's.
pub fn attempt_of(uid: &str, alias: &str) -> Option<i64> {
    alias
        .strip_prefix(&alias_prefix(uid))?
        .parse()
        .ok()
        .filter(|attempt| *attempt > 0)
}

fn alias_prefix(uid: &str) -> String {
    format!("{ALIAS_PREFIX}{uid}-")
}

/// The facts of one reconcile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The account of [`View::account_id`].
    pub account: AccountView,
    /// Polling the account keeps failing; `account` is the newest that is known.
    pub poll_failure: Option<Failure>,
    /// Every Reddit account of the person. None: not asked for.
    pub user_accounts: Option<Vec<Account>>,
    /// Every auth config of the toolkit. None: not asked for.
    pub auth_configs: Option<Vec<AuthConfig>>,
    /// The Secret for the link. None: not asked for.
    pub link_secret: Option<LinkSecret>,
}

/// What is known of the account.
#[expect(
    clippy::large_enum_variant,
    reason = "a reconcile holds one at a time; a box would only be in the way"
)]
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AccountView {
    /// There is no account to poll.
    #[default]
    None,
    /// It was not polled yet since the operator started.
    Unknown,
    /// Composio shows it.
    Found(Account),
    /// Composio says that it does not exist (any more).
    NotFound,
}

/// The Secret that holds the link.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkSecret {
    /// Does not exist.
    Absent,
    /// Exists, and belongs to something else.
    NotOwned,
    /// Belonged to an earlier `RedditConnection` of this name, and is about to be garbage-collected.
    PreviousOwner,
    /// Belongs to this object; the account whose link it holds, if it holds one.
    Owned {
        /// Account of the link inside.
        account_id: Option<String>,
        /// When that link expires.
        expires_at: Option<Timestamp>,
    },
}
