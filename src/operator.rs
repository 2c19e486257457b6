//! The life of the operator process: connect, wait for the CRDs, lead, run the controllers, stop in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Resource;
use kube::runtime::events::Reporter;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::{ComposioSchemaCache, GROUP, RedditConnection};
use crate::composio::{Connections, PollerOptions, Surroundings};
use crate::controllers::access::{Access, SharedWith};
use crate::controllers::auth_configs::AuthConfigs;
use crate::controllers::reddit_connection::{LookUps, Proofs, RedditConnections};
use crate::controllers::schema_cache::{Lists, SchemaCaches, SyncStates};
use crate::runtime::crds::{Crd, wait_for_crds};
use crate::runtime::events::Publisher;
use crate::runtime::lease::{self, Leadership, LeaseConfig};
use crate::runtime::slots::Slots;
use crate::runtime::wake_ups::WakeUps;
use crate::runtime::watch::{Namespaces, run as run_controller};
use crate::runtime::{Clock, Context, Controller};
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{Endpoints, Gate, Health, Readiness, Server};

/// Environment variable with the operator's own API key. There is no flag for it: flags are visible to every process.
pub const API_KEY_VARIABLE: &str = "COMPOSIO_API_KEY";

/// How long others wait for a leader that stopped renewing its Lease; client-go's default.
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How often the process shows that it is alive; it counts as dead after [`HEARTBEAT_MAX_AGE`] without that.
const HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEAT_MAX_AGE: Duration = Duration::from_mins(1);

/// Runs until SIGTERM or Ctrl-C, or until the leadership is lost.
///
/// # Errors
/// A setting that cannot be used, no configuration of a cluster, or a lost leadership.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let shutdown = watch_signals()?;
    settings.check().map_err(anyhow::Error::msg)?;
    settings
        .client_options()
        .validate()
        .context("the settings for Composio cannot be used")?;

    let (metrics, registry) = Metrics::new();
    let health = Health::new(HEARTBEAT_MAX_AGE);
    let readiness = Readiness::default();
    let started = readiness.gate("kubernetes");
    let endpoints = Endpoints {
        health: health.clone(),
        readiness: readiness.clone(),
        registry,
    };
    let server = Server::bind(settings.http_listen, endpoints.router())
        .await
        .with_context(|| format!("cannot listen on {} (--http-listen)", settings.http_listen))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        http = %server.local_addr()?,
        composio = settings.composio_base_url,
        "composio-operator starts"
    );
    let server = tokio::spawn(server.serve(cancelled(shutdown.clone())));
    let heartbeat_task = tokio::spawn(heartbeat(health));

    let outcome = tokio::select! {
        outcome = work(&settings, &metrics, &readiness, &started, shutdown.clone()) => outcome,
        () = force_exit(shutdown.clone()) => Ok(()),
    };
    heartbeat_task.abort();
    if outcome.is_ok() {
        server
            .await
            .context("the HTTP server panicked")?
            .context("the HTTP server failed")?;
        tracing::info!("stopped");
    }
    outcome
}

async fn work(
    settings: &Settings,
    metrics: &Metrics,
    readiness: &Readiness,
    started: &Gate,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut config = kube::Config::infer().await.context(
        "no Kubernetes configuration found: set KUBECONFIG, or run in a Pod with a service account",
    )?;
    // Every reconcile has its own time limit and its own way to try again.
    config.default_retry = false;
    let client =
        kube::Client::try_from(config.clone()).context("the cluster's configuration cannot be used")?;
    started.open();

    let connections_served = crd_served::<RedditConnection>(&client, metrics, readiness, shutdown.clone());
    let caches_served = crd_served::<ComposioSchemaCache>(&client, metrics, readiness, shutdown.clone());

    let leadership = acquire_lease(settings, metrics, config, shutdown.clone()).await?;
    let Some(leadership) = leadership else {
        return Ok(());
    };

    let wake_ups = WakeUps::default();
    let access = Arc::new(access(
        settings,
        client.clone(),
        metrics,
        leadership.clone(),
        &wake_ups,
    )?);
    let reporter = Reporter {
        controller: format!("{GROUP}/{}", env!("CARGO_PKG_NAME")),
        instance: Some(settings.instance()),
    };
    let cx = Arc::new(Context {
        events: Publisher::new(client.clone(), reporter, metrics.clone()),
        client,
        metrics: metrics.clone(),
        leadership: leadership.clone(),
        wake_ups,
        slots: Slots::new(settings.concurrency),
        reconcile_timeout: settings.reconcile_timeout,
        clock: Clock::system(),
    });
    let connections = RedditConnections {
        access: Arc::clone(&access),
        auth_configs: AuthConfigs::default(),
        toolkit_version: settings.reddit_toolkit_version.clone(),
        look_ups: LookUps::default(),
        proofs: Proofs {
            interval: settings.credential_proof_interval,
            since: cx.clock.now(),
        },
    };
    let caches = SchemaCaches {
        access,
        states: SyncStates::default(),
        lists: Lists::default(),
        metrics: metrics.clone(),
    };
    let controllers = async {
        tokio::try_join!(
            serve(
                connections,
                connections_served,
                &cx,
                settings,
                readiness,
                &shutdown
            ),
            serve(caches, caches_served, &cx, settings, readiness, &shutdown),
        )
    };
    tokio::select! {
        ended = controllers => ended.map(drop)?,
        loss = leadership.lost() => anyhow::bail!("{loss}; another replica may lead now, so this one stops"),
    }
    leadership.release().await;
    metrics.leader(false);
    Ok(())
}

