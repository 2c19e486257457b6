//! Flags and environment variables of `composio-operator run`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;

use crate::composio::ClientOptions;
use crate::telemetry::logs::{DEFAULT_FILTER, LogFormat};

/// Settings of the operator. Each flag has an environment variable; the API key has only that, because flags can be
/// read by every process of the machine.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Base URL of Composio.
    #[arg(
        long,
        env = "COMPOSIO_BASE_URL",
        default_value = "https://backend.composio.dev"
    )]
    pub composio_base_url: String,

    /// Version prefix of Composio's API.
    #[arg(long, env = "COMPOSIO_API_PREFIX", default_value = "/api/v3.1")]
    pub composio_api_prefix: String,

    /// Longest time for one request to Composio.
    #[arg(long, env = "COMPOSIO_REQUEST_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub composio_request_timeout: Duration,

    /// Version of the Reddit toolkit whose tools are run, such as `20260424_00`.
    #[arg(long, env = "REDDIT_TOOLKIT_VERSION", default_value = "latest")]
    pub reddit_toolkit_version: String,

    /// Time after which the credential of a connected account is proven again, by one call to its provider.
    #[arg(long, env = "CREDENTIAL_PROOF_INTERVAL", default_value = "1h", value_parser = duration)]
    pub credential_proof_interval: Duration,

    /// Namespaces that may use the operator's own API key (`COMPOSIO_API_KEY`) by naming no Secret; * for all. By default
    /// none may.
    #[arg(long, env = "SHARED_KEY_NAMESPACES", value_delimiter = ',')]
    pub shared_key_namespaces: Vec<String>,

    /// Namespaces to watch, separated by commas; none for all.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Objects worked on at the same time.
    #[arg(long, env = "RECONCILE_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// Longest time for one reconcile of one object.
    #[arg(long, env = "RECONCILE_TIMEOUT", default_value = "2m", value_parser = duration)]
    pub reconcile_timeout: Duration,

    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,

    /// Form of the log.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged, as in `info,composio_operator=debug`.
    #[arg(long, env = "LOG_FILTER", default_value = DEFAULT_FILTER)]
    pub log_filter: String,

    /// Work only while holding a Lease, so that several replicas can run.
    #[arg(long, env = "LEADER_ELECT", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,

    /// Name of the Lease.
    #[arg(long, env = "LEASE_NAME", default_value = "composio-operator")]
    pub lease_name: String,

    /// Name of this replica in Lease and events; the host name if not given.
    #[arg(long, env = "POD_NAME")]
    pub instance: Option<String>,
}

impl Settings {
    /// How to reach Composio.
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions {
            base_url: self.composio_base_url.clone(),
            api_prefix: self.composio_api_prefix.clone(),
            request_timeout: self.composio_request_timeout,
            ..ClientOptions::default()
        }
    }

    /// Whether the settings fit together.
    ///
    /// # Errors
    /// What does not, and how to mend it.
    pub fn check(&self) -> Result<(), String> {
        // A call that hangs must be on record as a failure before its reconcile is cut off, or nobody ever learns of it.
        let shortest = self.composio_request_timeout * 2;
        if self.reconcile_timeout < shortest {
            return Err(format!(
                "--reconcile-timeout is {:?}, and must be at least {shortest:?}: twice --composio-request-timeout",
                self.reconcile_timeout
            ));
        }
        Ok(())
    }

    /// Name of this replica.
    #[allow(clippy::disallowed_methods, reason = "settings come from the environment")]
    pub fn instance(&self) -> String {
        self.instance
            .clone()
            .or_else(|| std::env::var("HOSTNAME").ok())
            .unwrap_or_else(|| format!("composio-operator-{}", std::process::id()))
    }
}

/// Reads `30s`, `2m`, `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write it like 30s or 2m"))?;
    let duration = Duration::try_from(signed).map_err(|_| "must not be negative".to_owned())?;
    if duration.is_zero() {
        Err("must be longer than zero".to_owned())
    } else {
        Ok(duration)
    }
}
