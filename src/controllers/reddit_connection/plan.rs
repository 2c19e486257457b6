//! What to do next: a pure function of the object, what was observed, and the time.
//!
//! A plan holds at most one step. After each step the object is observed and planned again, so every remote call is
//! followed by a status write, and a crash between any two of them leaves a state that the next plan understands.

use std::time::Duration;

use jiff::Timestamp;

use super::observed::{AccountView, LinkSecret, Observed, Subject, alias, attempt_of};
use super::phase::Phase;
use crate::api::reddit_connection::{DeletionPolicy, LinkPublication, TOOLKIT};
use crate::composio::{Account, AccountStatus, Priority};
use crate::controllers::failure::{Failure, Reason, until};

/// Composio's reason for a link that nobody used in time.
const LINK_EXPIRED_REASON: &str = "Connection initiation did not complete within 10 minutes";

/// A create whose answer never came may still be committed this long after it was started. Deletion waits that long
/// before it believes a listing that does not show the account.
const UNANSWERED_CREATE: Duration = Duration::from_secs(45);

/// Cleanup tries before an object is released although a person could mend the failure; about ten minutes.
const MAX_CLEANUP_TRIES_UNMENDED: i64 = 8;
/// Cleanup tries before an object is released although Composio does not answer, a bit more than two hours.
const MAX_CLEANUP_TRIES: i64 = 30;

/// Refusals of an alias in a row, without an account that shows it, before the next alias is used.
const MAX_ALIAS_TRIES: i64 = 3;

/// Identity look-ups before the operator stops trying by itself.
const MAX_IDENTITY_TRIES: i64 = 30;

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Put the finalizer on the object.
    AddFinalizer,
    /// Take the finalizer off: nothing is left to clean. With a reason if something may be left.
    RemoveFinalizer {
        /// Reason of the failure the cleanup was given up for.
        abandoned: Option<String>,
    },
    /// Record in status that link number `attempt` is going to be made, before it is made.
    BeginLink {
        /// Number of the attempt, from 1.
        attempt: i64,
        /// Auth config the link will be made with.
        auth_config_id: String,
        /// It takes the place of a link that ran out, and so uses up one of the renewals.
        renewal: bool,
    },
    /// Status was lost: Composio shows an account of a later attempt than status knows.
    RecoverAttempt {
        /// The attempt of that account.
        attempt: i64,
    },
    /// Create the empty Secret, which proves that the link can be stored before one is made.
    PrepareLinkSecret,
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
    /// Delete an account at Composio.
    DeleteAccount {
        /// Its id.
        id: String,
        /// Revoke its tokens too.
        revoke: bool,
        /// What it was to this object.
        role: Doomed,
    },
    /// Enable or disable the account at Composio.
    SetEnabled {
        /// Its id.
        id: String,
        /// true: enable.
        enabled: bool,
    },
    /// Delete the Secret with the spent link.
    DeleteLinkSecret,
    /// Ask Reddit, through a Composio tool, who the account is.
    Identify {
        /// The account.
        id: String,
    },
    /// Look at the account right now, because somebody asked for it.
    Refresh {
        /// The account.
        id: String,
    },
}

/// What a doomed account was to the object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doomed {
    /// The account in status.
    Current,
    /// Left over from an earlier attempt.
    Stray,
}

impl Step {
    /// Whether the step changes something at Composio. Such a step is never taken on the word of a cache.
    pub fn is_remote_change(&self) -> bool {
        matches!(
            self,
            Self::CreateLink { .. } | Self::DeleteAccount { .. } | Self::SetEnabled { .. }
        )
    }
}

/// What to do, what the object is now, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// At most one effect.
    pub step: Option<Step>,
    /// Where the object stands.
    pub phase: Phase,
    /// When to plan again if nothing happens before.
    pub wake: Option<Duration>,
}

impl Plan {
    fn step(step: Step, phase: Phase) -> Self {
        Self {
            step: Some(step),
            phase,
            wake: None,
        }
    }

