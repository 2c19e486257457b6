//! The facts that a decision needs: plain data, gathered by `observe.rs` and read by `plan`.

use std::time::Duration;

use jiff::Timestamp;

use super::identity::Identity;
use super::plan::{DeletionTarget, Step};
use super::status::Effect;
use crate::api::conditions::{self, READY, Truth};
use crate::api::reddit_connection::{ApiKeyStatus, DeletionPolicy, ManagementPolicy, RedditConnection};
use crate::composio::{Account, AuthConfig, Priority};
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

    /// Whether an account was made for this object: by the operator, and not adopted.
    pub fn is_own(&self) -> bool {
        self.is_managed() && !self.is_adopted()
    }

    /// How urgent it is to make a link: nobody waits for one in the place of another that nobody used.
    pub fn link_priority(&self) -> Priority {
        if self.status.link_renewals > 0 && self.pending_request().is_none() {
            Priority::Renewal
        } else {
            Priority::Interactive
        }
    }

    /// Whether the operator keeps, or kept, the link in the Secret.
    pub fn has_link_secret(&self) -> bool {
        let link = self.status.link.as_ref();
        link.is_some_and(|link| link.secret_name.is_some())
    }

    /// Whether this spec was found to be carried out by leaving everything disabled.
    pub fn is_settled_without_account(&self) -> bool {
        conditions::find(&self.status.conditions, READY).is_some_and(|ready| {
            ready.reason == "Disabled"
                && ready.status == Truth::True.as_str()
                && ready.observed_generation == Some(self.generation)
        })
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
    /// The API key that all of this was seen with.
    pub api_key: Option<ApiKeyStatus>,
    /// Looking up whom the account belongs to.
    pub look_up: LookUp,
    /// When proofs of a credential are due.
    pub proofs: Proofs,
}

impl Observed {
    /// Whether the account in status was last seen with another API key, whose project may be another one too.
    pub fn key_differs(&self, seen_with: Option<&ApiKeyStatus>) -> bool {
        let fingerprint = |key: &ApiKeyStatus| key.fingerprint.clone();
        match (seen_with, &self.api_key) {
            (Some(then), Some(now)) => fingerprint(then) != fingerprint(now),
            _ => false,
        }
    }
}

impl Observed {
    /// The facts after a step towards a link, which nobody else takes. None if they have to be gathered again.
    pub fn after(mut self, step: &Step, effect: &Effect) -> Option<Self> {
        let is_complete = self.auth_configs.is_some() && self.link_secret.is_some();
        let user_accounts = self.user_accounts.as_mut().filter(|_| is_complete)?;
        match (step, effect) {
            (Step::BeginLink { .. }, Effect::Begun { .. }) => self.account = AccountView::None,
            (Step::RenewIntent, _) => {}
            (Step::PrepareLinkSecret, _) => {
                self.link_secret = Some(LinkSecret::Owned {
                    account_id: None,
                    expires_at: None,
                });
            }
            (Step::DeletePreviousSecret, _) => self.link_secret = Some(LinkSecret::Absent),
            (Step::DeleteAccount { id, target, .. }, _) if *target != DeletionTarget::Current => {
                user_accounts.retain(|account| account.id != *id);
            }
            _ => return None,
        }
        Some(self)
    }
}

/// An identity look-up, which runs beside the reconciles.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LookUp {
    /// There is none, and there was none since the operator started.
    #[default]
    None,
    /// There are so many of others that one has to wait.
    NoRoom {
        /// When the last one ended that brought no news.
        ended: Option<Timestamp>,
    },
    /// It is under way.
    Running,
    /// It ended, and what it found was not looked at yet.
    Found {
        /// What it found.
        identity: Identity,
        /// When.
        at: Timestamp,
    },
    /// It ended at this time, and brought no news.
    Ended(Timestamp),
}

/// When the credential of a connected account is proven again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proofs {
    /// Time between two proofs.
    pub interval: Duration,
    /// When this operator started. Proofs that were due before are spread over an interval from then on.
    pub since: Timestamp,
}

impl Default for Proofs {
    fn default() -> Self {
        Self {
            interval: Duration::from_hours(1),
            since: Timestamp::MIN,
        }
    }
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
