//! Where a connection stands, and what each place means for state and conditions: one table.

use crate::api::conditions::{self, Truth};
use crate::api::reddit_connection::{ConnectionState, RedditConnectionStatus, USABLE};
use crate::controllers::failure::{Class, Failure};

/// Reason of `Usable=False` when Reddit or Composio rejects the credential.
pub const CREDENTIAL_REJECTED: &str = "CredentialRejected";

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Nothing new is known: status stays as it is.
    Keep,
    /// A failure is on record and it is too early to try again: status stays as it is.
    BackingOff,
    /// Work is suspended.
    Suspended,
    /// The object is going away.
    Deleting,
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
    Connected {
        /// Reddit user name, once known.
        display_name: Option<String>,
    },
    /// ACTIVE, but not known yet whether as the expected user.
    VerifyingIdentity {
        /// Who has to connect.
        expected: String,
    },
    /// ACTIVE, but Reddit rejects the credential.
    CredentialRejected,
    /// Disabled, as the spec asks.
    Disabled,
    /// Disabled by somebody else.
    DisabledElsewhere {
        /// Whether the operator may enable it again.
        managed: bool,
    },
    /// Tokens revoked.
    Revoked,
    /// Composio knows no such account (any more).
    Gone {
        /// Whether the operator may make another.
        managed: bool,
    },
    /// Consent was denied or its exchange failed.
    ConsentFailed,
    /// Nobody used the link in time, and the renewals are used up.
    LinkExpired,
    /// The link was lost before anybody opened it, and the renewals are used up.
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
    /// Looking at the account keeps failing.
    Trouble(Failure),
    /// Something else failed.
    Failed(Failure),
}

/// The part of the status that follows from the phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// New state; None keeps the old one.
    pub state: Option<ConnectionState>,
    /// Value of `Ready`.
    pub ready: Truth,
    /// `Reconciling` is True.
    pub reconciling: bool,
    /// `Stalled` is True.
    pub stalled: bool,
    /// Value of `Connected`; None keeps the old one.
    pub connected: Option<Truth>,
    /// `ReauthRequired`; None keeps the old one.
    pub reauth: Option<bool>,
    /// Reason of all of these.
    pub reason: &'static str,
    /// Message of all of these.
    pub message: String,
}

const ASK_FOR_LINK: &str =
    "annotate the object with composio-operator.dev/requested-at=<any new value> to get a new link";

const ASK_ITS_OWNER: &str =
    "this object only observes the account: whoever manages it has to connect it again";

impl Phase {
    /// The state this phase stands for, if it says anything about it.
    pub fn state(&self) -> Option<ConnectionState> {
        match self {
            Self::CreatingLink | Self::AwaitingConsent { .. } => Some(ConnectionState::Pending),
            Self::Connected { .. } | Self::VerifyingIdentity { .. } | Self::CredentialRejected => {
                Some(ConnectionState::Connected)
            }
            Self::Disabled | Self::DisabledElsewhere { .. } | Self::Revoked | Self::Gone { .. } => {
                Some(ConnectionState::Disconnected)
            }
            Self::ConsentFailed
            | Self::LinkExpired
            | Self::LinkLost
            | Self::CredentialExpired
            | Self::IdentityMismatch { .. }
            | Self::Refused(_) => Some(ConnectionState::Error),
            Self::Keep
            | Self::BackingOff
            | Self::Suspended
            | Self::Deleting
            | Self::UnknownStatus(_)
            | Self::Trouble(_)
            | Self::Failed(_) => None,
        }
    }

    /// Whether the last identity look-up found the credential dead.
    pub fn is_credential_rejected(status: &RedditConnectionStatus) -> bool {
        conditions::find(&status.conditions, USABLE).is_some_and(|c| c.reason == CREDENTIAL_REJECTED)
    }

