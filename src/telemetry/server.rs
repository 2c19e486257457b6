//! The HTTP server for probes and scrapes: `/healthz`, `/readyz`, `/metrics`.
//!
//! Health and readiness answer different questions. *Healthy* means the runtime still gets to its tasks; if not, only a restart
//! helps. *Ready* means everything the operator waits for has come; until then a restart helps nobody.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The only content type that `OpenMetrics` 1.0 defines for its text format, see
/// <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long answers that are under way at shutdown may take. Every answer is short, so what takes longer is a peer that
/// does not read; it must not delay the process's end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Whether the runtime still gets to its tasks: one of them beats, and a beat that is too old means that all hang. Clones share the beat.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    last_beat: Arc<Mutex<Instant>>,
    max_age: Duration,
}

impl Health {
    /// Starts healthy, as if a beat had come now; `max_age` is the oldest beat that still counts as alive.
    pub(crate) fn new(max_age: Duration) -> Self {
        Self {
            last_beat: Arc::new(Mutex::new(Instant::now())),
            max_age,
        }
    }

    /// Says that the runtime is alive.
    pub(crate) fn beat(&self) {
        *lock(&self.last_beat) = Instant::now();
    }

    /// Whether a beat came within the last `max_age` before `now`.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        now.saturating_duration_since(*lock(&self.last_beat)) <= self.max_age
    }
}

/// What has to happen before the operator is ready: a set of named gates, all of which must be open. Clones share it.
///
/// Without any gate it is not ready: the server starts before the parts that register their gates.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    open_by_name: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Readiness {
    /// Registers a gate, closed. The name is shown to anybody who asks why the operator is not ready, such as
    /// `crd redditconnections`. A name that exists already is the same gate, closed again.
    pub(crate) fn gate(&self, name: impl Into<String>) -> Gate {
        let gate = Gate {
            name: name.into(),
            readiness: self.clone(),
        };
        gate.close();
        gate
    }

    /// The names of the closed gates, sorted; `None` if there is no gate yet.
    pub(crate) fn pending(&self) -> Option<Vec<String>> {
        let gates = lock(&self.open_by_name);
        let closed = gates
            .iter()
            .filter(|(_, open)| !**open)
            .map(|(name, _)| name.clone());
        (!gates.is_empty()).then(|| closed.collect())
    }
}

/// One thing the operator waits for. Dropping it leaves it as it stands: a part that ended before it opened its gate
/// keeps the operator from being ready.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    name: String,
    readiness: Readiness,
}

impl Gate {
    /// It has come.
    pub(crate) fn open(&self) {
        self.set(true);
    }

    /// It is missing (again).
    pub(crate) fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        lock(&self.readiness.open_by_name).insert(self.name.clone(), open);
    }
}

/// A panic elsewhere must not take the probes down: every value behind these locks is valid at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the server shows.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    /// Behind `/healthz`.
    pub health: Health,
    /// Behind `/readyz`.
    pub readiness: Readiness,
    /// Behind `/metrics`.
    pub registry: Arc<Registry>,
}

impl Endpoints {
    /// The routes, to be merged with others that share the address.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn healthz(State(endpoints): State<Endpoints>) -> Response {
    if endpoints.health.is_alive(Instant::now()) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the runtime hangs\n").into_response()
    }
}

async fn readyz(State(endpoints): State<Endpoints>) -> Response {
    match endpoints.readiness.pending() {
        Some(pending) if pending.is_empty() => "ok\n".into_response(),
        Some(pending) => not_ready(&pending.join(", ")),
        None => not_ready("start"),
    }
}

fn not_ready(pending: &str) -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("waiting for: {pending}\n"),
    )
        .into_response()
}

async fn metrics(State(endpoints): State<Endpoints>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &endpoints.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(fmt_error) => (StatusCode::INTERNAL_SERVER_ERROR, fmt_error.to_string()).into_response(),
    }
}

