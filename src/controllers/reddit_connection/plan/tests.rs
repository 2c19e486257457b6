//! Tables for `plan`: one rule a case.

use std::time::Duration;

use serde_json::json;

use super::{DeletionTarget, Plan, Step, plan, poll_interval, queries};
use crate::api::reddit_connection::ApiKeyStatus;
use crate::api::{Reason, RedditConnection};
use crate::composio::{Account, AccountStatus, AuthConfig, Priority};
use crate::controllers::reddit_connection::RedditConnections;
use crate::controllers::reddit_connection::fixtures::{
    AUTH_CONFIG, UID, account, at, auth_config, deleted, object, requested,
};
use crate::controllers::reddit_connection::identity::Identity;
use crate::controllers::reddit_connection::observed::{
    AccountView, LinkSecret, LookUp, Observed, Proofs, View, alias, attempt_of,
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
fn an_adopted_account_of_another_auth_config_is_refused() {
    let object = object(
        &json!({"authConfigId": "ac_mine", "connectedAccountId": "ca_1"}),
        &json!({}),
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
        "profileUrl": "p", "avatarUrl": "a", "identity": {"lastAttemptAt": "2026-01-01T00:00:00Z"}});
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
        Phase::NotFound {
            managed,
            key_differs: false
        }
        .into()
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
    let expired = account("ca_1", AccountStatus::Expired, None);
    let object = object(
        &json!({}),
        &json!({"connectedAccountId": "ca_1", "linkAttempts": 4, "authConfigId": AUTH_CONFIG,
            "connectedAt": "2025-12-31T00:00:00Z"}),
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
        "disabledByOperator": true, "identity": {"lastAttemptAt": "2026-01-01T00:00:00Z"}})
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
    let enable = || {
        Some(Step::SetEnabled {
            id: "ca_1".into(),
            enabled: true,
        })
    };
    assert_eq!(decide(&right, &inactive).step, enable());
    assert_eq!(
        decide(&right, &active).step,
        enable(),
        "disabling may be under way"
    );
}

#[test]
fn the_wrong_person_on_an_adopted_account_is_refused_but_left_alone() {
    let spec = json!({"expectedUsername": "alice", "connectedAccountId": "ca_1"});
    let status = json!({"connectedAccountId": "ca_1", "displayName": "mallory", "profileUrl": "p", "avatarUrl": "a",
        "identity": {"lastAttemptAt": "2026-01-01T00:00:00Z"}});
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
        "identity": {"lastAttemptAt": "2026-01-01T00:00:00Z"}});
    let plan = decide(
        &object(&json!({}), &status),
        &found(account("ca_1", AccountStatus::Active, None)),
    );
    assert_eq!((plan.step, plan.position), (None, Phase::Connected.into()));
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
        "identity": {"lastAttemptAt": "2026-01-01T00:03:01Z"}});
    assert_eq!(of(&known, &active), (secs(300), Priority::Background));
    assert_eq!(
        of(&known, &AccountView::NotFound),
        (secs(300), Priority::Background)
    );
}

