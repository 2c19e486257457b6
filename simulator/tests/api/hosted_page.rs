//! The page a link leads to, as a browser sees it.

use reqwest::Method;
use serde_json::json;

use crate::client::{Reply, World, id};

/// A link for that user, as (account id, page).
async fn link(world: &World, user: &str, callback: Option<&str>) -> (String, String) {
    let body = json!({"auth_config_id": "ac_reddit", "user_id": user, "callback_url": callback});
    let link = world.post("/connected_accounts/link", body).await.ok();
    (id(&link), link["redirect_url"].as_str().unwrap().to_owned())
}

async fn open(world: &World, page: &str) -> Reply {
    world.bare(Method::GET, page, None).await
}

#[tokio::test]
async fn opening_shows_who_asks_and_advances_the_account() {
    let world = World::new().await;
    let (id, page) = link(&world, "user_123", None).await;
    assert_eq!(world.bare(Method::HEAD, &page, None).await.status, 200);
    assert_eq!(
        world.status(&id).await,
        "INITIALIZING",
        "link previews are nobody"
    );
    let reply = open(&world, &page).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(reply.header("referrer-policy"), "no-referrer");
    assert_eq!(reply.header("cache-control"), "no-store");
    for text in [
        "Connect your Reddit account",
        "user_123",
        "value=\"user_123\"",
        ">Connect<",
        ">Deny<",
    ] {
        assert!(reply.text.contains(text), "{text}");
    }
    assert_eq!(world.status(&id).await, "INITIATED");
    world.advance(1);
    open(&world, &page).await;
    let history = world.simulator.account(&id).unwrap().history;
    assert_eq!(history.len(), 2, "opening again changes nothing");
}

#[tokio::test]
async fn agreeing_connects_and_returns_to_the_callback() {
    let world = World::new().await;
    let (id, page) = link(&world, "u", Some("https://app.example/cb?next=%2Fhome#top")).await;
    let reply = world
        .submit(&format!("{page}/connect"), &[("username", "alice_1")])
        .await;
    assert_eq!(reply.status, 303);
    assert_eq!(
        reply.header("location"),
        format!("https://app.example/cb?next=%2Fhome&status=success&connected_account_id={id}#top")
    );
    let account = world.simulator.account(&id).unwrap();
    assert_eq!(
        (account.status.as_str(), account.username.as_deref()),
        ("ACTIVE", Some("alice_1"))
    );
}

#[tokio::test]
async fn declining_fails_the_account() {
    let world = World::new().await;
    let (first, page) = link(&world, "u", Some("http://127.0.0.1/cb")).await;
    let reply = world.submit(&format!("{page}/deny"), &[]).await;
    assert_eq!(
        reply.header("location"),
        format!("http://127.0.0.1/cb?status=failed&connected_account_id={first}")
    );
    let account = world.get(&format!("/connected_accounts/{first}")).await.ok();
    assert_eq!(account["status"], "FAILED");
    assert_eq!(account["state"]["val"]["error"], "access_denied");
    let (_, page) = link(&world, "v", None).await;
    let reply = world.submit(&format!("{page}/deny"), &[]).await;
    assert_eq!(reply.status, 200);
    assert!(reply.text.contains("was not connected"));
}

#[tokio::test]
async fn without_a_callback_the_page_says_how_it_went() {
    let world = World::new().await;
    let (id, page) = link(&world, "default/alice/1", None).await;
    let reply = world
        .submit(&format!("{page}/connect"), &[("username", "")])
        .await;
    assert_eq!(reply.status, 200);
    assert!(reply.text.contains("Your Reddit account is connected"));
    assert_eq!(
        world.simulator.account(&id).unwrap().username.as_deref(),
        Some("defaultalice1")
    );
}

#[tokio::test]
async fn a_used_link_is_gone_and_changes_nothing() {
    let world = World::new().await;
    let (id, page) = link(&world, "u", None).await;
    world
        .submit(&format!("{page}/connect"), &[("username", "alice")])
        .await;
    let before = world.simulator.account(&id).unwrap();
    for reply in [
        open(&world, &page).await,
        world
            .submit(&format!("{page}/connect"), &[("username", "mallory")])
            .await,
        world.submit(&format!("{page}/deny"), &[]).await,
    ] {
        assert_eq!(reply.status, 410);
        assert!(reply.text.contains("already used"));
    }
    assert_eq!(world.simulator.account(&id).unwrap(), before);
}

#[tokio::test]
async fn expired_deleted_and_invented_links_are_gone() {
    let world = World::new().await;
    let (_, expired) = link(&world, "u", None).await;
    world.advance(600);
    let reply = open(&world, &expired).await;
    assert_eq!(reply.status, 410);
    assert!(reply.text.contains("has expired"));
    let (id, deleted) = link(&world, "v", None).await;
    world.delete(&format!("/connected_accounts/{id}")).await.ok();
    for page in [deleted, format!("{}/link/lk_invented", world.simulator.url())] {
        let reply = world
            .submit(&format!("{page}/connect"), &[("username", "alice")])
            .await;
        assert_eq!(reply.status, 410);
        assert!(reply.text.contains("not valid"));
    }
}

#[tokio::test]
async fn names_are_checked_and_escaped() {
    let world = World::new().await;
    let (id, page) = link(&world, "<script>alert(1)</script>", None).await;
    let reply = open(&world, &page).await;
    assert!(!reply.text.contains("<script>"), "{}", reply.text);
    assert!(reply.text.contains("&lt;script&gt;"));
    let typed = "\"><b>";
    let reply = world
        .submit(&format!("{page}/connect"), &[("username", typed)])
        .await;
    assert_eq!(reply.status, 422);
    assert!(reply.text.contains("3 to 20 letters") && reply.text.contains("value=\"&quot;&gt;&lt;b&gt;\""));
    assert_eq!(world.status(&id).await, "INITIATED");
}

#[tokio::test]
async fn secrets_are_asked_for_where_the_scheme_needs_one() {
    let world = World::new().await;
    let own = json!({"toolkit": {"slug": "slack"}, "auth_config": {"type": "use_custom_auth", "authScheme": "API_KEY"}});
    let config = world.post("/auth_configs", own).await.ok()["auth_config"]["id"].clone();
    let link = world
        .post(
            "/connected_accounts/link",
            json!({"auth_config_id": config, "user_id": "u"}),
        )
        .await
        .ok();
    let page = link["redirect_url"].as_str().unwrap();
    assert!(open(&world, page).await.text.contains("type=\"password\""));
    assert_eq!(
        world
            .submit(&format!("{page}/connect"), &[("secret", " ")])
            .await
            .status,
        422
    );
    assert_eq!(
        world
            .submit(&format!("{page}/connect"), &[("secret", "sk-12345")])
            .await
            .status,
        200
    );
    let account = world
        .get(&format!("/connected_accounts/{}", id(&link)))
        .await
        .ok();
    assert_eq!(account["status"], "ACTIVE");
    assert_eq!(account["state"]["val"]["generic_api_key"], "sk-1...");
}
