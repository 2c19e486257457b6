//! `kubectl get rdc --watch`, running beside the story: what it prints is shown, and waited for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask::supervised::Supervised;

use super::narrator::Narrator;
use super::stage::{Stage, TENANT};

/// The watch writes to a file, which costs nothing to look at.
const INTERVAL: Duration = Duration::from_millis(50);

/// A running watch.
pub struct View {
    process: Supervised,
    output: PathBuf,
    /// Lines taken so far.
    taken: usize,
    last: String,
}

impl View {
    /// Begins to watch. Objects need not exist yet.
    pub fn open(stage: &Stage) -> Result<Self> {
        let (process, output) = stage.kubectl(
            "kubectl-watch",
            &["get", "redditconnections", "--watch", "--namespace", TENANT],
        )?;
        Ok(Self {
            process,
            output,
            taken: 0,
            last: String::new(),
        })
    }

    /// Shows rows until one contains all of `words`. Fails, telling the last row, if that takes longer than `limit`.
    pub async fn until(&mut self, narrator: &Narrator, words: &[&str], limit: Duration) -> Result<()> {
        let appears = async {
            loop {
                let exit = self.process.try_wait();
                while let Some(row) = self.next()? {
                    // Rows also appear when something changed that no column shows.
                    let news = without_age(&row) != without_age(&self.last);
                    self.last = row;
                    if news {
                        narrator.output(&self.last);
                    }
                    let cells: Vec<&str> = self.last.split_whitespace().collect();
                    if words.iter().all(|word| cells.contains(word)) {
                        return Ok(());
                    }
                }
                if let Some(exit) = exit {
                    bail!("{}", self.process.obituary(exit));
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        match tokio::time::timeout(limit, appears).await {
            Ok(result) => result,
            Err(_) => bail!(
                "no row with {} within {} s; the last one was:\n   {}",
                words.join(" and "),
                limit.as_secs(),
                self.last
            ),
        }
    }

    /// The next complete line that was not taken yet.
    fn next(&mut self) -> Result<Option<String>> {
        let written = std::fs::read_to_string(&self.output)
            .with_context(|| format!("cannot read {}", self.output.display()))?;
        let complete = written.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let line = complete.lines().nth(self.taken).map(str::to_owned);
        self.taken += usize::from(line.is_some());
        Ok(line)
    }
}

/// A row without its last column, which changes by itself.
fn without_age(row: &str) -> &str {
    row.trim_end()
        .rsplit_once(char::is_whitespace)
        .map_or("", |(row, _)| row.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_differ_in_age_alone_are_the_same() {
        assert_eq!(
            without_age("alice   pending   AwaitingConsent   1s"),
            without_age("alice   pending   AwaitingConsent   12s")
        );
        assert_ne!(without_age("alice   pending   1s"), without_age("alice   1s"));
    }
}