    fn rest(phase: Phase) -> Self {
        Self {
            step: None,
            phase,
            wake: None,
        }
    }

    fn wake_for_retry(self, subject: &Subject<'_>, now: Timestamp) -> Self {
        match subject
            .standing_failure()
            .and_then(|retry| retry.next_attempt_at.as_ref())
        {
            Some(next) => self.wake_in(until(next.0, now)),
            None => self,
        }
    }

    fn wake_in(mut self, wait: Duration) -> Self {
        self.wake = Some(self.wake.map_or(wait, |old| old.min(wait)));
        self
    }
}

/// Which facts `plan` will need besides the account itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Inquiries {
    /// Every account of the person.
    pub inventory: bool,
    /// The auth configs of the toolkit.
    pub auth_configs: bool,
    /// The Secret for the link.
    pub link_secret: bool,
}

/// Which facts are needed, given the account.
pub fn inquiries(subject: &Subject<'_>, account: &AccountView, now: Timestamp) -> Inquiries {
    let nothing = Inquiries::default();
    if subject.deleting {
        let cleans = subject.has_finalizer && subject.deletion_policy() != DeletionPolicy::Retain;
        return Inquiries {
            inventory: cleans && !subject.is_backing_off(now),
            ..nothing
        };
    }
    if subject.spec.suspend || subject.is_backing_off(now) {
        return nothing;
    }
    match account {
        AccountView::None => links(subject),
        AccountView::Found(found) if found.status.is_pending() => Inquiries {
            link_secret: holds_own_link(subject),
            ..nothing
        },
        // A request may ask for a new link, which needs to know with which auth config.
        AccountView::Found(_) | AccountView::Gone if subject.open_request().is_some() => Inquiries {
            auth_configs: links(subject).auth_configs,
            ..nothing
        },
        _ => nothing,
    }
}

fn links(subject: &Subject<'_>) -> Inquiries {
    let wanted = subject.is_managed() && subject.spec.enabled;
    Inquiries {
        inventory: wanted,
        auth_configs: wanted
            && subject.spec.auth_config_id.is_none()
            && subject.status.auth_config_id.is_none(),
        link_secret: wanted && subject.spec.link.publish == LinkPublication::Secret,
    }
}

/// How often to look at the account, and how urgent that is.
pub fn cadence(subject: &Subject<'_>, account: &AccountView, now: Timestamp) -> (Duration, Priority) {
    let polling = &subject.spec.polling;
    let (fast, slow, settled) = (polling.fast.into(), polling.slow.into(), polling.settled.into());
    let interval = |since: Option<Timestamp>| {
        if fast_until(subject, since) > now {
            fast
        } else {
            slow
        }
    };
    match account {
        AccountView::Found(found) if found.status.is_pending() => {
            (interval(link_start(subject, found)), Priority::Pending)
        }
        AccountView::Found(found) if found.status == AccountStatus::Active && !identity_settled(subject) => (
            interval(subject.status.connected_at.as_ref().map(|t| t.0).or(Some(now))),
            Priority::Pending,
        ),
        // Nothing is known after a start: look once, soon.
        AccountView::Unseen => (slow, Priority::Pending),
        _ => (settled, Priority::Background),
    }
}

fn link_start(subject: &Subject<'_>, account: &Account) -> Option<Timestamp> {
    subject
        .status
        .link
        .as_ref()
        .map(|link| link.requested_at.0)
        .or(account.created_at)
}

fn fast_until(subject: &Subject<'_>, since: Option<Timestamp>) -> Timestamp {
    since
        .and_then(|start| {
            start
                .checked_add(Duration::from(subject.spec.polling.fast_for))
                .ok()
        })
        .unwrap_or(Timestamp::MIN)
}

