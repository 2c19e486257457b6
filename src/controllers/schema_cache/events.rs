//! What people are told: a pure function of the change of a status.

use super::SchemaCaches;
use super::plan::Phase;
use crate::api::ComposioSchemaCacheStatus;
use crate::api::Reason;
use crate::api::conditions::{self, READY};
use crate::runtime::Phase as _;
use crate::runtime::events::Announcement;
use crate::runtime::plan::Position;
use crate::runtime::summary::Change;

/// The events that follow from a change of the status.
pub fn of_change(change: &Change<'_, SchemaCaches>) -> Vec<Announcement> {
    of_position(change.old, change.new, change.turn.position)
}

/// The events that follow from the way from `old` to `new`, which ends at this position.
pub fn of_position(
    old: &ComposioSchemaCacheStatus,
    new: &ComposioSchemaCacheStatus,
    position: &Position<Phase>,
) -> Vec<Announcement> {
    let mut told = Vec::new();
    let failure = match position {
        Position::Failed(failure) => Some(failure.clone()),
        Position::At(phase) => phase.failure(),
        Position::Unchanged => None,
    };
    if matches!(position, Position::At(Phase::Finished { .. })) {
        let was_ready = conditions::is_true(&old.conditions, READY);
        if failure.is_none() && (new.content_hash != old.content_hash || !was_ready) {
            told.push(Announcement {
                warning: false,
                reason: "Synced",
                note: format!(
                    "{} tools of {} toolkits are cached",
                    new.tools.unwrap_or_default(),
                    new.toolkits.unwrap_or_default()
                ),
            });
        }
        if let Some(drift) = new
            .drift
            .as_ref()
            .filter(|drift| drift.breaking > 0 && new.drift != old.drift)
        {
            told.push(Announcement {
                warning: true,
                reason: "BreakingChange",
                note: format!(
                    "{} in a way that may break callers: {}",
                    match drift.breaking {
                        1 => "1 tool changed".to_owned(),
                        many => format!("{many} tools changed"),
                    },
                    drift.breaking_changes.join("; ")
                ),
            });
        }
    }
    if let Some(failure) = failure.filter(|failure| is_news(old, failure.reason)) {
        told.push(Announcement {
            warning: true,
            reason: failure.reason.as_str(),
            note: failure.message,
        });
    }
    told
}

fn is_news(old: &ComposioSchemaCacheStatus, reason: Reason) -> bool {
    old.retry
        .as_ref()
        .is_none_or(|retry| retry.reason != reason.as_str())
}
