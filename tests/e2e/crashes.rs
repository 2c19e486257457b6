//! The operator is killed around each remote call in turn. Whatever was under way, one account per object comes of it.

use std::time::Duration;

use composio_operator::api::reddit_connection::ConnectionState;
use composio_sim::{AccountStatus, Fault, Rule};
use futures::TryStreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

use crate::harness::{Operator, PATIENCE, World, state_of};

/// No life cycle has more remote calls; a sweep ends by itself at the first run that gets through without a death.
const MORE_CALLS_THAN_THERE_ARE: u64 = 40;

/// When the operator dies, seen from Composio.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The request has taken effect, its answer is not sent.
    Answered,
    /// The request has arrived; it takes effect only after the operator's successor is at work.
    Late,
}

/// A call that hangs, and the death of the operator that waits for it.
struct Strike<'a> {
    world: &'a World,
    moment: Moment,
    rule: String,
}

impl<'a> Strike<'a> {
    fn at(world: &'a World, moment: Moment, call: u64) -> Self {
        let before_commit = matches!(moment, Moment::Late);
        let rule = world
            .simulator
            .inject(Rule::new(Fault::Hang { before_commit }).after(call));
        Self { world, moment, rule }
    }

    /// Returns once a call hangs.
    async fn falls(&self) {
        let hangs = || self.world.simulator.faults().iter().any(|fault| fault.hits > 0);
        while !hangs() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the operator, starts its successor and lets go of the call.
    async fn replaces(self, operator: Operator) -> Operator {
        operator.kill().await;
        let from = self.world.simulator.calls().last().map_or(0, |call| call.seq);
        if matches!(self.moment, Moment::Answered) {
            self.world.simulator.release(&self.rule);
        }
        let successor = self.world.operator();
        if matches!(self.moment, Moment::Late) {
            let at_work = self
                .world
                .simulator
                .wait_for_call(|call| call.seq > from, PATIENCE)
                .await;
            at_work.expect("the successor goes to work");
            self.world.simulator.release(&self.rule);
        }
        successor
    }
}

/// Plays a person who uses every link they are given, until the object is connected and nothing is left to do.
async fn finish(world: &World, name: &str) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut objects = Box::pin(
        watcher::watcher(world.connections(), config)
            .default_backoff()
            .applied_objects(),
    );
    while let Some(object) = objects.try_next().await.unwrap() {
        let Some(status) = object.status.clone() else {
            continue;
        };
        if state_of(&object) == Some(ConnectionState::Connected)
            && status.link.is_none()
            && status.avatar_url.is_some()
        {
            return;
        }
        let (Some(id), Some(ConnectionState::Pending)) = (status.connected_account_id, status.state) else {
            continue;
        };
        let Some(secret) = world.secrets().get_opt(&format!("{name}-link")).await.unwrap() else {
            continue;
        };
        let holds = secret
            .data
            .is_some_and(|data| data["connectedAccountId"].0 == id.as_bytes());
        let account = world.simulator.account(&id).unwrap();
        if holds && !account.deleted && account.status == AccountStatus::Initializing {
            world.simulator.consent(&id, Some(name)).unwrap();
        }
    }
    panic!("the watch ended");
}

async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

async fn sweep_of_connecting(moment: Moment) {
    let world = World::new().await;
    for call in 0..MORE_CALLS_THAN_THERE_ARE {
        let name = format!("sweep-{call}");
        let strike = Strike::at(&world, moment, call);
        let operator = world.operator();
        world.create(&name, json!({})).await;
        let struck = tokio::select! {
            () = strike.falls() => true,
            () = within_patience(&name, finish(&world, &name)) => false,
        };
        let operator = if struck {
            strike.replaces(operator).await
        } else {
            operator
        };
        within_patience(&name, finish(&world, &name)).await;
        let live = world.live_accounts(&name);
        assert_eq!(live.len(), 1, "{moment:?}, killed at call {call}: {live:#?}");
        let status = world.connections().get(&name).await.unwrap().status.unwrap();
        assert_eq!(status.connected_account_id.as_deref(), Some(live[0].id.as_str()));
        world.delete(&name).await;
        world.vanishes(&name).await;
        assert!(
            world.live_accounts(&name).is_empty(),
            "{moment:?}, killed at call {call}"
        );
        world.simulator.clear_faults();
        operator.kill().await;
        if !struck {
            assert!(
                call >= 4,
                "the sweep ended early: connecting takes more calls than {call}"
            );
            return;
        }
    }
    panic!("no end of calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_while_connecting_it_ends_with_one_account() {
    sweep_of_connecting(Moment::Answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_any_call_in_the_air_while_connecting_it_ends_with_one_account() {
    sweep_of_connecting(Moment::Late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_while_deleting_it_leaves_nothing() {
    let world = World::new().await;
    for moment in [Moment::Answered, Moment::Late] {
        for call in 0..MORE_CALLS_THAN_THERE_ARE {
            let name = format!("gone-{}-{call}", format!("{moment:?}").to_lowercase());
            let operator = world.operator();
            // A settled object is looked at rarely, so that the calls counted are those of the deletion.
            world.create(&name, json!({"polling": {"settled": "1h"}})).await;
            within_patience(&name, finish(&world, &name)).await;
            let strike = Strike::at(&world, moment, call);
            world.delete(&name).await;
            let struck = tokio::select! {
                () = strike.falls() => true,
                () = world.vanishes(&name) => false,
            };
            let operator = if struck {
                strike.replaces(operator).await
            } else {
                operator
            };
            world.vanishes(&name).await;
            assert!(
                world.live_accounts(&name).is_empty(),
                "{moment:?}, killed at call {call}"
            );
            world.simulator.clear_faults();
            operator.kill().await;
            if !struck {
                assert!(
                    call >= 2,
                    "the sweep ended early: deleting takes more calls than {call}"
                );
                break;
            }
        }
    }
}
