//! Metrics of the process itself, read from `/proc/self` at each scrape.
//!
//! The names are the ones every Prometheus client library uses:
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>. Where there is no `/proc`, or a file
//! cannot be read, the metric is left out rather than wrong.

use std::fmt::Error;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks a second in `/proc/*/stat`. The kernel exports `USER_HZ`, which is 100 on every architecture this program
/// is built for: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>.
const TICKS_PER_SECOND: f64 = 100.0;

/// Collects resident memory, CPU time, start time, threads and file descriptors of this process.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

/// What was read about the process; `None` is what could not be read.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    resident_bytes: Option<u64>,
    threads: Option<u64>,
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

impl Usage {
    fn read() -> Self {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        // Listing the folder opens one descriptor itself, which is closed again afterwards.
        let open_fds = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count().saturating_sub(1) as u64);
        let status = file("/proc/self/status");
        let stat = file("/proc/self/stat");
        Self {
            resident_bytes: number_after(&status, "VmRSS:").map(|kib| kib * 1024),
            threads: number_after(&status, "Threads:"),
            cpu_seconds: cpu_seconds(&stat),
            start_seconds: start_seconds(&stat, &file("/proc/stat")),
            open_fds,
            max_fds: number_after(&file("/proc/self/limits"), "Max open files"),
        }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let usage = Usage::read();
        gauge(
            &mut encoder,
            "process_resident_memory_bytes",
            "Resident memory",
            usage.resident_bytes,
        )?;
        gauge(
            &mut encoder,
            "process_threads",
            "Threads of the process",
            usage.threads,
        )?;
        gauge(
            &mut encoder,
            "process_open_fds",
            "Open file descriptors",
            usage.open_fds,
        )?;
        gauge(
            &mut encoder,
            "process_max_fds",
            "Most file descriptors the process may open",
            usage.max_fds,
        )?;
        if let Some(seconds) = usage.start_seconds {
            let help = "Start of the process, in seconds since the Unix epoch";
            encode(
                &mut encoder,
                "process_start_time_seconds",
                help,
                &ConstGauge::new(seconds),
            )?;
        }
        if let Some(seconds) = usage.cpu_seconds {
            // The encoder appends `_total`.
            let help = "User and system CPU time";
            encode(
                &mut encoder,
                "process_cpu_seconds",
                help,
                &ConstCounter::new(seconds),
            )?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: Option<u64>,
) -> Result<(), Error> {
    match value {
        Some(value) => encode(
            encoder,
            name,
            help,
            &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)),
        ),
        None => Ok(()),
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// The first number behind `label` in files of the form `label value`; "unlimited" is no number.
fn number_after(file: &str, label: &str) -> Option<u64> {
    file.lines()
        .find_map(|line| line.strip_prefix(label))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Field `number` of `/proc/self/stat`, counted from 1 as the manual does. Field 2, the command, may contain blanks and
/// parentheses, so counting starts behind its last parenthesis.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, system: &str) -> Option<f64> {
    let boot: f64 = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b) S 1 42 42 0 -1 4194560 5 0 0 0 250 50 7 8 20 0 4 0 1200 9 9 9";

    #[test]
    fn times_are_read_behind_a_command_with_parentheses() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(start_seconds(STAT, "cpu 1 2\nbtime 1000\n"), Some(1012.0));
        assert_eq!(start_seconds(STAT, ""), None);
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(cpu_seconds("42 (cut) S 1"), None);
    }

    #[test]
    fn labels_are_matched_at_the_start_of_a_line() {
        let status = "Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t    12 kB\nThreads:\t3\n";
        assert_eq!(number_after(status, "VmRSS:"), Some(12));
        assert_eq!(number_after(status, "Threads:"), Some(3));
        assert_eq!(number_after(status, "RSS:"), None);
        let limits = "Limit   Soft Limit  Hard Limit\nMax open files  1024  4096  files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024));
        assert_eq!(
            number_after("Max open files unlimited unlimited files", "Max open files"),
            None
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_seen() {
        let usage = Usage::read();
        assert!(usage.resident_bytes.unwrap() > 100 * 1024, "{usage:?}");
        assert!(usage.threads.unwrap() >= 1, "{usage:?}");
        assert!(usage.open_fds.unwrap() >= 3, "{usage:?}");
        assert!(usage.start_seconds.unwrap() > 1_500_000_000.0, "{usage:?}");
        assert!(usage.cpu_seconds.is_some(), "{usage:?}");
    }
}
