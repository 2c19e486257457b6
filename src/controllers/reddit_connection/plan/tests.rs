//! Tables for `plan`: one rule a case.

use std::time::Duration;

use serde_json::json;

use super::{DeletionTarget, Plan, Step, plan, poll_interval, queries};
use crate::api::{Reason, RedditConnection};
use crate::composio::{Account, AccountStatus, AuthConfig, Priority};
use crate::controllers::reddit_connection::RedditConnections;
use crate::controllers::reddit_connection::fixtures::{
    AUTH_CONFIG, UID, account, at, auth_config, deleted, object, requested,
};
use crate::controllers::reddit_connection::observed::{
    AccountView, LinkSecret, Observed, View, alias, attempt_of,
};
use crate::controllers::reddit_connection::phase::Phase;
use crate::runtime::Controller;
use crate::runtime::plan::Position;

fn decide(object: &RedditConnection, observed: &Observed) -> Plan {
    plan(&View::from(object), observed, at(100))
}

fn found(account: Account) -> Observed {
    Observed {
        account: AccountView::Found(account),
        ..Observed::default()
    }
}

fn nothing_yet() -> Observed {
    Observed {
        user_accounts: Some(vec![]),
        auth_configs: Some(vec![auth_config(AUTH_CONFIG, true)]),
        link_secret: Some(LinkSecret::Absent),
        ..Observed::default()
    }
}

fn stall_reason(plan: &Plan) -> Option<Reason> {
    match &plan.position {
        Position::Failed(failure) | Position::At(Phase::Refused(failure)) => Some(failure.reason),
        _ => None,
    }
}

#[test]
fn aliases_are_told_apart_by_object_and_attempt() {
    assert_eq!(attempt_of(UID, &alias(UID, 7)), Some(7));
    assert_eq!(attempt_of("other", &alias(UID, 7)), None);
    assert_eq!(attempt_of(UID, &format!("{}x", alias(UID, 7))), None);
    assert_eq!(attempt_of(UID, &alias(UID, 0)), None);
}

#[test]
fn a_new_object_gets_an_intent_then_a_secret_then_a_link() {
    let new = object(&json!({}), &json!({}));
    let first_link = Step::BeginLink {
        attempt: 1,
        auth_config_id: AUTH_CONFIG.into(),
        renewal: false,
        replaces: None,
    };
    assert_eq!(decide(&new, &nothing_yet()).step, Some(first_link));

    let begun = json!({"linkAttempts": 1, "link": {"requestedAt": "2026-01-01T00:01:35Z"}, "authConfigId": AUTH_CONFIG});
    let begun = object(&json!({}), &begun);
    assert_eq!(decide(&begun, &nothing_yet()).step, Some(Step::PrepareLinkSecret));

    let prepared = Observed {
        link_secret: Some(LinkSecret::Owned {
            account_id: None,
            expires_at: None,
        }),
        ..nothing_yet()
    };
    let create = Step::CreateLink {
        alias: alias(UID, 1),
        auth_config_id: AUTH_CONFIG.into(),
    };
    assert_eq!(decide(&begun, &prepared).step, Some(create));
}

#[test]
fn an_object_that_only_observes_needs_no_finalizer_and_changes_nothing() {
    let spec = json!({"managementPolicy": "Observe", "connectedAccountId": "ca_1"});
    let mut observing = object(&spec, &json!({}));
    observing.metadata.finalizers = None;
    assert!(!RedditConnections::needs_finalizer(&View::from(&observing)));
    for status in [
        AccountStatus::Initializing,
        AccountStatus::Inactive,
        AccountStatus::Expired,
        AccountStatus::Failed,
        AccountStatus::Revoked,
    ] {
        for asked in [false, true] {
            let object = if asked {
                requested(observing.clone(), "now")
            } else {
                observing.clone()
            };
            let step = decide(&object, &found(account("ca_1", status.clone(), None))).step;
            assert!(
                matches!(step, None | Some(Step::Refresh { .. })),
                "{status:?} {step:?}"
            );
        }
    }
}