/// A bound, not yet serving HTTP server.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Binds `addr`; port 0 takes a free one, see [`local_addr`](Self::local_addr). Connections queue until
    /// [`serve`](Self::serve).
    ///
    /// # Errors
    /// If the address is in use or not ours.
    pub(crate) async fn bind(addr: SocketAddr, router: Router) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(addr).await?,
            router,
        })
    }

    /// The address it really listens on.
    ///
    /// # Errors
    /// If the operating system does not say.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` resolves; then answers what is under way, for a short while, and returns.
    ///
    /// # Errors
    /// Only what `axum` reports; failing connections do not end it.
    pub(crate) async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let (stopping, stopped) = oneshot::channel();
        let graceful = axum::serve(self.listener, self.router).with_graceful_shutdown(async move {
            shutdown.await;
            // The receiver is dropped only together with the server.
            let _ = stopping.send(());
        });
        tokio::select! {
            served = graceful.into_future() => served,
            () = async { let _ = stopped.await; tokio::time::sleep(SHUTDOWN_GRACE).await; } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metrics;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    struct Running {
        addr: SocketAddr,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<()>>,
    }

    impl Running {
        async fn start(router: Router) -> Self {
            let server = Server::bind(([127, 0, 0, 1], 0).into(), router).await.unwrap();
            let addr = server.local_addr().unwrap();
            let (stop, stopped) = oneshot::channel();
            let task = tokio::spawn(server.serve(async move { stopped.await.unwrap() }));
            Self { addr, stop, task }
        }

        async fn get(&self, path: &str) -> (u16, String, String) {
            let answer = reqwest::get(format!("http://{}{path}", self.addr)).await.unwrap();
            let content_type = answer
                .headers()
                .get("content-type")
                .map(|v| v.to_str().unwrap().to_owned());
            (
                answer.status().as_u16(),
                content_type.unwrap_or_default(),
                answer.text().await.unwrap(),
            )
        }

        async fn stop(self) {
            self.stop.send(()).unwrap();
            self.task.await.unwrap().unwrap();
        }
    }

    fn endpoints() -> (Endpoints, Metrics) {
        let (metrics, registry) = Metrics::new();
        let health = Health::new(Duration::from_secs(30));
        (
            Endpoints {
                health,
                readiness: Readiness::default(),
                registry,
            },
            metrics,
        )
    }

    #[tokio::test]
    async fn readyz_names_what_is_pending_until_every_gate_is_open() {
        let (endpoints, _) = endpoints();
        let server = Running::start(endpoints.clone().router()).await;
        let ready = async || {
            let (status, _, body) = server.get("/readyz").await;
            (status, body)
        };
        assert_eq!(ready().await, (503, "waiting for: start\n".into()));
        let lease = endpoints.readiness.gate("leader lease");
        let crd = endpoints.readiness.gate("crd redditconnections");
        assert_eq!(
            ready().await,
            (503, "waiting for: crd redditconnections, leader lease\n".into())
        );
        crd.open();
        assert_eq!(ready().await, (503, "waiting for: leader lease\n".into()));
        drop(crd);
        lease.open();
        assert_eq!(ready().await, (200, "ok\n".into()));
        lease.close();
        assert_eq!(ready().await, (503, "waiting for: leader lease\n".into()));
        assert_eq!(server.get("/healthz").await.0, 200, "not ready is not unhealthy");
        server.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn healthy_as_long_as_it_beats() {
        let health = Health::new(Duration::from_secs(30));
        let observed = health.clone();
        assert!(observed.is_alive(Instant::now()));
        tokio::time::advance(Duration::from_secs(20)).await;
        health.beat();
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(observed.is_alive(Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!observed.is_alive(Instant::now()));
        health.beat();
        assert!(observed.is_alive(Instant::now()));
    }

    #[tokio::test]
    async fn healthz_is_503_when_the_heart_stopped() {
        let (mut endpoints, _) = endpoints();
        endpoints.health = Health::new(Duration::ZERO);
        let server = Running::start(endpoints.router()).await;
        let (status, _, body) = server.get("/healthz").await;
        assert_eq!((status, body.as_str()), (503, "the runtime hangs\n"));
        server.stop().await;
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_and_anything_else_is_not_found() {
        let (endpoints, metrics) = endpoints();
        metrics.leader(true);
        let server = Running::start(endpoints.router()).await;
        let (status, content_type, body) = server.get("/metrics").await;
        assert_eq!((status, content_type.as_str()), (200, OPENMETRICS));
        assert!(
            body.contains("composio_operator_leader 1\n") && body.ends_with("# EOF\n"),
            "{body}"
        );
        assert_eq!(server.get("/").await.0, 404);
        assert_eq!(server.get("/metrics/x").await.0, 404);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_before_the_server_ends() {
        let (entered, wait_entered) = oneshot::channel::<()>();
        let (release, wait_release) = oneshot::channel::<()>();
        let handed = Arc::new(Mutex::new(Some((entered, wait_release))));
        let router = Router::new().route(
            "/slow",
            get(move || async move {
                let (entered, release) = handed.lock().unwrap().take().unwrap();
                entered.send(()).unwrap();
                release.await.unwrap();
                "done"
            }),
        );
        let server = Running::start(router).await;
        let url = format!("http://{}/slow", server.addr);
        let slow = tokio::spawn(async move { reqwest::get(url).await.unwrap().text().await.unwrap() });
        wait_entered.await.unwrap();
        server.stop.send(()).unwrap();
        release.send(()).unwrap();
        assert_eq!(slow.await.unwrap(), "done");
        server.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_never_finishes_its_request_does_not_hold_the_shutdown() {
        let (endpoints, _) = endpoints();
        let server = Running::start(endpoints.router()).await;
        let mut peer = TcpStream::connect(server.addr).await.unwrap();
        peer.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        peer.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        peer.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        server.stop().await;
    }
}
