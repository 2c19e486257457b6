//! The operator as a process: start, probes, stop, several replicas.

use composio_operator::api::reddit_connection::ConnectionState;
use serde_json::json;
use testing::control_plane::{ControlPlane, Options};
use testing::installation::Release;
use testing::supervised::{Program, Supervised};

use crate::harness::{KEY, PATIENCE, World};

/// The lease that the chart's role is for, with the release name the harness uses.
const LEASE: &str = "operator-composio-operator";

async fn get(url: &str) -> (u16, String) {
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn until_it_answers(url: &str, status: u16) -> String {
    let asked = async {
        loop {
            match get(url).await {
                (answered, body) if answered == status => return body,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| panic!("{url} never answers {status}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_metrics_tell_how_it_is() {
    let world = World::new().await;
    let operator = world.operator();
    let http = operator.http().await;
    until_it_answers(&format!("{http}/readyz"), 200).await;
    assert_eq!(get(&format!("{http}/healthz")).await.0, 200);
    world.create("alice", json!({})).await;
    world.link("alice").await;
    let metrics = get(&format!("{http}/metrics")).await.1;
    for family in [
        "composio_operator_reconcile",
        "composio_operator_composio_calls",
        "composio_operator_composio_budget",
    ] {
        assert!(metrics.contains(family), "{family} is missing:\n{metrics}");
    }
    assert!(!metrics.contains(KEY) && !metrics.contains("/link/"));
    assert!(operator.stop().await, "SIGTERM ends it with success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_its_crd_instead_of_exiting() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let program = Program::new(
        env!("CARGO_BIN_EXE_composio-operator"),
        directory.path().join("log"),
    )
    .args(["run", "--http-listen", "127.0.0.1:0", "--log-format", "json"])
    .env("KUBECONFIG", plane.kubeconfig_path())
    .env("COMPOSIO_API_KEY", KEY)
    .env("SHARED_KEY_NAMESPACES", "*");
    let operator = Supervised::spawn(&program).unwrap();
    let line = operator
        .wait_for_line(PATIENCE, |line| line.contains("\"http\""))
        .await
        .unwrap();
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    let http = format!(
        "http://{}",
        entry["http"]
            .as_str()
            .or(entry["fields"]["http"].as_str())
            .unwrap()
    );
    operator
        .wait_for_line(PATIENCE, |line| {
            line.contains("waiting for CustomResourceDefinitions")
        })
        .await
        .unwrap();
    let pending = until_it_answers(&format!("{http}/readyz"), 503).await;
    assert!(pending.contains("redditconnections"), "{pending}");
    assert_eq!(get(&format!("{http}/healthz")).await.0, 200);
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
    plane
        .kubectl(["apply", "--filename", crds])
        .await
        .unwrap()
        .ok()
        .unwrap();
    until_it_answers(&format!("{http}/readyz"), 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_one_works_and_the_other_takes_over() {
    let world = World::new().await;
    let first = world.operator_with(&["--leader-elect", "--lease-name", LEASE], Some(KEY));
    world.create("alice", json!({})).await;
    world.link("alice").await;
    let second = world.operator_with(&["--leader-elect", "--lease-name", LEASE], Some(KEY));
    second.http().await;
    first.kill().await;
    world.connect_as("alice", "alice").await;
    world.becomes("alice", ConnectionState::Connected).await;
    assert_eq!(world.links_made(), 1);
    assert!(second.stop().await);
    // The lease was given back: the next one need not wait for its end.
    let third = world.operator_with(&["--leader-elect", "--lease-name", LEASE], Some(KEY));
    world.create("bob", json!({})).await;
    world.link("bob").await;
    assert!(third.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_settings_end_it_with_a_message() {
    let world = World::new().await;
    for (args, says) in [
        (vec!["--composio-base-url", "ftp://example.org"], "composio"),
        (vec!["--composio-base-url", "http://example.org"], "https"),
        (vec!["--http-listen", "nowhere"], "http-listen"),
        (vec!["--reconcile-timeout", "never"], "reconcile-timeout"),
        (vec!["--reconcile-timeout", "59s"], "at least 60s"),
    ] {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_composio-operator"))
            .arg("run")
            .args(&args)
            .env("KUBECONFIG", &world.kubeconfig)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success(), "{args:?}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_of_the_chart_are_no_wider_than_needed() {
    let world = World::new().await;
    let may = async |verb: &str, what: &str| {
        // kubectl takes what follows a slash for a name.
        let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
        let subresource = format!("--subresource={subresource}");
        let args = [
            "auth",
            "can-i",
            verb,
            resource,
            &subresource,
            "--namespace",
            &world.namespace,
        ];
        world
            .plane
            .kubectl_as(&world.kubeconfig, args)
            .await
            .unwrap()
            .stdout
            .trim()
            == "yes"
    };
    for (verb, what) in [
        ("list", "secrets"),
        ("watch", "secrets"),
        ("create", "pods"),
        ("delete", "redditconnections"),
        ("delete", "composioschemacaches"),
        ("patch", "composioschemacaches"),
        ("update", "configmaps"),
        ("deletecollection", "configmaps"),
    ] {
        assert!(!may(verb, what).await, "{verb} {what}");
    }
    for (verb, what) in [
        ("get", "secrets"),
        ("list", "redditconnections"),
        ("patch", "redditconnections/status"),
        ("patch", "composioschemacaches/status"),
        ("delete", "configmaps"),
    ] {
        assert!(may(verb, what).await, "{verb} {what}");
    }
}

/// Found as a gauge that showed the objects of the last namespace only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_namespaces_are_served_and_counted_together() {
    let mut world = World::new().await;
    let other = World::new().await;
    let release = Release {
        name: "operator",
        namespace: &world.namespace,
        watch_namespaces: &[&world.namespace, &other.namespace],
    };
    world.kubeconfig = testing::installation::grant(world.plane, release).await.unwrap();
    let operator = world.operator_with(&["--watch-namespaces", &other.namespace], Some(KEY));
    world.create("here", json!({})).await;
    other.create("there", json!({})).await;
    world.becomes("here", ConnectionState::Pending).await;
    other.becomes("there", ConnectionState::Pending).await;
    let http = operator.http().await;
    let line = r#"composio_operator_objects{controller="redditconnection",state="pending"} 2"#;
    let counted = async {
        while !get(&format!("{http}/metrics")).await.1.contains(line) {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted)
        .await
        .expect("both are counted");
}