#[test]
fn without_exactly_one_enabled_auth_config_nothing_is_created() {
    let new = object(&json!({}), &json!({}));
    let with = |configs| Observed {
        auth_configs: Some(configs),
        ..nothing_yet()
    };
    let none = decide(&new, &with(vec![auth_config("ac_off", false)]));
    assert_eq!(
        (none.step.clone(), stall_reason(&none)),
        (None, Some(Reason::AuthConfigNotFound))
    );
    let two = decide(
        &new,
        &with(vec![auth_config("ac_a", true), auth_config("ac_b", true)]),
    );
    assert_eq!(
        (two.step.clone(), stall_reason(&two)),
        (None, Some(Reason::AuthConfigAmbiguous))
    );
    let Position::Failed(failure) = two.position else {
        unreachable!()
    };
    assert!(
        failure.message.contains("ac_a") && failure.message.contains("ac_b"),
        "{}",
        failure.message
    );
    let named = object(&json!({"authConfigId": "ac_b"}), &json!({}));
    let both = with(vec![auth_config("ac_a", true), auth_config("ac_b", true)]);
    assert!(matches!(decide(&named, &both).step,
        Some(Step::BeginLink { auth_config_id, .. }) if auth_config_id == "ac_b"));
}

/// Found when an auth config of another toolkit was named: a working link for that toolkit was handed out.
#[test]
fn an_auth_config_that_is_none_of_reddits_is_refused_before_a_link_is_made() {
    let named = object(&json!({"authConfigId": "ac_slack"}), &json!({}));
    let slack = AuthConfig {
        toolkit: "slack".to_owned(),
        ..auth_config("ac_slack", true)
    };
    for configs in [vec![slack], vec![auth_config("ac_slack", false)], vec![]] {
        let observed = Observed {
            auth_configs: Some(configs),
            ..nothing_yet()
        };
        let plan = decide(&named, &observed);
        assert_eq!(
            (plan.step.clone(), stall_reason(&plan)),
            (None, Some(Reason::AuthConfigNotFound))
        );
    }
}

/// Found when a link was published in the status by mistake, and moving it to a Secret left it there.
#[test]
fn a_link_that_is_to_be_published_elsewhere_is_replaced() {
    let pending = found(account("ca_1", AccountStatus::Initializing, Some(alias(UID, 1))));
    let link = |where_: &str| {
        json!({"connectedAccountId": "ca_1", "linkAttempts": 1, "authConfigId": AUTH_CONFIG,
            "link": {"requestedAt": "2026-01-01T00:00:00Z", where_: "x"}})
    };
    for (publish, where_, moves) in [
        ("Secret", "redirectUrl", true),
        ("Status", "secretName", true),
        ("Secret", "secretName", false),
        ("Status", "redirectUrl", false),
    ] {
        let object = object(&json!({"link": {"publish": publish}}), &link(where_));
        let step = decide(&object, &pending).step;
        assert_eq!(
            matches!(step, Some(Step::BeginLink { attempt: 2, .. })),
            moves,
            "{publish} {where_}"
        );
    }
}

#[test]
fn an_account_of_somebody_else_is_refused_and_never_deleted() {
    let spec = json!({"connectedAccountId": "ca_1", "deletionPolicy": "Delete"});
    let adopting = object(&spec, &json!({}));
    let own = account("ca_1", AccountStatus::Active, None);
    let cases = [
        (
            Account {
                user_id: "someone_else".into(),
                ..own.clone()
            },
            Reason::UserMismatch,
        ),
        (
            Account {
                toolkit: "github".into(),
                ..own.clone()
            },
            Reason::ToolkitMismatch,
        ),
    ];
    for (foreign, reason) in cases {
        let plan = decide(&adopting, &found(foreign));
        assert_eq!((plan.step.clone(), stall_reason(&plan)), (None, Some(reason)));
    }
    // The list of this person's accounts does not show the other person's account.
    let deletion = decide(
        &deleted(adopting),
        &Observed {
            user_accounts: Some(vec![]),
            ..Observed::default()
        },
    );
    assert_eq!(
        deletion,
        Plan::rest(Position::Unchanged),
        "nothing is left to clean up"
    );
}

