use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::runtime::testing::{self, Answer, Call, failure};

const NAME: &str = "composio-operator";
const DURATION: Duration = Duration::from_secs(15);
const ACT_FOR: Duration = Duration::from_secs(10);

/// What happens to the requests of one contender.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Network {
    #[default]
    Up,
    /// Connections are refused.
    Refused,
    /// Requests vanish: no answer ever comes.
    Silent,
    /// Requests are carried out, but their answers vanish.
    Deaf,
}

/// Keeps one Lease as the API server does: each write gets a new resource version, and a replacement must name the one it
/// replaces. Besides, it checks at each change of holder that no other contender may act any more.
#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    networks: HashMap<String, Network>,
    contenders: HashMap<String, Leadership>,
    /// Every holder the record ever named, in order, without repetitions; empty for nobody.
    holders: Vec<String>,
    gets: usize,
    writes: usize,
}

#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Server>>);

impl Server {
    fn answer(&mut self, call: &Call) -> Answer {
        match call.method.as_str() {
            "GET" => {
                self.gets += 1;
                self.lease
                    .clone()
                    .map_or_else(|| Ok(failure(404, "NotFound")), |lease| Ok((200, lease)))
            }
            "POST" if self.lease.is_some() => Ok(failure(409, "AlreadyExists")),
            "POST" => Ok(self.store(call.body.clone())),
            "PUT" => {
                let named = &call.body["metadata"]["resourceVersion"];
                assert!(
                    named.is_string(),
                    "a replacement without a version would overwrite anything"
                );
                match &self.lease {
                    None => Ok(failure(404, "NotFound")),
                    Some(lease) if lease["metadata"]["resourceVersion"] != *named => {
                        Ok(failure(409, "Conflict"))
                    }
                    Some(_) => Ok(self.store(call.body.clone())),
                }
            }
            other => panic!("unexpected method {other}"),
        }
    }

    fn store(&mut self, mut lease: Value) -> (u16, Value) {
        self.version += 1;
        self.writes += 1;
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        let holder = lease["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            lease["spec"]["leaseDurationSeconds"].as_i64().unwrap() > 0,
            "the API server refuses it"
        );
        let now = Instant::now();
        for (name, contender) in &self.contenders {
            assert!(
                *name == holder || !contender.is_current(now),
                "{name} may still act while {holder:?} is written"
            );
        }
        if self.holders.last() != Some(&holder) {
            self.holders.push(holder);
        }
        self.lease = Some(lease.clone());
        (200, lease)
    }
}

impl Cluster {
    fn with<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn contend(&self, identity: &str) -> Leadership {
        let (cluster, from) = (self.clone(), identity.to_owned());
        let client = testing::client(move |call| {
            let (cluster, from) = (cluster.clone(), from.clone());
            async move {
                // A request takes time to arrive, so that those of several contenders interleave.
                sleep(Duration::from_millis(10)).await;
                match cluster.with(|server| server.networks.get(&from).copied().unwrap_or_default()) {
                    Network::Up => {
                        let answer = cluster.with(|server| server.answer(&call));
                        sleep(Duration::from_millis(10)).await;
                        answer
                    }
                    Network::Refused => Err(std::io::ErrorKind::ConnectionRefused.into()),
                    Network::Silent => std::future::pending().await,
                    Network::Deaf => {
                        let _ = cluster.with(|server| server.answer(&call));
                        std::future::pending().await
                    }
                }
            }
        });
        let leadership = Leadership::contend(
            client,
            LeaseConfig {
                namespace: "ops".into(),
                name: NAME.into(),
                identity: identity.into(),
                duration: DURATION,
            },
        );
        self.with(|server| server.contenders.insert(identity.into(), leadership.clone()));
        leadership
    }

    fn network(&self, identity: &str, network: Network) {
        self.with(|server| server.networks.insert(identity.into(), network));
    }

    fn leaders(&self) -> Vec<String> {
        let now = Instant::now();
        self.with(|server| {
            let current = server
                .contenders
                .iter()
                .filter(|(_, contender)| contender.is_current(now));
            current.map(|(name, _)| name.clone()).collect()
        })
    }

