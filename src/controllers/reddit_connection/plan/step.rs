//! The steps that a plan may ask for, one at a time.

use jiff::Timestamp;
use strum::IntoStaticStr;

use crate::composio::{Account, AccountStatus};
use crate::controllers::reddit_connection::identity::Identity;
use crate::runtime;

/// One step.
#[derive(Clone, Debug, IntoStaticStr, PartialEq)]
pub enum Step {
    /// Record in status that link number `attempt` is going to be made, before it is made.
    BeginLink {
        /// Number of the attempt, from 1.
        attempt: i64,
        /// Auth config the link will be made with.
        auth_config_id: String,
        /// It takes the place of a link that ran out, and so uses up one of the renewals.
        renewal: bool,
        /// The account that it takes the place of, and the state that account was seen in. If it has moved on since, the
        /// person was quicker, and nothing is begun.
        replaces: Option<(String, AccountStatus)>,
    },
    /// Status was lost: Composio shows an account of a later attempt than status knows.
    RecoverAttempt {
        /// The attempt of that account.
        attempt: i64,
    },
    /// Create the empty Secret, which proves that the link can be stored before one is made.
    PrepareLinkSecret,
    /// Record in status that the link is going to be made now, because the record that it would be is old. Whoever
    /// waits for an account whose creation was not answered counts from there.
    RenewIntent,
    /// Make the link at Composio and store it.
    CreateLink {
        /// Alias of the account.
        alias: String,
        /// Auth config.
        auth_config_id: String,
    },
    /// Record an account found by its alias.
    Adopt {
        /// That account.
        account: Account,
        /// When its link expires, if the link is at hand.
        expires_at: Option<Timestamp>,
        /// The Secret made for its link, if there is one.
        secret_name: Option<String>,
    },
    /// Record in status that no account is left whose creation was not answered.
    EndSearch,
    /// Record in status that the account is going to be disabled, before it is.
    RecordDisabling,
    /// Delete an account at Composio.
    DeleteAccount {
        /// Its id.
        id: String,
        /// Revoke its tokens too.
        revoke: bool,
        /// What it was to this object.
        target: DeletionTarget,
    },
    /// Enable or disable the account at Composio.
    SetEnabled {
        /// Its id.
        id: String,
        /// true: enable.
        enabled: bool,
    },
    /// Delete the Secret that an earlier object of the same name left, for which the garbage collector may take its time, or
    /// an earlier link of this one.
    DeletePreviousSecret,
    /// Delete the Secret with the spent link.
    DeleteLinkSecret,
    /// Begin to ask Reddit, through a Composio tool, who the account is.
    LookUpIdentity {
        /// The account.
        id: String,
        /// It is known who it is; only the credential is proven again.
        again: bool,
    },
    /// Record what a look-up found.
    RecordIdentity {
        /// What it found.
        identity: Identity,
        /// When.
        at: Timestamp,
    },
    /// Read the account right now, because somebody asked for it.
    Refresh {
        /// The account.
        id: String,
    },
}

/// What an account that is to be deleted was to the object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeletionTarget {
    /// The account in status.
    Current,
    /// Left over from an earlier attempt.
    Orphan,
    /// The one that a new link takes the place of, which a list does not show.
    Replaced,
}

impl runtime::Step for Step {
    fn name(&self) -> &'static str {
        self.into()
    }

    fn is_external(&self) -> bool {
        matches!(
            self,
            Self::CreateLink { .. } | Self::DeleteAccount { .. } | Self::SetEnabled { .. }
        )
    }

    fn must_be_recorded(&self) -> bool {
        matches!(self, Self::CreateLink { .. })
    }
}
