//! The person in the background who, if asked to, opens and completes every link after a while.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Map;

use crate::{
    core::Core,
    provider::reddit::username_for,
    state::{Project, lifecycle::LINK_LIFETIME},
};

/// Completes each link `patience` after it was made, by the clock, until the simulator ends.
pub(crate) async fn consent_to_everything(core: Arc<Core>, patience: Duration) {
    let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
    loop {
        // Subscribed before looking, so that a link made in between is not missed.
        let mut changed = core.changed.subscribe();
        let mut next = None;
        core.find_project(|project, now| {
            let due = consent_to_due(project, patience, now);
            next = next.into_iter().chain(due).min();
            None::<()>
        });
        let due = async {
            match next {
                Some(at) => core.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            _ = changed.changed() => {}
            () = core.ended() => return,
        }
    }
}

/// Completes the links of a project that are due. Returns when the next one will be.
fn consent_to_due(project: &mut Project, patience: SignedDuration, now: Timestamp) -> Option<Timestamp> {
    while let Some((deadline, row)) = project.accounts.next_deadline() {
        let due = deadline
            .saturating_sub(LINK_LIFETIME)
            .and_then(|made| made.saturating_add(patience));
        let due = due.unwrap_or(deadline);
        if due > now {
            return Some(due);
        }
        let username = username_for(&project.accounts.get(row).user_id);
        if project.accounts.consent(row, username, Map::new(), now).is_err() {
            // A row with a deadline is pending, which consent never refuses; but never spin on one.
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{account::NewAccount, lifecycle::AccountStatus};

    #[test]
    fn links_are_completed_when_due_and_in_order() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut project = Project::default();
        let rows: Vec<_> = [0, 3]
            .into_iter()
            .map(|second| {
                let new = NewAccount {
                    user_id: format!("user_{second}"),
                    ..NewAccount::default()
                };
                project.accounts.create(new, true, at(second)).unwrap()
            })
            .collect();
        let patience = SignedDuration::from_secs(5);
        assert_eq!(consent_to_due(&mut project, patience, at(4)), Some(at(5)));
        assert_eq!(consent_to_due(&mut project, patience, at(5)), Some(at(8)));
        let statuses = |project: &Project| {
            rows.iter()
                .map(|&row| project.accounts.get(row).status())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            statuses(&project),
            [AccountStatus::Active, AccountStatus::Initializing]
        );
        assert_eq!(consent_to_due(&mut project, patience, at(60)), None);
        assert_eq!(statuses(&project), [AccountStatus::Active; 2]);
        assert_eq!(project.accounts.get(rows[0]).username.as_deref(), Some("user_0"));
    }
}
