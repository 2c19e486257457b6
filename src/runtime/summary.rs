//! The next status, and what people are told about it: pure functions of a [`Turn`].

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::events::Announcement;
use super::failure::{Class, Failure};
use super::plan::Position;
use super::{Controller, Effect, Phase, Step, Turn};
use crate::api::RetryStatus;
use crate::api::common::{FieldsMut, StateOf, StatusFields, StatusOf};
use crate::api::conditions::{self, READY, RECONCILING, STALLED, Truth, whole_seconds};

/// Whether work goes on. Reconciling and Stalled are never True at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Nothing is under way, and nobody has to act.
    Idle,
    /// Work is under way or will be retried.
    Reconciling,
    /// Nothing moves until a person acts.
    Stalled,
}

/// What a position means for state and conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary<S> {
    /// New state; None keeps the old one.
    pub state: Option<S>,
    /// Value of `Ready`.
    pub ready: Truth,
    /// Which of `Reconciling` and `Stalled` is True.
    pub progress: Progress,
    /// `PascalCase` reason of all conditions.
    pub reason: &'static str,
    /// Message of `Ready`, and of whatever else is abnormal. It holds no secret.
    pub message: String,
    /// The resource's own conditions; those that are not named stay as they are.
    pub extra: Vec<Extra>,
}

/// The summary of a controller's object.
pub type SummaryOf<C> = Summary<StateOf<<C as Controller>::Object>>;

/// One of the resource's own conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra {
    /// Its type.
    pub type_: &'static str,
    /// Its value.
    pub truth: Truth,
    /// Its reason, if that differs from the summary's.
    pub reason: Option<&'static str>,
    /// Its message.
    pub message: String,
}

impl<S> Summary<S> {
    /// Nothing is under way, and the spec is not fulfilled.
    pub fn idle(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            state: None,
            ready: Truth::False,
            progress: Progress::Idle,
            reason,
            message: message.into(),
            extra: Vec::new(),
        }
    }

    /// The spec is fulfilled.
    pub fn ready(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            ready: Truth::True,
            ..Self::idle(reason, message)
        }
    }

    /// Work is under way.
    pub fn reconciling(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            progress: Progress::Reconciling,
            ..Self::idle(reason, message)
        }
    }

    /// A person has to act.
    pub fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            progress: Progress::Stalled,
            ..Self::idle(reason, message)
        }
    }

    /// Something failed.
    pub fn failure(failure: &Failure) -> Self {
        let (reason, message) = (failure.reason.as_str(), failure.message.clone());
        match failure.class {
            Class::Stalled => Self::stalled(reason, message),
            Class::Waiting | Class::Transient => Self::reconciling(reason, message),
        }
    }

    /// The object is being deleted.
    fn deleting() -> Self {
        Self::reconciling(
            "Deleting",
            "what belongs to this object outside the cluster is being cleaned up",
        )
    }

    /// Something was done for the object, and where it stands is not decided yet.
    fn progressing() -> Self {
        Self::reconciling("Progressing", "the operator has begun to work on this object")
    }

    /// `spec.suspend` is true. Whether the object is ready stays as it was.
    fn suspended(conditions: &[Condition]) -> Self {
        let message = "spec.suspend is true: nothing is done until it is false";
        if conditions::is_true(conditions, READY) {
            Self::ready("Suspended", message)
        } else {
            Self::idle("Suspended", message)
        }
    }

    /// The same with the time of the next try in the message.
    fn until(mut self, next_attempt_at: Option<Timestamp>) -> Self {
        if let Some(at) = next_attempt_at {
            self.message = format!("{}; tried again at {at}", self.message);
        }
        self
    }

    /// The same with a state.
    #[must_use]
    pub fn with_state(self, state: S) -> Self {
        Self {
            state: Some(state),
            ..self
        }
    }

    /// The same with one of the resource's own conditions, which has the summary's reason.
    #[must_use]
    pub fn with(mut self, type_: &'static str, truth: Truth, message: impl Into<String>) -> Self {
        self.extra.push(Extra {
            type_,
            truth,
            reason: None,
            message: message.into(),
        });
        self
    }
}

/// A status that may have changed, and why.
pub struct Change<'a, C: Controller> {
    /// What led to it.
    pub turn: &'a Turn<'a, C>,
    /// The status before.
    pub old: &'a StatusOf<C::Object>,
    /// The status now.
    pub new: &'a StatusOf<C::Object>,
    /// What the conditions say now, if they were set.
    pub summary: Option<&'a SummaryOf<C>>,
}

