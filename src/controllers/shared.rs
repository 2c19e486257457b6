//! Answers that several objects ask for at the same time: one of them asks, the others wait for what it gets.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Answers that nobody asked for this long are forgotten.
const KEPT_FOR: Duration = Duration::from_mins(5);

/// Answers by what was asked. They and the failures `E` are cheap to clone.
pub struct Shared<K, V, E>(Mutex<HashMap<K, Slot<V, E>>>);

struct Slot<V, E> {
    used_at: Instant,
    answer: Arc<Mutex<Option<Answer<V, E>>>>,
}

struct Answer<V, E> {
    /// When the question was sent.
    began_at: Instant,
    /// When it was answered.
    ended_at: Instant,
    outcome: Result<V, E>,
}

impl<K, V, E> Default for Shared<K, V, E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone, E: Clone> Shared<K, V, E> {
    /// The answer of `ask`, or one to the same question that was sent at most `age` before. Who waits while another asks
    /// shares its failure.
    pub async fn get(&self, key: K, age: Duration, ask: impl Future<Output = Result<V, E>>) -> Result<V, E> {
        let asked_at = Instant::now();
        let slot = {
            let mut slots = self.0.lock().await;
            slots.retain(|_, slot| asked_at.duration_since(slot.used_at) < KEPT_FOR);
            let slot = slots.entry(key).or_insert_with(|| Slot {
                used_at: asked_at,
                answer: Arc::default(),
            });
            slot.used_at = asked_at;
            Arc::clone(&slot.answer)
        };
        let mut slot = slot.lock().await;
        if let Some(answer) = slot.as_ref() {
            let is_shared = match answer.outcome {
                Ok(_) => answer.began_at + age >= asked_at,
                Err(_) => answer.ended_at >= asked_at,
            };
            if is_shared {
                return answer.outcome.clone();
            }
        }
        let began_at = Instant::now();
        let outcome = ask.await;
        *slot = Some(Answer {
            began_at,
            ended_at: Instant::now(),
            outcome: outcome.clone(),
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[derive(Default)]
    struct Server {
        shared: Shared<&'static str, usize, usize>,
        questions: AtomicUsize,
    }

    impl Server {
        async fn get(&self, key: &'static str, age: Duration, works: bool) -> Result<usize, usize> {
            let ask = async {
                tokio::task::yield_now().await;
                let number = self.questions.fetch_add(1, Ordering::SeqCst) + 1;
                if works { Ok(number) } else { Err(number) }
            };
            self.shared.get(key, age, ask).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_that_ask_together_ask_once() {
        let server = Server::default();
        let all = join_all((0..200).map(|_| server.get("key", MINUTE, true))).await;
        assert!(all.iter().all(|answer| *answer == Ok(1)));
        tokio::time::advance(MINUTE).await;
        assert_eq!(server.get("key", MINUTE, true).await, Ok(1));
        assert_eq!(server.get("another", MINUTE, true).await, Ok(2), "of another key");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(server.get("key", MINUTE, true).await, Ok(3), "too old");
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_to_know_now_gets_no_older_answer() {
        let server = Server::default();
        assert_eq!(server.get("key", Duration::ZERO, true).await, Ok(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(server.get("key", Duration::ZERO, true).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_those_who_wait_and_kept_for_nobody() {
        let server = Server::default();
        let all = join_all((0..200).map(|_| server.get("key", MINUTE, false))).await;
        assert!(all.iter().all(|answer| *answer == Err(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(server.get("key", MINUTE, true).await.is_ok());
    }
}
