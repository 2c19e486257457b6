//! Where a connection stands, and what each phase means for state and conditions: one table.

use crate::api::conditions::{self, Truth};
use crate::api::reddit_connection::{
    CONNECTED, ConnectionState, REAUTH_REQUIRED, RedditConnectionStatus, USABLE,
};
use crate::runtime;
use crate::runtime::failure::{Class, Failure};

/// Reason of `Usable=False` when Reddit or Composio rejects the credential.
pub const CREDENTIAL_REJECTED: &str = "CredentialRejected";

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// A link is being made.
    CreatingLink,
    /// A person has to finish the link.
    AwaitingConsent {
        /// They have opened it.
        opened: bool,
        /// Secret the link is in.
        secret: Option<String>,
    },
    /// ACTIVE, and nobody says otherwise.
    Connected,
    /// ACTIVE, but not known yet whether as the expected user.
    VerifyingIdentity {
        /// Who has to connect.
        expected: String,
        /// That has not been known for too long.
        overdue: bool,
    },
    /// The auth config of the account is disabled at Composio, so that no tool runs.
    AuthConfigDisabled {
        /// Its id.
        id: Option<String>,
    },
    /// ACTIVE, but Reddit rejects the credential.
    CredentialRejected,
    /// On the way to there: whether an account exists is not sure yet.
    Disabling,
    /// Disabled, as the spec asks.
    Disabled,
    /// Disabled by somebody else.
    DisabledElsewhere {
        /// Whether the operator may enable it again.
        managed: bool,
    },
    /// Tokens revoked.
    Revoked,
    /// The account does not exist at Composio (any more).
    NotFound {
        /// Whether the operator may make another.
        managed: bool,
        /// The account was last seen with another API key.
        key_differs: bool,
    },
    /// Consent was denied or its exchange failed.
    ConsentFailed,
    /// Nobody opened a link in time, and the renewals are used up.
    LinkExpired,
    /// Links were opened, the consent was not finished in time, and the renewals are used up.
    ConsentTimedOut {
        /// How many were opened.
        opened: i64,
    },
    /// The link was lost, and the renewals are used up.
    LinkLost,
    /// The credential cannot be refreshed any more.
    CredentialExpired,
    /// Another Reddit user than the expected one connected.
    IdentityMismatch {
        /// Who has to connect.
        expected: String,
        /// Who did.
        actual: String,
    },
    /// The account must not be used for this object.
    Refused(Failure),
    /// Composio reports a status this operator does not know.
    UnknownStatus(String),
    /// Polling the account keeps failing.
    PollingFailed(Failure),
}

/// What a phase means for state and conditions.
pub type Summary = runtime::summary::Summary<ConnectionState>;

const ASK_FOR_LINK: &str =
    "annotate the object with composio-operator.dev/requested-at=<any new value> to get a new link";

const ASK_ITS_OWNER: &str =
    "this object only observes the account: whoever manages it has to connect it again";

impl runtime::Phase for Phase {
    fn failure(&self) -> Option<Failure> {
        match self {
            Self::PollingFailed(failure) => Some(failure.clone()),
            _ => None,
        }
    }

    /// The poller tries again by itself.
    fn is_retried(&self) -> bool {
        !matches!(self, Self::PollingFailed(_))
    }
}

impl Phase {
    /// What the phase means. `managed`: the operator may change the account. `status` tells who is connected, and what the
    /// state was before.
    pub fn summary(&self, status: &RedditConnectionStatus, managed: bool) -> Summary {
        let mut summary = self.in_words(status, managed);
        summary.state = match self {
            Self::PollingFailed(failure) => failed_state(status, failure.class),
            _ => self.state(),
        };
        if let Some(connected) = self.connected() {
            summary = summary.with(CONNECTED, connected, "");
        }
        match self {
            Self::UnknownStatus(_) | Self::PollingFailed(_) => summary,
            _ if self.needs_consent() => {
                let message = summary.message.clone();
                summary.with(REAUTH_REQUIRED, Truth::True, message)
            }
            _ => summary.with(REAUTH_REQUIRED, Truth::False, ""),
        }
    }

