//! The life of a connected account as a state machine without side effects.
//!
//! ```text
//! INITIALIZING ─opened→ INITIATED ─consented→ ACTIVE ⇄ INACTIVE      ACTIVE ─revoked→ REVOKED
//!       └────────────────┴─denied→ FAILED       └─refresh failed→ EXPIRED
//!       └────────────────┴─600 s─→ EXPIRED      any ─restarted→ INITIATED (the deprecated refresh call)
//! ```

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

/// How long a hosted link and the account that waits for it live.
pub(crate) const LINK_LIFETIME: SignedDuration = SignedDuration::from_mins(10);

/// `status_reason` of an account whose link was not completed in time.
pub(crate) const REASON_LINK_EXPIRED: &str = "Connection initiation did not complete within 10 minutes";
/// `status_reason` of an account whose credential can no longer be refreshed.
pub(crate) const REASON_REFRESH_FAILED: &str = "Permanent auth error during token refresh";
/// `status_reason` after the status call switched an account off or on.
pub(crate) const REASON_BY_USER: &str = "Connection status updated by user";
/// `status_reason` of a working account whose auth config is switched off.
pub(crate) const REASON_CONFIG_DISABLED: &str = "Auth config is disabled";
/// `status_reason` of an account whose person declined, or whose code exchange failed.
pub(crate) const REASON_CALLBACK_FAILED: &str = "OAuth callback failed during token exchange";
/// `status_reason` after the revoke call.
pub(crate) const REASON_REVOKED_BY_CALL: &str = "Revoked via user-initiated revoke endpoint";
/// `status_reason` after a revocation by an administrator, which the control API's `revoke` stands for.
pub(crate) const REASON_REVOKED_BY_ADMIN: &str = "Revoked via admin tool";
/// `status_reason` of accounts revoked because they, or their auth config, were deleted with `revoke_on_delete`.
pub(crate) const REASON_REVOKED_BY_DELETE: &str = "Revoked as part of connection delete";

/// The complete set of statuses. There is no PENDING, although old documents name one.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum AccountStatus {
    /// The row and its hosted page exist; the page was not opened yet.
    Initializing,
    /// The page was opened; consent is outstanding.
    Initiated,
    /// A credential is stored, which may or may not still work.
    Active,
    /// Consent was declined or the code exchange failed.
    Failed,
    /// Ten minutes passed without consent, or the credential can no longer be refreshed.
    Expired,
    /// Switched off by call; can be switched on again.
    Inactive,
    /// The tokens were revoked through Composio.
    Revoked,
}

impl AccountStatus {
    /// Consent is still outstanding.
    pub(crate) const fn is_pending(self) -> bool {
        matches!(self, Self::Initializing | Self::Initiated)
    }

    /// Only a new authorization can bring it back.
    pub(crate) const fn is_dead(self) -> bool {
        matches!(self, Self::Failed | Self::Expired | Self::Revoked)
    }
}

/// An event in the life of an account.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Event {
    /// A person opened the hosted page.
    Opened,
    /// The person agreed, or entered a secret.
    Consented,
    /// The person declined.
    Denied,
    /// The link's ten minutes are over.
    #[strum(serialize = "link expired")]
    LinkExpired,
    /// The status call with `enabled: true`. `revive`: also brings back dead accounts (an assumption).
    Enabled { revive: bool },
    /// The status call with `enabled: false`.
    Disabled,
    /// The deprecated refresh call began another authorization.
    Restarted,
    /// The tokens were revoked through Composio, for the reason given.
    Revoked { reason: &'static str },
    /// Composio gave up refreshing the token.
    #[strum(serialize = "refresh failed")]
    RefreshFailed,
}

/// The event does not apply to an account in this status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an account that is {status} cannot be {event}")]
pub struct Refusal {
    /// The account's status when it happened.
    pub status: AccountStatus,
    /// What was tried.
    pub event: &'static str,
}

/// The part of an account that events change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    pub(crate) status: AccountStatus,
    pub(crate) reason: Option<&'static str>,
    /// When the outstanding consent runs out; set exactly while the account is pending.
    pub(crate) deadline: Option<Timestamp>,
    /// OAuth error code of a failed authorization.
    pub(crate) error: Option<&'static str>,
    pub(crate) expired_at: Option<Timestamp>,
}

impl Lifecycle {
    /// A new account that waits for a person.
    pub(crate) fn waiting(now: Timestamp) -> Self {
        Self {
            deadline: Some(deadline(now)),
            ..Self::without_deadline(AccountStatus::Initializing, None)
        }
    }

