//! Faults as clients meet them.

use std::time::Duration;

use composio_sim::{Fault, Rule};
use reqwest::Method;
use serde_json::json;

use crate::client::{World, ids};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

const LINK: &str = "/connected_accounts/link";

impl World {
    /// Sends a link request that must end without an answer.
    async fn link_unanswered(&self, user: &str) -> reqwest::Error {
        let body = json!({"auth_config_id": "ac_reddit", "user_id": user});
        let sent = self.request(Method::POST, LINK, Some(&body)).send().await;
        match sent {
            Err(error) => error,
            Ok(response) => response
                .bytes()
                .await
                .expect_err("the answer must not arrive whole"),
        }
    }
}

#[tokio::test]
async fn an_answer_can_get_lost_after_the_effect() {
    let world = World::new().await;
    world
        .simulator
        .inject(Rule::new(Fault::DropAfterCommit).on("POST", LINK));
    world.link_unanswered("u").await;
    assert_eq!(
        world.simulator.accounts().len(),
        1,
        "the account exists all the same"
    );
    let call = &world.simulator.calls()[0];
    assert_eq!(
        (call.status, call.fault.as_deref(), call.executions),
        (None, Some("dropAfterCommit"), 1)
    );
    world.link("v").await;
    assert_eq!(world.simulator.faults()[0].hits, 1);
}

#[tokio::test]
async fn a_request_can_get_lost_before_the_effect() {
    let world = World::new().await;
    world
        .simulator
        .inject(Rule::new(Fault::DropBeforeCommit).on("POST", LINK));
    world.link_unanswered("u").await;
    assert!(world.simulator.accounts().is_empty());
    assert_eq!(world.simulator.calls()[0].executions, 0);
}

