//! Who may work now. Reconciles share a number of slots, first in, first out. A reconcile that waits for something remote
//! gives its slot back meanwhile, so that what hangs holds up only itself.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

tokio::task_local! {
    /// The slot of the reconcile that this task runs; None while it waits for something remote.
    static SLOT: Cell<Option<OwnedSemaphorePermit>>;
}

/// The slots of all controllers. Clones share them.
#[derive(Clone)]
pub struct Slots(Arc<Semaphore>);

impl Slots {
    /// So many reconciles work at the same time.
    pub fn new(count: u16) -> Self {
        Self(Arc::new(Semaphore::new(count.into())))
    }

    /// Waits for a slot, and works in it.
    pub(super) async fn work<F: Future>(&self, work: F) -> F::Output {
        let slot = Cell::new(self.take().await);
        SLOT.scope(slot, work).await
    }

    /// Waits for something remote. The slot, if this task has one, is free for others meanwhile.
    pub async fn wait<F: Future>(&self, remote: F) -> F::Output {
        let had_slot = SLOT.try_with(|slot| slot.take().is_some()).unwrap_or(false);
        let output = remote.await;
        if had_slot {
            let again = self.take().await;
            SLOT.with(|slot| slot.set(again));
        }
        output
    }

    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::future;
    use tokio::sync::oneshot;

    use super::*;

    /// Found as a link that a new person waited for while the providers of others hung.
    #[tokio::test]
    async fn who_waits_for_something_remote_holds_nobody_up_and_goes_on_in_turn() {
        let slots = Slots::new(1);
        let (answer, answered) = oneshot::channel::<()>();
        let hangs = slots.work(slots.wait(answered));
        let other = slots.work(async {
            assert_eq!(slots.0.available_permits(), 0, "in the only slot");
            answer.send(()).unwrap();
        });
        let (hung, ()) = future::join(hangs, other).await;
        hung.unwrap();
        assert_eq!(slots.0.available_permits(), 1);
    }
}
