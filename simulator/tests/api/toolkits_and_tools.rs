//! The catalogue.

use serde_json::{Value, json};

use crate::client::{World, assert_has, slugs};

#[tokio::test]
async fn toolkits_are_listed_and_found() {
    let world = World::new().await;
    let all = ["github", "slack", "reddit", "hackernews", "codeinterpreter"];
    for (query, expected) in [
        ("", &all[..]),
        ("sort_by=alphabetically&limit=2", &["codeinterpreter", "github"]),
        ("search=ck", &["slack", "hackernews"]),
        ("category=developer-tools", &["github", "codeinterpreter"]),
        ("managed_by=composio", &all[..3]),
        ("type=custom", &[]),
    ] {
        let page = world.get(&format!("/toolkits?{query}")).await.ok();
        assert_eq!(slugs(&page), expected, "{query}");
    }
    world.get("/toolkits?limit=1001").await.error(400, 10400);
    let page = world.get("/toolkits").await.ok();
    let news = json!({"id": "news", "name": "news"});
    let hackernews = json!({"no_auth": true, "auth_schemes": ["NO_AUTH"], "meta": {"categories": [news]}});
    assert_has(&page["items"][3], &hackernews);
    let categories = world.get("/toolkits/categories").await.ok();
    assert!(categories["items"].as_array().unwrap().contains(&news));

    let multi = |more: Value| {
        let mut body = json!({"toolkits": ["reddit", "hackernews"], "limit": 1});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world.post("/toolkits/multi", body)
    };
    let first = multi(json!({})).await.ok();
    assert_eq!(
        (slugs(&first), &first["total_items"]),
        (vec!["reddit".to_owned()], &json!(2))
    );
    let next = multi(json!({"cursor": first["next_cursor"]})).await.ok();
    assert_eq!(slugs(&next), ["hackernews"]);
    world.on_v3().get("/toolkits?search=ck").await.error(400, 10400);
}

#[tokio::test]
async fn a_toolkit_in_detail() {
    let world = World::new().await;
    let reddit = world.get("/toolkits/reddit").await.ok();
    let expected = json!({"meta": {"version": "20260424_00"}, "get_current_user_endpoint": "/api/v1/me"});
    assert_has(&reddit, &expected);
    assert_eq!(reddit["auth_config_details"][0]["mode"], "OAUTH2");
    assert!(reddit.get("no_auth").is_none() && reddit.get("auth_schemes").is_none());
    let hackernews = world.get("/toolkits/hackernews").await.ok();
    assert_eq!(hackernews["meta"]["categories"][0]["slug"], "news");
    let old = world.get("/toolkits/reddit?version=00000000_00").await.ok();
    assert_eq!(old["meta"]["version"], "00000000_00");
    world.get("/toolkits/nonexistent").await.error(404, 10404);
    let changelog = world.get("/toolkits/changelog").await.ok();
    assert_eq!(changelog["items"][2]["versions"][0]["version"], "20260424_00");
}

#[tokio::test]
async fn tools_are_listed_and_found() {
    let world = World::new().await;
    let list = async |query: &str| world.get(&format!("/tools?{query}")).await.ok();
    for (query, total) in [
        ("toolkit_slug=reddit&limit=1000", 23),
        ("toolkit_slug=reddit&include_deprecated=false", 22),
        ("toolkit_slug=hackernews,codeinterpreter", 11),
        ("important=true", 6),
        ("tags=idempotentHint", 2),
        ("", 48),
    ] {
        assert_eq!(list(query).await["total_items"], total, "{query}");
    }
    assert_eq!(slugs(&list("").await).len(), 20, "twenty is the default");
    let posting = ["REDDIT_CREATE_REDDIT_POST", "REDDIT_POST_REDDIT_COMMENT"];
    for (query, expected) in [
        ("query=new%20subreddit", &["REDDIT_GET_NEW"][..]),
        ("scopes=submit", &posting),
        (
            "tool_slugs=REDDIT_GET_NEW&toolkit_slug=github",
            &["REDDIT_GET_NEW"],
        ),
    ] {
        assert_eq!(slugs(&list(query).await), expected, "{query}");
    }
    let tool = list("toolkit_slug=reddit").await["items"][0].clone();
    let required = json!(["subreddit", "title", "kind"]);
    let expected = json!({"toolkit": {"name": "Reddit"}, "input_parameters": {"required": required}});
    assert_has(&tool, &expected);
    let all = world.get("/tools/enum").await.ok();
    assert_eq!(all.as_array().unwrap().len(), 48);
    let joined = world.on_v3().get("/tools/enum").await.ok();
    assert_eq!(joined.as_str().unwrap().split(',').count(), 48);
}

#[tokio::test]
async fn the_prefixes_differ_in_the_default_version() {
    let world = World::new().await;
    let tool = "/tools/REDDIT_GET_REDDIT_USER_ABOUT";
    let version = async |world: &World, query: &str| {
        let reply = world.get(&format!("{tool}?{query}")).await;
        reply.ok()["version"].as_str().unwrap().to_owned()
    };
    for (query, expected) in [
        ("", "20260424_00"),
        ("version=20251209_00", "20251209_00"),
        ("toolkit_versions%5Breddit%5D=20251209_00", "20251209_00"),
    ] {
        assert_eq!(version(&world, query).await, expected, "{query}");
    }
    let unknown = format!("{tool}?version=19990101_00");
    world.get(&unknown).await.error(404, 2401);
    let missing = world.get("/tools/REDDIT_FLY").await.error(404, 2401);
    assert_eq!(missing["slug"], "Tool_ToolNotFound");
    let pinned = world
        .get("/tools?limit=100&toolkit_versions=20260721_00")
        .await
        .ok();
    let slugs = slugs(&pinned).join(" ");
    assert!(slugs.contains("SLACK_") && slugs.contains("GITHUB_") && !slugs.contains("REDDIT_"));
    let world = world.on_v3();
    assert_eq!(version(&world, "").await, "00000000_00");
    assert_eq!(version(&world, "version=latest").await, "20260424_00");
}
