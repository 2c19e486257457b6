//! Log lines on standard error: JSON for machines, text for people; a panic becomes one line of the same kind. Credentials
//! are removed from every line before it is written.

use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan};

use crate::redact::{log_line, redact};

/// What is logged unless the user asks for something else: our own steps, and the libraries only when they complain.
///
/// A directive covers every target that begins with it, so `kube` stands for all crates of that family.
pub const DEFAULT_FILTER: &str = "info,kube=warn,hyper=warn,tower=warn,rustls=warn,reqwest=warn";

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, the fields of the event at its top level and those of the span under `span`. There the
    /// key `name` is the span's own, so no field of a span may be called that.
    #[default]
    Json,
    /// Lines for people; coloured if standard error is a terminal and `NO_COLOR` is unset.
    Text,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is no list of `target=level` directives.
    #[error("log filter {filter:?}: {source}")]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is installed already: logging is set up once for each process.
    #[error("logging is already set up: {0}")]
    AlreadySet(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends log lines to standard error and turns panics into one error line each.
///
/// `filter` has the syntax of `RUST_LOG`: comma-separated `target=level` directives, see [`DEFAULT_FILTER`].
///
/// # Errors
/// If `filter` cannot be parsed, or logging was set up before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = layer(format, colour, std::io::stderr);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(lines))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn layer<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(Redacting(writer));
    match format {
        // The span list repeats the current span; one of them is enough to find the object.
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
        LogFormat::Text => layer.with_ansi(colour).boxed(),
    }
}

/// Removes credentials from what is written through it. Each line must be written at once, which the layer does.
struct Redacting<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Redacting<W> {
    type Writer = Redacting<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Redacting(self.0.make_writer())
    }
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = log_line(&String::from_utf8_lossy(line));
        self.0.write_all(clean.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let payload = panic.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or(payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        panic = one_line(text.unwrap_or("a value that is no text")),
        location,
        thread = std::thread::current().name(),
        "panicked"
    );
}

/// A panic message may quote anything, over many lines; what is logged is one line without credentials.
fn one_line(message: &str) -> String {
    redact(message).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn captured(format: LogFormat, act: impl FnOnce()) -> String {
        let out = Captured::default();
        let writer = out.clone();
        let subscriber = tracing_subscriber::registry().with(layer(format, false, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, act);
        String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_has_the_fields_at_its_top_level_and_names_the_span() {
        let line = captured(LogFormat::Json, || {
            let _span = tracing::info_span!("reconcile", object = "team/alice").entered();
            tracing::info!(state = "pending", "polled");
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "polled");
        assert_eq!(line["state"], "pending");
        assert_eq!(line["level"], "INFO");
        assert_eq!(
            line["span"],
            serde_json::json!({"name": "reconcile", "object": "team/alice"})
        );
        assert!(line.get("spans").is_none());
    }

    #[test]
    fn a_text_line_without_a_terminal_has_no_escape_codes() {
        let line = captured(LogFormat::Text, || tracing::warn!(state = "pending", "polled"));
        assert!(
            line.contains("WARN") && line.contains("polled") && line.contains("state=\"pending\""),
            "{line}"
        );
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }

    #[test]
    fn credentials_in_a_message_or_a_field_are_removed_in_both_formats() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let line = captured(format, || {
                let error = "GET https://connect.composio.dev/link/lk_secret1: ak_secret2";
                let _span = tracing::info_span!("reconcile", error).entered();
                tracing::warn!(error, "with \"apiKey\": \"secret3\"");
            });
            assert!(!line.contains("secret"), "{line}");
            assert!(line.contains("https://connect.composio.dev/…"), "{line}");
            assert!(line.ends_with('\n'));
            if format == LogFormat::Json {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(line["message"], "with \"apiKey\": \"…\"");
            }
        }
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let refused = init(LogFormat::Json, "info,=,x=loud").unwrap_err();
        assert!(matches!(refused, LogError::Filter { .. }), "{refused}");
        EnvFilter::try_new(DEFAULT_FILTER).unwrap();
    }

    /// Set in the child of the next test only: a subscriber and a panic hook belong to a whole process.
    const CHILD: &str = "COMPOSIO_OPERATOR_TEST_LOG_CHILD";

    #[test]
    fn a_panic_is_one_json_line_without_secrets() {
        if std::env::var_os(CHILD).is_some() {
            init(LogFormat::Json, "info").unwrap();
            let second = init(LogFormat::Json, "info").unwrap_err();
            tracing::info!(refused = %second, "second");
            let payload = "bad link\nhttps://connect.composio.dev/link/lk_secret1 for ak_secret2";
            std::thread::Builder::new()
                .name("risky".into())
                .spawn(move || panic!("{payload}"))
                .unwrap()
                .join()
                .unwrap_err();
            return;
        }
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "telemetry::logs::tests::a_panic_is_one_json_line_without_secrets",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let lines = String::from_utf8(child.stderr).unwrap();
        assert!(child.status.success(), "{lines}");
        assert!(
            !lines.contains("secret1") && !lines.contains("secret2"),
            "{lines}"
        );
        let lines: Vec<serde_json::Value> = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0]["message"], "second");
        assert_eq!(lines[1]["message"], "panicked");
        assert_eq!(lines[1]["level"], "ERROR");
        assert_eq!(lines[1]["thread"], "risky");
        assert_eq!(
            lines[1]["panic"],
            "bad link https://connect.composio.dev/… for ak_…"
        );
        assert!(lines[1]["location"].as_str().unwrap().contains("logs.rs:"));
    }
}
