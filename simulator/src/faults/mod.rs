//! Fault injection: rules that select requests, and the fault that is applied to them.
//!
//! Choosing a fault and rewriting a response are pure; the HTTP layer closes connections, waits and repeats.

mod fault;
mod rule;

use std::sync::Mutex;

use rand::RngExt as _;
use tokio::sync::watch;

pub use fault::Fault;
pub(crate) use rule::RequestParts;
pub use rule::{Rule, RuleState};

use crate::lock;

/// A fault that applies to a request.
#[derive(Debug)]
pub(crate) struct ActiveFault {
    pub(crate) fault: Fault,
    /// Turns true, or closes, when the rule is released or removed.
    pub(crate) released: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rules: Vec<(RuleState, watch::Sender<bool>)>,
    named: u64,
}

impl Faults {
    /// Adds a rule behind the others and returns its name.
    pub(crate) fn inject(&self, mut rule: Rule) -> String {
        let mut inner = lock(&self.0);
        let id = rule.id.clone().unwrap_or_else(|| {
            inner.named += 1;
            format!("rule-{}", inner.named)
        });
        rule.id = Some(id.clone());
        inner
            .rules
            .retain(|(state, _)| state.rule.id.as_ref() != Some(&id));
        inner.rules.push((
            RuleState {
                rule,
                matched: 0,
                hits: 0,
            },
            watch::Sender::new(false),
        ));
        id
    }

    /// The fault of the first rule that applies.
    pub(crate) fn choose(&self, call: &RequestParts<'_>) -> Option<ActiveFault> {
        let mut inner = lock(&self.0);
        let (state, release) = inner.rules.iter_mut().find_map(|(state, release)| {
            state
                .consider(call, rand::rng().random())
                .then_some((state, release))
        })?;
        Some(ActiveFault {
            fault: state.rule.fault.clone(),
            released: release.subscribe(),
        })
    }

    pub(crate) fn list(&self) -> Vec<RuleState> {
        lock(&self.0)
            .rules
            .iter()
            .map(|(state, _)| state.clone())
            .collect()
    }

    /// Releases the requests that hang at this rule, now and in future. `false` if there is no such rule.
    pub(crate) fn release(&self, id: &str) -> bool {
        let inner = lock(&self.0);
        let found = inner
            .rules
            .iter()
            .find(|(state, _)| state.rule.id.as_deref() == Some(id));
        found.is_some_and(|(_, release)| {
            release.send_replace(true);
            true
        })
    }

    /// Removes a rule and releases what hangs at it.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let mut inner = lock(&self.0);
        let before = inner.rules.len();
        inner
            .rules
            .retain(|(state, _)| state.rule.id.as_deref() != Some(id));
        inner.rules.len() < before
    }

    /// Removes every rule and releases what hangs at them.
    pub(crate) fn clear(&self) {
        lock(&self.0).rules.clear();
    }
}
