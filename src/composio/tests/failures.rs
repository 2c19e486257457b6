//! What is tried again, what is not, and what errors say.

use super::*;

#[tokio::test]
async fn what_may_be_repeated_is_tried_three_times_when_that_can_help() {
    for status in [408, 502, 503, 504] {
        let rig = Rig::new().await;
        rig.answers_in_turn(
            "GET",
            ACCOUNT,
            vec![error(status, "x"), error(status, "x"), ok(account("ca_1", "u"))],
        )
        .await;
        assert!(
            rig.client
                .account(Priority::Pending, "ca_1")
                .await
                .unwrap()
                .is_some()
        );
        assert_eq!(rig.requests().await.len(), 3);
    }
    for (status, requests) in [(503, 3), (500, 1), (501, 1), (409, 1), (429, 1), (400, 1)] {
        let rig = Rig::new().await;
        rig.answers("DELETE", ACCOUNT, error(status, "x")).await;
        let error = rig.client.delete_account("ca_1", false).await.unwrap_err();
        assert_eq!(
            (error.status(), rig.requests().await.len()),
            (Some(status), requests)
        );
    }
    let rig = Rig::new().await;
    let truncated = ResponseTemplate::new(200).set_body_raw(r#"{"id":"ca_1","sta"#, "application/json");
    rig.answers_in_turn("GET", ACCOUNT, vec![truncated, ok(account("ca_1", "u"))])
        .await;
    assert!(
        rig.client
            .account(Priority::Pending, "ca_1")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(rig.calls(), [("get_account", "decode"), ("get_account", "ok")]);
}

#[tokio::test]
async fn a_slow_answer_is_a_timeout_and_only_reads_are_repeated() {
    let rig = Rig::new().await;
    let slow = ok(account("ca_1", "u")).set_delay(Duration::from_mins(1));
    rig.answers_in_turn("GET", ACCOUNT, vec![slow.clone(), ok(account("ca_1", "u"))])
        .await;
    rig.answers("POST", LINK, slow.clone()).await;
    rig.answers("POST", EXECUTE, slow).await;
    let (read, made, run) = (
        rig.client.account(Priority::Pending, "ca_1").await,
        rig.client
            .create_link(Priority::Interactive, &link_request())
            .await,
        rig.client
            .execute(Priority::Identity, TOOL, &execute_request())
            .await,
    );
    assert!(read.unwrap().is_some());
    let made = made.unwrap_err();
    assert_eq!(made, Error::Timeout);
    assert!(made.answer_unknown());
    assert_eq!(run.unwrap_err(), Error::Timeout);
    let methods: Vec<_> = rig
        .requests()
        .await
        .iter()
        .map(|request| request.method.to_string())
        .collect();
    assert_eq!(methods, ["GET", "GET", "POST", "POST"]);
}

/// A server that reads a request, says `answer`, and closes the connection. Counts its requests.
async fn rude_server(answer: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Readiness may be a false alarm.
            let read = loop {
                stream.readable().await.unwrap();
                if let Ok(read) = stream.try_read(&mut [0; 8_192]) {
                    break read;
                }
            };
            if read == 0 {
                continue;
            }
            counter.fetch_add(1, Ordering::SeqCst);
            while stream.try_write(answer).is_err() {
                stream.writable().await.unwrap();
            }
        }
    });
    (url, count)
}

#[tokio::test]
async fn a_connection_that_breaks_may_have_carried_the_request() {
    let broken: &[u8] =
        b"HTTP/1.1 201 Created\r\ncontent-length: 500\r\n\r\n{\"connected_account_id\":\"ca_1\",";
    for answer in [b"", broken] {
        let (url, count) = rude_server(answer).await;
        let client = client(url, Arc::new(Recorder::default()));
        let error = client
            .create_link(Priority::Interactive, &link_request())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Transport { .. }), "{error:?}");
        assert!(error.answer_unknown());
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(
            client
                .account(Priority::Pending, "ca_1")
                .await
                .unwrap_err()
                .is_transient()
        );
        assert_eq!(count.load(Ordering::SeqCst), 4);
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_not_read() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 67108865\r\n\r\n{\"items\":[";
    let (url, count) = rude_server(answer).await;
    let error = client(url, Arc::new(Recorder::default()))
        .list_toolkits(Priority::Background, true)
        .await
        .unwrap_err();
    let expected = Error::Decode {
        message: "the body is larger than 64 MiB".into(),
        excerpt: String::new(),
    };
    assert_eq!(error, expected);
    assert_eq!(count.load(Ordering::SeqCst), 1, "nor asked for again");
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(url, Arc::new(Recorder::default()))
        .create_link(Priority::Interactive, &link_request())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.is_transient() && !error.answer_unknown());
}

