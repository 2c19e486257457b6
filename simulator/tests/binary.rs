//! The command line of the program: options, environment, stdout, signals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;

use program::{Program, command};
use serde_json::{Value, json};

async fn call(program: &Program, key: &str, path: &str) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http
        .get(format!("{}{path}", program.url))
        .header("x-api-key", key)
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn the_url_is_the_first_line_and_the_only_one() {
    let program = Program::start(&mut command());
    let port = program
        .url
        .strip_prefix("http://127.0.0.1:")
        .expect("an address on loopback");
    assert!(port.parse::<u16>().is_ok(), "{}", program.url);
    assert_eq!(call(&program, "ak_simulator", "/api/v3.1/toolkits").await.0, 200);
    for signal in ["TERM", "INT"] {
        let program = Program::start(&mut command());
        let (rest, status) = program.terminate(signal);
        assert_eq!((rest.as_str(), status.code()), ("", Some(0)), "{signal}");
    }
}

#[tokio::test]
async fn options_reach_the_simulator() {
    let program = Program::start(command().args([
        "--listen=127.0.0.1:0",
        "--api-key=ak_one",
        "--api-key=ak_two=toolkits:read,tools:none",
        "--auth-config=ac_main=slack",
        "--auth-config=reddit",
        "--auth-config-count=40",
        "--toolkits=30",
        "--tools=90",
        "--seed=7",
        "--giants",
        "--auto-consent=0s",
        "--latency=1ms",
        "--rate-limit=5",
        "--log-capacity=9",
        "--assume=reject-unknown-fields=true",
        "--assume=dead-rows-hold-alias=false",
        "--assume=enable-revives-dead=true",
        "--assume=no-account-status=400",
        "--assume=dead-execute-unprocessable=false",
        "--assume=proxy-needs-scoped-key=false",
        "--assume=default-page-size=1",
        "--assume=max-account-page=50",
        "--assume=page-cap=0",
        "--log=warn",
    ]));
    let get = async |key: &str, path: &str| call(&program, key, &format!("/api/v3.1/{path}")).await;
    let (status, configs) = get("ak_one", "auth_configs").await;
    let counts = (status, &configs["total_items"], &configs["total_pages"]);
    assert_eq!(counts, (200, &json!(40), &json!(40)));
    assert_eq!(get("ak_one", "toolkits").await.1["total_items"], 5 + 30 + 2);
    assert_eq!(get("ak_one", "tools").await.1["total_items"], 48 + 90 + 950 + 5);
    assert_eq!(get("ak_two", "toolkits").await.0, 200);
    assert_eq!(get("ak_two", "auth_configs").await.0, 403);
    assert_eq!(get("ak_two", "toolkits").await.0, 429);
    assert_eq!(get("ak_simulator", "toolkits").await.0, 401);

    let program = Program::start(command().arg("--public-url=http://sim.example:8080/"));
    assert_eq!(program.url, "http://sim.example:8080");
}

#[tokio::test]
async fn the_environment_is_the_fallback() {
    let program = Program::start(
        command()
            .env("COMPOSIO_SIM_API_KEY", "ak_environment")
            .env("COMPOSIO_SIM_AUTH_CONFIG", "github ac_s=slack")
            .env("COMPOSIO_SIM_LISTEN", "127.0.0.1:0"),
    );
    let (status, configs) = call(&program, "ak_environment", "/api/v3.1/auth_configs").await;
    let ids: Vec<_> = configs["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].clone())
        .collect();
    assert_eq!((status, ids), (200, vec![json!("ac_s"), json!("ac_github")]));
}

#[test]
fn mistakes_are_explained() {
    let cases: [(&[&str], &str); 8] = [
        (&["--auto-consent=soon"], "write it like 5s or 50ms"),
        (&["--latency=-1s"], "must not be negative"),
        (&["--api-key="], "a key is one or more printable"),
        (&["--api-key=ak=tools:often"], "unknown access `often`"),
        (&["--auth-config=main=slack"], "ID begins with `ac_`"),
        (&["--auth-config=hackernews"], "it needs no authentication"),
        (&["--tools=90"], "how many tools --toolkits has"),
        (&["--assume=pigs-fly=true"], "there is no assumption `pigs-fly`"),
    ];
    for (arguments, complaint) in cases {
        let output = command().args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(complaint), "{arguments:?}: {stderr}");
        assert!(
            !stderr.contains("ak=tools"),
            "keys stay out of messages: {stderr}"
        );
    }
}
