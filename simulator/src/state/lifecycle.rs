//! The life of a connected account as a pure state machine: status, reason and deadline in, the same out.
//!
//! ```text
//! INITIALIZING ─opened→ INITIATED ─consented→ ACTIVE ⇄ INACTIVE      ACTIVE ─revoked→ REVOKED
//!       └────────────────┴─denied→ FAILED       └─refresh failed→ EXPIRED
//!       └────────────────┴─600 s─→ EXPIRED      any ─restarted→ INITIATED (the deprecated refresh call)
//! ```

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long a hosted link and the account that waits for it live.
pub const LINK_LIFETIME: SignedDuration = SignedDuration::from_mins(10);

/// `status_reason` of an account whose link nobody completed in time.
pub const REASON_LINK_EXPIRED: &str = "Connection initiation did not complete within 10 minutes";
/// `status_reason` of an account whose credential can no longer be refreshed.
pub const REASON_REFRESH_FAILED: &str = "Permanent auth error during token refresh";
/// `status_reason` after the status call switched an account off or on.
pub const REASON_BY_USER: &str = "Connection status updated by user";
/// `status_reason` of a working account whose auth config is switched off.
pub const REASON_CONFIG_DISABLED: &str = "Auth config is disabled";
/// `status_reason` of an account whose person declined, or whose code exchange failed.
pub const REASON_CALLBACK_FAILED: &str = "OAuth callback failed during token exchange";
/// `status_reason` after the revoke call.
pub const REASON_REVOKED_BY_CALL: &str = "Revoked via user-initiated revoke endpoint";
/// `status_reason` after a revocation by an administrator, which is what the control API's `revoke` plays.
pub const REASON_REVOKED_BY_ADMIN: &str = "Revoked via admin tool";
/// `status_reason` of accounts revoked because they, or their auth config, were deleted with `revoke_on_delete`.
pub const REASON_REVOKED_BY_DELETE: &str = "Revoked as part of connection delete";

/// The complete set of statuses. There is no PENDING, although old documents name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccountStatus {
    /// The row and its hosted page exist; nobody opened the page yet.
    Initializing,
    /// Somebody opened the page; consent is outstanding.
    Initiated,
    /// A credential is stored. Says nothing about whether it still works.
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
    /// All seven, in the order the API documents them.
    pub const ALL: [Self; 7] = [
        Self::Initializing,
        Self::Initiated,
        Self::Active,
        Self::Failed,
        Self::Expired,
        Self::Inactive,
        Self::Revoked,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "INITIALIZING",
            Self::Initiated => "INITIATED",
            Self::Active => "ACTIVE",
            Self::Failed => "FAILED",
            Self::Expired => "EXPIRED",
            Self::Inactive => "INACTIVE",
            Self::Revoked => "REVOKED",
        }
    }

    /// The status of that exact name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Consent is still outstanding.
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Initializing | Self::Initiated)
    }

    /// Only a new authorization can bring it back.
    pub const fn is_dead(self) -> bool {
        matches!(self, Self::Failed | Self::Expired | Self::Revoked)
    }
}

/// What can happen to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A person opened the hosted page.
    Opened,
    /// The person agreed, or a secret was handed in.
    Consented,
    /// The person declined.
    Denied,
    /// The link's ten minutes are over.
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
    RefreshFailed,
}

impl Event {
    /// The word for it in an account's history.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Consented => "consented",
            Self::Denied => "denied",
            Self::LinkExpired => "link expired",
            Self::Enabled { .. } => "enabled",
            Self::Disabled => "disabled",
            Self::Restarted => "restarted",
            Self::Revoked { .. } => "revoked",
            Self::RefreshFailed => "refresh failed",
        }
    }
}

