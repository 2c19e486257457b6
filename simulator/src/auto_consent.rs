//! The background task that opens and completes every link after a delay, if it is configured.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Map;

use crate::{
    core::Core,
    provider::reddit::username_for,
    state::{Project, lifecycle::LINK_LIFETIME},
};

/// Completes each link `delay` after it was made, by the clock, until the simulator ends.
pub(crate) async fn run(core: Arc<Core>, delay: Duration) {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    loop {
        // Subscribed before looking, so that a link made in between is not missed.
        let mut changed = core.changed.subscribe();
        let mut next = None;
        core.find_project(|project, now| {
            let due = complete_due_links(project, delay, now);
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
fn complete_due_links(project: &mut Project, delay: SignedDuration, now: Timestamp) -> Option<Timestamp> {
    while let Some((deadline, row)) = project.accounts.next_deadline() {
        let due = deadline
            .saturating_sub(LINK_LIFETIME)
            .and_then(|made| made.saturating_add(delay));
        let due = due.unwrap_or(deadline);
        if due > now {
            return Some(due);
        }
        let username = username_for(&project.accounts.get(row).user_id);
        if project.accounts.consent(row, username, Map::new(), now).is_err() {
            // Consent is never refused for a pending row; returning avoids an endless loop all the same.
            return None;
        }
    }
    None
}
