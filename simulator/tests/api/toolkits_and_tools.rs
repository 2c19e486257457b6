//! The catalogue.

use serde_json::{Value, json};

use crate::client::World;

fn slugs(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["slug"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn toolkits_are_listed_and_found() {
    let world = World::new().await;
    let list = async |query: &str| world.get(&format!("/toolkits?{query}")).await.ok();
    let all = list("").await;
    assert_eq!(
        slugs(&all),
        ["github", "slack", "reddit", "hackernews", "codeinterpreter"]
    );
    let no_auth: Vec<_> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["no_auth"] == true)
        .collect();
    assert_eq!(no_auth.len(), 2);
    assert!(
        no_auth
            .iter()
            .all(|item| item["auth_schemes"] == json!(["NO_AUTH"]))
    );
    assert_eq!(
        slugs(&list("sort_by=alphabetically&limit=2").await),
        ["codeinterpreter", "github"]
    );
    assert_eq!(slugs(&list("search=messag").await), ["slack"]);
    assert_eq!(
        slugs(&list("category=developer-tools").await),
        ["github", "codeinterpreter"]
    );
    assert_eq!(
        slugs(&list("managed_by=composio").await),
        ["github", "slack", "reddit"]
    );
    assert!(slugs(&list("type=custom").await).is_empty());
    world.get("/toolkits?limit=1001").await.error(400, 10400);
    let short = list("search=ck").await;
    assert_eq!(
        slugs(&short),
        ["slack", "hackernews"],
        "short searches are fine on v3.1"
    );

    let multi = world
        .post(
            "/toolkits/multi",
            json!({"toolkits": ["reddit", "hackernews"], "limit": 1}),
        )
        .await
        .ok();
    assert_eq!(
        (slugs(&multi), &multi["total_items"]),
        (vec!["reddit"], &json!(2))
    );
    let cursor = multi["next_cursor"].clone();
    let next = world
        .post(
            "/toolkits/multi",
            json!({"toolkits": ["reddit", "hackernews"], "cursor": cursor}),
        )
        .await;
    assert_eq!(slugs(&next.ok()), ["hackernews"]);

    let old = World {
        prefix: "/api/v3",
        ..world
    };
    old.get("/toolkits?search=ck").await.error(400, 10400);
}

#[tokio::test]
async fn a_toolkit_in_detail() {
    let world = World::new().await;
    let reddit = world.get("/toolkits/reddit").await.ok();
    assert_eq!(reddit["meta"]["version"], "20260424_00");
    assert_eq!(reddit["auth_config_details"][0]["mode"], "OAUTH2");
    assert_eq!(reddit["get_current_user_endpoint"], "/api/v1/me");
    assert!(reddit.get("no_auth").is_none(), "lists alone say so");
    let old = world.get("/toolkits/reddit?version=00000000_00").await.ok();
    assert_eq!(old["meta"]["version"], "00000000_00");
    world.get("/toolkits/nonexistent").await.error(404, 10404);
    let categories = world.get("/toolkits/categories").await.ok();
    assert!(
        categories["items"]
            .as_array()
            .unwrap()
            .contains(&json!({"id": "news", "name": "news"}))
    );
    let changelog = world.get("/toolkits/changelog").await.ok();
    assert_eq!(changelog["items"][2]["versions"][0]["version"], "20260424_00");
}

#[tokio::test]
async fn tools_are_listed_and_found() {
    let world = World::new().await;
    let list = async |query: &str| world.get(&format!("/tools?{query}")).await.ok();
    let reddit = list("toolkit_slug=reddit&limit=1000").await;
    assert_eq!(reddit["total_items"], 23);
    assert_eq!(
        list("").await["items"].as_array().unwrap().len(),
        20,
        "twenty a page unless asked otherwise"
    );
    assert_eq!(
        list("toolkit_slug=reddit&include_deprecated=false").await["total_items"],
        22
    );
    assert_eq!(
        list("toolkit_slug=hackernews,codeinterpreter").await["total_items"],
        11
    );
    let wanted = "tool_slugs=REDDIT_GET_SCOPES,SLACK_SEND_MESSAGE&toolkit_slug=github";
    assert_eq!(
        slugs(&list(wanted).await),
        ["REDDIT_GET_SCOPES", "SLACK_SEND_MESSAGE"],
        "slugs win"
    );
    assert_eq!(slugs(&list("query=new%20subreddit").await), ["REDDIT_GET_NEW"]);
    assert_eq!(
        slugs(&list("scopes=submit").await),
        ["REDDIT_CREATE_REDDIT_POST", "REDDIT_POST_REDDIT_COMMENT"]
    );
    assert_eq!(list("important=true").await["total_items"], 6);
    assert_eq!(list("tags=idempotentHint").await["total_items"], 2);
    let tool = &reddit["items"][0];
    assert_eq!(tool["toolkit"]["name"], "Reddit");
    assert_eq!(
        tool["input_parameters"]["required"],
        json!(["subreddit", "title", "kind"])
    );
    let total = list("limit=1").await["total_items"].as_u64().unwrap();
    let all = world.get("/tools/enum").await.ok();
    assert_eq!(all.as_array().unwrap().len() as u64, total);
    let old = World {
        prefix: "/api/v3",
        ..world
    };
    let joined = old.get("/tools/enum").await.ok();
    assert_eq!(joined.as_str().unwrap().split(',').count() as u64, total);
}

#[tokio::test]
async fn the_prefixes_differ_in_the_default_version() {
    let world = World::new().await;
    let tool = "/tools/REDDIT_GET_REDDIT_USER_ABOUT";
    let version = |reply: Value| reply["version"].as_str().unwrap().to_owned();
    assert_eq!(version(world.get(tool).await.ok()), "20260424_00");
    assert_eq!(
        version(world.get(&format!("{tool}?version=20251209_00")).await.ok()),
        "20251209_00"
    );
    assert_eq!(
        version(
            world
                .get(&format!("{tool}?toolkit_versions%5Breddit%5D=20251209_00"))
                .await
                .ok()
        ),
        "20251209_00"
    );
    world
        .get(&format!("{tool}?version=19990101_00"))
        .await
        .error(404, 2401);
    let missing = world.get("/tools/REDDIT_FLY").await.error(404, 2401);
    assert_eq!(missing["slug"], "Tool_ToolNotFound");
    let pinned = world
        .get("/tools?limit=100&toolkit_versions=20260721_00")
        .await
        .ok();
    let toolkits: Vec<_> = pinned["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["toolkit"]["slug"].as_str().unwrap())
        .collect();
    assert!(toolkits.contains(&"slack") && toolkits.contains(&"github") && !toolkits.contains(&"reddit"));
    let old = World {
        prefix: "/api/v3",
        ..world
    };
    assert_eq!(version(old.get(tool).await.ok()), "00000000_00");
    assert_eq!(
        version(old.get(&format!("{tool}?version=latest")).await.ok()),
        "20260424_00"
    );
}
