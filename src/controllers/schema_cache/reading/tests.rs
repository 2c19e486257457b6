use std::sync::Arc;
use std::time::Duration;

use composio_sim::{ApiKey, Config, Fault, Rule, Simulator};
use serde_json::{Value, json};

use super::*;
use crate::composio::{ClientOptions, Connection, Connections, NoSurroundings, PollerOptions};
use crate::runtime::wake_ups::ObjectKey;

const KEY: &str = "ak_reading";

async fn simulator() -> (Simulator, Arc<Connection<ObjectKey>>) {
    let config = Config {
        keys: vec![ApiKey::new(KEY)],
        ..Config::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let options = ClientOptions {
        base_url: simulator.url().to_owned(),
        ..ClientOptions::default()
    };
    let connections = Connections::new(
        options,
        PollerOptions::default(),
        Arc::new(NoSurroundings),
        Arc::new(|_| {}),
    );
    let connection = connections.unwrap().connection(&KEY.into()).unwrap();
    (simulator, connection)
}

fn github() -> DesiredToolkit {
    DesiredToolkit {
        slug: "github".to_owned(),
        version: Some("20260917_00".to_owned()),
        is_pinned: false,
        updated_at: None,
        known_tools: KnownTools::None,
        is_only_kept: false,
    }
}

async fn read(
    connection: &Connection<ObjectKey>,
    desired: &DesiredToolkit,
    include_deprecated: bool,
) -> Result<Answer, Failure> {
    let reader = Reader {
        client: &connection.client,
        include_deprecated,
        deadline: Instant::now() + Duration::from_mins(1),
        api_calls: AtomicU64::default(),
    };
    reader.read(desired).await
}

/// What came of it: the tools that were read, how many others there are; or why it failed.
async fn outcome(
    connection: &Connection<ObjectKey>,
    desired: &DesiredToolkit,
    include_deprecated: bool,
) -> Result<(usize, usize), Reason> {
    let answer = read(connection, desired, include_deprecated).await;
    answer
        .map(|answer| (answer.tools.len(), answer.missing))
        .map_err(|failure| failure.reason)
}

fn on_tools(fault: Fault) -> Rule {
    Rule::new(fault).on("GET", "/tools")
}

#[tokio::test]
async fn what_composio_says_of_a_toolkit_is_doubted() {
    let (simulator, connection) = simulator().await;
    let whole = || DesiredToolkit {
        known_tools: KnownTools::AllCached,
        ..github()
    };
    let (all, _) = outcome(&connection, &github(), true).await.unwrap();
    assert_eq!(all, 8);
    let bad = |rows| Fault::BadItems {
        item: json!({"slug": {"no": "slug"}}),
        rows,
    };
    let table = [
        (
            "a list that lies",
            on_tools(Fault::LyingLastPage {
                rows: 3,
                always: false,
            })
            .for_ever(),
            github(),
            Ok((8, 0)),
        ),
        (
            "a total that lies",
            on_tools(Fault::FalseTotal { by: 2 }).for_ever(),
            github(),
            Ok((8, 2)),
        ),
        (
            "a total that lies, where all was cached",
            on_tools(Fault::FalseTotal { by: 2 }).for_ever(),
            whole(),
            Err(Reason::IncompleteResponse),
        ),
        (
            "a tool that cannot be read",
            on_tools(bad(1)).for_ever(),
            github(),
            Ok((7, 1)),
        ),
        (
            "the same, where all was cached",
            on_tools(bad(1)).for_ever(),
            whole(),
            Ok((7, 1)),
        ),
        (
            "no tool that can be read",
            on_tools(bad(8)).for_ever(),
            github(),
            Err(Reason::IncompleteResponse),
        ),
        (
            "items that are not there",
            on_tools(Fault::EmptyItems).for_ever(),
            github(),
            Err(Reason::IncompleteResponse),
        ),
        (
            "no tools, and there never were",
            on_tools(Fault::EmptyList).for_ever(),
            github(),
            Ok((0, 0)),
        ),
        (
            "no tools where there were some",
            on_tools(Fault::EmptyList).for_ever(),
            whole(),
            Err(Reason::EmptyResponse),
        ),
        (
            "no tools with one choice about deprecated tools, and some with the other",
            on_tools(Fault::EmptyList)
                .with_query("include_deprecated", "false")
                .for_ever(),
            github(),
            Err(Reason::EmptyResponse),
        ),
    ];
    for (what, rule, desired, expected) in table {
        simulator.clear_faults();
        simulator.inject(rule);
        assert_eq!(outcome(&connection, &desired, false).await, expected, "{what}");
    }
    simulator.stop().await;
}

#[tokio::test]
async fn a_toolkit_of_nothing_but_deprecated_tools_has_none() {
    let (simulator, connection) = simulator().await;
    let body = |items: Value| Fault::Status {
        status: 200,
        body: Some(json!({"items": items, "total_items": items.as_array().map(Vec::len)}).to_string()),
        content_type: Some("application/json".to_owned()),
        commit: false,
    };
    let deprecated = json!([{"slug": "A", "is_deprecated": true, "toolkit": {"slug": "github"}}]);
    simulator.inject(
        on_tools(body(deprecated))
            .with_query("include_deprecated", "true")
            .for_ever(),
    );
    simulator.inject(
        on_tools(body(json!([])))
            .with_query("include_deprecated", "false")
            .for_ever(),
    );
    let desired = DesiredToolkit {
        known_tools: KnownTools::Some,
        ..github()
    };
    assert_eq!(outcome(&connection, &desired, false).await, Ok((0, 0)));
    assert_eq!(outcome(&connection, &desired, true).await, Ok((1, 0)));
    simulator.stop().await;
}

#[tokio::test]
async fn a_pin_is_kept_to_by_every_tool() {
    let (simulator, connection) = simulator().await;
    let versions = |versions: &[Option<&str>]| {
        let tools: Vec<Value> = versions
            .iter()
            .enumerate()
            .map(|(index, version)| json!({"slug": format!("T{index}"), "version": version}))
            .collect();
        Fault::Status {
            status: 200,
            body: Some(json!({"items": tools, "total_items": tools.len()}).to_string()),
            content_type: Some("application/json".to_owned()),
            commit: false,
        }
    };
    let pinned = DesiredToolkit {
        is_pinned: true,
        ..github()
    };
    let pin = pinned.version.clone();
    let pin = pin.as_deref();
    let other = Some("20200101_00");
    let table = [
        (versions(&[pin, None, pin]), Ok((3, 0))),
        (versions(&[pin, other, pin]), Ok((2, 1))),
        (versions(&[other, other]), Err(Reason::InvalidResponse)),
    ];
    for (fault, expected) in table {
        simulator.clear_faults();
        simulator.inject(on_tools(fault.clone()).for_ever());
        assert_eq!(outcome(&connection, &pinned, true).await, expected, "{fault:?}");
    }
    simulator.clear_faults();
    simulator.inject(on_tools(versions(&[other])).for_ever());
    assert_eq!(outcome(&connection, &github(), true).await, Ok((1, 0)), "no pin");
    simulator.stop().await;
}

#[tokio::test]
async fn a_toolkit_that_hangs_has_failed_before_its_time_is_over() {
    let (simulator, connection) = simulator().await;
    simulator.inject(on_tools(Fault::Hang { before_commit: true }).for_ever());
    let reader = Reader {
        client: &connection.client,
        include_deprecated: true,
        // It is over already, so that nothing is waited for.
        deadline: Instant::now(),
        api_calls: AtomicU64::default(),
    };
    let failure = reader.read(&github()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ComposioUnavailable);
    assert!(failure.message.contains("one sync"), "{}", failure.message);
    simulator.stop().await;
}