#[tokio::test]
async fn a_hanging_call_has_its_effect_and_its_answer_when_released() {
    let world = World::new().await;
    let rule = world
        .simulator
        .inject(Rule::new(Fault::Hang { before_commit: false }).on("POST", LINK));
    let body = json!({"auth_config_id": "ac_reddit", "user_id": "u"});
    let hanging = tokio::spawn(world.request(Method::POST, LINK, Some(&body)).send());
    let call = world
        .simulator
        .wait_for_call(|call| call.fault.as_deref() == Some("hang"), SOON)
        .await
        .unwrap();
    assert_eq!((call.status, call.executions), (None, 1));
    assert_eq!(world.simulator.accounts().len(), 1, "done before anybody is told");
    assert!(!hanging.is_finished());
    assert!(world.simulator.release(&rule));
    assert_eq!(hanging.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn a_call_can_hang_before_its_effect() {
    let world = World::new().await;
    world.simulator.inject(
        Rule::new(Fault::Hang { before_commit: true })
            .on("POST", LINK)
            .containing("\"slow\""),
    );
    let body = json!({"auth_config_id": "ac_reddit", "user_id": "slow"});
    let hanging = tokio::spawn(world.request(Method::POST, LINK, Some(&body)).send());
    world.link("fast").await;
    while world.simulator.faults()[0].hits == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.simulator.accounts().len(), 1);
    world.simulator.clear_faults();
    assert_eq!(hanging.await.unwrap().unwrap().status(), 201);
    assert_eq!(world.simulator.accounts().len(), 2);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_undo_its_request() {
    let world = World::new().await;
    let rule = world
        .simulator
        .inject(Rule::new(Fault::Hang { before_commit: true }).on("POST", LINK));
    let body = json!({"auth_config_id": "ac_reddit", "user_id": "u"});
    let client = tokio::spawn(world.request(Method::POST, LINK, Some(&body)).send());
    while world.simulator.faults()[0].hits == 0 {
        tokio::task::yield_now().await;
    }
    client.abort();
    client.await.unwrap_err();
    world.simulator.release(&rule);
    world
        .simulator
        .wait_for_account(|account| account.user_id == "u", SOON)
        .await
        .unwrap();
}

#[tokio::test]
async fn stopping_closes_what_hangs() {
    let world = World::new().await;
    world
        .simulator
        .inject(Rule::new(Fault::Hang { before_commit: false }).for_ever());
    let hanging = tokio::spawn(world.request(Method::GET, "/toolkits", None).send());
    world.simulator.wait_for_call(|_| true, SOON).await.unwrap();
    world.simulator.stop().await;
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn gateways_answer_in_html_with_or_without_an_effect() {
    let world = World::new().await;
    let gateway = |commit| Fault::Status {
        status: 502,
        body: None,
        content_type: None,
        commit,
    };
    world.simulator.inject(Rule::new(gateway(false)).on("POST", LINK));
    world.simulator.inject(Rule::new(gateway(true)).on("POST", LINK));
    let body = json!({"auth_config_id": "ac_reddit", "user_id": "u"});
    for accounts in [0, 1] {
        let reply = world.post(LINK, body.clone()).await;
        assert_eq!((reply.status, reply.header("content-type")), (502, "text/html"));
        assert!(reply.text.contains("<title>502 Bad Gateway</title>"));
        assert_eq!(reply.header("x-ratelimit"), "", "not Composio's own answer");
        assert_eq!(world.simulator.accounts().len(), accounts);
    }
    let own = Fault::Status {
        status: 503,
        body: Some("{\"message\":\"down\"}".to_owned()),
        content_type: Some("application/json".to_owned()),
        commit: false,
    };
    world.simulator.inject(Rule::new(own));
    let reply = world.get("/toolkits").await;
    assert_eq!((reply.status, reply.json()), (503, json!({"message": "down"})));
}

#[tokio::test]
async fn answers_can_be_cut() {
    let world = World::new().await;
    world
        .simulator
        .inject(Rule::new(Fault::TruncateJson).on("POST", LINK));
    world
        .simulator
        .inject(Rule::new(Fault::AbortBody).on("POST", LINK));
    let reply = world
        .post(LINK, json!({"auth_config_id": "ac_reddit", "user_id": "u"}))
        .await;
    assert_eq!(reply.status, 201);
    assert!(reply.text.starts_with('{') && serde_json::from_str::<serde_json::Value>(&reply.text).is_err());
    world.link_unanswered("v").await;
    assert_eq!(world.simulator.accounts().len(), 2);
}

#[tokio::test]
async fn statuses_can_be_unheard_of() {
    let world = World::new().await;
    let id = world.active("u").await;
    let unknown = Fault::UnknownStatus {
        value: "HIBERNATING".to_owned(),
    };
    world
        .simulator
        .inject(Rule::new(unknown).on("GET", "/connected_accounts*").times(2));
    assert_eq!(world.status(&id).await, "HIBERNATING");
    let list = world.get("/connected_accounts").await.ok();
    assert_eq!(list["items"][0]["status"], "HIBERNATING");
    assert_eq!(world.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn bursts_of_429_come_and_go() {
    let world = World::new().await;
    world
        .simulator
        .inject(Rule::new(Fault::RateLimited { retry_after: 7 }).times(2).after(1));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let reply = world.get("/toolkits").await;
        if reply.status == 429 {
            assert_eq!(
                (reply.header("retry-after"), reply.header("x-ratelimit-remaining")),
                ("7", "0")
            );
            assert!(
                reply.json()["message"]
                    .as_str()
                    .unwrap()
                    .starts_with("Rate limit exceeded")
            );
        }
        statuses.push(reply.status);
    }
    assert_eq!(statuses, [200, 429, 429, 200]);
}

#[tokio::test]
async fn lists_can_be_stale_empty_or_incomplete() {
    let world = World::new().await;
    let old = world.pending("u").await;
    world.advance(1);
    let new = world.pending("u").await;
    for fault in [
        Fault::StaleFirstPage { rows: 1 },
        Fault::EmptyList,
        Fault::MissingIds {
            ids: vec![old.clone()],
        },
    ] {
        world
            .simulator
            .inject(Rule::new(fault).on("GET", "/connected_accounts"));
    }
    let list = async || ids(&world.get("/connected_accounts").await.ok());
    assert_eq!(list().await, [old.as_str()]);
    assert_eq!(list().await, [""; 0]);
    assert_eq!(list().await, [new.as_str()]);
    assert_eq!(list().await, [new, old]);
}

#[tokio::test]
async fn a_request_can_be_delivered_twice() {
    let world = World::new().await;
    world
        .simulator
        .inject(Rule::new(Fault::Duplicate).on("POST", LINK).times(2));
    let link = world.link("u").await;
    let accounts = world.simulator.accounts();
    assert_eq!(accounts.len(), 2);
    assert_eq!(
        link["connected_account_id"], accounts[1].id,
        "the second answer is given"
    );
    let named = json!({"auth_config_id": "ac_reddit", "user_id": "v", "alias": "main"});
    world.post(LINK, named).await.error(400, 600);
    assert_eq!(
        world
            .simulator
            .calls()
            .iter()
            .map(|call| call.executions)
            .collect::<Vec<_>>(),
        [2, 2]
    );
}

#[tokio::test]
async fn a_delay_can_come_before_or_after_the_effect() {
    let world = World::new().await;
    for after_commit in [false, true] {
        world.simulator.inject(
            Rule::new(Fault::Delay {
                millis: 1,
                after_commit,
            })
            .on("POST", LINK),
        );
        world.link("u").await;
    }
    let kinds: Vec<_> = world
        .simulator
        .calls()
        .iter()
        .map(|call| call.fault.clone())
        .collect();
    assert_eq!(kinds, [Some("delay".to_owned()), Some("delay".to_owned())]);
    assert_eq!(world.simulator.accounts().len(), 2);
}
