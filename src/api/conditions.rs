//! Conditions after the kstatus rules.
//!
//! `Ready` says whether the desired state is reached; `Reconciling` and `Stalled` are abnormal-true: either of them
//! being True means that `Ready` is not, and both are never True at once.
//! See <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::IntoStaticStr;

/// The object has reached the state its spec asks for.
pub const READY: &str = "Ready";
/// Work towards the desired state is under way or will be retried.
pub const RECONCILING: &str = "Reconciling";
/// No progress is possible until a person acts.
pub const STALLED: &str = "Stalled";

/// Longest message kept in a condition, in bytes. Remote texts can be arbitrarily long, status must stay small.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// Value of a condition.
#[derive(Clone, Copy, Debug, Eq, IntoStaticStr, PartialEq)]
pub enum Truth {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Not known.
    Unknown,
}

impl Truth {
    /// The spelling of the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Sets one condition. `lastTransitionTime` moves only when the value changes, so that an unchanged
/// object serialises to the same bytes in every reconcile.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    truth: Truth,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let message = truncated(message, MAX_MESSAGE_BYTES);
    let transition = match find(conditions, type_) {
        Some(old) if old.status == truth.as_str() => old.last_transition_time.clone(),
        _ => Time(whole_seconds(now)),
    };
    let condition = Condition {
        type_: type_.to_owned(),
        status: truth.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: transition,
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
}

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of that type is True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == Truth::True.as_str())
}

/// The first rule of kstatus that these conditions break, if any. Tests hold every status against it.
pub fn kstatus_violation(conditions: &[Condition]) -> Option<String> {
    let Some(ready) = find(conditions, READY) else {
        return Some("Ready is missing".to_owned());
    };
    let (reconciling, stalled) = (is_true(conditions, RECONCILING), is_true(conditions, STALLED));
    if reconciling && stalled {
        return Some("Reconciling and Stalled are both True".to_owned());
    }
    if (reconciling || stalled) && ready.status != Truth::False.as_str() {
        return Some(format!(
            "Reconciling={reconciling} Stalled={stalled} but Ready={}",
            ready.status
        ));
    }
    let mut types: Vec<_> = conditions.iter().map(|c| c.type_.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    if types.len() != conditions.len() {
        return Some("a condition type appears twice".to_owned());
    }
    conditions
        .iter()
        .find(|c| c.reason.is_empty())
        .map(|c| format!("{} has no reason", c.type_))
}

/// Kubernetes stores times in whole seconds; anything finer would differ from what is read back.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `text` cut to at most `max` bytes on a character boundary.
pub fn truncated(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_moves_only_with_the_value() {
        let mut conditions = vec![];
        set(&mut conditions, READY, Truth::False, "A", "a", Some(1), at(10));
        set(&mut conditions, READY, Truth::False, "B", "b", Some(2), at(20));
        assert_eq!(conditions[0].last_transition_time.0, at(10));
        assert_eq!(
            (conditions[0].reason.as_str(), conditions[0].observed_generation),
            ("B", Some(2))
        );
        set(&mut conditions, READY, Truth::True, "C", "c", Some(2), at(30));
        assert_eq!(conditions[0].last_transition_time.0, at(30));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn messages_are_cut_on_a_character_boundary() {
        let mut conditions = vec![];
        set(
            &mut conditions,
            READY,
            Truth::True,
            "A",
            &"é".repeat(MAX_MESSAGE_BYTES),
            None,
            at(0),
        );
        assert!(conditions[0].message.len() <= MAX_MESSAGE_BYTES);
        assert!(conditions[0].message.chars().all(|c| c == 'é'));
    }

    #[test]
    fn kstatus_rules_are_recognised() {
        use Truth::{False, True, Unknown};

        let with = |ready, reconciling, stalled| {
            let mut c = vec![];
            set(&mut c, READY, ready, "R", "", None, at(0));
            set(&mut c, RECONCILING, reconciling, "R", "", None, at(0));
            set(&mut c, STALLED, stalled, "R", "", None, at(0));
            kstatus_violation(&c)
        };
        assert_eq!(with(True, False, False), None);
        assert_eq!(with(Unknown, False, False), None);
        assert_eq!(with(False, True, False), None);
        assert!(with(True, True, False).is_some());
        assert!(with(Unknown, False, True).is_some());
        assert!(with(False, True, True).is_some());
        assert!(kstatus_violation(&[]).is_some());
    }
}