#[test]
fn an_account_of_another_auth_config_is_refused() {
    let object = object(
        &json!({"authConfigId": "ac_mine"}),
        &json!({"connectedAccountId": "ca_1"}),
    );
    let plan = decide(&object, &found(account("ca_1", AccountStatus::Active, None)));
    assert_eq!(stall_reason(&plan), Some(Reason::AuthConfigMismatch));
}

/// Found when a create was tried again long after its intent was recorded, and deletion did not wait for its answer.
#[test]
fn an_old_intent_is_renewed_before_the_link_is_made() {
    let intent =
        |at: &str| json!({"linkAttempts": 1, "link": {"requestedAt": at}, "authConfigId": AUTH_CONFIG});
    let prepared = Observed {
        link_secret: Some(LinkSecret::Owned {
            account_id: None,
            expires_at: None,
        }),
        ..nothing_yet()
    };
    let old = object(&json!({}), &intent("2026-01-01T00:00:00Z"));
    assert_eq!(decide(&old, &prepared).step, Some(Step::RenewIntent));
    let fresh = object(&json!({}), &intent("2026-01-01T00:01:35Z"));
    assert!(matches!(
        decide(&fresh, &prepared).step,
        Some(Step::CreateLink { .. })
    ));
    let deleted = deleted(fresh);
    let plan = decide(&deleted, &nothing_yet());
    assert_eq!(plan.step, None, "the answer may still be on its way");
    assert!(
        plan.requeue_after
            .is_some_and(|wake| wake > Duration::from_mins(1))
    );
}

#[test]
fn an_account_in_status_that_is_not_this_objects_is_told_apart() {
    let object = object(&json!({}), &json!({"connectedAccountId": "ca_1"}));
    let view = View::from(&object);
    let ours = account("ca_1", AccountStatus::Active, Some(alias(UID, 1)));
    let other_person = Account {
        user_id: "somebody".to_owned(),
        ..ours.clone()
    };
    let other_object = account("ca_1", AccountStatus::Active, Some(alias("another-uid", 1)));
    let unnamed = account("ca_1", AccountStatus::Active, None);
    let judged = [&ours, &other_person, &other_object, &unnamed].map(|account| view.is_of_another(account));
    assert_eq!(judged, [false, true, true, false]);
}

#[test]
fn every_status_of_composio_maps_as_documented() {
    use AccountStatus as S;

    let known = json!({"connectedAccountId": "ca_1", "connectedAt": "2026-01-01T00:00:00Z", "displayName": "alice",
        "profileUrl": "p", "avatarUrl": "a", "identity": {"attempts": 0, "lastAttemptAt": "2026-01-01T00:00:00Z"}});
    let object = object(&json!({}), &known);
    let phase = |status| match decide(&object, &found(account("ca_1", status, None))).position {
        Position::At(phase) => phase,
        other => panic!("{other:?}"),
    };
    for pending in [S::Initializing, S::Initiated, S::Pending] {
        assert!(matches!(phase(pending), Phase::AwaitingConsent { .. }));
    }
    assert_eq!(phase(S::Active), Phase::Connected);
    assert_eq!(phase(S::Inactive), Phase::DisabledElsewhere { managed: true });
    assert_eq!(phase(S::Revoked), Phase::Revoked);
    assert_eq!(phase(S::Failed), Phase::ConsentFailed);
    assert_eq!(phase(S::Expired), Phase::CredentialExpired);
    assert_eq!(
        phase(S::Other("HIBERNATING".into())),
        Phase::UnknownStatus("HIBERNATING".into())
    );
    let gone = Observed {
        account: AccountView::NotFound,
        ..Observed::default()
    };
    let managed = true;
    assert_eq!(
        decide(&object, &gone).position,
        Phase::NotFound { managed }.into()
    );
}

