//! The machine the figures are from: without it they mean little.

use std::fmt;
use std::fs;

use serde::Serialize;

/// What is known about the machine. Empty where the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    cores: usize,
    processor: String,
    memory_gib: f64,
    system: String,
    /// Load average of the last minute before the run: what else the machine had to do.
    load_before: f64,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_default()
                .to_owned(),
            memory_gib: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(kibibytes)
                .unwrap_or_default()
                / 1024.0
                / 1024.0,
            system: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim()
            ),
            load_before: read("/proc/loadavg")
                .split_whitespace()
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or_default(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cores,
            processor,
            memory_gib,
            system,
            load_before,
        } = self;
        write!(
            f,
            "{cores} cores ({processor}), {memory_gib:.0} GiB, {system}, load before the run {load_before:.1}"
        )
    }
}

/// The value of a `name: value` line of a file in /proc.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// The number of KiB in a value like `1234 kB`.
pub fn kibibytes(value: &str) -> Option<f64> {
    value.strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files_are_found() {
        let text = "Name:\tcomposio-opera\nVmHWM:\t   30000 kB\nVmRSS:\t   20480 kB\nThreads:\t3\n";
        assert_eq!(field(text, "VmRSS").and_then(kibibytes), Some(20_480.0));
        assert_eq!(field(text, "Threads"), Some("3"));
        assert_eq!(field(text, "Threads").and_then(kibibytes), None);
        assert_eq!(field(text, "VmSwap"), None);
    }
}
