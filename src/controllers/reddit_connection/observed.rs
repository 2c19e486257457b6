//! What a decision needs to know: plain data, gathered by `observe.rs`, judged by `plan.rs`.

use std::borrow::Cow;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::reddit_connection::{
    DeletionPolicy, FINALIZER, ManagementPolicy, RedditConnection, RedditConnectionSpec,
    RedditConnectionStatus,
};
use crate::api::{RetryStatus, request_token};
use crate::composio::{Account, AuthConfig};
use crate::controllers::failure::Failure;
use crate::controllers::retry;

/// What the alias of every account begins with that this operator makes.
const ALIAS_PREFIX: &str = "composio-operator-";

/// The object itself, reduced to what decisions read.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Our finalizer is on the object.
    pub has_finalizer: bool,
    /// Token of the request annotation.
    pub requested_at: Option<Cow<'a, str>>,
    /// What is asked for.
    pub spec: &'a RedditConnectionSpec,
    /// What was known after the last pass.
    pub status: &'a RedditConnectionStatus,
}

static NO_STATUS: std::sync::LazyLock<RedditConnectionStatus> = std::sync::LazyLock::new(Default::default);

impl<'a> From<&'a RedditConnection> for Subject<'a> {
    fn from(object: &'a RedditConnection) -> Self {
        Self {
            name: object.metadata.name.as_deref().unwrap_or_default(),
            uid: object.metadata.uid.as_deref().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            has_finalizer: object.finalizers().iter().any(|f| f == FINALIZER),
            requested_at: request_token(object),
            spec: &object.spec,
            status: object.status.as_ref().unwrap_or(&NO_STATUS),
        }
    }
}

impl Subject<'_> {
    /// The account to look at: the one in status, else the one to adopt. An adopted account that was replaced by a link
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

    /// A request token that was not acted on yet.
    pub fn open_request(&self) -> Option<&str> {
        self.requested_at
            .as_deref()
            .filter(|token| self.status.last_handled_request_at.as_deref() != Some(token))
    }

    /// The failure on record, as long as spec and request are the ones it happened with. Deletion counts as a change
    /// of the spec: Kubernetes raises the generation for it.
    pub fn standing_failure(&self) -> Option<&RetryStatus> {
        let unchanged =
            self.open_request().is_none() && self.status.observed_generation == Some(self.generation);
        self.status.retry.as_ref().filter(|_| unchanged)
    }

    /// Whether it is too early to try again.
    pub fn is_backing_off(&self, now: Timestamp) -> bool {
        retry::is_early(self.standing_failure(), now)
    }

    /// Seed for jitter: the same for the same object.
    pub fn seed(&self) -> u64 {
        retry::seed(self.uid)
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

/// The remote and local facts of one pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Why the observation is incomplete.
    pub failure: Option<Failure>,
    /// The account of [`Subject::account_id`].
    pub account: AccountView,
    /// Looking at the account keeps failing; `account` is what was seen before.
    pub trouble: Option<Failure>,
    /// Every Reddit account of the person. None: not asked.
    pub inventory: Option<Vec<Account>>,
    /// Every auth config of the toolkit. None: not asked.
    pub auth_configs: Option<Vec<AuthConfig>>,
    /// The Secret for the link. None: not asked.
    pub link_secret: Option<LinkSecret>,
}

/// What is known of the account.
#[expect(
    clippy::large_enum_variant,
    reason = "a pass holds one at a time; boxes would only be in the reader's way"
)]
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AccountView {
    /// There is no account to look at.
    #[default]
    None,
    /// Not looked at yet since the operator started.
    Unseen,
    /// Composio shows it.
    Found(Account),
    /// Composio says that it does not exist (any more).
    Gone,
}

/// The Secret that holds the link.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkSecret {
    /// Does not exist.
    Absent,
    /// Exists, and belongs to something else.
    Foreign,
    /// Belonged to an earlier `RedditConnection` of this name, and is about to be garbage-collected.
    Leftover,
    /// Ours; the account whose link it holds, if it holds one.
    Ours {
        /// Account of the link inside.
        account_id: Option<String>,
        /// When that link expires.
        expires_at: Option<Timestamp>,
    },
}