impl<C: Controller> Change<'_, C> {
    /// What to tell if value or reason of Ready changed. That work goes on is no news.
    pub fn transition(&self) -> Option<Announcement> {
        let summary = self.summary?;
        let failed = failure_of(self.turn).is_some_and(|failure| !failure.reason.is_progress());
        let goes_on = summary.progress == Progress::Reconciling && !failed;
        if goes_on || ready(self.old) == ready(self.new) {
            return None;
        }
        let abnormal = failed || summary.progress == Progress::Stalled || summary.ready == Truth::Unknown;
        Some(Announcement {
            warning: abnormal,
            reason: summary.reason,
            note: summary.message.clone(),
        })
    }
}

/// When what waits for something else is tried again.
fn retry_at<C: Controller>(turn: &Turn<'_, C>, retry: Option<&RetryStatus>) -> Option<Timestamp> {
    let waits = failure_of(turn)
        .is_some_and(|failure| failure.class == Class::Waiting && failure.retry_after.is_some());
    let next = retry?.next_attempt_at.as_ref()?;
    waits.then_some(next.0)
}

fn ready<T: StatusFields>(status: &T) -> Option<(&str, &str)> {
    let ready = conditions::find(status.fields().conditions, READY)?;
    Some((&ready.reason, &ready.status))
}

/// What failed in a turn, if anything.
pub(super) fn failure_of<C: Controller>(turn: &Turn<'_, C>) -> Option<Failure> {
    match turn.position {
        Position::Failed(failure) => Some(failure.clone()),
        Position::At(phase) => phase.failure(),
        Position::Unchanged => None,
    }
}

/// The next status after a turn, and what its conditions say if they were set.
pub(crate) fn next_status<C: Controller>(turn: &Turn<'_, C>) -> (StatusOf<C::Object>, Option<SummaryOf<C>>) {
    let old = &*turn.view.status;
    if *turn.position == Position::Unchanged && turn.effect.is_none() && !turn.view.deleting {
        return (old.clone(), None);
    }
    let mut status = C::status(turn);
    let retry = next_retry(turn);
    // Steps towards another try do not hide what failed.
    let still_failing = retry.is_some() && turn.effect.is_some() && turn.view.current_failure().is_some();
    let fields = status.fields_mut();
    *fields.retry = retry;
    if let Some(token) = turn.view.pending_request().filter(|_| answers_request(turn)) {
        *fields.last_handled_request_at = Some(token.to_owned());
    }
    let next_attempt_at = retry_at(turn, status.fields().retry);
    let summary = match turn.position {
        Position::Failed(_) => C::summary(turn, &status).map(|summary| summary.until(next_attempt_at)),
        _ if turn.view.deleting => Some(Summary::deleting()),
        Position::At(_) if still_failing => {
            if let Some(summary) = C::summary(turn, &status) {
                set_extra(
                    status.fields_mut().conditions,
                    &summary,
                    turn.view.generation,
                    turn.now,
                );
            }
            None
        }
        Position::At(_) => C::summary(turn, &status),
        Position::Unchanged => None,
    };
    let has_conditions = !old.fields().conditions.is_empty();
    let summary = summary.or_else(|| (!has_conditions && !still_failing).then(Summary::progressing));
    // Conditions and observedGeneration move together: a status never calls a spec observed that its conditions do not
    // speak of.
    if let Some(summary) = &summary {
        let fields = &mut status.fields_mut();
        *fields.observed_generation = Some(turn.view.generation);
        set_conditions::<C>(fields, summary, turn.view.generation, turn.now);
    }
    if status != *old {
        C::on_change(turn, &mut status);
    }
    (status, summary)
}

/// The next status of a suspended object. What is ready stays ready, and says of which generation that is true: of the one
/// that was carried out last.
pub(super) fn suspended_status<C: Controller>(turn: &Turn<'_, C>) -> (StatusOf<C::Object>, SummaryOf<C>) {
    let mut status = turn.view.status.clone().into_owned();
    let mut fields = status.fields_mut();
    let summary = Summary::suspended(fields.conditions);
    let carried_out = conditions::find(fields.conditions, READY)
        .filter(|_| summary.ready == Truth::True)
        .and_then(|ready| ready.observed_generation);
    let generation = carried_out.unwrap_or(turn.view.generation);
    *fields.observed_generation = Some(generation);
    *fields.retry = None;
    set_conditions::<C>(&mut fields, &summary, generation, turn.now);
    (status, summary)
}

