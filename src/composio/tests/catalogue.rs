//! Toolkits, their tools, and all auth configs of a project.

use composio_sim::{ApiKey, Config, Fault, GeneratedCatalogue, Rule, SeedAuthConfig, Simulator};

use super::*;

const TOOLKITS: &str = "/api/v3.1/toolkits";
const REDDIT: &str = "/api/v3.1/toolkits/reddit";
const TOOLS: &str = "/api/v3.1/tools";
const CONFIGS: &str = "/api/v3.1/auth_configs";

async fn simulator(auth_configs: Vec<SeedAuthConfig>) -> (Simulator, Client) {
    let config = Config {
        keys: vec![ApiKey::new(KEY)],
        auth_configs,
        ..Config::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let client = client(simulator.url().to_owned(), Arc::new(Recorder::default()));
    (simulator, client)
}

fn of_reddit() -> ToolQuery {
    ToolQuery {
        toolkit: "reddit".into(),
        version: None,
        include_deprecated: true,
    }
}

fn tool(slug: &str, toolkit: &str) -> Value {
    json!({"slug": slug, "toolkit": {"slug": toolkit}, "input_parameters": {}, "output_parameters": {}})
}

fn slugs(tools: &Listing<Tool>) -> Vec<&str> {
    tools.items.iter().map(|tool| tool.slug.as_str()).collect()
}

impl Rig {
    /// Gives this answer from now on, and no other.
    async fn only_answers(&self, at: &[&str], response: &ResponseTemplate) {
        self.server.reset().await;
        for at in at {
            self.answers("GET", at, response.clone()).await;
        }
    }

    async fn tools(&self) -> Result<Listing<Tool>, Error> {
        self.client.list_tools(Priority::Interactive, &of_reddit()).await
    }
}

#[tokio::test]
async fn the_catalogue_lists_every_toolkit_once() {
    let (simulator, client) = simulator(Vec::new()).await;
    let listing = client.list_toolkits(Priority::Interactive, true).await.unwrap();
    assert!(listing.is_complete());
    assert_eq!(listing.reported_total, Some(listing.items.len()));
    let table = [
        ("codeinterpreter", "20251209_00", true),
        ("github", "20260917_00", false),
        ("hackernews", "20251209_00", true),
        ("reddit", "20260424_00", false),
        ("slack", "20260721_00", false),
    ];
    for (slug, version, no_auth) in table {
        let found: Vec<_> = listing
            .items
            .iter()
            .filter(|toolkit| toolkit.slug == slug)
            .collect();
        let [toolkit] = found[..] else {
            panic!("{slug}: {found:?}")
        };
        assert_eq!(
            (toolkit.version.as_deref(), toolkit.no_auth, toolkit.deprecated),
            (Some(version), no_auth, false),
            "{slug}"
        );
        assert!(toolkit.updated_at.is_some() && toolkit.tools_count > Some(0));
    }
    let calls = simulator.calls();
    assert_eq!(
        calls[0].query,
        "type=all&include_deprecated=true&sort_by=alphabetically&limit=1000"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn a_toolkit_is_read_in_the_version_asked_for() {
    let (simulator, client) = simulator(Vec::new()).await;
    let read = |slug, version| client.toolkit(Priority::Interactive, slug, version);
    let latest = read("reddit", None).await.unwrap().unwrap();
    assert_eq!((latest.slug.as_str(), latest.name.as_str()), ("reddit", "Reddit"));
    assert_eq!(latest.version.as_deref(), Some("20260424_00"));
    assert_eq!(latest.auth_modes, ["OAUTH2"]);
    assert_eq!(latest.categories, ["social-media-accounts"]);
    assert_eq!(latest.app_url.as_deref(), Some("https://www.reddit.com"));
    assert!(!latest.description.is_empty() && latest.logo.starts_with("https://"));
    let pinned = read("REDDIT", Some("20251209_00")).await.unwrap().unwrap();
    assert_eq!(pinned.version.as_deref(), Some("20251209_00"));
    assert_eq!(read("no_such_toolkit", None).await, Ok(None));
    assert_eq!(read("reddit", Some("19700101_00")).await, Ok(None));
    simulator.stop().await;
}

#[tokio::test]
async fn tools_come_with_their_schemas_in_the_version_asked_for() {
    let (simulator, client) = simulator(Vec::new()).await;
    let list = async |query: &ToolQuery| {
        let listing = client.list_tools(Priority::Interactive, query).await.unwrap();
        assert_eq!(listing.reported_total, Some(listing.items.len()));
        assert!(listing.is_complete());
        listing.items
    };
    let latest = list(&of_reddit()).await;
    let deprecated = latest.iter().filter(|tool| tool.is_deprecated).count();
    assert!(deprecated > 0 && latest.len() > deprecated);
    for tool in &latest {
        assert_eq!(tool.toolkit.slug, "reddit");
        assert_eq!(tool.version.as_deref(), Some("20260424_00"));
        for schema in [&tool.input_parameters, &tool.output_parameters] {
            let schema: Value = serde_json::from_str(schema.get()).unwrap();
            assert_eq!(schema["type"], "object", "{}", tool.slug);
        }
    }
    let maintained = list(&ToolQuery {
        include_deprecated: false,
        ..of_reddit()
    })
    .await;
    assert_eq!(maintained.len(), latest.len() - deprecated);
    let pinned = list(&ToolQuery {
        version: Some("20251209_00".into()),
        ..of_reddit()
    })
    .await;
    assert!(!pinned.is_empty());
    assert!(
        pinned
            .iter()
            .all(|tool| tool.version.as_deref() == Some("20251209_00"))
    );
    let unknown = list(&ToolQuery {
        toolkit: "no_such_toolkit".into(),
        ..of_reddit()
    })
    .await;
    assert!(unknown.is_empty());
    simulator.stop().await;
}

#[tokio::test]
async fn a_tool_list_names_toolkit_version_and_limit() {
    let table = [
        (None, true, "&toolkit_versions=latest&include_deprecated=true"),
        (
            Some("20251209_00"),
            false,
            "&toolkit_versions%5Breddit%5D=20251209_00&include_deprecated=false",
        ),
    ];
    let rig = Rig::new().await;
    for (version, include_deprecated, expected) in table {
        rig.only_answers(&[TOOLS], &ok(json!({"items": []}))).await;
        let query = ToolQuery {
            version: version.map(str::to_owned),
            include_deprecated,
            ..of_reddit()
        };
        let listing = rig
            .client
            .list_tools(Priority::Interactive, &query)
            .await
            .unwrap();
        assert_eq!((listing.items.len(), listing.reported_total), (0, None));
        assert_eq!(
            rig.requests().await[0].url.query().unwrap(),
            format!("toolkit_slug=reddit{expected}&limit=1000")
        );
    }
    assert_eq!(rig.calls(), [("list_tools", "ok"); 2]);
}

#[tokio::test]
async fn tools_of_all_pages_are_kept_once_and_those_of_other_toolkits_not_at_all() {
    let rig = Rig::new().await;
    let pages = vec![
        ok(json!({
            "items": [tool("A", "reddit"), tool("B", "reddit"), tool("X", "slack"), {"name": "no slug"}],
            "next_cursor": "2", "total_items": 7.0
        })),
        ok(json!({
            "items": [tool("X", "slack"), tool("B", "reddit"), tool("C", "Reddit"), {"slug": "D"}, tool("Y", "slack")],
            "next_cursor": null, "total_items": 7.0
        })),
    ];
    rig.answers_in_turn("GET", TOOLS, pages).await;
    let listing = rig.tools().await.unwrap();
    assert_eq!(slugs(&listing), ["A", "B", "C", "D"]);
    assert_eq!(listing.skipped, [Skipped::default()]);
    // Seven, of which two are Slack's; the fifth is the one that cannot be understood.
    assert_eq!(listing.reported_total, Some(5));
    assert!(!listing.is_complete());
    let cursors: Vec<_> = rig
        .requests()
        .await
        .iter()
        .map(|request| request.url.query_pairs().any(|(name, _)| name == "cursor"))
        .collect();
    assert_eq!(cursors, [false, true]);
}

#[tokio::test]
async fn a_list_that_shrank_between_two_pages_is_read_again() {
    let rig = Rig::new().await;
    let page = |slugs: [&str; 2], next: Value, total: usize| {
        let items = slugs.map(|slug| tool(slug, "reddit"));
        ok(json!({"items": items, "next_cursor": next, "total_items": total}))
    };
    // A vanishes after the first page, so that C moves to the first page and is not on the second: the numbers agree.
    let pages = vec![
        page(["A", "B"], json!("2"), 5),
        page(["D", "E"], Value::Null, 4),
        page(["B", "C"], json!("2"), 4),
        page(["D", "E"], Value::Null, 4),
    ];
    rig.answers_in_turn("GET", TOOLS, pages).await;
    let listing = rig.tools().await.unwrap();
    assert_eq!(slugs(&listing), ["B", "C", "D", "E"]);
    assert_eq!(listing.reported_total, Some(4));
    assert_eq!(rig.requests().await.len(), 4);
}

#[tokio::test]
async fn a_list_that_stays_short_says_so() {
    let rig = Rig::new().await;
    let page = |items: Value, next: Value| ok(json!({"items": items, "next_cursor": next, "total_items": 9}));
    let pages = vec![
        page(json!([tool("A", "reddit"), 7, tool("X", "slack")]), json!("2")),
        page(json!([tool("B", "reddit")]), Value::Null),
        page(json!([tool("C", "reddit"), tool("Y", "slack")]), json!("2")),
        page(json!([tool("A", "reddit")]), Value::Null),
    ];
    rig.answers_in_turn("GET", TOOLS, pages).await;
    let listing = rig.tools().await.unwrap();
    assert_eq!(slugs(&listing), ["A", "B", "C"], "both readings count");
    // Nine, of which two are Slack's. The item that could not be decoded was not on the pages of the second attempt.
    assert_eq!((listing.reported_total, listing.is_complete()), (Some(7), true));
    assert_eq!(rig.requests().await.len(), 4);
}

#[tokio::test]
async fn a_large_schema_arrives_as_it_was_sent() {
    let rig = Rig::new().await;
    let values: Vec<_> = (0..200_000).map(|value| format!("v{value}")).collect();
    let schema = json!({"type": "string", "enum": values}).to_string();
    let body = format!(
        r#"{{"items":[{{"slug":"BIG","toolkit":{{"slug":"reddit"}},"input_parameters":{schema},"output_parameters":null}}]}}"#
    );
    rig.answers(
        "GET",
        TOOLS,
        ResponseTemplate::new(200).set_body_raw(body, "application/json"),
    )
    .await;
    let listing = rig.tools().await.unwrap();
    let [tool] = &listing.items[..] else { panic!() };
    assert!(tool.input_parameters.get() == schema, "not printed: it is large");
    assert_eq!(tool.output_parameters.get(), "{}");
}

#[tokio::test]
async fn all_enabled_auth_configs_are_listed_in_as_few_calls_as_the_api_allows() {
    let seeds = (0..401)
        .map(|number| SeedAuthConfig {
            id: Some(format!("ac_{number}")),
            enabled: number % 100 != 0,
            ..SeedAuthConfig::managed(if number % 2 == 0 { "reddit" } else { "slack" })
        })
        .collect();
    let (simulator, client) = simulator(seeds).await;
    let configs = client
        .list_all_auth_configs(Priority::Interactive)
        .await
        .unwrap()
        .configs;
    assert_eq!(configs.len(), 401 - 5);
    assert!(configs.iter().all(|config| config.enabled));
    let calls = simulator.calls();
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0].query, "show_disabled=true&limit=200");
    simulator.stop().await;
}

#[tokio::test]
async fn auth_configs_that_are_missing_or_unreadable_are_not_taken_for_absent() {
    let config = |id: &str| json!({"id": id, "toolkit": {"slug": "reddit"}, "status": "ENABLED"});
    // The answer, the configs that can be read, how many others there are.
    let table = [
        (json!({"items": [config("ac_1")], "total_items": 2}), 1, 1),
        (json!({"items": [config("ac_1"), {"name": "no id"}]}), 1, 1),
        (json!({"items": [], "total_items": 3.0}), 0, 3),
        (json!({"items": [], "total_items": 0}), 0, 0),
    ];
    let rig = Rig::new().await;
    for (body, read, missing) in table {
        rig.only_answers(&[CONFIGS], &ok(body.clone())).await;
        let listed = rig
            .client
            .list_all_auth_configs(Priority::Interactive)
            .await
            .unwrap();
        assert_eq!((listed.configs.len(), listed.missing), (read, missing), "{body}");
    }
}

#[tokio::test]
async fn a_list_that_is_cut_short_is_read_in_pages_that_the_server_fills() {
    let config = Config {
        keys: vec![ApiKey::new(KEY)],
        generated: Some(GeneratedCatalogue {
            toolkits: 120,
            tools: 240,
            ..GeneratedCatalogue::default()
        }),
        ..Config::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let client = client(simulator.url().to_owned(), Arc::new(Recorder::default()));
    let whole = client.list_toolkits(Priority::Interactive, true).await.unwrap();
    // Pages that are read: the one that lied, and then all of fifty; where these name no next page either, by number.
    for always in [false, true] {
        simulator.clear_faults();
        let lies = Fault::LyingLastPage { rows: 50, always };
        simulator.inject(Rule::new(lies).on("GET", "/toolkits").for_ever());
        let listing = client.list_toolkits(Priority::Interactive, true).await.unwrap();
        assert_eq!(
            (listing.missing(), listing.items.len()),
            (0, whole.items.len()),
            "{always}"
        );
        assert_eq!(listing.pages, 1 + 3, "{always}");
    }
    simulator.stop().await;
}

/// What the three lists and the detail make of the same answer.
async fn all_four(rig: &Rig, answer: ResponseTemplate) -> ([Error; 3], Result<Option<ToolkitDetail>, Error>) {
    rig.only_answers(&[TOOLKITS, TOOLS, CONFIGS, REDDIT], &answer)
        .await;
    let lists = [
        rig.client
            .list_toolkits(Priority::Interactive, true)
            .await
            .unwrap_err(),
        rig.tools().await.unwrap_err(),
        rig.client
            .list_all_auth_configs(Priority::Interactive)
            .await
            .unwrap_err(),
    ];
    (
        lists,
        rig.client.toolkit(Priority::Interactive, "reddit", None).await,
    )
}

#[tokio::test]
async fn an_error_status_is_told_as_such() {
    let rig = Rig::new().await;
    for status in [400, 401, 403, 500] {
        let (lists, detail) = all_four(&rig, error(status, "no")).await;
        for error in lists.iter().chain([&detail.unwrap_err()]) {
            assert_eq!(error.status(), Some(status));
        }
    }
    let (lists, detail) = all_four(&rig, error(404, "Toolkit reddit not found")).await;
    assert!(lists.iter().all(Error::is_not_found));
    assert_eq!(detail, Ok(None));
    let page = ResponseTemplate::new(404).set_body_raw("<html><title>Lost</title>", "text/html");
    let (lists, detail) = all_four(&rig, page).await;
    let errors = lists
        .iter()
        .chain([&detail.unwrap_err()])
        .all(Error::is_transient);
    assert!(errors, "a page of a proxy is an outage");
    // After this the budget holds the other calls back.
    let (lists, detail) = all_four(
        &rig,
        error(429, "Rate limit exceeded").insert_header("retry-after", "30"),
    )
    .await;
    assert!(lists[0].is_rate_limited());
    assert!(
        lists
            .iter()
            .chain([&detail.unwrap_err()])
            .all(Error::is_throttled)
    );
    assert_eq!(rig.requests().await.len(), 1);
}

#[tokio::test]
async fn an_answer_of_another_shape_is_told_as_such() {
    let rig = Rig::new().await;
    let json = |text: &str| ResponseTemplate::new(200).set_body_raw(text, "application/json");
    // The answer, what the lists and the detail say of it, what is shown of it.
    let unexpected = "it is not the object that was expected";
    let no_slug = "the toolkit has no slug";
    let array = "it is an array instead of an object";
    let table = [
        (json("[]"), array, array, "[]"),
        (json(r#"[{"slug":"hush"}]"#), array, array, r#"[{"slug":"…"}]"#),
        (json("{}"), unexpected, no_slug, "{}"),
        (
            json(r#"{"items":"hush"}"#),
            unexpected,
            no_slug,
            r#"{"items":"…"}"#,
        ),
        (json(r#""hush""#), unexpected, unexpected, r#""…""#),
        (json("null"), unexpected, unexpected, "null"),
        (
            json("}{ garbage"),
            "it is not JSON",
            "it is not JSON",
            "}{ garbage",
        ),
        (
            json(r#"{"slug":"reddit","items":[{"slug":"A"#),
            "the JSON ends early",
            "the JSON ends early",
            r#"{"slug":"…","items":[{"slug":"…"#,
        ),
        (
            ResponseTemplate::new(200).set_body_raw("<html><title>Login</title>hush", "text/html"),
            "it is not JSON",
            "it is not JSON",
            "Login",
        ),
    ];
    for (answer, of_list, of_detail, shown) in table {
        let (lists, detail) = all_four(&rig, answer).await;
        let detail = detail.unwrap_err();
        let said = lists.iter().map(|error| (error, of_list));
        for (error, expected) in said.chain([(&detail, of_detail)]) {
            let Error::Decode { message, excerpt } = error else {
                panic!("{error:?}")
            };
            assert!(message.starts_with(expected), "{message}");
            assert_eq!(excerpt, shown);
            assert!(!message.contains("hush") && error.is_transient());
        }
    }
}

#[tokio::test]
async fn an_answer_that_broke_off_is_asked_for_again() {
    let rig = Rig::new().await;
    let broken = ResponseTemplate::new(200).set_body_raw(r#"{"items":[{"slug":"A"#, "application/json");
    rig.answers_in_turn(
        "GET",
        TOOLS,
        vec![broken, ok(json!({"items": [tool("A", "reddit")]}))],
    )
    .await;
    assert_eq!(slugs(&rig.tools().await.unwrap()), ["A"]);
    assert_eq!(rig.calls(), [("list_tools", "decode"), ("list_tools", "ok")]);
}

#[tokio::test]
async fn an_answer_about_another_toolkit_is_refused() {
    let rig = Rig::new().await;
    rig.answers("GET", REDDIT, ok(json!({"slug": "slack"}))).await;
    let error = rig
        .client
        .toolkit(Priority::Interactive, "reddit", None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
}

#[tokio::test]
async fn a_toolkit_or_version_that_cannot_be_asked_for_is_refused_at_once() {
    let rig = Rig::new().await;
    for (toolkit, version) in [("", None), ("a,b", None), ("a", Some("")), ("a", Some("1,2"))] {
        let query = ToolQuery {
            toolkit: toolkit.into(),
            version: version.map(str::to_owned),
            include_deprecated: true,
        };
        let error = rig
            .client
            .list_tools(Priority::Interactive, &query)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    }
    for slug in ["", ".", ".."] {
        let answer = rig.client.toolkit(Priority::Interactive, slug, None).await;
        assert!(matches!(answer, Err(Error::InvalidRequest { .. })), "{answer:?}");
    }
    assert!(rig.requests().await.is_empty());
}

#[tokio::test]
async fn an_item_that_is_not_even_json_costs_only_itself() {
    let rig = Rig::new().await;
    let body = r#"{"items": [{"slug": "A"}, {"slug": "B", "weight": NaN}, {"slug": "C"}], "total_items": 3}"#;
    let answer = ResponseTemplate::new(200).set_body_raw(body, "application/json");
    rig.answers("GET", TOOLS, answer).await;
    let listing = rig.tools().await.unwrap();
    assert_eq!((slugs(&listing), listing.missing()), (vec!["A", "C"], 1));
    assert_eq!(rig.requests().await.len(), 1);
}