/// The way of all objects to Composio.
fn access(
    settings: &Settings,
    client: kube::Client,
    metrics: &Metrics,
    leadership: Leadership,
    wake_ups: &WakeUps,
) -> anyhow::Result<Access> {
    let process: Arc<dyn Surroundings> = Arc::new(Process {
        metrics: metrics.clone(),
        leadership,
    });
    let wake_ups = wake_ups.clone();
    let connections = Connections::new(
        settings.client_options(),
        PollerOptions::default(),
        process,
        Arc::new(move |key| wake_ups.wake(key)),
    )
    .context("the settings for Composio cannot be used")?;
    let own_key = std::env::var(API_KEY_VARIABLE).ok();
    let own_key = own_key.filter(|key| !key.trim().is_empty());
    let own_key = own_key.map(|key| SecretString::from(key.trim().to_owned()));
    let shared_with = SharedWith::from_names(&settings.shared_key_namespaces);
    Ok(Access::new(client, Arc::new(connections), own_key, shared_with))
}

/// Runs a controller once its CRD is served.
async fn serve<C: Controller>(
    controller: C,
    crd_served: impl Future<Output = anyhow::Result<()>>,
    cx: &Arc<Context>,
    settings: &Settings,
    readiness: &Readiness,
    shutdown: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    crd_served.await?;
    let namespaces = Namespaces::from_names(&settings.watch_namespaces);
    run_controller(
        Arc::new(controller),
        Arc::clone(cx),
        &namespaces,
        readiness,
        shutdown.clone(),
    )
    .await;
    Ok(())
}

/// Waits until the API server serves a resource, or until the operator is asked to stop. Each controller waits for its
/// own: an installation that lacks one resource still has the others.
fn crd_served<K: Resource<DynamicType = ()>>(
    client: &kube::Client,
    metrics: &Metrics,
    readiness: &Readiness,
    shutdown: watch::Receiver<bool>,
) -> impl Future<Output = anyhow::Result<()>> + use<K> {
    let crd = Crd::of::<K>();
    let name = crd.name().to_owned();
    let gate = readiness.gate(format!("crd {name}"));
    metrics.crd_missing(&name, false);
    let (client, metrics) = (client.clone(), metrics.clone());
    let waiting = tokio::spawn(async move {
        let crds = [crd];
        let served = wait_for_crds(&client, &crds, |missing| {
            if missing.is_empty() {
                return;
            }
            metrics.crd_missing(&name, true);
            tracing::warn!(
                ?missing,
                "waiting for CustomResourceDefinitions; install the files in crds/"
            );
        });
        tokio::select! {
            served = served => served?,
            () = cancelled(shutdown) => return anyhow::Ok(()),
        }
        metrics.crd_missing(&name, false);
        gate.open();
        Ok(())
    });
    async move {
        waiting
            .await
            .context("the wait for a CustomResourceDefinition panicked")?
    }
}

/// Waits for the Lease; None if the operator was asked to stop first.
async fn acquire_lease(
    settings: &Settings,
    metrics: &Metrics,
    config: kube::Config,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<Option<Leadership>> {
    metrics.leader(false);
    let leadership = if settings.leader_elect {
        let lease = LeaseConfig {
            namespace: settings.lease_namespace.clone(),
            name: settings.lease_name.clone(),
            identity: lease::unique_identity(&settings.instance()),
            duration: LEASE_DURATION,
        };
        tracing::info!(
            namespace = lease.namespace,
            name = lease.name,
            "waiting for the lease"
        );
        Leadership::contend(lease::client(config)?, lease)
    } else {
        Leadership::without_election()
    };
    tokio::select! {
        acquired = leadership.acquired() => acquired?,
        () = cancelled(shutdown) => {
            leadership.release().await;
            return Ok(None);
        }
    }
    metrics.leader(true);
    tracing::info!("leading");
    Ok(Some(leadership))
}

/// Turns true at SIGTERM or Ctrl-C.
fn watch_signals() -> anyhow::Result<watch::Receiver<bool>> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop; finishing what is under way");
        let _ = sender.send(true);
        // Who asks again does not want to wait.
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("asked to stop again; stopping at once");
        std::process::exit(130);
    });
    Ok(receiver)
}

async fn cancelled(mut shutdown: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end as well.
    let _ = shutdown.wait_for(|down| *down).await;
}

/// Longest time a stop may take: reconciles under way are cut off then, and go on where the status says after the next
/// start.
async fn force_exit(shutdown: watch::Receiver<bool>) {
    cancelled(shutdown).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    tracing::warn!("reconciles under way did not end in time");
}

async fn heartbeat(health: Health) {
    let mut interval = tokio::time::interval(HEARTBEAT);
    loop {
        interval.tick().await;
        health.beat();
    }
}

/// What the clients of Composio know of this process: its metrics, and whether it leads.
struct Process {
    metrics: Metrics,
    leadership: Leadership,
}

impl Surroundings for Process {
    fn call(&self, operation: &'static str, outcome: &'static str, elapsed: Duration) {
        self.metrics.composio_call(operation, outcome, elapsed);
    }

    fn budget(&self, limit: u64, remaining: u64) {
        self.metrics.budget(limit, remaining);
    }

    fn may_change(&self) -> bool {
        self.leadership.is_current(tokio::time::Instant::now())
    }
}