    fn state(&self) -> Option<ConnectionState> {
        match self {
            Self::CreatingLink | Self::AwaitingConsent { .. } => Some(ConnectionState::Pending),
            Self::Connected | Self::VerifyingIdentity { .. } | Self::CredentialRejected => {
                Some(ConnectionState::Connected)
            }
            Self::Disabling
            | Self::Disabled
            | Self::DisabledElsewhere { .. }
            | Self::Revoked
            | Self::NotFound { .. } => Some(ConnectionState::Disconnected),
            Self::ConsentFailed
            | Self::LinkExpired
            | Self::ConsentTimedOut { .. }
            | Self::LinkLost
            | Self::CredentialExpired
            | Self::IdentityMismatch { .. }
            | Self::Refused(_) => Some(ConnectionState::Error),
            Self::UnknownStatus(_) | Self::PollingFailed(_) | Self::AuthConfigDisabled { .. } => None,
        }
    }

    /// Value of `Connected`; None keeps the old one.
    fn connected(&self) -> Option<Truth> {
        match self {
            Self::Connected | Self::VerifyingIdentity { .. } | Self::CredentialRejected => Some(Truth::True),
            Self::UnknownStatus(_) => Some(Truth::Unknown),
            Self::PollingFailed(_) | Self::AuthConfigDisabled { .. } => None,
            _ => Some(Truth::False),
        }
    }

    /// Whether the person has to consent again.
    fn needs_consent(&self) -> bool {
        matches!(
            self,
            Self::CredentialRejected
                | Self::Revoked
                | Self::NotFound { managed: true, .. }
                | Self::ConsentFailed
                | Self::LinkExpired
                | Self::ConsentTimedOut { .. }
                | Self::LinkLost
                | Self::CredentialExpired
                | Self::IdentityMismatch { .. }
        )
    }