/// The event does not apply to an account in this status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an account that is {} cannot be {event}", .status.as_str())]
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
            ..Self::settled(AccountStatus::Initializing, None)
        }
    }

    /// A new account that was created together with its credential.
    pub(crate) fn ready() -> Self {
        Self::settled(AccountStatus::Active, None)
    }

    fn settled(status: AccountStatus, reason: Option<&'static str>) -> Self {
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
            (Event::Consented, Initializing | Initiated) => Self::settled(Active, None),
            (Event::Denied, Initializing | Initiated) => Self {
                error: Some("access_denied"),
                ..Self::settled(Failed, Some(REASON_CALLBACK_FAILED))
            },
            (Event::LinkExpired, Initializing | Initiated) => Self {
                expired_at: Some(now),
                ..Self::settled(Expired, Some(REASON_LINK_EXPIRED))
            },
            (Event::Enabled { .. }, Inactive)
            | (Event::Enabled { revive: true }, Failed | Expired | Revoked) => {
                Self::settled(Active, Some(REASON_BY_USER))
            }
            (Event::Disabled, Active) => Self::settled(Inactive, Some(REASON_BY_USER)),
            (Event::Restarted, _) => Self {
                deadline: Some(deadline(now)),
                ..Self::settled(Initiated, None)
            },
            (Event::Revoked { reason }, Active) => Self::settled(Revoked, Some(reason)),
            (Event::RefreshFailed, Active | Inactive) => Self {
                expired_at: Some(now),
                ..Self::settled(Expired, Some(REASON_REFRESH_FAILED))
            },
            (Event::Opened, Initiated)
            | (Event::Enabled { .. }, Active)
            | (Event::Disabled, Inactive)
            | (Event::Revoked { .. }, Revoked)
            | (Event::RefreshFailed, Expired) => return Ok(None),
            (event, status) => {
                return Err(Refusal {
                    status,
                    event: event.name(),
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
    use super::{
        AccountStatus::{Active, Expired, Failed, Inactive, Initializing, Initiated, Revoked},
        *,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn account(status: AccountStatus) -> Lifecycle {
        Lifecycle {
            deadline: status.is_pending().then(|| at(600)),
            ..Lifecycle::settled(status, None)
        }
    }

    /// What each event makes of each status: a status, `same`, or `refused`.
    #[test]
    fn every_event_in_every_status() {
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
            assert_eq!(expected.len(), AccountStatus::ALL.len());
            for (status, expected) in AccountStatus::ALL.into_iter().zip(expected) {
                let outcome = match account(status).after(&event, at(5)) {
                    Ok(Some(next)) => next.status.as_str(),
                    Ok(None) => "same",
                    Err(refusal) => {
                        assert_eq!(
                            refusal,
                            Refusal {
                                status,
                                event: event.name()
                            }
                        );
                        "refused"
                    }
                };
                assert_eq!(outcome, expected, "{} + {}", status.as_str(), event.name());
            }
        }
    }

    #[test]
    fn the_deadline_exists_exactly_while_consent_is_outstanding() {
        let waiting = Lifecycle::waiting(at(0));
        assert_eq!((waiting.status, waiting.deadline), (Initializing, Some(at(600))));
        let opened = waiting.after(&Event::Opened, at(50)).unwrap().unwrap();
        assert_eq!(
            (opened.status, opened.deadline),
            (Initiated, Some(at(600))),
            "opening does not prolong"
        );
        let active = opened.after(&Event::Consented, at(60)).unwrap().unwrap();
        assert_eq!(
            (active.status, active.deadline, active.reason),
            (Active, None, None)
        );
        let restarted = active.after(&Event::Restarted, at(1_000)).unwrap().unwrap();
        assert_eq!(
            (restarted.status, restarted.deadline),
            (Initiated, Some(at(1_600)))
        );
    }

    #[test]
    fn each_ending_carries_its_documented_reason() {
        let cases = [
            (Initiated, Event::Denied, Failed, REASON_CALLBACK_FAILED),
            (Initiated, Event::LinkExpired, Expired, REASON_LINK_EXPIRED),
            (Active, Event::RefreshFailed, Expired, REASON_REFRESH_FAILED),
            (Active, Event::Disabled, Inactive, REASON_BY_USER),
            (
                Active,
                Event::Revoked {
                    reason: REASON_REVOKED_BY_ADMIN,
                },
                Revoked,
                REASON_REVOKED_BY_ADMIN,
            ),
        ];
        for (from, event, to, reason) in cases {
            let next = account(from).after(&event, at(7)).unwrap().unwrap();
            assert_eq!((next.status, next.reason), (to, Some(reason)));
            assert_eq!(next.expired_at.is_some(), to == Expired);
            assert_eq!(next.error.is_some(), to == Failed);
        }
    }

    #[test]
    fn status_names_round_trip_and_pending_is_unknown() {
        for status in AccountStatus::ALL {
            assert_eq!(AccountStatus::parse(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(AccountStatus::parse("PENDING"), None);
        assert_eq!(AccountStatus::parse("active"), None);
    }
}
