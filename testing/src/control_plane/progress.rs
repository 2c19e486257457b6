//! Progress of a long build on standard error: a spinner for a person, a line now and then for a log.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a build that goes on without news says so in a log.
const LINE_EVERY: Duration = Duration::from_secs(10);
const TICK_EVERY: Duration = Duration::from_millis(120);

/// What `go build` has done so far, read from what it prints with `-v`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Activity {
    downloaded: usize,
    compiled: usize,
    downloading: bool,
}

impl Activity {
    /// Takes one line of standard error. Returns whether the line is news of progress; if not, it belongs to an error.
    pub fn note(&mut self, line: &str) -> bool {
        if line.starts_with("go: downloading ") {
            self.downloaded += 1;
            self.downloading = true;
            true
        } else if !line.is_empty() && !line.starts_with('#') && !line.contains([' ', '\t', ':']) {
            // With -v a package being compiled is a line of its import path alone.
            self.compiled += 1;
            self.downloading = false;
            true
        } else {
            false
        }
    }

    /// For a person: what is going on.
    pub fn describe(&self) -> String {
        if self.downloading {
            format!("downloading modules ({})", self.downloaded)
        } else if self.compiled == 0 {
            "loading packages".to_owned()
        } else {
            format!("compiling and linking ({} packages)", self.compiled)
        }
    }
}

/// Shows the progress of one step of several.
pub struct Progress {
    label: String,
    started: Instant,
    spinner: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    /// Begins step `number` of `total`.
    pub fn begin(number: usize, total: usize, name: &str) -> Self {
        let label = format!("[{number}/{total}] {name}");
        let spinner = stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg}, {elapsed}") {
                spinner.set_style(style);
            }
            spinner.set_prefix(label.clone());
            spinner.set_message(Activity::default().describe());
            spinner.enable_steady_tick(TICK_EVERY);
            spinner
        });
        if spinner.is_none() {
            eprintln!("{label}: building");
        }
        let now = Instant::now();
        Self {
            label,
            started: now,
            spinner,
            last_line: now,
        }
    }

    /// Shows what is going on.
    pub fn update(&mut self, activity: &Activity) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(activity.describe()),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                eprintln!(
                    "{}: {}, {} s",
                    self.label,
                    activity.describe(),
                    self.started.elapsed().as_secs()
                );
            }
            None => {}
        }
    }

    /// Ends the step. Failure is left to the error that the caller returns.
    pub fn end(self, success: bool) {
        if let Some(spinner) = self.spinner {
            spinner.finish_and_clear();
        }
        if success {
            eprintln!("{}: built in {} s", self.label, self.started.elapsed().as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_activity_follows_what_go_prints() {
        let mut activity = Activity::default();
        assert_eq!(activity.describe(), "loading packages");
        assert!(activity.note("go: downloading k8s.io/api v0.36.3"));
        assert_eq!(activity.describe(), "downloading modules (1)");
        assert!(activity.note("k8s.io/api/core/v1"));
        assert!(activity.note("runtime"));
        assert_eq!(activity.describe(), "compiling and linking (2 packages)");
        for error in [
            "# k8s.io/api",
            "x.go:1:2: undefined: y",
            "go: no such tool",
            "\tnote",
            "",
        ] {
            assert!(!activity.note(error), "{error:?} is no progress");
        }
    }
}
