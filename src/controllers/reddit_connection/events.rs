//! What people are told: a pure function of the change of a status.

use super::RedditConnections;
use super::observed::View;
use super::plan::{DeletionTarget, Step};
use super::status::{DeletionOutcome, Effect, Published};
use crate::api::RedditConnectionStatus;
use crate::runtime;
use crate::runtime::events::Announcement;

fn normal(reason: &'static str, note: String) -> Announcement {
    Announcement {
        warning: false,
        reason,
        note,
    }
}

/// What people are told about a change.
pub fn of_change(change: &runtime::summary::Change<'_, RedditConnections>) -> Vec<Announcement> {
    let turn = change.turn;
    let mut events: Vec<_> = turn
        .effect
        .and_then(|effect| of_effect(effect, turn.step))
        .into_iter()
        .collect();
    events.extend(if has_just_met(change) {
        change
            .summary
            .map(|summary| normal(summary.reason, summary.message.clone()))
    } else {
        change
            .transition()
            .filter(|event| !is_premature(event, change.new))
    });
    events
}

/// Who connected is said together with the connection, once the first look-up has ended.
fn is_premature(event: &Announcement, status: &RedditConnectionStatus) -> bool {
    event.reason == "Connected" && status.identity.is_none()
}

fn has_just_met(change: &runtime::summary::Change<'_, RedditConnections>) -> bool {
    let is_connected = change
        .summary
        .is_some_and(|summary| summary.reason == "Connected");
    is_connected && change.old.identity.is_none() && change.new.identity.is_some()
}

fn left_behind(id: &str) -> Announcement {
    Announcement {
        warning: true,
        ..normal(
            "AccountLeftBehind",
            format!(
                "account {id} was last seen with another API key, whose project may still have it: delete it there"
            ),
        )
    }
}

fn of_effect(effect: &Effect, step: Option<&Step>) -> Option<Announcement> {
    Some(match (effect, step) {
        (
            Effect::LinkCreated {
                account_id,
                published,
                ..
            },
            _,
        ) => normal(
            "LinkCreated",
            match published {
                Published::Secret(name) => {
                    format!("made a link for account {account_id}; it is in Secret {name}, key url")
                }
                Published::Status(_) => format!("made a link for account {account_id}; it is in status.link"),
            },
        ),
        (Effect::Adopted { account, .. }, _) => normal(
            "AccountAdopted",
            format!("found account {} by its alias", account.id),
        ),
        (Effect::Deleted { outcome, target }, Some(Step::DeleteAccount { id, revoke, .. })) => {
            match outcome {
                DeletionOutcome::Deleted => {
                    let how = if *revoke { "deleted and revoked" } else { "deleted" };
                    normal("AccountDeleted", format!("{how} account {id} at Composio"))
                }
                DeletionOutcome::NotFound if *target == DeletionTarget::Replaced => return None,
                DeletionOutcome::NotFound => normal(
                    "AccountDeleted",
                    format!("account {id} was gone at Composio already"),
                ),
                DeletionOutcome::OutOfReach => left_behind(id),
                DeletionOutcome::NotOwned => Announcement {
                    warning: true,
                    ..normal(
                        "AccountRetained",
                        format!(
                            "account {id} in the status is not this object's at Composio, so it was left alone"
                        ),
                    )
                },
            }
        }
        (Effect::EnabledSet { enabled: true }, _) => {
            normal("AccountEnabled", "enabled the account at Composio".to_owned())
        }
        (Effect::EnabledSet { enabled: false }, _) => {
            normal("AccountDisabled", "disabled the account at Composio".to_owned())
        }
        _ => return None,
    })
}

/// What people are told when the object goes without a clean-up.
pub fn of_release(view: &View<'_>) -> Vec<Announcement> {
    let stays = view.status.connected_account_id.iter();
    stays
        .map(|id| {
            normal(
                "AccountRetained",
                format!("account {id} stays at Composio, by deletionPolicy"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::reddit_connection::fixtures::object;
    use crate::controllers::reddit_connection::plan::DeletionTarget;

    /// Found when an account that somebody else had deleted, or that was left alone, was announced as deleted.
    #[test]
    fn an_account_that_is_not_deleted_is_not_announced_as_deleted() {
        let table = [
            (
                false,
                DeletionOutcome::Deleted,
                (false, "AccountDeleted", "deleted account"),
            ),
            (
                true,
                DeletionOutcome::Deleted,
                (false, "AccountDeleted", "deleted and revoked"),
            ),
            (
                true,
                DeletionOutcome::NotFound,
                (false, "AccountDeleted", "was gone"),
            ),
            (
                true,
                DeletionOutcome::NotOwned,
                (true, "AccountRetained", "left alone"),
            ),
        ];
        for (revoke, outcome, (warning, reason, words)) in table {
            let (id, target) = ("ca_1".to_owned(), DeletionTarget::Current);
            let step = Step::DeleteAccount { id, revoke, target };
            let event = of_effect(&Effect::Deleted { target, outcome }, Some(&step)).unwrap();
            assert_eq!((event.warning, event.reason), (warning, reason), "{}", event.note);
            assert!(event.note.contains(words), "{}", event.note);
        }
        let released = |status| {
            let object = object(&json!({}), &status);
            of_release(&View::from(&object))
                .into_iter()
                .map(|event| event.note)
                .collect::<Vec<_>>()
        };
        assert_eq!(released(json!({})), [""; 0]);
        assert!(released(json!({"connectedAccountId": "ca_1"}))[0].contains("ca_1 stays"));
    }
}
