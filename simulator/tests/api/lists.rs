//! Lists of connected accounts: filters, order, pages.

use serde_json::{Value, json};

use crate::client::{World, config, id, ids};

#[tokio::test]
async fn lists_filter_sort_and_hide_shared_accounts() {
    let world = World::new().await;
    let mut all = Vec::new();
    for user in ["a", "b", "c"] {
        all.push(world.pending(user).await);
        world.advance(1);
    }
    let shared = json!({
        "auth_config_id": "ac_reddit", "user_id": "s",
        "experimental": {"account_type": "SHARED", "acl_config_for_shared": {"allow_all_users": true}}
    });
    let link = world.post("/connected_accounts/link", shared).await.ok();
    assert_eq!(link["experimental"]["account_type"], "SHARED");
    let shared = id(&link);
    world.simulator.consent(&all[0], None).unwrap();
    let [a, b, c] = [&all[0], &all[1], &all[2]];
    let cases: [(&str, Vec<&String>); 14] = [
        ("", vec![c, b, a]),
        ("account_type=ALL", vec![&shared, c, b, a]),
        ("account_type=SHARED", vec![&shared]),
        ("user_ids=a,c", vec![c, a]),
        ("user_ids=a&user_ids=c", vec![c, a]),
        ("user_ids=nobody", vec![]),
        ("statuses=ACTIVE", vec![a]),
        ("statuses=INITIALIZING,ACTIVE", vec![c, b, a]),
        ("toolkit_slugs=reddit", vec![c, b, a]),
        ("toolkit_slugs=slack", vec![]),
        ("auth_config_ids=ac_reddit&order_direction=asc", vec![a, b, c]),
        ("order_by=updated_at", vec![a, c, b]),
        (&format!("connected_account_ids={b},ca_unknown,{a}"), vec![b, a]),
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
async fn lists_refuse_what_they_do_not_know() {
    let world = World::new().await;
    let error = world
        .get("/connected_accounts?statuses=ACTIVE,PENDING")
        .await
        .error(400, 10400);
    let complaint = error["errors"][0].as_str().unwrap();
    assert!(complaint.starts_with("Error in query.statuses.1: Invalid enum value. Expected 'INITIALIZING'"));
    assert!(complaint.ends_with("received 'PENDING'"));
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "cursor=x",
        "order_by=id",
        "account_type=OTHER",
    ] {
        world
            .get(&format!("/connected_accounts?{query}"))
            .await
            .error(400, 10400);
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
    assert_eq!(ids(&first), all[..20], "twenty a page unless asked otherwise");
    assert_eq!(
        (
            &first["total_items"],
            &first["total_pages"],
            &first["current_page"]
        ),
        (&json!(25), &json!(2), &json!(1))
    );
    let cursor = first["next_cursor"].as_str().unwrap().replace('=', "%3D");
    let second = world
        .get(&format!("/connected_accounts?cursor={cursor}"))
        .await
        .ok();
    assert_eq!(
        (ids(&second), &second["next_cursor"]),
        (all[20..].to_vec(), &Value::Null)
    );
    world
        .delete(&format!("/connected_accounts/{}", all[0]))
        .await
        .ok();
    let shifted = world
        .get(&format!("/connected_accounts?cursor={cursor}"))
        .await
        .ok();
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
    let wanted: Vec<_> = all.iter().step_by(10).cloned().collect();
    let page = world
        .get(&format!(
            "/connected_accounts?limit=100&connected_account_ids={}",
            wanted.join(",")
        ))
        .await;
    let mut shown = ids(&page.ok());
    shown.reverse();
    assert_eq!(shown, wanted);
    let last = world
        .get("/connected_accounts?limit=100&order_direction=asc")
        .await
        .ok();
    assert_eq!(
        (&last["total_items"], ids(&last)),
        (&json!(1_000), all[..100].to_vec())
    );
}
