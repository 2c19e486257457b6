//! Lists and single accounts.

use super::*;

#[tokio::test]
async fn a_list_names_every_filter_and_follows_every_page() {
    let rig = Rig::new().await;
    let page =
        |items: &[Value], next: Value| ok(json!({"items": items, "next_cursor": next, "total_items": 3.0}));
    Mock::given(path(ACCOUNTS))
        .and(header("x-api-key", KEY))
        .and(query_param_is_missing("cursor"))
        .respond_with(page(
            &[account("ca_1", "u1"), account("ca_2", "u2")],
            json!("Mg=="),
        ))
        .expect(1)
        .mount(&rig.server)
        .await;
    Mock::given(path(ACCOUNTS))
        .and(query_param("cursor", "Mg=="))
        .respond_with(page(&[account("ca_2", "u2"), account("ca_3", "u1")], Value::Null))
        .expect(1)
        .mount(&rig.server)
        .await;
    let query = AccountQuery {
        user_ids: vec!["u1".into(), "u2".into()],
        ids: vec!["ca_1".into(), "ca_2".into(), "ca_3".into()],
        toolkits: vec!["reddit".into()],
    };
    let accounts = rig
        .client
        .list_accounts(Priority::Identity, &query)
        .await
        .unwrap()
        .items;
    assert_eq!(
        accounts
            .iter()
            .map(|account| account.id.as_str())
            .collect::<Vec<_>>(),
        ["ca_1", "ca_2", "ca_3"]
    );
    let requests = rig.requests().await;
    assert_eq!(
        requests[0].url.query(),
        Some(
            "toolkit_slugs=reddit&user_ids=u1%2Cu2&connected_account_ids=ca_1%2Cca_2%2Cca_3\
             &statuses=INITIALIZING%2CINITIATED%2CACTIVE%2CFAILED%2CEXPIRED%2CINACTIVE%2CREVOKED\
             &account_type=ALL&order_by=created_at&order_direction=asc&limit=100"
        )
    );
    assert!(
        requests[1]
            .url
            .query()
            .unwrap()
            .ends_with("&limit=100&cursor=Mg%3D%3D")
    );
    assert_eq!(rig.calls(), [("list_accounts", "ok"), ("list_accounts", "ok")]);
}

#[tokio::test]
async fn a_list_that_is_shorter_than_it_claims_is_read_again() {
    let rig = Rig::new().await;
    let page = |id: &str, next: Value| {
        ok(json!({"items": [account(id, "u")], "next_cursor": next, "total_items": 3}))
    };
    let pages = vec![
        page("ca_1", json!("2")),
        page("ca_3", Value::Null),
        page("ca_1", json!("2")),
        page("ca_2", Value::Null),
    ];
    rig.answers_in_turn("GET", ACCOUNTS, pages).await;
    let accounts = rig
        .client
        .list_accounts(Priority::Pending, &AccountQuery::default())
        .await
        .unwrap()
        .items;
    assert_eq!(accounts.len(), 3);
    assert_eq!(rig.requests().await.len(), 4);
}

