//! Links, deletions, switches and tool calls.

use super::*;

#[tokio::test]
async fn a_create_is_never_repeated() {
    for status in [408, 429, 500, 502, 503, 504] {
        let rig = Rig::new().await;
        rig.answers("POST", LINK, error(status, "x")).await;
        let error = rig
            .client
            .create_link(Priority::Interactive, &link_request())
            .await
            .unwrap_err();
        assert_eq!(error.answer_unknown(), status != 429);
        assert_eq!(rig.requests().await.len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_process_that_may_change_nothing_only_reads() {
    let rig = Rig::new().await;
    rig.answers("GET", ACCOUNT, ok(account("ca_1", "u"))).await;
    rig.recorder.changes_nothing.store(true, Ordering::Relaxed);
    let changes = [
        rig.client
            .create_link(Priority::Interactive, &link_request())
            .await
            .map(drop),
        rig.client.delete_account("ca_1", false).await.map(drop),
        rig.client.set_account_enabled("ca_1", false).await,
        rig.client
            .execute(Priority::Identity, TOOL, &execute_request())
            .await
            .map(drop),
    ];
    assert!(
        changes.iter().all(|change| *change == Err(Error::NotAllowed)),
        "{changes:?}"
    );
    let read = rig.client.account(Priority::Pending, "ca_1").await;
    assert!(read.unwrap().is_some());
    assert_eq!(rig.requests().await.len(), 1);
}

#[tokio::test]
async fn a_link_is_asked_for_with_all_it_needs_and_never_shown() {
    let rig = Rig::new().await;
    let body = json!({
        "auth_config_id": "ac_1", "user_id": "user_1", "alias": "one", "callback_url": "https://app/cb"
    });
    Mock::given(method("POST"))
        .and(path(LINK))
        .and(body_json(body))
        .respond_with(ResponseTemplate::new(201).set_body_json(json!({
            "connected_account_id": "ca_1", "link_token": "lk_hush",
            "redirect_url": "https://connect.composio.dev/link/lk_hush", "expires_at": "2026-11-21T10:10:00.000Z"
        })))
        .expect(1)
        .mount(&rig.server)
        .await;
    let request = LinkRequest {
        callback_url: Some("https://app/cb".into()),
        ..link_request()
    };
    let link = rig
        .client
        .create_link(Priority::Interactive, &request)
        .await
        .unwrap();
    assert_eq!(link.connected_account_id, "ca_1");
    assert_eq!(
        link.redirect_url.expose_secret(),
        "https://connect.composio.dev/link/lk_hush"
    );
    assert_eq!(link.expires_at, Some("2026-11-21T10:10:00Z".parse().unwrap()));
    assert!(!format!("{link:?}").contains("hush"));
}

#[tokio::test]
async fn a_link_answer_that_cannot_be_understood_gives_nothing_away() {
    for body in [
        r#"{"redirect_url":"https://connect.composio.dev/link/lk_hush"}"#,
        r#"{"connected_account_id":"ca_1","redirect_url":"https://connect.composio.dev/link/lk_hush"#,
        "see https://connect.composio.dev/link/lk_hush",
    ] {
        let rig = Rig::new().await;
        rig.answers("POST", LINK, ResponseTemplate::new(201).set_body_string(body))
            .await;
        let error = rig
            .client
            .create_link(Priority::Interactive, &link_request())
            .await
            .unwrap_err();
        assert!(error.answer_unknown());
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        assert_eq!(rig.requests().await.len(), 1);
    }
}

#[tokio::test]
async fn deletion_and_enabling_say_exactly_what_is_meant() {
    let rig = Rig::new().await;
    rig.answers("DELETE", ACCOUNT, ok(json!({"success": true}))).await;
    rig.answers(
        "PATCH",
        &format!("{ACCOUNT}/status"),
        ok(json!({"success": true})),
    )
    .await;
    assert_eq!(
        rig.client.delete_account("ca_1", true).await,
        Ok(Deletion::Deleted)
    );
    assert_eq!(
        rig.client.delete_account("ca_1", false).await,
        Ok(Deletion::Deleted)
    );
    rig.client.set_account_enabled("ca_1", false).await.unwrap();
    let requests = rig.requests().await;
    assert_eq!(requests[0].url.query(), Some("revoke_on_delete=true"));
    assert_eq!(requests[1].url.query(), Some("revoke_on_delete=false"));
    assert_eq!(
        requests[2].body_json::<Value>().unwrap(),
        json!({"enabled": false})
    );

    let rig = Rig::new().await;
    rig.answers("DELETE", ACCOUNT, ok(json!({"success": false})))
        .await;
    assert_eq!(
        rig.client
            .delete_account("ca_1", false)
            .await
            .unwrap_err()
            .outcome(),
        "refused"
    );
}

#[tokio::test]
async fn a_tool_call_names_owner_account_and_version_and_its_failure_is_an_answer() {
    let rig = Rig::new().await;
    let answers = vec![
        ok(
            json!({"data": {"data": {"name": "alice"}}, "error": null, "successful": true, "log_id": "log_1"}),
        ),
        ok(json!({"data": {}, "error": "invalid_grant, see https://x.dev/?token=hush", "successful": false})),
        error(410, "account is in EXPIRED state"),
    ];
    rig.answers_in_turn("POST", EXECUTE, answers).await;
    let run = || async {
        rig.client
            .execute(Priority::Identity, TOOL, &execute_request())
            .await
    };
    let good = run().await.unwrap();
    assert_eq!(good.data["data"]["name"], "alice");
    let failed = run().await.unwrap();
    assert_eq!(
        (failed.successful, failed.error.as_deref()),
        (false, Some("invalid_grant, see https://x.dev/…"))
    );
    assert_eq!(run().await.unwrap_err().status(), Some(410));
    let requests = rig.requests().await;
    assert_eq!(requests.len(), 3);
    assert_eq!(
        requests[0].body_json::<Value>().unwrap(),
        json!({
            "user_id": "user_1", "connected_account_id": "ca_1", "arguments": {"username": "me"},
            "version": "20260424_00"
        })
    );
    let not_an_object = ExecuteRequest {
        arguments: json!([1]),
        ..execute_request()
    };
    assert!(
        rig.client
            .execute(Priority::Identity, TOOL, &not_an_object)
            .await
            .is_err()
    );
}