/// An account of somebody whose look-ups go as `identity` and `look_up` say, 100 s after the person connected.
fn look_up(identity: &serde_json::Value, look_up: LookUp) -> Plan {
    let status = json!({"connectedAccountId": "ca_1", "connectedAt": "2026-01-01T00:00:00Z", "displayName": "alice",
        "conditions": [{"type": "Usable", "status": "True", "reason": "IdentityResolved", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "identity": identity});
    let observed = Observed {
        look_up,
        ..found(account("ca_1", AccountStatus::Active, None))
    };
    decide(&object(&json!({}), &status), &observed)
}

fn known(display_name: &str) -> Identity {
    Identity::Known {
        display_name: display_name.to_owned(),
        avatar_url: None,
    }
}

#[test]
fn an_identity_is_looked_up_at_once_and_while_that_fails_again_and_again() {
    let wait = |last: &str, failing_since: &str| {
        let plan = look_up(
            &json!({"lastAttemptAt": last, "failingSince": failing_since}),
            LookUp::None,
        );
        match plan.step {
            Some(Step::LookUpIdentity { again: false, .. }) => Duration::ZERO,
            None => plan.requeue_after.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(
        look_up(&json!(null), LookUp::None).step,
        Some(Step::LookUpIdentity { .. })
    ));
    let secs = Duration::from_secs;
    assert_eq!(
        wait("2026-01-01T00:01:30Z", "2026-01-01T00:00:30Z"),
        secs(0),
        "fast"
    );
    assert_eq!(
        wait("2026-01-01T00:01:38Z", "2026-01-01T00:00:30Z"),
        secs(2),
        "fast"
    );
    let of_old = |last: &str, failing_since: &str| {
        let status = json!({"connectedAccountId": "ca_1", "connectedAt": "2025-01-01T00:00:00Z",
            "identity": {"lastAttemptAt": last, "failingSince": failing_since}});
        let active = found(account("ca_1", AccountStatus::Active, None));
        decide(&object(&json!({}), &status), &active).requeue_after
    };
    let slow = Some(secs(30 - 10));
    assert_eq!(
        of_old("2026-01-01T00:01:30Z", "2026-01-01T00:01:00Z"),
        slow,
        "slow"
    );
    let settled = Some(secs(300 - 10));
    assert_eq!(
        of_old("2026-01-01T00:01:30Z", "2025-01-01T00:00:00Z"),
        settled,
        "settled, and no end"
    );
}

/// Found as an object that called its credential usable for ever, hours after the person had withdrawn the grant.
#[test]
fn a_credential_is_proven_again_within_the_interval() {
    let proven = |at: &str| look_up(&json!({"lastAttemptAt": at}), LookUp::None);
    let again = |plan: &Plan| matches!(plan.step, Some(Step::LookUpIdentity { again: true, .. }));
    let fresh = proven("2026-01-01T00:01:00Z");
    assert!(fresh.step.is_none() && fresh.requeue_after.unwrap() <= Duration::from_hours(1));
    assert!(again(&proven("2025-12-31T23:01:00Z")));
    // The proof that is not on record counts as well.
    let ended = LookUp::Ended(at(90));
    assert!(
        look_up(&json!({"lastAttemptAt": "2025-12-31T23:01:00Z"}), ended)
            .step
            .is_none()
    );
}

#[test]
fn after_a_start_proofs_are_spread_over_an_interval() {
    let status = json!({"connectedAccountId": "ca_1", "displayName": "alice",
        "identity": {"lastAttemptAt": "2025-01-01T00:00:00Z"}});
    let due = |uid: usize| {
        let mut object = object(&json!({}), &status);
        object.metadata.uid = Some(format!("uid-{uid}"));
        let observed = Observed {
            proofs: Proofs {
                since: at(100),
                ..Proofs::default()
            },
            ..found(account("ca_1", AccountStatus::Active, None))
        };
        decide(&object, &observed).requeue_after.unwrap_or_default()
    };
    let waits: Vec<_> = (0..100).map(due).collect();
    assert!(waits.iter().all(|wait| *wait <= Duration::from_hours(1)));
    let soon = waits
        .iter()
        .filter(|wait| **wait < Duration::from_mins(15))
        .count();
    assert!((10..45).contains(&soon), "{soon} of 100 in the first quarter");
}

#[test]
fn only_news_of_an_identity_is_recorded() {
    let working = || json!({"lastAttemptAt": "2026-01-01T00:01:00Z"});
    let failing = |since: &str| json!({"lastAttemptAt": "2026-01-01T00:01:00Z", "failingSince": since});
    let unknown = || Identity::Unknown {
        message: "no answer".to_owned(),
    };
    let rejected = || Identity::Rejected {
        message: "invalid_grant".to_owned(),
    };
    let now = "2026-01-01T00:01:00Z";
    let table = [
        ("nothing on record", json!(null), known("alice"), true),
        ("still alice", working(), known("alice"), false),
        ("somebody else", working(), known("bob"), true),
        ("works again", failing(now), known("alice"), true),
        ("fails for the first time", working(), unknown(), true),
        ("fails again", failing(now), unknown(), false),
        (
            "fails for an hour",
            failing("2025-12-31T23:01:00Z"),
            unknown(),
            true,
        ),
        ("is withdrawn", working(), rejected(), true),
        ("is withdrawn after failures", failing(now), rejected(), true),
    ];
    for (case, on_record, identity, is_news) in table {
        let plan = look_up(&on_record, LookUp::Found { identity, at: at(99) });
        let recorded = matches!(plan.step, Some(Step::RecordIdentity { .. }));
        assert_eq!(recorded, is_news, "{case}: {plan:?}");
    }
}

/// Found as a stranger who stayed connected, and nobody was told that nobody had checked.
#[test]
fn an_expected_user_that_cannot_be_verified_stalls_while_asking_goes_on() {
    let after = |connected_at: &str| {
        let status = json!({"connectedAccountId": "ca_1", "connectedAt": connected_at,
            "identity": {"lastAttemptAt": "2026-01-01T00:01:39Z", "failingSince": connected_at}});
        let active = found(account("ca_1", AccountStatus::Active, None));
        decide(&object(&json!({"expectedUsername": "alice"}), &status), &active)
    };
    let overdue = |plan: &Plan| {
        matches!(
            plan.position,
            Position::At(Phase::VerifyingIdentity { overdue: true, .. })
        )
    };
    assert!(!overdue(&after("2026-01-01T00:00:00Z")));
    let late = after("2025-12-31T23:50:00Z");
    assert!(overdue(&late) && late.requeue_after.is_some(), "{late:?}");
}

#[test]
fn an_account_whose_auth_config_is_disabled_is_not_ready() {
    for status in [AccountStatus::Active, AccountStatus::Initiated] {
        let mut unusable = account("ca_1", status, None);
        unusable.auth_config_disabled = true;
        let on_record =
            json!({"connectedAccountId": "ca_1", "identity": {"lastAttemptAt": "2026-01-01T00:01:39Z"}});
        let plan = decide(&object(&json!({}), &on_record), &found(unusable));
        assert!(
            matches!(plan.position, Position::At(Phase::AuthConfigDisabled { .. })),
            "{plan:?}"
        );
    }
}

/// Found as an object that was left disabled for good: it had been disabled, and enabled again before that was known.
#[test]
fn disabling_is_on_record_before_it_happens_and_taken_back_even_if_it_does_not_show() {
    let active = found(account("ca_1", AccountStatus::Active, None));
    let step = |enabled: bool, recorded: bool| {
        let status = json!({"connectedAccountId": "ca_1", "disabledByOperator": recorded,
            "identity": {"lastAttemptAt": "2026-01-01T00:01:39Z"}, "displayName": "alice"});
        decide(&object(&json!({"enabled": enabled}), &status), &active).step
    };
    let id = || "ca_1".to_owned();
    assert_eq!(step(false, false), Some(Step::RecordDisabling));
    assert_eq!(
        step(false, true),
        Some(Step::SetEnabled {
            id: id(),
            enabled: false
        })
    );
    assert_eq!(
        step(true, true),
        Some(Step::SetEnabled {
            id: id(),
            enabled: true
        })
    );
    assert_eq!(step(true, false), None);
}

/// Found as a disabled object that was called ready while its account, which status had lost, was in use.
#[test]
fn what_is_disabled_without_a_known_account_is_looked_for_first() {
    let disabled = |status: serde_json::Value| object(&json!({"enabled": false}), &status);
    let step = |status: serde_json::Value, observed: &Observed| decide(&disabled(status), observed);
    let own = |status| account("ca_1", status, Some(alias(UID, 1)));
    let with = |account| Observed {
        user_accounts: Some(vec![account]),
        ..nothing_yet()
    };
    let attempts = json!({"linkAttempts": 1});
    assert!(queries(&View::from(&disabled(json!({}))), &AccountView::None, at(100)).user_accounts);
    assert!(matches!(
        step(attempts.clone(), &with(own(AccountStatus::Active))).step,
        Some(Step::Adopt { .. })
    ));
    assert!(matches!(
        step(json!({}), &with(own(AccountStatus::Active))).step,
        Some(Step::RecoverAttempt { attempt: 1 })
    ));
    assert!(matches!(
        step(attempts, &with(own(AccountStatus::Initializing))).step,
        Some(Step::DeleteAccount {
            target: DeletionTarget::Orphan,
            ..
        })
    ));
    let in_secret = Observed {
        link_secret: Some(LinkSecret::Owned {
            account_id: Some("ca_1".to_owned()),
            expires_at: None,
        }),
        ..nothing_yet()
    };
    assert_eq!(step(json!({}), &in_secret).step, Some(Step::DeletePreviousSecret));
    let unanswered = step(
        json!({"link": {"requestedAt": "2026-01-01T00:01:00Z"}}),
        &nothing_yet(),
    );
    assert_eq!(unanswered.position, Phase::Disabling.into());
    assert!(unanswered.requeue_after.is_some());
    assert_eq!(step(json!({}), &nothing_yet()), Plan::rest(Phase::Disabled));
}

/// Found as an account that survived both a new link and the deletion of its object.
#[test]
fn an_account_that_was_replaced_is_this_objects_whatever_its_alias() {
    let status = json!({"linkAttempts": 2, "link": {"requestedAt": "2026-01-01T00:01:39Z"}, "replaced": {"id": "ca_1"}});
    let observed = Observed {
        user_accounts: Some(vec![account("ca_1", AccountStatus::Active, None)]),
        ..nothing_yet()
    };
    let orphan = Some(Step::DeleteAccount {
        id: "ca_1".to_owned(),
        revoke: false,
        target: DeletionTarget::Orphan,
    });
    let relinked = object(&json!({}), &status);
    assert_eq!(decide(&relinked, &observed).step, orphan);
    assert_eq!(decide(&deleted(relinked), &observed).step, orphan);
}

/// Found as accounts that stayed in the project of an earlier API key, which the operator announced as gone.
#[test]
fn what_was_seen_with_another_key_is_not_gone_because_this_key_does_not_show_it() {
    let key = |fingerprint: &str| {
        Some(ApiKeyStatus {
            fingerprint: fingerprint.to_owned(),
            secret_ref: None,
        })
    };
    let with_key = |observed: Observed| Observed {
        api_key: key("new"),
        ..observed
    };
    let status = json!({"connectedAccountId": "ca_1", "apiKey": {"fingerprint": "old"}});
    let not_found = with_key(Observed {
        account: AccountView::NotFound,
        ..Observed::default()
    });
    let phase = decide(&object(&json!({}), &status), &not_found).position;
    assert!(
        matches!(
            phase,
            Position::At(Phase::NotFound {
                key_differs: true,
                ..
            })
        ),
        "{phase:?}"
    );
    // What a new link replaces is cleaned up with the key that it was seen with.
    let status = json!({"linkAttempts": 2, "link": {"requestedAt": "2026-01-01T00:01:39Z"},
        "replaced": {"id": "ca_1", "apiKey": {"fingerprint": "old"}}});
    let replaced = Some(Step::DeleteAccount {
        id: "ca_1".to_owned(),
        revoke: false,
        target: DeletionTarget::Replaced,
    });
    let relinked = object(&json!({}), &status);
    assert_eq!(decide(&relinked, &with_key(nothing_yet())).step, replaced);
    assert_eq!(
        decide(&deleted(relinked), &with_key(nothing_yet())).step,
        replaced
    );
}

/// Found as a second account: a refusal of the alias had been counted together with failures of another kind.
#[test]
fn the_next_alias_is_used_only_after_refusals_of_this_one() {
    let step = |refusals: i64| {
        let status = json!({"linkAttempts": 1,
            "link": {"requestedAt": "2026-01-01T00:01:39Z", "aliasRefusals": refusals}});
        let prepared = Observed {
            link_secret: Some(LinkSecret::Owned {
                account_id: None,
                expires_at: None,
            }),
            ..nothing_yet()
        };
        decide(&object(&json!({}), &status), &prepared).step
    };
    assert!(matches!(step(4), Some(Step::CreateLink { .. })));
    assert!(matches!(step(5), Some(Step::BeginLink { attempt: 2, .. })));
}

#[test]
fn an_auth_config_that_was_used_before_is_checked_again_when_a_link_is_made() {
    let status = json!({"authConfigId": "ac_gone"});
    let step = decide(&object(&json!({}), &status), &nothing_yet()).step;
    assert!(matches!(step, Some(Step::BeginLink { auth_config_id, .. }) if auth_config_id == AUTH_CONFIG));
}

/// Found when the auth config of a connected object was named afterwards: it was refused, and nobody could take it back.
#[test]
fn naming_another_auth_config_leaves_the_connected_account_alone() {
    let status = json!({"connectedAccountId": "ca_1", "identity": {"lastAttemptAt": "2026-01-01T00:01:39Z"}});
    let named = object(&json!({"authConfigId": "ac_other"}), &status);
    let plan = decide(&named, &found(account("ca_1", AccountStatus::Active, None)));
    assert!(
        matches!(plan.position, Position::At(Phase::Connected)),
        "{plan:?}"
    );
}

/// Found when a mail scanner had opened the link, and the Secret was gone: nobody had a link until it expired.
#[test]
fn a_link_that_is_lost_or_asked_for_is_replaced_also_after_it_was_opened() {
    let status = json!({"connectedAccountId": "ca_1", "authConfigId": AUTH_CONFIG, "linkAttempts": 1,
        "link": {"requestedAt": "2026-01-01T00:01:00Z", "secretName": "alice-link"}});
    let pending = object(&json!({}), &status);
    let opened = |secret| Observed {
        link_secret: Some(secret),
        ..found(account("ca_1", AccountStatus::Initiated, None))
    };
    let held = LinkSecret::Owned {
        account_id: Some("ca_1".to_owned()),
        expires_at: None,
    };
    let begins = |plan: Plan| matches!(plan.step, Some(Step::BeginLink { attempt: 2, .. }));
    assert!(begins(decide(&pending, &opened(LinkSecret::Absent))));
    assert!(!begins(decide(&pending, &opened(held.clone()))));
    assert!(begins(decide(&requested(pending, "t"), &opened(held))));
}

/// Found as "nobody used the link" of people who had opened it and not finished in time.
#[test]
fn links_that_were_opened_and_not_finished_are_told_apart_from_unused_ones() {
    let end = |opened: i64| {
        let status = json!({"connectedAccountId": "ca_1", "linkRenewals": 3, "linksOpened": opened});
        let expired = found(account("ca_1", AccountStatus::Expired, None));
        decide(&object(&json!({}), &status), &expired).position
    };
    assert_eq!(end(0), Phase::LinkExpired.into());
    assert_eq!(end(2), Phase::ConsentTimedOut { opened: 2 }.into());
}

#[test]
fn a_link_that_moved_to_the_status_leaves_no_secret_behind() {
    let status = json!({"linkAttempts": 2, "link": {"requestedAt": "2026-01-01T00:01:39Z"}});
    let moved = object(&json!({"link": {"publish": "Status"}}), &status);
    let left = Observed {
        link_secret: Some(LinkSecret::Owned {
            account_id: Some("ca_1".to_owned()),
            expires_at: None,
        }),
        ..nothing_yet()
    };
    assert_eq!(decide(&moved, &left).step, Some(Step::DeletePreviousSecret));
}
