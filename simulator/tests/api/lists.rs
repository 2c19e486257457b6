//! Lists of connected accounts: filters, order, pages.

use serde_json::{Value, json};

use crate::client::{World, assert_has, config, id, ids};

#[tokio::test]
async fn lists_filter_sort_and_hide_shared_accounts() {
    let world = World::new().await;
    let mut all = Vec::new();
    for user in ["a", "b", "c"] {
        all.push(world.pending(user).await);
        world.advance(1);
    }
    let sharing = json!({"account_type": "SHARED", "acl_config_for_shared": {"allow_all_users": true}});
    let shared = json!({"auth_config_id": "ac_reddit", "user_id": "s", "experimental": sharing});
    let shared = id(&world.post("/connected_accounts/link", shared).await.ok());
    world.simulator.consent(&all[0], None).unwrap();
    let [a, b, c] = [&all[0], &all[1], &all[2]];
    let cases: [(&str, Vec<&String>); 15] = [
        ("", vec![c, b, a]),
        ("account_type=ALL", vec![&shared, c, b, a]),
        ("account_type=SHARED", vec![&shared]),
        ("user_ids=a,c", vec![c, a]),
        ("user_ids=a&user_ids=c", vec![c, a]),
        ("user_ids=nobody", vec![]),
        ("statuses=ACTIVE", vec![a]),
        ("statuses=INITIALIZING,ACTIVE", vec![c, b, a]),
        ("toolkit_slugs=REDDIT", vec![c, b, a]),
        ("toolkit_slugs=slack", vec![]),
        ("auth_config_ids=ac_reddit&order_direction=asc", vec![a, b, c]),
        ("order_by=updated_at", vec![a, c, b]),
        ("limit=2.0", vec![c, b]),
        (
            &format!("connected_account_ids={b},ca_unknown,{a},{b}"),
            vec![b, a],
        ),
        (&format!("connected_account_ids={b}&user_ids=a"), vec![]),
    ];
    for (query, expected) in cases {
        assert_eq!(
            world.ids(query).await.iter().collect::<Vec<_>>(),
            expected,
            "{query}"
        );
    }
}

#[tokio::test]
async fn unknown_parameter_values_are_refused() {
    let world = World::new().await;
    let path = "/connected_accounts?statuses=ACTIVE,PENDING";
    let error = world.get(path).await.error(400, 10400);
    let complaint = error["errors"][0].as_str().unwrap();
    assert!(complaint.starts_with("Error in query.statuses.1: Invalid enum value. Expected 'INITIALIZING'"));
    assert!(complaint.ends_with("received 'PENDING'"));
    let wrong = [
        "limit=0",
        "limit=101",
        "limit=x",
        "cursor=x",
        "order_by=id",
        "account_type=OTHER",
    ];
    for query in wrong {
        let path = format!("/connected_accounts?{query}");
        world.get(&path).await.error(400, 10400);
    }
}

#[tokio::test]
async fn cursors_are_page_numbers_so_deletions_skip_rows() {
    let world = World::new().await;
    let mut all = Vec::new();
    for user in 0..25 {
        all.push(world.pending(&format!("u{user}")).await);
    }
    all.reverse();
    let first = world.get("/connected_accounts").await.ok();
    assert_eq!(ids(&first), all[..20], "twenty is the default");
    assert_has(
        &first,
        &json!({"total_items": 25, "total_pages": 2, "current_page": 1}),
    );
    let cursor = first["next_cursor"].as_str().unwrap().replace('=', "%3D");
    let path = format!("/connected_accounts?cursor={cursor}");
    let second = world.get(&path).await.ok();
    assert_eq!(
        (ids(&second), &second["next_cursor"]),
        (all[20..].to_vec(), &Value::Null)
    );
    world
        .delete(&format!("/connected_accounts/{}", all[0]))
        .await
        .ok();
    let shifted = world.get(&path).await.ok();
    assert_eq!(
        ids(&shifted),
        all[21..],
        "the row that moved to the first page is skipped"
    );
}

#[tokio::test]
async fn lists_stay_complete_among_many_accounts() {
    let world = World::with(composio_sim::Config {
        rate_limit: 0,
        ..config()
    })
    .await;
    let mut all = Vec::new();
    for user in 0..1_000 {
        all.push(world.pending(&format!("u{user}")).await);
    }
    let path = "/connected_accounts?limit=100&order_direction=asc";
    let listed: Vec<_> = world.pages(path).await.iter().flat_map(ids).collect();
    assert_eq!(listed, all);
    let wanted: Vec<_> = all.into_iter().step_by(10).collect();
    let page = world
        .get(&format!("{path}&connected_account_ids={}", wanted.join(",")))
        .await;
    assert_eq!(ids(&page.ok()), wanted);
}
