//! What a controller decides: at most one step, where the object stands, and when to come back.

use std::time::Duration;

use super::failure::Failure;

/// What to do, where the object stands, and when to come back.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S, P> {
    /// At most one step. After it the object is observed and planned again.
    pub step: Option<S>,
    /// Where the object stands if the step succeeds.
    pub position: Position<P>,
    /// When to reconcile again if nothing happens before.
    pub requeue_after: Option<Duration>,
}

/// Where an object stands. That it is suspended, being deleted or backing off is added by the runtime.
#[derive(Clone, Debug, PartialEq)]
pub enum Position<P> {
    /// What the status says still holds. Also the position of an object that is being deleted.
    Unchanged,
    /// It cannot go on.
    Failed(Failure),
    /// In this phase.
    At(P),
}

impl<P> From<P> for Position<P> {
    fn from(phase: P) -> Self {
        Self::At(phase)
    }
}

impl<S, P> Plan<S, P> {
    /// Takes a step to reach a position.
    pub fn step(step: S, position: impl Into<Position<P>>) -> Self {
        Self {
            step: Some(step),
            ..Self::rest(position)
        }
    }

    /// Takes no step.
    pub fn rest(position: impl Into<Position<P>>) -> Self {
        Self {
            step: None,
            position: position.into(),
            requeue_after: None,
        }
    }

    /// The object cannot go on.
    pub fn fail(failure: Failure) -> Self {
        Self::rest(Position::Failed(failure))
    }

    /// The same, reconciled again after `wait` at the latest.
    #[must_use]
    pub fn requeue_in(mut self, wait: Duration) -> Self {
        self.requeue_after = Some(self.requeue_after.map_or(wait, |other| other.min(wait)));
        self
    }
}