    #[expect(clippy::too_many_lines, reason = "one table, a row a phase")]
    /// What the phase means for an object whose account the operator may change, or may not. None: nothing changes.
    pub fn verdict(&self, old: &RedditConnectionStatus, managed: bool) -> Option<Verdict> {
        let verdict = match self {
            Self::Keep | Self::BackingOff => return None,
            Self::Suspended => {
                let was_ready = conditions::is_true(&old.conditions, conditions::READY);
                Verdict {
                    ready: if was_ready { Truth::True } else { Truth::False },
                    connected: None,
                    reauth: None,
                    ..self.resting("Suspended", "spec.suspend is true: nothing is done until it is false")
                }
            }
            Self::Deleting => {
                Verdict { connected: None, reauth: None, ..self.working("Deleting", "the account is being cleaned up") }
            }
            Self::CreatingLink => self.working("CreatingLink", "a link is being made"),
            Self::AwaitingConsent { opened: true, .. } => {
                self.working("AwaitingConsent", "the link was opened; waiting for the consent at Reddit")
            }
            Self::AwaitingConsent { opened: false, secret } => self.working(
                "AwaitingConsent",
                match secret {
                    Some(name) => format!("waiting for a person to open the link in Secret {name}, key url"),
                    None => "waiting for a person to open the link in status.link.redirectUrl".to_owned(),
                },
            ),
            Self::Connected { display_name } => Verdict {
                ready: Truth::True,
                connected: Some(Truth::True),
                ..self.resting(
                    "Connected",
                    match display_name {
                        Some(name) => format!("connected as {name}"),
                        None => "connected".to_owned(),
                    },
                )
            },
            Self::VerifyingIdentity { expected } => Verdict {
                connected: Some(Truth::True),
                ..self.working(
                    "VerifyingIdentity",
                    format!("connected; not known yet whether as {expected}, as spec.expectedUsername asks"),
                )
            },
            Self::CredentialRejected => Verdict {
                connected: Some(Truth::True),
                ..self.needs_reauth(managed, CREDENTIAL_REJECTED,
                    "Composio lists the account as ACTIVE, but the provider rejects its credential",
                )
            },
            Self::Disabled => {
                Verdict { ready: Truth::True, ..self.resting("Disabled", "disabled, as spec.enabled asks") }
            }
            Self::DisabledElsewhere { managed } => self.stuck(
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
            Self::Revoked => self.needs_reauth(managed, "Revoked", "the account's tokens were revoked"),
            Self::Gone { managed: true } => self.needs_reauth(managed, "AccountNotFound", "the account does not exist at Composio"),
            Self::Gone { managed: false } => self.stuck(
                "AccountNotFound",
                "the account does not exist at Composio, or not in the API key's project; correct the key, or delete this object and create one with another connectedAccountId",
            ),
            Self::ConsentFailed => {
                self.needs_reauth(managed, "ConsentFailed", "the consent was denied, or Reddit's answer could not be redeemed")
            }
            Self::LinkExpired => {
                self.needs_reauth(managed, "LinkExpired", "nobody used the link in time, and spec.link.renewals are used up")
            }
            Self::LinkLost => {
                self.needs_reauth(managed, "LinkLost", "the Secret with the link is gone, and spec.link.renewals are used up")
            }
            Self::CredentialExpired => {
                self.needs_reauth(managed, "CredentialExpired", "the credential expired and could not be refreshed")
            }
            Self::IdentityMismatch { expected, actual } => self.needs_reauth(managed, "IdentityMismatch",
                format!("connected as {actual}, but spec.expectedUsername is {expected}; the account is not used; correct \
                         expectedUsername if {actual} is right"),
            ),
            Self::Refused(failure) => self.stuck(failure.reason.as_str(), failure.message.clone()),
            Self::UnknownStatus(value) => Verdict {
                ready: Truth::Unknown,
                connected: Some(Truth::Unknown),
                reauth: None,
                ..self.resting(
                    "UnknownProviderStatus",
                    format!("Composio reports status {value:?}, which this version of the operator does not know"),
                )
            },
            Self::Trouble(failure) | Self::Failed(failure) => Verdict {
                connected: None,
                reauth: None,
                state: old.state.is_none().then_some(match failure.class {
                    Class::Stalled => ConnectionState::Error,
                    Class::Waiting | Class::Transient => ConnectionState::Pending,
                }),
                ..match failure.class {
                    Class::Stalled => self.stuck(failure.reason.as_str(), failure.message.clone()),
                    Class::Waiting | Class::Transient => {
                        self.working(failure.reason.as_str(), failure.message.clone())
                    }
                }
            },
        };
        Some(verdict)
    }

    /// Nothing is under way and nobody has to act.
    fn resting(&self, reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict {
            state: self.state(),
            ready: Truth::False,
            reconciling: false,
            stalled: false,
            connected: Some(Truth::False),
            reauth: Some(false),
            reason,
            message: message.into(),
        }
    }

    fn working(&self, reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict {
            reconciling: true,
            ..self.resting(reason, message)
        }
    }

    fn stuck(&self, reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict {
            stalled: true,
            ..self.resting(reason, message)
        }
    }

    fn needs_reauth(&self, managed: bool, reason: &'static str, message: impl std::fmt::Display) -> Verdict {
        Verdict {
            reauth: Some(true),
            ..self.stuck(
                reason,
                format!(
                    "{message}; {}",
                    if managed { ASK_FOR_LINK } else { ASK_ITS_OWNER }
                ),
            )
        }
    }
}