/// Decides.
pub fn plan(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if subject.deleting {
        return plan_deletion(subject, observed, now);
    }
    if subject.spec.suspend {
        return Plan::rest(Phase::Suspended);
    }
    if let Some(failure) = &observed.failure {
        let phase = if subject.is_backing_off(now) {
            Phase::BackingOff
        } else {
            Phase::Failed(failure.clone())
        };
        return Plan::rest(phase).wake_for_retry(subject, now);
    }
    let needs_finalizer = subject.is_managed() && subject.deletion_policy() != DeletionPolicy::Retain;
    if needs_finalizer && !subject.has_finalizer {
        return Plan::step(Step::AddFinalizer, Phase::Keep);
    }
    let mut plan = plan_account(subject, observed, now);
    if let Some(trouble) = &observed.trouble {
        return Plan {
            step: None,
            phase: Phase::Trouble(trouble.clone()),
            ..plan
        };
    }
    if plan.step.is_none()
        && let (Some(_), Some(id)) = (subject.open_request(), subject.account_id())
        && observed.account != AccountView::Unseen
    {
        plan.step = Some(Step::Refresh { id: id.to_owned() });
    }
    // A failure stays on show until it is tried again, unless the account has moved on meanwhile.
    if subject.is_backing_off(now) && (plan.step.is_some() || plan.phase.state() == subject.status.state) {
        plan = Plan {
            step: None,
            phase: Phase::BackingOff,
            ..plan
        }
        .wake_for_retry(subject, now);
    }
    plan
}