    /// Lets `span` pass, calling `check` with the current leaders every 50 ms.
    async fn watch(&self, span: Duration, mut check: impl FnMut(Vec<String>)) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            sleep(Duration::from_millis(50)).await;
            check(self.leaders());
        }
    }

    fn spec(&self) -> Value {
        self.with(|server| server.lease.as_ref().unwrap()["spec"].clone())
    }
}

/// Waits for `contender` to lead; time is paused, so that waiting in vain ends at once.
async fn leads(contender: &Leadership) {
    timeout(Duration::from_mins(10), contender.acquired())
        .await
        .expect("it never leads")
        .unwrap();
}

/// Waits for `contender` to lose, as [`leads`] does.
async fn loses(contender: &Leadership) -> Loss {
    timeout(Duration::from_mins(10), contender.lost())
        .await
        .expect("it never loses")
}

#[tokio::test(start_paused = true)]
async fn a_single_replica_leads_at_once_and_keeps_the_lease() {
    let cluster = Cluster::default();
    let only = cluster.contend("a");
    assert!(!only.is_current(Instant::now()));
    assert!(!only.is_current(Instant::now()));
    leads(&only).await;
    assert!(only.is_current(Instant::now()));
    let (gets, writes) = cluster.with(|server| (server.gets, server.writes));
    assert_eq!((gets, writes), (1, 1));
    let first = cluster.spec();
    assert_eq!(
        (&first["holderIdentity"], &first["leaseTransitions"]),
        (&json!("a"), &json!(0))
    );
    cluster
        .watch(Duration::from_mins(10), |leaders| assert_eq!(leaders, ["a"]))
        .await;
    let later = cluster.spec();
    assert_eq!(
        (&later["acquireTime"], &later["leaseTransitions"]),
        (&first["acquireTime"], &json!(0))
    );
    let (gets, writes) = cluster.with(|server| (server.gets, server.writes));
    assert_eq!(gets, 1, "a leader that is not disturbed has nothing to read");
    assert!(
        (190..=205).contains(&writes),
        "one renewal every 3 s, not {writes} in 10 min"
    );
}

#[tokio::test(start_paused = true)]
async fn of_several_contenders_one_leads() {
    let cluster = Cluster::default();
    for identity in ["a", "b", "c"] {
        cluster.contend(identity);
    }
    sleep(Duration::from_secs(1)).await;
    let leader = cluster.leaders();
    assert_eq!(leader.len(), 1);
    cluster
        .watch(Duration::from_mins(5), |leaders| assert_eq!(leaders, leader))
        .await;
    assert_eq!(cluster.with(|server| server.holders.len()), 1);
}