#[tokio::test]
async fn a_list_that_leads_in_a_circle_is_an_error() {
    let rig = Rig::new().await;
    rig.answers("GET", ACCOUNTS, ok(json!({"items": [], "next_cursor": "again"})))
        .await;
    let error = rig
        .client
        .list_accounts(Priority::Pending, &AccountQuery::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
    assert_eq!(rig.requests().await.len(), 2);
}

#[tokio::test]
async fn one_bad_item_hides_no_other_and_an_ignored_filter_mixes_up_nobody() {
    let rig = Rig::new().await;
    let items = json!([account("ca_1", "u1"), {"user_id": "u1"}, 7, account("ca_2", "stranger")]);
    rig.answers("GET", ACCOUNTS, ok(json!({ "items": items }))).await;
    let query = AccountQuery {
        user_ids: vec!["u1".into()],
        ..AccountQuery::default()
    };
    let listing = rig.client.list_accounts(Priority::Pending, &query).await.unwrap();
    assert_eq!(listing.items.len(), 1);
    assert_eq!(
        listing.skipped,
        [
            Skipped {
                id: None,
                user_id: Some("u1".into())
            },
            Skipped::default()
        ]
    );
    assert!(!listing.is_complete());
}

#[tokio::test]
async fn an_answer_without_items_is_not_an_empty_list() {
    let rig = Rig::new().await;
    rig.answers("GET", ACCOUNTS, ok(json!({"message": "hello"})))
        .await;
    let error = rig
        .client
        .list_accounts(Priority::Pending, &AccountQuery::default())
        .await
        .unwrap_err();
    assert_eq!(
        error,
        Error::Decode {
            message: "it is not the object that was expected (line 1, column 19)".into(),
            excerpt: r#"{"message":"…"}"#.into()
        }
    );
    assert_eq!(
        rig.requests().await.len(),
        1,
        "a whole body is not asked for again"
    );
}

#[tokio::test]
async fn auth_configs_of_one_toolkit_include_the_disabled() {
    let rig = Rig::new().await;
    let config = |id: &str, slug: &str, status: &str| json!({"id": id, "name": "n", "toolkit": {"slug": slug}, "status": status, "is_composio_managed": true});
    let items = json!([
        config("ac_1", "reddit", "ENABLED"),
        config("ac_2", "reddit", "DISABLED"),
        config("ac_3", "slack", "ENABLED"),
        config("ac_1", "reddit", "ENABLED"),
    ]);
    rig.answers("GET", "/api/v3.1/auth_configs", ok(json!({ "items": items })))
        .await;
    let configs = rig
        .client
        .list_auth_configs(Priority::Interactive, "reddit")
        .await
        .unwrap();
    let seen: Vec<_> = configs
        .iter()
        .map(|config| (config.id.as_str(), config.enabled))
        .collect();
    assert_eq!(seen, [("ac_1", true), ("ac_2", false)]);
    let query = rig.requests().await[0].url.query().map(str::to_owned);
    assert_eq!(
        query.as_deref(),
        Some("toolkit_slug=reddit&show_disabled=true&limit=100")
    );
}

#[tokio::test]
async fn only_composios_own_404_means_that_an_account_does_not_exist() {
    let gone = error(404, "Connected account not found");
    let page = ResponseTemplate::new(404).set_body_raw("<html><title>404</title>", "text/html");
    for (answer, is_gone) in [(gone, true), (ResponseTemplate::new(404), false), (page, false)] {
        let rig = Rig::new().await;
        rig.answers("GET", ACCOUNT, answer.clone()).await;
        rig.answers("DELETE", ACCOUNT, answer).await;
        let found = rig.client.account(Priority::Pending, "ca_1").await;
        let deleted = rig.client.delete_account("ca_1", false).await;
        if is_gone {
            assert_eq!((found, deleted), (Ok(None), Ok(Deletion::AlreadyGone)));
        } else {
            assert!(found.unwrap_err().is_transient() && deleted.unwrap_err().is_transient());
        }
    }
    for status in [400, 401, 403, 409, 410, 422, 429, 500] {
        let rig = Rig::new().await;
        rig.answers("GET", ACCOUNT, error(status, "no")).await;
        let error = rig.client.account(Priority::Pending, "ca_1").await.unwrap_err();
        assert_eq!(error.status(), Some(status));
    }
}

#[tokio::test]
async fn an_answer_about_another_account_is_refused() {
    let rig = Rig::new().await;
    rig.answers("GET", ACCOUNT, ok(account("ca_2", "u"))).await;
    assert!(matches!(
        rig.client.account(Priority::Pending, "ca_1").await,
        Err(Error::Decode { .. })
    ));
}

#[tokio::test]
async fn ids_cannot_reach_other_paths() {
    let rig = Rig::new().await;
    Mock::given(method("GET"))
        .respond_with(error(404, "no"))
        .mount(&rig.server)
        .await;
    for id in ["", ".", ".."] {
        let error = rig.client.account(Priority::Pending, id).await.unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{id:?}");
    }
    rig.client
        .account(Priority::Pending, "a/../b?c#d%2F")
        .await
        .unwrap();
    let requests = rig.requests().await;
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].url.path(),
        "/api/v3.1/connected_accounts/a%2F..%2Fb%3Fc%23d%252F"
    );
    for query in [
        AccountQuery {
            ids: vec!["a,b".into()],
            ..AccountQuery::default()
        },
        AccountQuery {
            user_ids: vec![String::new()],
            ..AccountQuery::default()
        },
    ] {
        let error = rig
            .client
            .list_accounts(Priority::Pending, &query)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }));
    }
}

#[tokio::test]
async fn a_poller_works_over_the_real_client() {
    let rig = Rig::new().await;
    rig.answers("GET", ACCOUNTS, ok(json!({"items": [account("ca_1", "u")]})))
        .await;
    rig.answers("GET", "/api/v3.1/connected_accounts/ca_2", error(404, "no"))
        .await;
    let (sender, mut woken) = tokio::sync::mpsc::unbounded_channel();
    let wake = Arc::new(move |owner: &'static str| sender.send(owner).unwrap());
    let poller = AccountPoller::start(rig.client.clone(), PollerOptions::default(), wake);
    let interval = Duration::from_mins(1);
    poller.follow(&"one", "ca_1", interval, Priority::Pending);
    poller.follow(&"two", "ca_2", interval, Priority::Pending);
    let mut heard = [woken.recv().await.unwrap(), woken.recv().await.unwrap()];
    heard.sort_unstable();
    assert_eq!(heard, ["one", "two"]);
    let one = poller.follow(&"one", "ca_1", interval, Priority::Pending);
    assert!(
        matches!(one.state, Some(AccountState::Found(account)) if account.status == AccountStatus::Active)
    );
    assert_eq!(
        poller.follow(&"two", "ca_2", interval, Priority::Pending).state,
        Some(AccountState::NotFound)
    );
    let accounts = poller
        .accounts_of_user("u", "reddit", Priority::Interactive)
        .await
        .unwrap();
    assert_eq!(accounts.len(), 1);
    assert_eq!(rig.requests().await.len(), 3);
}

#[test]
fn every_shared_type_can_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Client>();
    check::<Budget>();
    check::<AccountPoller<String>>();
    check::<Connections<String>>();
    check::<Connection<String>>();
}
