//! `kubectl get --watch`, running beside the story: what it prints is shown, and waited for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testing::supervised::Supervised;

use super::narrator::Narrator;
use super::stage::{Stage, TENANT};

/// The watch writes to a file, which costs nothing to look at.
const INTERVAL: Duration = Duration::from_millis(50);

/// What is watched, and how it is shown.
#[derive(Clone, Copy)]
pub struct Table {
    /// The resource's plural name.
    resource: &'static str,
    /// Widths of the columns, enough for what the story has to show.
    widths: &'static [usize],
    /// How many of the last columns are ages, which change by themselves.
    ages: usize,
}

/// `kubectl get rdc`.
pub const CONNECTIONS: Table = Table {
    resource: "redditconnections",
    widths: &[8, 12, 14, 18, 6],
    ages: 1,
};

/// `kubectl get csc`.
pub const CACHES: Table = Table {
    resource: "composioschemacaches",
    widths: &[8, 10, 11, 8, 10, 10, 6],
    ages: 2,
};

/// A running watch.
pub struct View {
    table: Table,
    process: Supervised,
    output: PathBuf,
    /// Lines taken so far.
    taken: usize,
    columns: Columns,
    last: Vec<String>,
}

impl View {
    /// Begins to watch. Objects need not exist yet.
    pub fn open(stage: &Stage, table: Table) -> Result<Self> {
        let (process, output) = stage.kubectl(
            &format!("kubectl-watch-{}", table.resource),
            &["get", table.resource, "--watch", "--namespace", TENANT],
        )?;
        Ok(Self {
            table,
            process,
            output,
            taken: 0,
            columns: Columns::default(),
            last: Vec::new(),
        })
    }

    /// Shows rows until one contains all of `words`. Fails, telling the last row, if that takes longer than `limit`.
    pub async fn until(&mut self, narrator: &Narrator, words: &[&str], limit: Duration) -> Result<()> {
        let appears = async {
            loop {
                let exit = self.process.try_wait();
                while let Some(line) = self.next()? {
                    let row = self.columns.split(&line);
                    // Rows also appear when something changed that no column shows; the age changes by itself.
                    if self.table.without_ages(&row) != self.table.without_ages(&self.last) {
                        narrator.output(&self.table.aligned(&row));
                    }
                    self.last = row;
                    if words
                        .iter()
                        .all(|word| line.split_whitespace().any(|other| other == *word))
                    {
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
                self.table.aligned(&self.last)
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

/// The columns of a table that kubectl prints row by row. It pads each cell to the widest of its column *so far*, so
/// later rows do not stand below earlier ones.
#[derive(Default)]
struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// kubectl keeps at least this many spaces between two columns.
    const GAP: &str = "   ";

    /// The cells of the next row. The first row is the header, in which no cell is empty, so that it shows how wide the
    /// columns are to begin with.
    fn split(&mut self, row: &str) -> Vec<String> {
        let is_header = self.widths.is_empty();
        let mut rest = row;
        let mut cells = Vec::new();
        while !rest.is_empty() {
            let cell = match rest.find(Self::GAP) {
                _ if rest.starts_with(' ') => "",
                Some(end) => &rest[..end],
                None => rest,
            };
            if is_header {
                let spaces = rest[cell.len()..].chars().take_while(|c| *c == ' ').count();
                self.widths.push(cell.len() + spaces);
            }
            let Some(width) = self.widths.get_mut(cells.len()) else {
                break;
            };
            *width = (*width).max(cell.len() + Self::GAP.len());
            rest = rest.get(*width..).unwrap_or_default();
            cells.push(cell.trim_end().to_owned());
        }
        cells
    }
}

impl Table {
    /// A row in these columns.
    fn aligned(&self, row: &[String]) -> String {
        let cells = row.iter().zip(self.widths);
        let line = cells.fold(String::new(), |line, (cell, &width)| {
            line + &format!("{cell:<width$}")
        });
        line.trim_end().to_owned()
    }

    /// A row without its ages.
    fn without_ages<'a>(&self, row: &'a [String]) -> &'a [String] {
        let columns = self.widths.len() - self.ages;
        &row[..columns.min(row.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_although_columns_move() {
        let rows = [
            (
                "NAME    STATE   REDDIT USER   REASON   AGE",
                ["NAME", "STATE", "REDDIT USER", "REASON", "AGE"],
            ),
            (
                "alice                                  0s",
                ["alice", "", "", "", "0s"],
            ),
            (
                "alice   pending                 AwaitingConsent   1s",
                ["alice", "pending", "", "AwaitingConsent", "1s"],
            ),
            (
                "alice   connected                 Connected         5s",
                ["alice", "connected", "", "Connected", "5s"],
            ),
            (
                "alice   connected   bob           Connected         5s",
                ["alice", "connected", "bob", "Connected", "5s"],
            ),
        ];
        let mut columns = Columns::default();
        for (row, cells) in rows {
            assert_eq!(columns.split(row), cells, "{row:?}");
        }
    }

    #[test]
    fn ages_make_no_other_row() {
        let row = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (table, before, later, other) in [
            (
                CONNECTIONS,
                "alice pending - AwaitingConsent 1s",
                "alice pending - AwaitingConsent 9s",
                "alice error - AwaitingConsent 9s",
            ),
            (
                CACHES,
                "tools synced 3 36 Synced 1s 2s",
                "tools synced 3 36 Synced 8s 9s",
                "tools synced 3 35 Synced 8s 9s",
            ),
        ] {
            let [before, later, other] = [before, later, other].map(row);
            assert_eq!(table.without_ages(&before), table.without_ages(&later));
            assert_ne!(table.without_ages(&later), table.without_ages(&other));
        }
        // The row of an object without a status yet ends where the last known column does.
        assert_eq!(CACHES.without_ages(&row("tools")), row("tools"));
        assert_eq!(CONNECTIONS.aligned(&row("alice pending")), "alice   pending");
    }
}
