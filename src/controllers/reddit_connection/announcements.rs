//! What people are told: a pure function of the change of a status.

use super::phase::Phase;
use super::plan::{Plan, Step};
use super::status::{Acted, Disposal, Published, final_phase};
use crate::api::conditions::{self, READY, Truth};
use crate::api::reddit_connection::RedditConnectionStatus;
use crate::controllers::announcement::Announcement;

/// What people should be told about the way from `old` to `new`.
pub fn of_change(
    managed: bool,
    old: &RedditConnectionStatus,
    new: &RedditConnectionStatus,
    plan: &Plan,
    acted: &Acted,
) -> Vec<Announcement> {
    let tell = |warning, reason, note: String| Announcement {
        warning,
        reason,
        note,
    };
    let mut told = vec![];
    match (acted, &plan.step) {
        (Acted::LinkCreated { account_id, published, .. }, _) => told.push(tell(
            false,
            "LinkCreated",
            match published {
                Published::Secret(name) => format!("made a link for account {account_id}; it is in Secret {name}, key url"),
                Published::Status(_) => format!("made a link for account {account_id}; it is in status.link"),
            },
        )),
        (Acted::Adopted { account, .. }, _) => {
            told.push(tell(false, "AccountAdopted", format!("found account {} by its alias", account.id)));
        }
        (Acted::Deleted { outcome, .. }, Some(Step::DeleteAccount { id, revoke, .. })) => told.push(match outcome {
            Disposal::Deleted => {
                let how = if *revoke { "deleted and revoked" } else { "deleted" };
                tell(false, "AccountDeleted", format!("{how} account {id} at Composio"))
            }
            Disposal::WasGone => tell(false, "AccountDeleted", format!("account {id} was gone at Composio already")),
            Disposal::LeftAlone => tell(
                true,
                "AccountRetained",
                format!("account {id} in the status is not this object's at Composio, so it was left alone"),
            ),
        }),
        (Acted::EnabledSet { enabled }, _) => {
            let (reason, how) = if *enabled { ("AccountEnabled", "enabled") } else { ("AccountDisabled", "disabled") };
            told.push(tell(false, reason, format!("{how} the account at Composio")));
        }
        (Acted::Done, Some(Step::RemoveFinalizer { abandoned: Some(reason) })) => told.push(tell(
            true,
            "CleanupAbandoned",
            format!("gave up cleaning the account at Composio after many tries ({reason}); it may still exist there"),
        )),
        (Acted::Done, Some(Step::RemoveFinalizer { abandoned: None })) => {
            if let Some(id) = &old.connected_account_id {
                told.push(tell(
                    false,
                    "AccountRetained",
                    format!("account {id} stays at Composio, by deletionPolicy"),
                ));
            }
        }
        _ => {}
    }
    if old.display_name.is_none()
        && let Some(name) = &new.display_name
    {
        told.push(tell(
            false,
            "IdentityResolved",
            format!("the account is u/{name}"),
        ));
    }
    let ready = |status: &RedditConnectionStatus| {
        conditions::find(&status.conditions, READY).map(|c| (c.reason.clone(), c.status.clone()))
    };
    let phase = final_phase(plan, acted);
    if ready(old) != ready(new)
        && let Some(verdict) = phase.verdict(old, managed)
    {
        let troubled = verdict.stalled
            || verdict.ready == Truth::Unknown
            || matches!(phase, Phase::Trouble(_) | Phase::Failed(_));
        told.push(tell(troubled, verdict.reason, verdict.message));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::reddit_connection::plan::Doomed;

    /// Found when an account that somebody else had deleted, or that was left alone, was announced as deleted.
    #[test]
    fn an_account_that_is_not_deleted_is_not_announced_as_deleted() {
        let delete = |revoke| {
            Some(Step::DeleteAccount {
                id: "ca_1".to_owned(),
                revoke,
                role: Doomed::Current,
            })
        };
        let deleted = |outcome| Acted::Deleted {
            role: Doomed::Current,
            outcome,
        };
        let released = || Some(Step::RemoveFinalizer { abandoned: None });
        let had = RedditConnectionStatus {
            connected_account_id: Some("ca_1".to_owned()),
            ..RedditConnectionStatus::default()
        };
        let had_none = RedditConnectionStatus::default();
        let table = [
            (
                delete(false),
                deleted(Disposal::Deleted),
                &had,
                Some((false, "AccountDeleted", "deleted account")),
            ),
            (
                delete(true),
                deleted(Disposal::Deleted),
                &had,
                Some((false, "AccountDeleted", "deleted and revoked")),
            ),
            (
                delete(true),
                deleted(Disposal::WasGone),
                &had,
                Some((false, "AccountDeleted", "was gone")),
            ),
            (
                delete(true),
                deleted(Disposal::LeftAlone),
                &had,
                Some((true, "AccountRetained", "left alone")),
            ),
            (
                released(),
                Acted::Done,
                &had,
                Some((false, "AccountRetained", "ca_1 stays")),
            ),
            (released(), Acted::Done, &had_none, None),
        ];
        for (step, acted, old, expected) in table {
            let plan = Plan {
                step,
                phase: Phase::Keep,
                wake: None,
            };
            let told = of_change(true, old, old, &plan, &acted);
            match (&told[..], expected) {
                ([told], Some((warning, reason, words))) => {
                    assert_eq!((told.warning, told.reason), (warning, reason), "{}", told.note);
                    assert!(told.note.contains(words), "{}", told.note);
                }
                ([], None) => {}
                (told, expected) => panic!("{told:?} instead of {expected:?}"),
            }
        }
    }
}