#[test]
fn an_unused_link_is_renewed_while_renewals_last() {
    let expired = Account {
        status_reason: Some("Connection initiation did not complete within 10 minutes".into()),
        ..account("ca_1", AccountStatus::Expired, Some(alias(UID, 1)))
    };
    let with = |renewals: i64| {
        let status = json!({"connectedAccountId": "ca_1", "linkAttempts": 1, "linkRenewals": renewals, "authConfigId": AUTH_CONFIG});
        decide(
            &object(&json!({"link": {"renewals": 2}}), &status),
            &found(expired.clone()),
        )
    };
    let renew = Step::BeginLink {
        attempt: 2,
        auth_config_id: AUTH_CONFIG.into(),
        renewal: true,
        replaces: Some(("ca_1".into(), AccountStatus::Expired)),
    };
    assert_eq!(with(0).step, Some(renew.clone()));
    assert_eq!(with(1).step, Some(renew));
    assert_eq!(with(2), Plan::rest(Phase::LinkExpired));
}

#[test]
fn an_expired_credential_waits_for_a_request_even_if_renewals_are_left() {
    let expired = Account {
        status_reason: Some("Permanent auth error during token refresh".into()),
        ..account("ca_1", AccountStatus::Expired, None)
    };
    let object = object(
        &json!({}),
        &json!({"connectedAccountId": "ca_1", "linkAttempts": 4, "authConfigId": AUTH_CONFIG}),
    );
    let plan = decide(&object, &found(expired.clone()));
    assert_eq!(plan, Plan::rest(Phase::CredentialExpired));
    let asked = decide(&requested(object, "again"), &found(expired));
    assert!(matches!(
        asked.step,
        Some(Step::BeginLink {
            attempt: 5,
            renewal: false,
            ..
        })
    ));
}

#[test]
fn a_request_is_answered_before_the_credential_is_probed() {
    let object = requested(
        object(
            &json!({}),
            &json!({"connectedAccountId": "ca_1", "linkAttempts": 1}),
        ),
        "works?",
    );
    let step = decide(&object, &found(account("ca_1", AccountStatus::Active, None))).step;
    assert_eq!(step, Some(Step::Refresh { id: "ca_1".into() }));
}

#[test]
fn a_handled_request_asks_for_nothing() {
    let status = json!({"connectedAccountId": "ca_1", "lastHandledRequestAt": "t1"});
    let object = requested(object(&json!({}), &status), "t1");
    assert_eq!(
        decide(&object, &found(account("ca_1", AccountStatus::Revoked, None))).step,
        None
    );
}

#[test]
fn leftovers_of_earlier_attempts_go_before_a_new_link_is_made() {
    let status = json!({"linkAttempts": 3, "link": {"requestedAt": "2026-01-01T00:00:00Z"}, "authConfigId": AUTH_CONFIG});
    let observed = Observed {
        user_accounts: Some(vec![
            account("ca_other", AccountStatus::Active, Some("made by hand".into())),
            account("ca_old", AccountStatus::Expired, Some(alias(UID, 2))),
        ]),
        ..nothing_yet()
    };
    let step = decide(&object(&json!({}), &status), &observed).step;
    assert_eq!(
        step,
        Some(Step::DeleteAccount {
            id: "ca_old".into(),
            revoke: false,
            target: DeletionTarget::Orphan
        })
    );
}