fn plan_account(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> Plan {
    match &observed.account {
        AccountView::None => plan_link(subject, observed, now),
        AccountView::Unseen => Plan::rest(Phase::Keep),
        AccountView::Gone => {
            if subject.is_managed() && subject.open_request().is_some() {
                return replace(subject, observed, false);
            }
            Plan::rest(Phase::Gone {
                managed: subject.is_managed(),
            })
        }
        AccountView::Found(account) => {
            if let Some(failure) = refusal(subject, account) {
                return Plan::rest(Phase::Refused(failure));
            }
            match &account.status {
                status if status.is_pending() => plan_pending(subject, observed, account, now),
                AccountStatus::Active => plan_active(subject, observed, account, now),
                AccountStatus::Inactive => plan_inactive(subject, observed, account),
                AccountStatus::Revoked => plan_dead(subject, observed, Phase::Revoked),
                AccountStatus::Failed => plan_dead(subject, observed, Phase::ConsentFailed),
                AccountStatus::Expired => plan_expired(subject, observed, account),
                other => Plan::rest(Phase::UnknownStatus(other.as_str().to_owned())),
            }
        }
    }
}

/// Why this account must not be used for this object.
fn refusal(subject: &Subject<'_>, account: &Account) -> Option<Failure> {
    let id = &account.id;
    // A field that Composio leaves out says nothing about an account of our own making; an adopted one has to prove it.
    let differs =
        |theirs: &str, wanted: &str| theirs != wanted && (subject.is_adopted() || !theirs.is_empty());
    if differs(&account.user_id, &subject.spec.user_id) {
        // The other person's id is theirs to know.
        return Some(Failure::stalled(
            Reason::UserMismatch,
            format!(
                "account {id} belongs to another userId; name an account of this userId or leave connectedAccountId out"
            ),
        ));
    }
    if differs(&account.toolkit, TOOLKIT) {
        return Some(Failure::stalled(
            Reason::ToolkitMismatch,
            format!(
                "account {id} belongs to toolkit {:?}, not to {TOOLKIT}",
                account.toolkit
            ),
        ));
    }
    match &subject.spec.auth_config_id {
        Some(wanted) if differs(&account.auth_config_id, wanted) => Some(Failure::stalled(
            Reason::AuthConfigMismatch,
            format!(
                "account {id} was connected with auth config {}, but spec.authConfigId is {wanted}",
                account.auth_config_id
            ),
        )),
        _ => None,
    }
}

/// Whether the account in status was made for this object, so that the operator may delete it.
fn is_own(subject: &Subject<'_>) -> bool {
    subject.is_managed() && !subject.is_adopted()
}

/// Whether the link of the account in status is ours to hand out and lies in a Secret.
fn holds_own_link(subject: &Subject<'_>) -> bool {
    is_own(subject)
        && subject
            .status
            .link
            .as_ref()
            .is_some_and(|link| link.redirect_url.is_none())
}

fn plan_pending(subject: &Subject<'_>, observed: &Observed, account: &Account, now: Timestamp) -> Plan {
    let opened = account.status != AccountStatus::Initializing;
    let link_is_lost = match &observed.link_secret {
        Some(LinkSecret::Ours { account_id, .. }) => account_id.as_deref() != Some(account.id.as_str()),
        Some(LinkSecret::Absent | LinkSecret::Foreign) => true,
        None => false,
    };
    // Once the person has opened it, they have the link; a consent under way must not be cut off.
    if link_is_lost && !opened && holds_own_link(subject) {
        if renewals_left(subject) || subject.open_request().is_some() {
            return replace(subject, observed, true);
        }
        return Plan::rest(Phase::LinkLost);
    }
    let secret = subject
        .status
        .link
        .as_ref()
        .and_then(|link| link.secret_name.clone());
    let plan = Plan::rest(Phase::AwaitingConsent { opened, secret });
    match fast_until(subject, link_start(subject, account)) {
        // The interval changes then.
        end if end > now => plan.wake_in(until(end, now)),
        _ => plan,
    }
}

fn plan_active(subject: &Subject<'_>, observed: &Observed, account: &Account, now: Timestamp) -> Plan {
    let mismatch = identity_mismatch(subject);
    if subject.is_managed() && !wants_enabled(subject) {
        return Plan::step(
            Step::SetEnabled {
                id: account.id.clone(),
                enabled: false,
            },
            Phase::Keep,
        );
    }
    if subject
        .status
        .link
        .as_ref()
        .is_some_and(|link| link.secret_name.is_some())
    {
        return Plan::step(Step::DeleteLinkSecret, active_phase(subject));
    }
    if let Some(phase) = mismatch {
        return Plan::rest(phase);
    }
    if subject.open_request().is_some()
        && subject.is_managed()
        && Phase::is_credential_rejected(subject.status)
    {
        return replace(subject, observed, false);
    }
    let plan = Plan::rest(active_phase(subject));
    if subject.open_request().is_some() {
        // Answered before the next identity look-up: what that finds must not turn this request into one for a new link.
        return plan;
    }
    if identity_settled(subject) {
        return plan;
    }
    match identity_wait(subject, now) {
        Duration::ZERO => Plan::step(
            Step::Identify {
                id: account.id.clone(),
            },
            active_phase(subject),
        ),
        wait => plan.wake_in(wait),
    }
}

fn active_phase(subject: &Subject<'_>) -> Phase {
    if Phase::is_credential_rejected(subject.status) {
        return Phase::CredentialRejected;
    }
    match (&subject.spec.expected_username, &subject.status.display_name) {
        (Some(expected), None) => Phase::VerifyingIdentity {
            expected: expected.clone(),
        },
        _ => Phase::Connected {
            display_name: subject.status.display_name.clone(),
        },
    }
}

fn plan_inactive(subject: &Subject<'_>, observed: &Observed, account: &Account) -> Plan {
    if subject
        .status
        .link
        .as_ref()
        .is_some_and(|link| link.secret_name.is_some())
    {
        return Plan::step(Step::DeleteLinkSecret, Phase::Keep);
    }
    if !subject.spec.enabled {
        return Plan::rest(Phase::Disabled);
    }
    if let Some(phase) = identity_mismatch(subject) {
        return plan_dead(subject, observed, phase);
    }
    let asked = subject.open_request().is_some();
    if subject.is_managed() && (subject.status.disabled_by_operator || asked) {
        return Plan::step(
            Step::SetEnabled {
                id: account.id.clone(),
                enabled: true,
            },
            Phase::Keep,
        );
    }
    Plan::rest(Phase::DisabledElsewhere {
        managed: subject.is_managed(),
    })
}

fn plan_expired(subject: &Subject<'_>, observed: &Observed, account: &Account) -> Plan {
    let unused = match account.status_reason.as_deref() {
        Some(reason) => reason == LINK_EXPIRED_REASON,
        None => subject.status.connected_at.is_none(),
    };
    if !unused {
        return plan_dead(subject, observed, Phase::CredentialExpired);
    }
    if is_own(subject) && renewals_left(subject) && subject.spec.enabled {
        return replace(subject, observed, true);
    }
    plan_dead(subject, observed, Phase::LinkExpired)
}

/// An account that only a new consent can bring back: wait until somebody asks for a link.
fn plan_dead(subject: &Subject<'_>, observed: &Observed, phase: Phase) -> Plan {
    if subject.open_request().is_some() && subject.is_managed() && subject.spec.enabled {
        return replace(subject, observed, false);
    }
    if subject
        .status
        .link
        .as_ref()
        .is_some_and(|link| link.secret_name.is_some())
    {
        return Plan::step(Step::DeleteLinkSecret, phase);
    }
    Plan::rest(phase)
}

/// Starts a new link in place of the account in status. The old account, if it was made for this object, is swept
/// away as a stray before the new one is made; an adopted one is left alone.
fn replace(subject: &Subject<'_>, observed: &Observed, renewal: bool) -> Plan {
    match resolve_auth_config(subject, observed) {
        Ok(auth_config_id) => {
            let attempt = subject.status.link_attempts + 1;
            Plan::step(
                Step::BeginLink {
                    attempt,
                    auth_config_id,
                    renewal,
                },
                Phase::CreatingLink,
            )
        }
        Err(failure) => Plan::rest(Phase::Failed(failure)),
    }
}

fn renewals_left(subject: &Subject<'_>) -> bool {
    subject.status.link_renewals < i64::from(subject.spec.link.renewals)
}

fn plan_link(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if !subject.spec.enabled {
        return Plan::rest(Phase::Disabled);
    }
    // Not asked for while backing off.
    let Some(inventory) = &observed.inventory else {
        return Plan::rest(Phase::BackingOff).wake_for_retry(subject, now);
    };
    let attempt = subject.status.link_attempts;
    let own = own_accounts(subject, inventory);
    if let Some((newest, _)) = own.last().filter(|(newest, _)| *newest > attempt) {
        return Plan::step(Step::RecoverAttempt { attempt: *newest }, Phase::CreatingLink);
    }
    if let Some((_, stray)) = own.iter().find(|(number, _)| *number < attempt) {
        return Plan::step(
            Step::DeleteAccount {
                id: stray.id.clone(),
                revoke: false,
                role: Doomed::Stray,
            },
            Phase::CreatingLink,
        );
    }
    if let Some((_, account)) = own.last() {
        return plan_found(subject, observed, account);
    }
    let auth_config_id = match resolve_auth_config(subject, observed) {
        Ok(id) => id,
        Err(failure) => return Plan::rest(Phase::Failed(failure)),
    };
    let alias_is_stuck = subject.status.retry.as_ref().is_some_and(|retry| {
        retry.reason == Reason::AliasTaken.as_str() && retry.failures >= MAX_ALIAS_TRIES
    });
    let begun = subject.status.link.is_some();
    if !begun || alias_is_stuck {
        return replace(subject, observed, false);
    }
    if subject.spec.link.publish == LinkPublication::Secret {
        match observed.link_secret {
            Some(LinkSecret::Ours { .. }) => {}
            Some(LinkSecret::Foreign) => {
                return Plan::rest(Phase::Failed(Failure::stalled(
                    Reason::LinkSecretConflict,
                    format!(
                        "Secret {} exists and does not belong to this RedditConnection; rename or delete it",
                        subject.link_secret_name()
                    ),
                )));
            }
            Some(LinkSecret::Absent) | None => {
                return Plan::step(Step::PrepareLinkSecret, Phase::CreatingLink);
            }
        }
    }
    Plan::step(
        Step::CreateLink {
            alias: alias(subject.uid, attempt),
            auth_config_id,
        },
        Phase::CreatingLink,
    )
}

/// An account of the current attempt exists although status does not know it: the answer to its creation was lost.
fn plan_found(subject: &Subject<'_>, observed: &Observed, account: &Account) -> Plan {
    let expires_at = match &observed.link_secret {
        Some(LinkSecret::Ours {
            account_id,
            expires_at,
        }) if account_id.as_deref() == Some(account.id.as_str()) => *expires_at,
        // Nobody can open a link that was lost. An account that is past that point can be used.
        _ if account.status == AccountStatus::Initializing => return replace(subject, observed, false),
        _ => None,
    };
    let secret_name =
        matches!(observed.link_secret, Some(LinkSecret::Ours { .. })).then(|| subject.link_secret_name());
    Plan::step(
        Step::Adopt {
            account: account.clone(),
            expires_at,
            secret_name,
        },
        Phase::CreatingLink,
    )
}

/// Accounts made for this object, by attempt.
fn own_accounts<'a>(subject: &Subject<'_>, inventory: &'a [Account]) -> Vec<(i64, &'a Account)> {
    let mut own: Vec<_> = inventory
        .iter()
        .filter_map(|account| Some((attempt_of(subject.uid, account.alias.as_deref()?)?, account)))
        .collect();
    own.sort_by_key(|(attempt, _)| *attempt);
    own
}