    #[expect(clippy::too_many_lines, reason = "one table")]
    fn in_words(&self, status: &RedditConnectionStatus, managed: bool) -> Summary {
        let ask = if managed { ASK_FOR_LINK } else { ASK_ITS_OWNER };
        match self {
            Self::CreatingLink => Summary::reconciling("CreatingLink", "a link is being made"),
            Self::AwaitingConsent { opened: true, .. } => Summary::reconciling(
                "AwaitingConsent",
                "the link was opened; waiting for the consent at Reddit",
            ),
            Self::AwaitingConsent {
                opened: false,
                secret,
            } => Summary::reconciling(
                "AwaitingConsent",
                match secret {
                    Some(name) => format!("waiting for a person to open the link in Secret {name}, key url"),
                    None => "waiting for a person to open the link in status.link.redirectUrl".to_owned(),
                },
            ),
            Self::Connected => Summary::ready(
                "Connected",
                match &status.display_name {
                    Some(name) => format!("connected as {name}"),
                    None => "connected".to_owned(),
                },
            ),
            Self::VerifyingIdentity {
                expected,
                overdue: false,
            } => Summary::reconciling(
                "VerifyingIdentity",
                format!("connected; not known yet whether as {expected}, as spec.expectedUsername asks"),
            ),
            Self::VerifyingIdentity {
                expected,
                overdue: true,
            } => Summary::stalled(
                "IdentityUnverified",
                format!(
                    "connected, but Reddit does not say whether as {expected}, as spec.expectedUsername asks: do not use \
                     the account; the operator keeps asking, and status.identity.lastError says what fails"
                ),
            ),
            Self::AuthConfigDisabled { id } => Summary::stalled(
                "AuthConfigDisabled",
                format!(
                    "the auth config {} is disabled at Composio, so that no tool runs with this account; enable it there",
                    id.as_deref().unwrap_or("of the account")
                ),
            ),
            Self::CredentialRejected => Summary::stalled(
                CREDENTIAL_REJECTED,
                format!(
                    "Composio lists the account as ACTIVE, but the provider rejects its credential; {ask}"
                ),
            ),
            Self::Disabling => Summary::reconciling(
                "Disabling",
                "making sure that no account of this object is in use, as spec.enabled asks",
            ),
            Self::Disabled => Summary::ready("Disabled", "disabled, as spec.enabled asks"),
            Self::DisabledElsewhere { managed } => Summary::stalled(
                "DisabledAtComposio",
                format!(
                    "the account was disabled at Composio; {}",
                    if *managed {
                        "annotate the object with composio-operator.dev/requested-at=<any new value> to enable it"
                    } else {
                        "enable it there"
                    }
                ),
            ),
            Self::Revoked => Summary::stalled("Revoked", format!("the account's tokens were revoked; {ask}")),
            Self::NotFound {
                key_differs: true, ..
            } => Summary::stalled(
                "AccountNotFound",
                format!(
                    "the project of the API key does not have the account, which was last seen with another key; put that \
                     key back, or go on in this project: {ask}"
                ),
            ),
            Self::NotFound { managed: true, .. } => Summary::stalled(
                "AccountNotFound",
                format!("the account does not exist at Composio; {ask}"),
            ),
            Self::NotFound { managed: false, .. } => Summary::stalled(
                "AccountNotFound",
                "the account does not exist at Composio, or not in the API key's project; correct the key, or delete this \
                 object and create one with another connectedAccountId",
            ),
            Self::ConsentFailed => Summary::stalled(
                "ConsentFailed",
                format!("the consent was denied, or Reddit's answer could not be redeemed; {ask}"),
            ),
            Self::LinkExpired => Summary::stalled(
                "LinkExpired",
                format!("nobody opened the link in time, and spec.link.renewals are used up; {ask}"),
            ),
            Self::ConsentTimedOut { opened } => Summary::stalled(
                "ConsentTimedOut",
                format!(
                    "{opened} of the links were opened, none was finished at Reddit in time, and spec.link.renewals are \
                     used up; {ask}"
                ),
            ),
            Self::LinkLost => Summary::stalled(
                "LinkLost",
                format!("the Secret with the link is gone, and spec.link.renewals are used up; {ask}"),
            ),
            Self::CredentialExpired => Summary::stalled(
                "CredentialExpired",
                format!("the credential expired and could not be refreshed; {ask}"),
            ),
            Self::IdentityMismatch { expected, actual } => Summary::stalled(
                "IdentityMismatch",
                format!(
                    "connected as {actual}, but spec.expectedUsername is {expected}; the account is not used; correct \
                     expectedUsername if {actual} is right; {ask}"
                ),
            ),
            Self::Refused(failure) => Summary::stalled(failure.reason.as_str(), failure.message.clone()),
            Self::UnknownStatus(value) => Summary {
                ready: Truth::Unknown,
                ..Summary::idle(
                    "UnknownProviderStatus",
                    format!(
                        "Composio reports status {value:?}, which this version of the operator does not know"
                    ),
                )
            },
            Self::PollingFailed(failure) => Summary::failure(failure),
        }
    }
}

/// Whether the last identity look-up found that the credential does not work any more.
pub fn is_credential_rejected(status: &RedditConnectionStatus) -> bool {
    conditions::find(&status.conditions, USABLE).is_some_and(|c| c.reason == CREDENTIAL_REJECTED)
}

/// The state after a failure: it stays, but for an object that has none yet.
pub fn failed_state(status: &RedditConnectionStatus, class: Class) -> Option<ConnectionState> {
    status.state.is_none().then_some(match class {
        Class::Stalled => ConnectionState::Error,
        Class::Waiting | Class::Transient => ConnectionState::Pending,
    })
}