/// Sets the resource's own conditions.
fn set_extra<S>(conditions: &mut Vec<Condition>, summary: &Summary<S>, generation: i64, now: Timestamp) {
    for extra in &summary.extra {
        let reason = extra.reason.unwrap_or(summary.reason);
        let (truth, message) = (extra.truth, &extra.message);
        conditions::set(
            conditions,
            extra.type_,
            truth,
            reason,
            message,
            Some(generation),
            now,
        );
    }
}

fn set_conditions<C: Controller>(
    fields: &mut FieldsMut<'_, StateOf<C::Object>>,
    summary: &SummaryOf<C>,
    generation: i64,
    now: Timestamp,
) {
    if let Some(state) = summary.state {
        *fields.state = Some(state);
    }
    let conditions = &mut *fields.conditions;
    let mut set = |type_, truth, reason, message: &str| {
        conditions::set(conditions, type_, truth, reason, message, Some(generation), now);
    };
    let abnormal = |progress| {
        if summary.progress == progress {
            (Truth::True, summary.message.as_str())
        } else {
            (Truth::False, "")
        }
    };
    set(READY, summary.ready, summary.reason, &summary.message);
    let (truth, message) = abnormal(Progress::Reconciling);
    set(RECONCILING, truth, summary.reason, message);
    let (truth, message) = abnormal(Progress::Stalled);
    set(STALLED, truth, summary.reason, message);
    set_extra(conditions, summary, generation, now);
    // What is not said anew still holds, and is true of this generation too.
    for condition in fields.conditions.iter_mut() {
        condition.observed_generation = Some(generation);
    }
    for type_ in C::CONDITIONS {
        if conditions::find(fields.conditions, type_).is_none() {
            let unknown = Truth::Unknown;
            conditions::set(
                fields.conditions,
                type_,
                unknown,
                summary.reason,
                "",
                Some(generation),
                now,
            );
        }
    }
}

/// A request counts as handled once the work it asked for was done, was tried, or turned out to be nothing.
fn answers_request<C: Controller>(turn: &Turn<'_, C>) -> bool {
    if let Some(effect) = turn.effect {
        return effect.answers_request();
    }
    match turn.position {
        // What may pass by itself leaves the request open: it is tried again.
        Position::Failed(failure) => failure.class == Class::Stalled,
        Position::At(phase) => !turn.view.deleting && (phase.failure().is_none() || phase.is_retried()),
        Position::Unchanged => false,
    }
}

/// The record of failures in a row.
fn next_retry<C: Controller>(turn: &Turn<'_, C>) -> Option<RetryStatus> {
    let old = turn.view.status.fields().retry;
    match turn.position {
        Position::Failed(failure) => return Some(record(turn, failure)),
        Position::At(phase) if turn.effect.is_none() => match phase.failure() {
            Some(failure) if phase.is_retried() => return Some(record(turn, &failure)),
            Some(_) => return old.cloned(),
            None => return None,
        },
        Position::Unchanged if turn.effect.is_none() => return old.cloned(),
        Position::At(_) | Position::Unchanged => {}
    }
    let (old, effect, step) = (old?, turn.effect?, turn.step?);
    if effect.clears(old.operation.as_deref(), step.name()) {
        return None;
    }
    // What failed has not been tried again, but the next step towards it may be taken.
    let mut kept = old.clone();
    let now = whole_seconds(turn.now);
    if kept.next_attempt_at.as_ref().is_none_or(|next| next.0 > now) {
        kept.next_attempt_at = Some(Time(now));
    }
    Some(kept)
}

fn record<C: Controller>(turn: &Turn<'_, C>, failure: &Failure) -> RetryStatus {
    let view = turn.view;
    let before = view.current_retry();
    let mut failure = C::retry_policy(view, failure.clone());
    // A clean-up is tried again by time whatever failed, or the object would never go.
    if view.deleting && failure.class == Class::Stalled {
        failure.class = Class::Transient;
    }
    let step = turn.step.map(|step| step.name().to_owned());
    let open = view.pending_request().filter(|_| !answers_request(turn));
    RetryStatus {
        operation: step.or_else(|| before?.operation.clone()),
        request: open.map(str::to_owned),
        ..failure.record(
            before.map_or(0, |before| before.failures) + 1,
            view.seed(),
            turn.now,
        )
    }
}
