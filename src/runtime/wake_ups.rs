//! Wake-ups from outside the watches: they cause a reconcile, and are no permission for anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::mpsc;
use kube::ResourceExt;

/// Names one object of one controller.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ObjectKey {
    /// Its kind in lower case: [`Controller::NAME`](super::Controller::NAME).
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object whose controller is called `kind`.
    pub fn new(kind: &'static str, object: &impl ResourceExt) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

/// A kind and the namespace of a watch; None for all namespaces.
type Scope = (&'static str, Option<String>);

/// Brings objects to the watch that covers them. Clones share it.
#[derive(Clone, Default)]
pub struct WakeUps(Arc<Mutex<HashMap<Scope, mpsc::UnboundedSender<ObjectKey>>>>);

impl WakeUps {
    /// Causes a reconcile of an object soon. Callable from anywhere, never blocks. Nothing happens if no watch covers it.
    pub fn wake(&self, key: ObjectKey) {
        let senders = self.lock();
        let sender = senders
            .get(&(key.kind, None))
            .or_else(|| senders.get(&(key.kind, Some(key.namespace.clone()))));
        if let Some(sender) = sender {
            // It fails only while the watch ends.
            let _ = sender.unbounded_send(key);
        }
    }

    /// The wake-ups of the objects of a kind in a namespace, or in all.
    pub(super) fn listen(
        &self,
        kind: &'static str,
        namespace: Option<&str>,
    ) -> mpsc::UnboundedReceiver<ObjectKey> {
        let (sender, receiver) = mpsc::unbounded();
        self.lock().insert((kind, namespace.map(str::to_owned)), sender);
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, mpsc::UnboundedSender<ObjectKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_reaches_the_watch_of_its_kind_and_namespace_alone() {
        let wake_ups = WakeUps::default();
        let mut all = wake_ups.listen("widget", None);
        let mut team = wake_ups.listen("gadget", Some("team"));
        let key = |kind, namespace: &str| ObjectKey {
            kind,
            namespace: namespace.to_owned(),
            name: "one".to_owned(),
        };
        for kind in ["widget", "gadget", "unknown"] {
            wake_ups.wake(key(kind, "team"));
            wake_ups.wake(key(kind, "other"));
        }
        let heard = |receiver: &mut mpsc::UnboundedReceiver<ObjectKey>| {
            std::iter::from_fn(|| receiver.try_recv().ok()).collect::<Vec<_>>()
        };
        assert_eq!(heard(&mut all), [key("widget", "team"), key("widget", "other")]);
        assert_eq!(heard(&mut team), [key("gadget", "team")]);
    }
}