/// A leader that hears nothing stops before the next one starts, which it does soon after the duration.
async fn partition(network: Network) {
    let cluster = Cluster::default();
    let first = cluster.contend("a");
    leads(&first).await;
    let second = cluster.contend("b");
    cluster
        .watch(Duration::from_mins(1), |leaders| assert_eq!(leaders, ["a"]))
        .await;

    cluster.network("a", network);
    let cut = Instant::now();
    assert_eq!(loses(&first).await, Loss::Expired, "{network:?}");
    assert!(
        cut.elapsed() <= ACT_FOR,
        "{network:?}: it stopped after {:?}",
        cut.elapsed()
    );
    assert!(!first.is_current(Instant::now()));
    leads(&second).await;
    let gap = cut.elapsed();
    assert!(
        (ACT_FOR..=DURATION * 2).contains(&gap),
        "{network:?}: the next one led after {gap:?}"
    );
    assert_eq!(cluster.spec()["leaseTransitions"], 1);

    cluster.network("a", Network::Up);
    cluster
        .watch(Duration::from_mins(1), |leaders| assert_eq!(leaders, ["b"]))
        .await;
    assert_eq!(loses(&first).await, Loss::Expired, "a loss is final");
    assert_eq!(first.acquired().await, Err(Loss::Expired));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_requests_are_refused_is_succeeded() {
    partition(Network::Refused).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_requests_vanish_is_succeeded() {
    partition(Network::Silent).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_answers_vanish_is_succeeded() {
    partition(Network::Deaf).await;
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_survived() {
    let cluster = Cluster::default();
    let leader = cluster.contend("a");
    leads(&leader).await;
    cluster.contend("b");
    for network in [Network::Refused, Network::Silent, Network::Deaf] {
        cluster.network("a", network);
        cluster
            .watch(Duration::from_secs(5), |leaders| {
                assert_eq!(leaders, ["a"], "{network:?}");
            })
            .await;
        cluster.network("a", Network::Up);
        cluster
            .watch(Duration::from_secs(30), |leaders| {
                assert_eq!(leaders, ["a"], "{network:?}");
            })
            .await;
    }
    assert_eq!(cluster.spec()["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_recognised_as_ours() {
    let cluster = Cluster::default();
    cluster.network("a", Network::Deaf);
    let leader = cluster.contend("a");
    sleep(Duration::from_secs(1)).await;
    cluster.network("a", Network::Up);
    leads(&leader).await;
    assert_eq!(cluster.spec()["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_over_without_waiting_for_its_end() {
    let cluster = Cluster::default();
    let first = cluster.contend("a");
    leads(&first).await;
    let second = cluster.contend("b");
    sleep(Duration::from_secs(20)).await;
    first.release().await;
    assert_eq!(cluster.spec()["holderIdentity"], Value::Null);
    assert!(!first.is_current(Instant::now()));
    assert_eq!(loses(&first).await, Loss::Released);
    let released = Instant::now();
    leads(&second).await;
    assert!(
        released.elapsed() <= DURATION / 5 + Duration::from_secs(1),
        "{:?}",
        released.elapsed()
    );
    assert_eq!(cluster.with(|server| server.holders.clone()), ["a", "", "b"]);
}

#[tokio::test(start_paused = true)]
async fn releasing_touches_nothing_that_is_not_ours_and_ends_even_if_nobody_answers() {
    let cluster = Cluster::default();
    leads(&cluster.contend("a")).await;
    let follower = cluster.contend("b");
    sleep(Duration::from_secs(5)).await;
    follower.release().await;
    assert_eq!(cluster.leaders(), ["a"]);
    let cut_off = cluster.contend("c");
    cluster.network("c", Network::Silent);
    let started = Instant::now();
    cut_off.release().await;
    assert!(started.elapsed() <= REQUEST_TIMEOUT);
    assert_eq!(cluster.with(|server| server.holders.clone()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn dropping_every_handle_releases_the_lease() {
    let cluster = Cluster::default();
    leads(&cluster.contend("a")).await;
    cluster.with(|server| server.contenders.clear());
    leads(&cluster.contend("b")).await;
    assert_eq!(cluster.with(|server| server.holders.clone()), ["a", "", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_no_longer_named_has_lost() {
    type Edit = fn(&mut Server);
    let edits: [(&str, Edit); 3] = [
        ("thief", |server| {
            server.lease.as_mut().unwrap()["spec"]["holderIdentity"] = "thief".into();
        }),
        ("", |server| {
            server.lease.as_mut().unwrap()["spec"]["holderIdentity"] = Value::Null;
        }),
        ("", |server| server.lease = None),
    ];
    for (holder, edit) in edits {
        let cluster = Cluster::default();
        let leader = cluster.contend("a");
        leads(&leader).await;
        cluster.with(|server| {
            edit(server);
            server.version += 1;
            if let Some(lease) = &mut server.lease {
                lease["metadata"]["resourceVersion"] = server.version.to_string().into();
            }
        });
        assert_eq!(
            loses(&leader).await,
            Loss::Taken {
                holder: holder.into()
            }
        );
        assert!(!leader.is_current(Instant::now()));
    }
}

#[tokio::test(start_paused = true)]
async fn someone_elses_labels_are_kept_and_do_not_cost_the_leadership() {
    let cluster = Cluster::default();
    let leader = cluster.contend("a");
    leads(&leader).await;
    cluster.with(|server| {
        server.version += 1;
        let metadata = &mut server.lease.as_mut().unwrap()["metadata"];
        metadata["labels"] = json!({"team": "ops"});
        metadata["resourceVersion"] = server.version.to_string().into();
    });
    cluster
        .watch(Duration::from_secs(30), |leaders| assert_eq!(leaders, ["a"]))
        .await;
    assert_eq!(
        cluster.with(|server| server.lease.as_ref().unwrap()["metadata"]["labels"].clone()),
        json!({"team": "ops"})
    );
}

/// Replicas that restart whenever they lose, in a network that changes at random: never two leaders (the server checks each
/// change of holder as well), and one again as soon as the network allows.
#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_there_are_never_two_leaders() {
    for seed in 1..=4_u64 {
        let cluster = Cluster::default();
        let mut random = seed;
        let mut next = move |bound: u64| {
            // Knuth's MMIX generator; its high bits are good enough to pick from a handful.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut replicas: Vec<(String, Leadership)> = vec![];
        let mut led = 0;
        for round in 0..120 {
            // A replica that lost starts again under another name, as a restarted process does.
            replicas.retain(|(name, replica)| {
                let runs = replica.election.as_ref().unwrap().state.has_changed().is_ok();
                if !runs {
                    assert!(!replica.is_current(Instant::now()));
                    cluster.with(|server| server.contenders.remove(name));
                }
                runs
            });
            while replicas.len() < 3 {
                let name = format!("{round}-{}", replicas.len());
                replicas.push((name.clone(), cluster.contend(&name)));
            }
            let (name, _) = &replicas[usize::try_from(next(3)).unwrap()];
            let network = [
                Network::Up,
                Network::Up,
                Network::Refused,
                Network::Silent,
                Network::Deaf,
            ];
            cluster.network(name, network[usize::try_from(next(5)).unwrap()]);
            let span = Duration::from_millis(next(12_000));
            cluster
                .watch(span, |leaders| {
                    assert!(leaders.len() <= 1, "seed {seed}: {leaders:?}");
                    led += leaders.len();
                })
                .await;
        }
        assert!(
            led > 1000,
            "seed {seed}: somebody led most of the time, or nothing was tested"
        );
        cluster.with(|server| server.networks.clear());
        sleep(DURATION * 2).await;
        assert_eq!(cluster.leaders().len(), 1, "seed {seed}");
        for (_, replica) in replicas {
            replica.release().await;
        }
    }
}

#[tokio::test]
async fn without_an_election_this_process_leads_for_ever() {
    let leadership = Leadership::without_election();
    leadership.acquired().await.unwrap();
    assert!(leadership.is_current(Instant::now()));
    leadership.release().await;
    assert!(leadership.is_current(Instant::now() + Duration::from_hours(8760)));
    assert!(futures::poll!(std::pin::pin!(leadership.lost())).is_pending());
}

/// The task may be starved when the end comes; whoever asks must see it all the same.
#[tokio::test]
async fn leading_ends_by_the_clock_even_if_nobody_reports_it() {
    let until = Instant::now() + ACT_FOR;
    let (_report, state) = watch::channel(State::Leading { until });
    let (stop, _stopped) = watch::channel(false);
    let leadership = Leadership {
        election: Some(Election {
            state,
            stop: Arc::new(stop),
        }),
    };
    assert!(leadership.is_current(until - Duration::from_nanos(1)));
    assert!(!leadership.is_current(until));
}

#[tokio::test]
async fn a_task_that_died_is_a_loss() {
    let (_, state) = watch::channel(State::Contending);
    let (stop, _) = watch::channel(false);
    let orphaned = Leadership {
        election: Some(Election {
            state,
            stop: Arc::new(stop),
        }),
    };
    assert_eq!(orphaned.acquired().await, Err(Loss::Broken));
    assert_eq!(loses(&orphaned).await, Loss::Broken);
    orphaned.release().await;
}

#[tokio::test]
async fn the_leases_client_does_not_repeat_refused_requests() {
    let server = wiremock::MockServer::start().await;
    let busy = wiremock::ResponseTemplate::new(503).set_body_json(json!({"kind": "Status", "code": 503}));
    wiremock::Mock::given(wiremock::matchers::any())
        .respond_with(busy)
        .expect(1)
        .mount(&server)
        .await;
    let client = client(Config::new(server.uri().parse().unwrap())).unwrap();
    Api::<Lease>::namespaced(client, "ops")
        .get(NAME)
        .await
        .unwrap_err();
}

#[test]
fn identities_are_readable_and_unique() {
    let (one, other) = (unique_identity("pod-0"), unique_identity("pod-0"));
    assert!(one.starts_with("pod-0_"));
    assert_ne!(one, other);
}