#[test]
fn a_lost_answer_is_resolved_by_listing_never_by_a_second_create() {
    let status = json!({"linkAttempts": 1, "link": {"requestedAt": "2026-01-01T00:00:00Z"}, "authConfigId": AUTH_CONFIG});
    let object = object(&json!({}), &status);
    let seen = |state: AccountStatus, secret: LinkSecret| {
        let observed = Observed {
            user_accounts: Some(vec![account("ca_1", state, Some(alias(UID, 1)))]),
            link_secret: Some(secret),
            ..nothing_yet()
        };
        decide(&object, &observed).step.unwrap()
    };
    let stored = LinkSecret::Owned {
        account_id: Some("ca_1".into()),
        expires_at: Some(at(600)),
    };
    let empty = LinkSecret::Owned {
        account_id: None,
        expires_at: None,
    };
    // The link is at hand.
    assert!(matches!(
        seen(AccountStatus::Initializing, stored),
        Step::Adopt {
            expires_at: Some(_),
            ..
        }
    ));
    // The link was lost: another attempt, whose sweep removes this account.
    assert!(matches!(
        seen(AccountStatus::Initializing, empty.clone()),
        Step::BeginLink { attempt: 2, .. }
    ));
    // Somebody used it all the same.
    assert!(matches!(seen(AccountStatus::Active, empty), Step::Adopt { .. }));
}

#[test]
fn a_lost_status_is_recovered_from_the_aliases() {
    let observed = Observed {
        user_accounts: Some(vec![account("ca_9", AccountStatus::Active, Some(alias(UID, 9)))]),
        ..nothing_yet()
    };
    assert_eq!(
        decide(&object(&json!({}), &json!({})), &observed).step,
        Some(Step::RecoverAttempt { attempt: 9 })
    );
}

#[test]
fn a_link_secret_of_somebody_else_is_not_overwritten() {
    let status = json!({"linkAttempts": 1, "link": {"requestedAt": "2026-01-01T00:00:00Z"}, "authConfigId": AUTH_CONFIG});
    let observed = Observed {
        link_secret: Some(LinkSecret::NotOwned),
        ..nothing_yet()
    };
    let plan = decide(&object(&json!({}), &status), &observed);
    assert_eq!(
        (plan.step.clone(), stall_reason(&plan)),
        (None, Some(Reason::LinkSecretConflict))
    );
}

#[test]
fn a_link_secret_left_by_an_earlier_object_of_the_name_is_cleared_away() {
    let status = json!({"linkAttempts": 1, "link": {"requestedAt": "2026-01-01T00:00:00Z"}, "authConfigId": AUTH_CONFIG});
    let observed = Observed {
        link_secret: Some(LinkSecret::PreviousOwner),
        ..nothing_yet()
    };
    let plan = decide(&object(&json!({}), &status), &observed);
    assert_eq!(plan.step, Some(Step::DeletePreviousSecret));
}

#[test]
fn the_wrong_person_is_disabled_and_the_right_one_enabled_again() {
    let spec = json!({"expectedUsername": "Alice"});
    let status = |name| {
        json!({"connectedAccountId": "ca_1", "displayName": name, "profileUrl": "p", "avatarUrl": "a",
        "disabledByOperator": true, "identity": {"attempts": 0, "lastAttemptAt": "2026-01-01T00:00:00Z"}})
    };
    let active = found(account("ca_1", AccountStatus::Active, None));
    let inactive = found(account("ca_1", AccountStatus::Inactive, None));
    let wrong = object(&spec, &status("mallory"));
    assert_eq!(
        decide(&wrong, &active).step,
        Some(Step::SetEnabled {
            id: "ca_1".into(),
            enabled: false
        })
    );
    assert!(matches!(
        decide(&wrong, &inactive).position,
        Position::At(Phase::IdentityMismatch { .. })
    ));
    let right = object(&spec, &status("aLICE"));
    assert_eq!(decide(&right, &active).step, None);
    assert_eq!(
        decide(&right, &inactive).step,
        Some(Step::SetEnabled {
            id: "ca_1".into(),
            enabled: true
        })
    );
}