/// Found as a live account that was left behind: the page of a firewall had been taken for a rejected key.
#[tokio::test]
async fn what_is_not_in_composios_words_refuses_nothing() {
    let page =
        |status| ResponseTemplate::new(status).set_body_raw("<html><title>Blocked</title>", "text/html");
    let flat = |status| ResponseTemplate::new(status).set_body_json(json!({"message": "Forbidden"}));
    for status in [302, 400, 401, 403, 404, 409, 410, 422] {
        for answer in [page(status), flat(status), ResponseTemplate::new(status)] {
            let rig = Rig::new().await;
            rig.answers("GET", ACCOUNT, answer).await;
            let error = rig.client.account(Priority::Pending, "ca_1").await.unwrap_err();
            assert!(
                matches!(error, Error::Gateway { status: seen, .. } if seen == status),
                "{error:?}"
            );
            assert!(error.is_transient() && !error.is_unauthorized() && !error.is_forbidden());
            assert_eq!(rig.client.unauthorized_since(), None);
        }
    }
}

#[tokio::test]
async fn errors_keep_what_helps_and_nothing_that_grants_access() {
    let rig = Rig::new().await;
    let envelope = ResponseTemplate::new(400)
        .set_body_json(json!({"error": {
            "message": format!("Invalid API key: {KEY}"), "code": 10401, "slug": "HTTP_Unauthorized", "status": 400,
            "request_id": "req_1", "suggested_fix": "x"
        }}))
        .insert_header("retry-after", "3");
    rig.answers("GET", ACCOUNT, envelope).await;
    let error = rig.client.account(Priority::Pending, "ca_1").await.unwrap_err();
    let expected = Error::Http {
        status: 400,
        code: Some("10401".into()),
        slug: Some("HTTP_Unauthorized".into()),
        message: "Invalid API key: …".into(),
        request_id: Some("req_1".into()),
        retry_after: Some(Duration::from_secs(3)),
    };
    assert_eq!(error, expected);

    let table = [
        (
            ResponseTemplate::new(500).set_body_raw("<html><title>Bad  day</title>", "text/html"),
            "Bad  day",
        ),
        (
            ResponseTemplate::new(500).set_body_string("upstream ak_secret down"),
            "upstream ak_… down",
        ),
        (ResponseTemplate::new(500), "Internal Server Error"),
        (
            ResponseTemplate::new(429).set_body_json(json!({"message": "flat"})),
            "flat",
        ),
    ];
    for (answer, expected) in table {
        let rig = Rig::new().await;
        rig.answers("GET", ACCOUNT, answer.insert_header("x-request-id", "req_2"))
            .await;
        let error = rig.client.account(Priority::Pending, "ca_1").await.unwrap_err();
        let Error::Http {
            message, request_id, ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!(
            (message.as_str(), request_id.as_deref()),
            (expected, Some("req_2"))
        );
    }
}

#[tokio::test]
async fn a_401_is_remembered_until_a_call_succeeds_or_it_is_cleared() {
    let rig = Rig::new().await;
    let answers = vec![error(401, "no"), ok(account("ca_1", "u")), error(401, "no")];
    rig.answers_in_turn("GET", ACCOUNT, answers).await;
    assert!(rig.client.unauthorized_since().is_none());
    rig.client.account(Priority::Pending, "ca_1").await.unwrap_err();
    let (remembered, left) = rig.client.unauthorized_since().unwrap();
    assert!(remembered.is_unauthorized() && left > Duration::from_secs(200));
    rig.client.account(Priority::Pending, "ca_1").await.unwrap();
    assert!(rig.client.unauthorized_since().is_none());
    rig.client.account(Priority::Pending, "ca_1").await.unwrap_err();
    assert!(rig.client.unauthorized_since().is_some());
    rig.client.try_again();
    assert!(rig.client.unauthorized_since().is_none());
}

#[tokio::test]
async fn after_a_429_nothing_is_sent_before_its_time() {
    let rig = Rig::new().await;
    let refused = ResponseTemplate::new(429)
        .set_body_json(json!({"message": "Rate limit exceeded. Limit: 2000 requests per 1 minutes"}))
        .insert_header("retry-after", "30")
        .insert_header("x-ratelimit", "2000")
        .insert_header("x-ratelimit-remaining", "0")
        .insert_header("x-ratelimit-window-size", "60s");
    rig.answers("GET", ACCOUNT, refused).await;
    let first = rig.client.account(Priority::Pending, "ca_1").await.unwrap_err();
    assert!(first.is_rate_limited());
    assert_eq!(first.retry_after(), Some(Duration::from_secs(30)));
    for error in [
        rig.client
            .account(Priority::Background, "ca_1")
            .await
            .unwrap_err(),
        rig.client
            .create_link(Priority::Interactive, &link_request())
            .await
            .unwrap_err(),
    ] {
        let Error::BudgetExhausted { retry_after } = error else {
            panic!("{error:?}")
        };
        assert!(retry_after > Duration::from_secs(25));
        assert!(!error.answer_unknown());
    }
    assert_eq!(rig.requests().await.len(), 1);
    assert_eq!(rig.calls(), [("get_account", "rate_limited")]);
    assert_eq!(*rig.recorder.budgets.lock().unwrap(), [(2000, 0)]);
    assert!(rig.client.budget().snapshot().not_before.is_some());
}