fn resolve_auth_config(subject: &Subject<'_>, observed: &Observed) -> Result<String, Failure> {
    if let Some(id) = subject
        .spec
        .auth_config_id
        .as_ref()
        .or(subject.status.auth_config_id.as_ref())
    {
        return Ok(id.clone());
    }
    let all = observed.auth_configs.as_deref().unwrap_or_default();
    let enabled: Vec<_> = all
        .iter()
        .filter(|config| config.enabled && config.toolkit == TOOLKIT)
        .collect();
    match enabled.as_slice() {
        [only] => Ok(only.id.clone()),
        [] => Err(Failure::stalled(
            Reason::AuthConfigNotFound,
            format!(
                "the Composio project has no enabled {TOOLKIT} auth config; create or enable one in Composio, or set \
                 spec.authConfigId"
            ),
        )),
        several => Err(Failure::stalled(
            Reason::AuthConfigAmbiguous,
            format!(
                "the Composio project has {} enabled {TOOLKIT} auth configs; set spec.authConfigId to one of: {}",
                several.len(),
                several
                    .iter()
                    .map(|c| format!("{} ({})", c.id, c.name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )),
    }
}

fn identity_mismatch(subject: &Subject<'_>) -> Option<Phase> {
    let expected = subject.spec.expected_username.as_ref()?;
    let actual = subject.status.display_name.as_ref()?;
    // Reddit user names are case-insensitive.
    (!expected.eq_ignore_ascii_case(actual)).then(|| Phase::IdentityMismatch {
        expected: expected.clone(),
        actual: actual.clone(),
    })
}

/// An account of the wrong person is disabled, so that no agent acts with it; an adopted one may serve others.
fn wants_enabled(subject: &Subject<'_>) -> bool {
    subject.spec.enabled && (subject.is_adopted() || identity_mismatch(subject).is_none())
}

/// Whether nothing more is to be learnt about the person.
fn identity_settled(subject: &Subject<'_>) -> bool {
    let status = subject.status;
    let tries = status.identity.as_ref().map_or(0, |identity| identity.attempts);
    let complete = status.display_name.is_some()
        && status.profile_url.is_some()
        && status.avatar_url.is_some()
        && tries == 0;
    // No look-up on record: it was never done, or somebody asked for it again.
    (complete && status.identity.is_some()) || tries >= MAX_IDENTITY_TRIES
}

/// Time until the next identity look-up: `fast` within `fastFor`, then `slow`, doubling up to `settled`.
fn identity_wait(subject: &Subject<'_>, now: Timestamp) -> Duration {
    let Some(identity) = &subject.status.identity else {
        return Duration::ZERO;
    };
    let polling = &subject.spec.polling;
    let interval = if fast_until(subject, subject.status.connected_at.as_ref().map(|t| t.0)) > now {
        Duration::from(polling.fast)
    } else {
        let doublings = u32::try_from(identity.attempts.clamp(1, 12) - 1).unwrap_or(0);
        let slow = Duration::from(polling.slow);
        slow.saturating_mul(2_u32.pow(doublings.saturating_sub(4)))
            .min(slow.max(polling.settled.into()))
    };
    identity
        .last_attempt_at
        .0
        .checked_add(interval)
        .map_or(Duration::ZERO, |due| until(due, now))
}

fn plan_deletion(subject: &Subject<'_>, observed: &Observed, now: Timestamp) -> Plan {
    if !subject.has_finalizer {
        return Plan::rest(Phase::Keep);
    }
    if subject.deletion_policy() == DeletionPolicy::Retain {
        return Plan::step(Step::RemoveFinalizer { abandoned: None }, Phase::Deleting);
    }
    if subject.is_backing_off(now) {
        return Plan::rest(Phase::BackingOff).wake_for_retry(subject, now);
    }
    if let Some(reason) = cleanup_given_up(subject) {
        return Plan::step(
            Step::RemoveFinalizer {
                abandoned: Some(reason.to_owned()),
            },
            Phase::Deleting,
        );
    }
    if let Some(failure) = &observed.failure {
        return Plan::rest(Phase::Failed(failure.clone()));
    }
    let Some(inventory) = &observed.inventory else {
        return Plan::rest(Phase::Deleting);
    };
    if let Some((id, role)) = doomed(subject, inventory) {
        let revoke = subject.deletion_policy() == DeletionPolicy::Revoke;
        return Plan::step(
            Step::DeleteAccount {
                id: id.to_owned(),
                revoke,
                role,
            },
            Phase::Deleting,
        );
    }
    let unanswered_until = subject
        .status
        .link
        .as_ref()
        .filter(|_| subject.status.connected_account_id.is_none())
        .and_then(|link| link.requested_at.0.checked_add(UNANSWERED_CREATE).ok());
    match unanswered_until {
        Some(end) if now < end => Plan::rest(Phase::Deleting).wake_in(until(end, now)),
        _ => Plan::step(Step::RemoveFinalizer { abandoned: None }, Phase::Deleting),
    }
}

/// The next account to delete. An adopted account is only taken from the person's own listing, so that naming somebody
/// else's account never deletes it.
fn doomed<'a>(subject: &Subject<'a>, inventory: &'a [Account]) -> Option<(&'a str, Doomed)> {
    let known = subject
        .status
        .connected_account_id
        .as_deref()
        .filter(|_| !subject.is_adopted());
    let adopted = subject.account_id().filter(|_| subject.is_adopted());
    known.map(|id| (id, Doomed::Current)).or_else(|| {
        inventory.iter().find_map(|account| {
            if Some(account.id.as_str()) == adopted && account.toolkit == TOOLKIT {
                return Some((account.id.as_str(), Doomed::Current));
            }
            attempt_of(subject.uid, account.alias.as_deref()?)?;
            Some((account.id.as_str(), Doomed::Stray))
        })
    })
}

/// The failure that cleanup was tried often enough against: an object must not hang for ever.
fn cleanup_given_up<'a>(subject: &Subject<'a>) -> Option<&'a str> {
    let retry = subject
        .status
        .retry
        .as_ref()
        .filter(|_| subject.standing_failure().is_some())?;
    let unmended = [
        Reason::ApiKeyNotFound,
        Reason::ApiKeyNotShared,
        Reason::ApiKeyRejected,
        Reason::ApiKeyForbidden,
        Reason::RequestRefused,
    ];
    let limit = match unmended.iter().any(|reason| reason.as_str() == retry.reason) {
        true => MAX_CLEANUP_TRIES_UNMENDED,
        false => MAX_CLEANUP_TRIES,
    };
    (retry.failures >= limit).then_some(retry.reason.as_str())
}
