//! The page a link leads to, as a browser sees it.

use reqwest::Method;
use serde_json::json;

use crate::client::{Reply, World, assert_has, id};

/// A link for that user, as (account id, page).
async fn link(world: &World, user: &str, callback: Option<&str>) -> (String, String) {
    let body = json!({"auth_config_id": "ac_reddit", "user_id": user, "callback_url": callback});
    let link = world.post("/connected_accounts/link", body).await.ok();
    (id(&link), link["redirect_url"].as_str().unwrap().to_owned())
}

impl World {
    async fn browse(&self, page: &str) -> Reply {
        self.bare(Method::GET, page, None).await
    }

    async fn connect(&self, page: &str, username: &str) -> Reply {
        self.submit(&format!("{page}/connect"), &[("username", username)])
            .await
    }

    async fn decline(&self, page: &str) -> Reply {
        self.submit(&format!("{page}/deny"), &[]).await
    }

    fn username(&self, id: &str) -> Option<String> {
        self.simulator.account(id).unwrap().username
    }
}

#[tokio::test]
async fn opening_shows_who_asks_and_advances_the_account() {
    let world = World::new().await;
    let (id, page) = link(&world, "user_123", None).await;
    assert_eq!(world.bare(Method::HEAD, &page, None).await.status, 200);
    assert_eq!(
        world.status(&id).await,
        "INITIALIZING",
        "link previews do not count"
    );
    let reply = world.browse(&page).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(reply.header("referrer-policy"), "no-referrer");
    assert_eq!(reply.header("cache-control"), "no-store");
    for text in [
        "Connect your Reddit account",
        "value=\"user_123\"",
        ">Connect<",
        ">Deny<",
    ] {
        assert!(reply.text.contains(text), "{text}");
    }
    assert_eq!(world.status(&id).await, "INITIATED");
    world.browse(&page).await;
    let history = world.simulator.account(&id).unwrap().history;
    assert_eq!(history.len(), 2, "opening again changes nothing");
}

#[tokio::test]
async fn agreeing_connects_and_returns_to_the_callback() {
    let world = World::new().await;
    let callback = "https://app.example/cb?next=%2Fhome#top";
    let (id, page) = link(&world, "u", Some(callback)).await;
    let reply = world.connect(&page, "alice_1").await;
    assert_eq!(reply.status, 303);
    let target = format!("https://app.example/cb?next=%2Fhome&status=success&connected_account_id={id}#top");
    assert_eq!(reply.header("location"), target);
    assert_eq!(world.status(&id).await, "ACTIVE");
    assert_eq!(world.username(&id).as_deref(), Some("alice_1"));

    let (id, page) = link(&world, "default/alice/1", None).await;
    let reply = world.connect(&page, "").await;
    assert_eq!(reply.status, 200);
    assert!(reply.text.contains("Your Reddit account is connected"));
    assert_eq!(world.username(&id).as_deref(), Some("defaultalice1"));
}

#[tokio::test]
async fn declining_fails_the_account() {
    let world = World::new().await;
    let (id, page) = link(&world, "u", Some("http://127.0.0.1/cb")).await;
    let reply = world.decline(&page).await;
    let target = format!("http://127.0.0.1/cb?status=failed&connected_account_id={id}");
    assert_eq!(reply.header("location"), target);
    let reason = "OAuth callback failed during token exchange";
    let state = json!({"val": {"error": "access_denied"}});
    let expected = json!({"status": "FAILED", "status_reason": reason, "state": state});
    assert_has(&world.account(&id).await, &expected);
    let (_, page) = link(&world, "v", None).await;
    let reply = world.decline(&page).await;
    assert_eq!(reply.status, 200);
    assert!(reply.text.contains("was not connected"));
}

#[tokio::test]
async fn used_expired_deleted_and_invented_links_are_gone() {
    let world = World::new().await;
    let (used, page) = link(&world, "u", None).await;
    world.connect(&page, "alice").await;
    let before = world.simulator.account(&used).unwrap();
    for reply in [
        world.browse(&page).await,
        world.connect(&page, "mallory").await,
        world.decline(&page).await,
    ] {
        assert_eq!(reply.status, 410);
        assert!(reply.text.contains("already used"));
    }
    assert_eq!(world.simulator.account(&used).unwrap(), before);

    let (_, expired) = link(&world, "u", None).await;
    world.advance(600);
    let (id, deleted) = link(&world, "v", None).await;
    world.delete(&format!("/connected_accounts/{id}")).await.ok();
    let invented = format!("{}/link/lk_invented", world.simulator.url());
    for (page, text) in [
        (expired, "has expired"),
        (deleted, "not valid"),
        (invented, "not valid"),
    ] {
        let reply = world.connect(&page, "alice").await;
        assert_eq!(reply.status, 410);
        assert!(reply.text.contains(text));
    }
}

#[tokio::test]
async fn names_are_checked_and_escaped() {
    let world = World::new().await;
    let (id, page) = link(&world, "<script>alert('&')</script>", None).await;
    let reply = world.browse(&page).await;
    assert!(!reply.text.contains("<script>"), "{}", reply.text);
    assert!(reply.text.contains("&lt;script&gt;alert(&#39;&amp;&#39;)"));
    let reply = world.connect(&page, "\"><b>").await;
    assert_eq!(reply.status, 422);
    assert!(reply.text.contains("3 to 20 letters") && reply.text.contains("value=\"&quot;&gt;&lt;b&gt;\""));
    assert_eq!(world.status(&id).await, "INITIATED");
}

#[tokio::test]
async fn secrets_are_asked_for_where_the_scheme_needs_one() {
    let world = World::new().await;
    let own = json!({"type": "use_custom_auth", "authScheme": "API_KEY"});
    let body = json!({"auth_config_id": world.auth_config("slack", own).await, "user_id": "u"});
    let link = world.post("/connected_accounts/link", body).await.ok();
    let page = link["redirect_url"].as_str().unwrap();
    assert!(world.browse(page).await.text.contains("type=\"password\""));
    let connect = format!("{page}/connect");
    for (secret, status) in [(" ", 422), ("sk-12345", 200)] {
        assert_eq!(world.submit(&connect, &[("secret", secret)]).await.status, status);
    }
    let expected = json!({"status": "ACTIVE", "state": {"val": {"generic_api_key": "sk-1..."}}});
    assert_has(&world.account(&id(&link)).await, &expected);
}