    /// A new account that was created together with its credential.
    pub(crate) fn ready() -> Self {
        Self::without_deadline(AccountStatus::Active, None)
    }

    fn without_deadline(status: AccountStatus, reason: Option<&'static str>) -> Self {
        Self {
            status,
            reason,
            deadline: None,
            error: None,
            expired_at: None,
        }
    }

    /// The account after `event`, or `None` where the event changes nothing.
    pub(crate) fn after(&self, event: &Event, now: Timestamp) -> Result<Option<Self>, Refusal> {
        use AccountStatus::{Active, Expired, Failed, Inactive, Initializing, Initiated, Revoked};
        let next = match (event, self.status) {
            (Event::Opened, Initializing) => Self {
                status: Initiated,
                ..self.clone()
            },
            (Event::Consented, Initializing | Initiated) => Self::without_deadline(Active, None),
            (Event::Denied, Initializing | Initiated) => Self {
                error: Some("access_denied"),
                ..Self::without_deadline(Failed, Some(REASON_CALLBACK_FAILED))
            },
            (Event::LinkExpired, Initializing | Initiated) => Self {
                expired_at: Some(now),
                ..Self::without_deadline(Expired, Some(REASON_LINK_EXPIRED))
            },
            (Event::Enabled { .. }, Inactive)
            | (Event::Enabled { revive: true }, Failed | Expired | Revoked) => {
                Self::without_deadline(Active, Some(REASON_BY_USER))
            }
            (Event::Disabled, Active) => Self::without_deadline(Inactive, Some(REASON_BY_USER)),
            (Event::Restarted, _) => Self {
                deadline: Some(deadline(now)),
                ..Self::without_deadline(Initiated, None)
            },
            (Event::Revoked { reason }, Active) => Self::without_deadline(Revoked, Some(reason)),
            (Event::RefreshFailed, Active | Inactive) => Self {
                expired_at: Some(now),
                ..Self::without_deadline(Expired, Some(REASON_REFRESH_FAILED))
            },
            (Event::Opened, Initiated)
            | (Event::Enabled { .. }, Active)
            | (Event::Disabled, Inactive)
            | (Event::Revoked { .. }, Revoked)
            | (Event::RefreshFailed, Expired) => return Ok(None),
            (event, status) => {
                return Err(Refusal {
                    status,
                    event: event.into(),
                });
            }
        };
        Ok(Some(next))
    }
}

fn deadline(now: Timestamp) -> Timestamp {
    now.saturating_add(LINK_LIFETIME).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_in_every_status() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        // One column for each status, in the order of the enum: the next status, `same` or `refused`.
        let table = [
            (
                Event::Opened,
                "INITIATED same refused refused refused refused refused",
            ),
            (
                Event::Consented,
                "ACTIVE ACTIVE refused refused refused refused refused",
            ),
            (
                Event::Denied,
                "FAILED FAILED refused refused refused refused refused",
            ),
            (
                Event::LinkExpired,
                "EXPIRED EXPIRED refused refused refused refused refused",
            ),
            (
                Event::Enabled { revive: false },
                "refused refused same refused refused ACTIVE refused",
            ),
            (
                Event::Enabled { revive: true },
                "refused refused same ACTIVE ACTIVE ACTIVE ACTIVE",
            ),
            (
                Event::Disabled,
                "refused refused INACTIVE refused refused same refused",
            ),
            (
                Event::Restarted,
                "INITIATED INITIATED INITIATED INITIATED INITIATED INITIATED INITIATED",
            ),
            (
                Event::Revoked {
                    reason: REASON_REVOKED_BY_CALL,
                },
                "refused refused REVOKED refused refused refused same",
            ),
            (
                Event::RefreshFailed,
                "refused refused EXPIRED refused same EXPIRED refused",
            ),
        ];
        for (event, row) in table {
            let expected: Vec<_> = row.split(' ').collect();
            assert_eq!(expected.len(), AccountStatus::VARIANTS.len());
            for (status, expected) in AccountStatus::VARIANTS.iter().zip(expected) {
                let status: AccountStatus = status.parse().unwrap();
                let before = Lifecycle {
                    deadline: status.is_pending().then(|| at(600)),
                    ..Lifecycle::without_deadline(status, None)
                };
                let outcome = match before.after(&event, at(5)) {
                    Ok(Some(next)) => {
                        assert_eq!(next.deadline.is_some(), next.status.is_pending());
                        next.status.into()
                    }
                    Ok(None) => "same",
                    Err(_) => "refused",
                };
                assert_eq!(outcome, expected, "{status:?} + {event:?}");
            }
        }
    }
}
