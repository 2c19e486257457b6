//! Faults as clients see them.

use std::time::Duration;

use composio_sim::{Fault, Rule};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::client::{World, ids};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

const LINK: &str = "/connected_accounts/link";

impl World {
    /// Injects a fault for the next link.
    fn on_link(&self, fault: Fault) -> String {
        self.simulator.inject(Rule::new(fault).on("POST", LINK))
    }

    fn link_request(&self, user: &str) -> RequestBuilder {
        let body = json!({"auth_config_id": "ac_reddit", "user_id": user});
        self.request(Method::POST, LINK, Some(&body))
    }

    /// Sends a link request whose response must not arrive whole.
    async fn link_without_response(&self, user: &str) {
        if let Ok(response) = self.link_request(user).send().await {
            response.bytes().await.unwrap_err();
        }
    }

    /// Returns once a rule was applied.
    async fn first_hit(&self) {
        while self.simulator.faults()[0].hits == 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_response_can_get_lost_after_or_before_the_effect() {
    for (fault, kind, executions) in [
        (Fault::DropAfterCommit, "dropAfterCommit", 1),
        (Fault::DropBeforeCommit, "dropBeforeCommit", 0),
    ] {
        let world = World::new().await;
        world.on_link(fault);
        world.link_without_response("u").await;
        assert_eq!(world.simulator.accounts().len(), usize::from(executions));
        let call = &world.simulator.calls()[0];
        let logged = (call.status, call.fault.as_deref(), call.executions);
        assert_eq!(logged, (None, Some(kind), executions));
        assert_eq!(world.simulator.stats().bytes["POST /connected_accounts/link"], 0);
        world.link("v").await;
        assert_eq!(world.simulator.faults()[0].hits, 1);
    }
}

#[tokio::test]
async fn a_hanging_request_has_its_effect_and_its_response_when_released() {
    let world = World::new().await;
    let rule = world.on_link(Fault::Hang { before_commit: false });
    let hanging = tokio::spawn(world.link_request("u").send());
    let hangs = |call: &composio_sim::Call| call.fault.as_deref() == Some("hang");
    let call = world.simulator.wait_for_call(hangs, SOON).await.unwrap();
    assert_eq!((call.status, call.executions), (None, 1));
    assert_eq!(world.simulator.accounts().len(), 1, "before the response");
    assert!(!hanging.is_finished());
    assert!(world.simulator.release(&rule));
    assert_eq!(hanging.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn a_request_can_hang_before_its_effect() {
    let world = World::new().await;
    let mut rule = Rule::new(Fault::Hang { before_commit: true });
    rule.contains = Some("\"slow\"".to_owned());
    world.simulator.inject(rule);
    let hanging = tokio::spawn(world.link_request("slow").send());
    world.link("fast").await;
    world.first_hit().await;
    assert_eq!(world.simulator.accounts().len(), 1);
    world.simulator.clear_faults();
    assert_eq!(hanging.await.unwrap().unwrap().status(), 201);
    assert_eq!(world.simulator.accounts().len(), 2);
}

#[tokio::test]
async fn a_client_that_disconnects_does_not_undo_its_request() {
    let world = World::new().await;
    let rule = world.on_link(Fault::Hang { before_commit: true });
    let client = tokio::spawn(world.link_request("u").send());
    world.first_hit().await;
    client.abort();
    client.await.unwrap_err();
    world.simulator.release(&rule);
    world.simulator.wait_for_account(|_| true, SOON).await.unwrap();
}

#[tokio::test]
async fn stopping_closes_hanging_connections() {
    let world = World::new().await;
    world.on_link(Fault::Hang { before_commit: false });
    let hanging = tokio::spawn(world.link_request("u").send());
    world.simulator.wait_for_call(|_| true, SOON).await.unwrap();
    world.simulator.stop().await;
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn gateways_respond_in_html_with_or_without_an_effect() {
    let world = World::new().await;
    for (commit, accounts) in [(false, 0), (true, 1)] {
        world.on_link(Fault::Status {
            status: 502,
            body: None,
            content_type: None,
            commit,
        });
        let body = json!({"auth_config_id": "ac_reddit", "user_id": "u"});
        let reply = world.post(LINK, body).await;
        assert_eq!((reply.status, reply.header("content-type")), (502, "text/html"));
        assert!(reply.text.contains("<title>502 Bad Gateway</title>"));
        assert_eq!(reply.header("x-ratelimit"), "", "not Composio's own response");
        assert_eq!(world.simulator.accounts().len(), accounts);
    }
}

#[tokio::test]
async fn responses_can_be_cut() {
    let world = World::new().await;
    world.on_link(Fault::TruncateJson);
    world.on_link(Fault::AbortBody);
    let body = json!({"auth_config_id": "ac_reddit", "user_id": "u"});
    let reply = world.post(LINK, body).await;
    assert_eq!(reply.status, 201);
    assert!(reply.text.starts_with('{') && serde_json::from_str::<Value>(&reply.text).is_err());
    world.link_without_response("v").await;
    assert_eq!(world.simulator.accounts().len(), 2);
}

#[tokio::test]
async fn statuses_can_be_unknown() {
    let world = World::new().await;
    let id = world.active("u").await;
    let value = "HIBERNATING".to_owned();
    let rule = Rule::new(Fault::UnknownStatus { value }).on("GET", "/*").times(3);
    world.simulator.inject(rule);
    let account = world.account(&id).await;
    assert_eq!(
        (&account["status"], &account["state"]["val"]["status"]),
        (&json!("HIBERNATING"), &json!("HIBERNATING"))
    );
    let list = world.get("/connected_accounts").await.ok();
    assert_eq!(list["items"][0]["status"], "HIBERNATING");
    let configs = world.get("/auth_configs").await.ok();
    assert_eq!(configs["items"][0]["status"], "ENABLED", "accounts alone");
    assert_eq!(world.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn bursts_of_429_come_and_go() {
    let world = World::new().await;
    let rule = Rule::new(Fault::RateLimited { retry_after: 7 });
    world.simulator.inject(rule.times(2).after(1));
    for expected in [200, 429, 429, 200] {
        let reply = world.get("/toolkits").await;
        assert_eq!(reply.status, expected);
        if reply.status == 429 {
            assert_eq!(
                (reply.header("retry-after"), reply.header("x-ratelimit-remaining")),
                ("7", "0")
            );
            let message = reply.json()["message"].as_str().unwrap().to_owned();
            assert!(message.starts_with("Rate limit exceeded"));
        }
    }
}

#[tokio::test]
async fn lists_can_be_stale_empty_or_incomplete() {
    let world = World::new().await;
    let old = world.pending("u").await;
    world.advance(1);
    let new = world.pending("u").await;
    let missing = vec![old.clone()];
    for (fault, expected) in [
        (Fault::StaleFirstPage { rows: 1 }, vec![&old]),
        (Fault::EmptyList, vec![]),
        (Fault::MissingIds { ids: missing }, vec![&new]),
    ] {
        let rule = Rule::new(fault).on("GET", "/connected_accounts");
        world.simulator.inject(rule);
        let list = world.get("/connected_accounts").await.ok();
        assert_eq!(ids(&list).iter().collect::<Vec<_>>(), expected);
        assert_eq!(list["total_items"], expected.len());
    }
    let rule = Rule::new(Fault::StaleFirstPage { rows: 1 }).with_query("cursor", "*");
    world.simulator.inject(rule);
    let pages = world.pages("/connected_accounts?limit=1").await;
    assert_eq!(
        pages.iter().flat_map(ids).collect::<Vec<_>>(),
        [new, old],
        "later pages stay whole"
    );
}

#[tokio::test]
async fn a_request_can_be_delivered_twice() {
    let world = World::new().await;
    let rule = Rule::new(Fault::Duplicate).on("POST", LINK);
    world.simulator.inject(rule.times(2));
    let link = world.link("u").await;
    let accounts = world.simulator.accounts();
    assert_eq!(accounts.len(), 2);
    assert_eq!(
        link["connected_account_id"], accounts[1].id,
        "the second response is sent"
    );
    let named = json!({"auth_config_id": "ac_reddit", "user_id": "v", "alias": "main"});
    world.post(LINK, named).await.error(400, 600);
    assert!(world.simulator.calls().iter().all(|call| call.executions == 2));
}

#[tokio::test]
async fn a_delay_can_come_before_or_after_the_effect() {
    let world = World::new().await;
    for after_commit in [false, true] {
        world.on_link(Fault::Delay {
            millis: 1,
            after_commit,
        });
        world.link("u").await;
    }
    let calls = world.simulator.calls();
    assert!(calls.iter().all(|call| call.fault.as_deref() == Some("delay")));
    assert_eq!(world.simulator.accounts().len(), 2);
}
