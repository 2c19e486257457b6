//! Tables for `plan`: one rule a case.

use std::time::Duration;

use serde_json::json;

use super::{Doomed, Plan, Step, cadence, inquiries, plan};
use crate::api::RedditConnection;
use crate::composio::{Account, AccountStatus, AuthConfig, Priority};
use crate::controllers::failure::{Failure, Reason};
use crate::controllers::reddit_connection::fixtures::{
    AUTH_CONFIG, UID, account, at, auth_config, deleted, object, requested,
};
use crate::controllers::reddit_connection::observed::{
    AccountView, LinkSecret, Observed, Subject, alias, attempt_of,
};
use crate::controllers::reddit_connection::phase::Phase;

fn decide(object: &RedditConnection, observed: &Observed) -> Plan {
    plan(&Subject::from(object), observed, at(100))
}

fn found(account: Account) -> Observed {
    Observed {
        account: AccountView::Found(account),
        ..Observed::default()
    }
}

fn nothing_yet() -> Observed {
    Observed {
        inventory: Some(vec![]),
        auth_configs: Some(vec![auth_config(AUTH_CONFIG, true)]),
        link_secret: Some(LinkSecret::Absent),
        ..Observed::default()
    }
}

fn stall_reason(plan: &Plan) -> Option<Reason> {
    match &plan.phase {
        Phase::Failed(failure) | Phase::Refused(failure) => Some(failure.reason),
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
fn a_new_object_gets_its_finalizer_then_an_intent_then_a_secret_then_a_link() {
    let mut new = object(&json!({}), &json!({}));
    new.metadata.finalizers = None;
    assert_eq!(decide(&new, &nothing_yet()).step, Some(Step::AddFinalizer));

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
        link_secret: Some(LinkSecret::Ours {
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
fn an_object_that_only_watches_needs_no_finalizer_and_changes_nothing() {
    let spec = json!({"managementPolicy": "Observe", "connectedAccountId": "ca_1"});
    let mut observing = object(&spec, &json!({}));
    observing.metadata.finalizers = None;
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
    let Phase::Failed(failure) = two.phase else {
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
    // The listing of this person does not show the other person's account.
    let deletion = decide(
        &deleted(adopting),
        &Observed {
            inventory: Some(vec![]),
            ..Observed::default()
        },
    );
    assert_eq!(deletion.step, Some(Step::RemoveFinalizer { abandoned: None }));
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
        link_secret: Some(LinkSecret::Ours {
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
    assert!(plan.wake.is_some_and(|wake| wake > Duration::from_mins(1)));
}

#[test]
fn an_account_in_status_that_is_not_this_objects_is_told_apart() {
    let object = object(&json!({}), &json!({"connectedAccountId": "ca_1"}));
    let subject = Subject::from(&object);
    let ours = account("ca_1", AccountStatus::Active, Some(alias(UID, 1)));
    let other_person = Account {
        user_id: "somebody".to_owned(),
        ..ours.clone()
    };
    let other_object = account("ca_1", AccountStatus::Active, Some(alias("another-uid", 1)));
    let unnamed = account("ca_1", AccountStatus::Active, None);
    let judged =
        [&ours, &other_person, &other_object, &unnamed].map(|account| subject.is_of_another(account));
    assert_eq!(judged, [false, true, true, false]);
}

#[test]
fn every_status_of_composio_maps_as_documented() {
    use AccountStatus as S;

    let known = json!({"connectedAccountId": "ca_1", "connectedAt": "2026-01-01T00:00:00Z", "displayName": "alice",
        "profileUrl": "p", "avatarUrl": "a", "identity": {"attempts": 0, "lastAttemptAt": "2026-01-01T00:00:00Z"}});
    let object = object(&json!({}), &known);
    let phase = |status| decide(&object, &found(account("ca_1", status, None))).phase;
    for pending in [S::Initializing, S::Initiated, S::Pending] {
        assert!(matches!(phase(pending), Phase::AwaitingConsent { .. }));
    }
    assert_eq!(
        phase(S::Active),
        Phase::Connected {
            display_name: Some("alice".into())
        }
    );
    assert_eq!(phase(S::Inactive), Phase::DisabledElsewhere { managed: true });
    assert_eq!(phase(S::Revoked), Phase::Revoked);
    assert_eq!(phase(S::Failed), Phase::ConsentFailed);
    assert_eq!(phase(S::Expired), Phase::CredentialExpired);
    assert_eq!(
        phase(S::Other("HIBERNATING".into())),
        Phase::UnknownStatus("HIBERNATING".into())
    );
    let gone = Observed {
        account: AccountView::Gone,
        ..Observed::default()
    };
    assert_eq!(decide(&object, &gone).phase, Phase::Gone { managed: true });
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
    assert_eq!((with(2).step, with(2).phase), (None, Phase::LinkExpired));
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
    assert_eq!((plan.step, plan.phase), (None, Phase::CredentialExpired));
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
        inventory: Some(vec![
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
            role: Doomed::Stray
        })
    );
}

#[test]
fn a_lost_answer_is_resolved_by_listing_never_by_a_second_create() {
    let status = json!({"linkAttempts": 1, "link": {"requestedAt": "2026-01-01T00:00:00Z"}, "authConfigId": AUTH_CONFIG});
    let object = object(&json!({}), &status);
    let seen = |state: AccountStatus, secret: LinkSecret| {
        let observed = Observed {
            inventory: Some(vec![account("ca_1", state, Some(alias(UID, 1)))]),
            link_secret: Some(secret),
            ..nothing_yet()
        };
        decide(&object, &observed).step.unwrap()
    };
    let stored = LinkSecret::Ours {
        account_id: Some("ca_1".into()),
        expires_at: Some(at(600)),
    };
    let empty = LinkSecret::Ours {
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
        inventory: Some(vec![account("ca_9", AccountStatus::Active, Some(alias(UID, 9)))]),
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
        link_secret: Some(LinkSecret::Foreign),
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
        link_secret: Some(LinkSecret::Leftover),
        ..nothing_yet()
    };
    let plan = decide(&object(&json!({}), &status), &observed);
    assert_eq!(plan.step, Some(Step::DeleteLeftoverSecret));
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
        decide(&wrong, &inactive).phase,
        Phase::IdentityMismatch { .. }
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
    assert!(plan.step.is_none() && matches!(plan.phase, Phase::IdentityMismatch { .. }));
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
fn a_suspended_object_does_nothing_but_can_be_deleted() {
    let spec = json!({"suspend": true});
    let suspended = object(&spec, &json!({"connectedAccountId": "ca_1", "linkAttempts": 1}));
    let active = found(account("ca_1", AccountStatus::Active, None));
    assert_eq!(
        decide(&suspended, &active),
        Plan {
            step: None,
            phase: Phase::Suspended,
            wake: None
        }
    );
    let inventory = Some(vec![account("ca_1", AccountStatus::Active, Some(alias(UID, 1)))]);
    let step = decide(
        &deleted(suspended),
        &Observed {
            inventory,
            ..Observed::default()
        },
    )
    .step;
    assert_eq!(
        step,
        Some(Step::DeleteAccount {
            id: "ca_1".into(),
            revoke: false,
            role: Doomed::Current
        })
    );
}

#[test]
fn deletion_follows_the_policy() {
    let step = |spec, status| {
        let inventory = Some(vec![account("ca_1", AccountStatus::Active, None)]);
        decide(
            &deleted(object(&spec, &status)),
            &Observed {
                inventory,
                ..Observed::default()
            },
        )
        .step
        .unwrap()
    };
    let made = json!({"connectedAccountId": "ca_1", "linkAttempts": 1});
    let adopted = json!({"connectedAccountId": "ca_1"});
    let release = Step::RemoveFinalizer { abandoned: None };
    let delete = |revoke| Step::DeleteAccount {
        id: "ca_1".into(),
        revoke,
        role: Doomed::Current,
    };
    assert_eq!(step(json!({}), made.clone()), delete(false));
    assert_eq!(
        step(json!({"deletionPolicy": "Revoke"}), made.clone()),
        delete(true)
    );
    assert_eq!(step(json!({"deletionPolicy": "Retain"}), made), release);
    assert_eq!(
        step(json!({"connectedAccountId": "ca_1"}), adopted.clone()),
        release
    );
    assert_eq!(
        step(
            json!({"connectedAccountId": "ca_1", "deletionPolicy": "Delete"}),
            adopted
        ),
        delete(false)
    );
}

#[test]
fn deletion_waits_for_a_create_that_was_never_answered() {
    let status = |requested| json!({"linkAttempts": 1, "link": {"requestedAt": requested}});
    let observed = Observed {
        inventory: Some(vec![]),
        ..Observed::default()
    };
    let early = decide(
        &deleted(object(&json!({}), &status("2026-01-01T00:01:30Z"))),
        &observed,
    );
    assert!(early.step.is_none() && early.wake.is_some(), "{early:?}");
    let late = decide(
        &deleted(object(&json!({}), &status("2026-01-01T00:00:00Z"))),
        &observed,
    );
    assert_eq!(late.step, Some(Step::RemoveFinalizer { abandoned: None }));
}

#[test]
fn a_missing_secret_does_not_block_deletion_for_ever() {
    let failing = Observed {
        failure: Some(Failure::waiting(Reason::ApiKeyNotFound, "no Secret", None)),
        ..Observed::default()
    };
    let after = |failures: i64| {
        let status = json!({"observedGeneration": 2, "connectedAccountId": "ca_1", "linkAttempts": 1, "retry": {
            "failures": failures, "lastFailureAt": "2026-01-01T00:00:00Z",
            "nextAttemptAt": "2026-01-01T00:00:10Z", "reason": "ApiKeyNotFound"}});
        decide(&deleted(object(&json!({}), &status)), &failing)
    };
    assert!(matches!(after(1).phase, Phase::Failed(_)));
    assert_eq!(
        after(8).step,
        Some(Step::RemoveFinalizer {
            abandoned: Some("ApiKeyNotFound".into())
        })
    );
}

#[test]
fn a_failure_from_before_the_deletion_does_not_delay_it() {
    let status = json!({"observedGeneration": 1, "connectedAccountId": "ca_1", "linkAttempts": 1, "retry": {
        "failures": 30, "lastFailureAt": "2026-01-01T00:00:00Z", "reason": "LinkRefused"}});
    let observed = Observed {
        inventory: Some(vec![]),
        ..Observed::default()
    };
    let step = decide(&deleted(object(&json!({}), &status)), &observed).step;
    assert!(matches!(step, Some(Step::DeleteAccount { .. })), "{step:?}");
}

#[test]
fn while_backing_off_nothing_is_asked_and_nothing_is_done() {
    let status = json!({"observedGeneration": 1, "linkAttempts": 1, "state": "pending",
        "link": {"requestedAt": "2026-01-01T00:00:00Z"}, "authConfigId": AUTH_CONFIG,
        "retry": {"failures": 2, "lastFailureAt": "2026-01-01T00:01:30Z", "nextAttemptAt": "2026-01-01T00:02:00Z",
            "reason": "ComposioUnavailable"}});
    let waiting = object(&json!({}), &status);
    assert_eq!(
        inquiries(&Subject::from(&waiting), &AccountView::None, at(100)),
        super::Inquiries::default()
    );
    let plan = decide(&waiting, &Observed::default());
    assert_eq!((plan.step, plan.phase), (None, Phase::BackingOff));
    assert_eq!(plan.wake, Some(std::time::Duration::from_secs(20)));
    // A new spec or a request ends the wait.
    let mut edited = waiting.clone();
    edited.metadata.generation = Some(2);
    assert!(inquiries(&Subject::from(&edited), &AccountView::None, at(100)).inventory);
    assert!(
        inquiries(
            &Subject::from(&requested(waiting, "t")),
            &AccountView::None,
            at(100)
        )
        .inventory
    );
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
    assert!(matches!(plan.phase, Phase::Connected { .. }));
}

#[test]
fn looks_are_fast_then_slow_then_settled() {
    let secs = std::time::Duration::from_secs;
    let pending = AccountView::Found(account("ca_1", AccountStatus::Initiated, None));
    let active = AccountView::Found(account("ca_1", AccountStatus::Active, None));
    let link = |at: &str| json!({"connectedAccountId": "ca_1", "link": {"requestedAt": at}});
    let of = |status: &serde_json::Value, view: &AccountView| {
        cadence(&Subject::from(&object(&json!({}), status)), view, at(200))
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
    assert_eq!(of(&known, &AccountView::Gone), (secs(300), Priority::Background));
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
        with(1, "2026-01-01T00:01:38Z").wake,
        Some(std::time::Duration::from_secs(2))
    );
    assert_eq!(with(30, "2026-01-01T00:00:00Z").step, None);
}