#[test]
fn the_wrong_person_on_an_adopted_account_is_refused_but_left_alone() {
    let spec = json!({"expectedUsername": "alice", "connectedAccountId": "ca_1"});
    let status = json!({"connectedAccountId": "ca_1", "displayName": "mallory", "profileUrl": "p", "avatarUrl": "a",
        "identity": {"attempts": 0, "lastAttemptAt": "2026-01-01T00:00:00Z"}});
    let plan = decide(
        &object(&spec, &status),
        &found(account("ca_1", AccountStatus::Active, None)),
    );
    assert!(plan.step.is_none() && matches!(plan.position, Position::At(Phase::IdentityMismatch { .. })));
}

#[test]
fn somebody_elses_disabling_is_not_fought_but_undone_on_request() {
    let object = object(&json!({}), &json!({"connectedAccountId": "ca_1"}));
    let inactive = found(account("ca_1", AccountStatus::Inactive, None));
    assert_eq!(decide(&object, &inactive).step, None);
    let enable = Step::SetEnabled {
        id: "ca_1".into(),
        enabled: true,
    };
    assert_eq!(decide(&requested(object, "t"), &inactive).step, Some(enable));
}

#[test]
fn a_suspended_object_can_be_deleted() {
    let suspended = object(
        &json!({"suspend": true}),
        &json!({"connectedAccountId": "ca_1", "linkAttempts": 1}),
    );
    let user_accounts = Some(vec![account("ca_1", AccountStatus::Active, Some(alias(UID, 1)))]);
    let observed = Observed {
        user_accounts,
        ..Observed::default()
    };
    let step = decide(&deleted(suspended), &observed).step;
    assert_eq!(
        step,
        Some(Step::DeleteAccount {
            id: "ca_1".into(),
            revoke: false,
            target: DeletionTarget::Current
        })
    );
}

#[test]
fn deletion_follows_the_policy() {
    let revokes = |spec, status| {
        let object = deleted(object(&spec, &status));
        let view = View::from(&object);
        // Without a finalizer's need the runtime asks for nothing.
        if !RedditConnections::needs_finalizer(&view) {
            return None;
        }
        let user_accounts = Some(vec![account("ca_1", AccountStatus::Active, None)]);
        let observed = Observed {
            user_accounts,
            ..Observed::default()
        };
        match decide(&object, &observed).step {
            Some(Step::DeleteAccount {
                id,
                revoke,
                target: DeletionTarget::Current,
            }) if id == "ca_1" => Some(revoke),
            other => panic!("{other:?}"),
        }
    };
    let made = json!({"connectedAccountId": "ca_1", "linkAttempts": 1});
    let adopted = json!({"connectedAccountId": "ca_1"});
    assert_eq!(revokes(json!({}), made.clone()), Some(false));
    assert_eq!(
        revokes(json!({"deletionPolicy": "Revoke"}), made.clone()),
        Some(true)
    );
    assert_eq!(revokes(json!({"deletionPolicy": "Retain"}), made), None);
    assert_eq!(
        revokes(json!({"connectedAccountId": "ca_1"}), adopted.clone()),
        None
    );
    assert_eq!(
        revokes(
            json!({"connectedAccountId": "ca_1", "deletionPolicy": "Delete"}),
            adopted
        ),
        Some(false)
    );
}

#[test]
fn deletion_waits_for_a_create_that_was_never_answered() {
    let status = |requested| json!({"linkAttempts": 1, "link": {"requestedAt": requested}});
    let observed = Observed {
        user_accounts: Some(vec![]),
        ..Observed::default()
    };
    let early = decide(
        &deleted(object(&json!({}), &status("2026-01-01T00:01:30Z"))),
        &observed,
    );
    assert!(early.step.is_none() && early.requeue_after.is_some(), "{early:?}");
    let late = decide(
        &deleted(object(&json!({}), &status("2026-01-01T00:00:00Z"))),
        &observed,
    );
    assert_eq!(late, Plan::rest(Position::Unchanged));
}

