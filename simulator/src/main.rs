//! The simulator as a program. The first line on stdout is its URL; logs go to stderr.

#![expect(
    clippy::doc_markdown,
    reason = "the comments on options are their help texts, read in a terminal"
)]

use std::{io::Write as _, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use composio_sim::{
    ApiKey, Assumptions, Config, DEFAULT_API_KEY, DEFAULT_RATE_LIMIT, GeneratedCatalogue, SeedAuthConfig,
    Simulator,
};
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;
use url::Url;

/// A faithful Composio for development and tests.
///
/// Prints its URL on the first line of stdout and serves Composio's API (/api/v3 and /api/v3.1), the hosted page of
/// every link (/link/...) and a control API (/_sim/...: call log, accounts, clock, faults) until it is stopped.
/// Everything is kept in memory; no request leaves this machine.
#[derive(Parser)]
#[command(name = "composio-sim", version)]
struct Options {
    /// Address to listen on; port 0 takes a free one. The control API asks for no key: prefer loopback.
    #[arg(
        long,
        env = "COMPOSIO_SIM_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:0"
    )]
    listen: SocketAddr,

    /// URL that clients and people reach the simulator by, if it is not the one it listens on.
    #[arg(long, env = "COMPOSIO_SIM_PUBLIC_URL", value_name = "URL")]
    public_url: Option<Url>,

    /// API key to accept; repeatable. KEY is a default project key, KEY=AREA:ACCESS,... a scoped one, where AREA is
    /// auth_configs, connected_accounts, tools, tool_execution, proxy_execute or toolkits, and ACCESS is none, read or
    /// write.
    #[arg(
        long = "api-key",
        env = "COMPOSIO_SIM_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        default_value = DEFAULT_API_KEY
    )]
    // Text, because clap repeats values it cannot parse, and a key must not end up in an error message.
    api_keys: Vec<String>,

    /// Auth config that exists from the start; repeatable. TOOLKIT makes ac_TOOLKIT, ID=TOOLKIT the id given.
    #[arg(
        long = "auth-config",
        env = "COMPOSIO_SIM_AUTH_CONFIG",
        value_name = "TOOLKIT",
        value_delimiter = ' ',
        default_value = "reddit"
    )]
    auth_configs: Vec<SeedAuthConfig>,

    /// Let as many auth configs exist from the start: those of --auth-config, and as many more as are missing, for the
    /// toolkits that need one in turn.
    #[arg(
        long,
        env = "COMPOSIO_SIM_AUTH_CONFIG_COUNT",
        value_name = "N",
        default_value_t = 0
    )]
    auth_config_count: usize,

    /// Toolkits to generate beside the built-in ones, the same for the same seed. Composio has about 1000.
    #[arg(long, env = "COMPOSIO_SIM_TOOLKITS", value_name = "N", default_value_t = 0)]
    toolkits: usize,

    /// Tools the generated toolkits have together, at least one each; twelve for each toolkit unless told otherwise.
    #[arg(long, env = "COMPOSIO_SIM_TOOLS", value_name = "M")]
    tools: Option<usize>,

    /// What the generated catalogue is made from; another number makes another one.
    #[arg(long, env = "COMPOSIO_SIM_SEED", value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Generate two more toolkits: titan with 950 tools, and monolith with one tool of 2 MB.
    #[arg(long, env = "COMPOSIO_SIM_GIANTS")]
    giants: bool,

    /// Open and complete every link in the background this long after it was made, such as 5s.
    #[arg(long, env = "COMPOSIO_SIM_AUTO_CONSENT", value_name = "DURATION", value_parser = duration)]
    auto_consent: Option<Duration>,

    /// How long every API call takes, such as 50ms; half of it passes before the call is handled.
    #[arg(long, env = "COMPOSIO_SIM_LATENCY", value_name = "DURATION", value_parser = duration, default_value = "0ms")]
    latency: Duration,

    /// Requests an organization may make in a minute; 0 switches the limit off.
    #[arg(long, env = "COMPOSIO_SIM_RATE_LIMIT", value_name = "N", default_value_t = DEFAULT_RATE_LIMIT)]
    rate_limit: u32,

    /// Calls the log remembers.
    #[arg(long, env = "COMPOSIO_SIM_LOG_CAPACITY", value_name = "N", default_value_t = Config::default().log_capacity)]
    log_capacity: usize,

    /// What to assume where Composio's behaviour is not documented, as NAME=VALUE; repeatable. Names and defaults:
    /// reject-unknown-fields=false, dead-rows-hold-alias=true, enable-revives-dead=false, no-account-status=404,
    /// dead-execute-unprocessable=true, proxy-needs-scoped-key=true, default-page-size=20, max-account-page=100,
    /// page-cap=0.
    #[arg(long = "assume", value_name = "NAME=VALUE")]
    assumptions: Vec<String>,

    /// What to log to stderr: error, warn, info, debug, trace, or a filter such as composio_sim=debug.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write it like 5s or 50ms"))?;
    Duration::try_from(signed).map_err(|_| "must not be negative".to_owned())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&options.log).context("--log")?)
        .with_writer(std::io::stderr)
        .init();
    let mut assumptions = Assumptions::default();
    for assignment in &options.assumptions {
        assumptions
            .set(assignment)
            .map_err(anyhow::Error::msg)
            .context("--assume")?;
    }
    anyhow::ensure!(
        options.tools.is_none() || options.toolkits > 0,
        "--tools says how many tools --toolkits has"
    );
    let keys: Result<Vec<ApiKey>, String> = options.api_keys.iter().map(|key| key.parse()).collect();
    if !options.listen.ip().is_loopback() {
        tracing::warn!("the control API asks for no key and is reachable from other machines");
    }
    // Before the URL is printed, because its reader may stop the simulator at once.
    let stop_requested = stop_requested().context("cannot listen for signals")?;
    let simulator = Simulator::start(Config {
        listen: options.listen,
        public_url: options.public_url,
        keys: keys.map_err(anyhow::Error::msg).context("--api-key")?,
        auth_configs: options.auth_configs,
        auth_config_count: options.auth_config_count,
        generated: (options.toolkits > 0 || options.giants).then(|| GeneratedCatalogue {
            toolkits: options.toolkits,
            tools: options.tools.unwrap_or(options.toolkits.saturating_mul(12)),
            seed: options.seed,
            giants: options.giants,
        }),
        auto_consent: options.auto_consent,
        latency: options.latency,
        rate_limit: options.rate_limit,
        log_capacity: options.log_capacity,
        assumptions,
        ..Config::default()
    })
    .await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", simulator.url())
        .and_then(|()| stdout.flush())
        .context("cannot print the URL")?;
    stop_requested.await;
    tracing::info!("stopping");
    simulator.stop().await;
    Ok(())
}

/// Listens for Ctrl-C and SIGTERM from now on; the future returned ends with the first of them.
#[cfg(unix)]
fn stop_requested() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Listens for Ctrl-C from now on; the future returned ends with it.
#[cfg(windows)]
fn stop_requested() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}