#[test]
fn while_backing_off_nothing_is_asked_and_nothing_is_done() {
    let status = json!({"observedGeneration": 1, "linkAttempts": 1, "state": "pending",
        "link": {"requestedAt": "2026-01-01T00:00:00Z"}, "authConfigId": AUTH_CONFIG,
        "retry": {"failures": 2, "lastFailureAt": "2026-01-01T00:01:30Z", "nextAttemptAt": "2026-01-01T00:02:00Z",
            "reason": "ComposioUnavailable"}});
    let waiting = object(&json!({}), &status);
    assert_eq!(
        queries(&View::from(&waiting), &AccountView::None, at(100)),
        super::Queries::default()
    );
    assert_eq!(
        decide(&waiting, &Observed::default()),
        Plan::rest(Position::Unchanged)
    );
    // A new spec or a request ends the wait.
    let mut edited = waiting.clone();
    edited.metadata.generation = Some(2);
    assert!(queries(&View::from(&edited), &AccountView::None, at(100)).user_accounts);
    assert!(queries(&View::from(&requested(waiting, "t")), &AccountView::None, at(100)).user_accounts);
}

#[test]
fn the_account_moving_on_shows_at_once_even_while_backing_off() {
    let status = json!({"observedGeneration": 1, "connectedAccountId": "ca_1", "state": "pending",
        "retry": {"failures": 2, "lastFailureAt": "2026-01-01T00:01:30Z", "nextAttemptAt": "2026-01-01T00:09:00Z",
            "reason": "LinkNotStored"}, "displayName": "a", "profileUrl": "p", "avatarUrl": "a",
        "identity": {"attempts": 0, "lastAttemptAt": "2026-01-01T00:00:00Z"}});
    let plan = decide(
        &object(&json!({}), &status),
        &found(account("ca_1", AccountStatus::Active, None)),
    );
    assert_eq!(plan, Plan::rest(Phase::Connected));
}

#[test]
fn polls_are_fast_then_slow_then_settled() {
    let secs = std::time::Duration::from_secs;
    let pending = AccountView::Found(account("ca_1", AccountStatus::Initiated, None));
    let active = AccountView::Found(account("ca_1", AccountStatus::Active, None));
    let link = |at: &str| json!({"connectedAccountId": "ca_1", "link": {"requestedAt": at}});
    let of = |status: &serde_json::Value, view: &AccountView| {
        poll_interval(&View::from(&object(&json!({}), status)), view, at(200))
    };
    assert_eq!(
        of(&link("2026-01-01T00:03:00Z"), &pending),
        (secs(4), Priority::Pending)
    );
    assert_eq!(
        of(&link("2026-01-01T00:00:00Z"), &pending),
        (secs(30), Priority::Pending)
    );
    let fresh = json!({"connectedAt": "2026-01-01T00:03:00Z"});
    assert_eq!(of(&fresh, &active).0, secs(4));
    let known = json!({"connectedAt": "2026-01-01T00:03:00Z", "displayName": "a", "profileUrl": "p", "avatarUrl": "v",
        "identity": {"attempts": 0, "lastAttemptAt": "2026-01-01T00:03:01Z"}});
    assert_eq!(of(&known, &active), (secs(300), Priority::Background));
    assert_eq!(
        of(&known, &AccountView::NotFound),
        (secs(300), Priority::Background)
    );
}

#[test]
fn identity_is_looked_up_fast_then_slower_and_not_for_ever() {
    let active = found(account("ca_1", AccountStatus::Active, None));
    let with = |attempts: i64, last: &str| {
        let status = json!({"connectedAccountId": "ca_1", "connectedAt": "2026-01-01T00:00:00Z",
            "identity": {"attempts": attempts, "lastAttemptAt": last}});
        decide(&object(&json!({}), &status), &active)
    };
    assert!(matches!(
        with(1, "2026-01-01T00:01:30Z").step,
        Some(Step::Identify { .. })
    ));
    assert_eq!(
        with(1, "2026-01-01T00:01:38Z").requeue_after,
        Some(std::time::Duration::from_secs(2))
    );
    assert_eq!(with(30, "2026-01-01T00:00:00Z").step, None);
}
