//! The least time that a first sync can take.
//!
//! What limits it: the time of an answer, and the rate budget. It is the bound of a program that reads everything at the
//! same time and writes in no time. The numbers of the budget are those of the operator; they are repeated here because a
//! bound that followed them would never show a mistake.

use std::time::Duration;

use crate::commands::bench::stage::BUDGET;
use crate::commands::bench::statistics::number;

/// Calls for each toolkit: what it is, and its tools.
pub const CALLS_PER_TOOLKIT: usize = 2;

/// The calls of a first sync.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Pages of the list of toolkits: one after the other, and before everything else.
    pub pages: usize,
    /// Toolkits.
    pub toolkits: usize,
}

impl Calls {
    /// All of them.
    pub fn total(self) -> usize {
        self.pages + self.toolkits * CALLS_PER_TOOLKIT
    }

    /// The least time, if every answer takes `latency`.
    pub fn least_time(self, latency: Duration) -> Duration {
        // The pages, and then all toolkits together, with their tools beside them.
        let rounds = self.pages + 1;
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        (latency * rounds).max(at_background(self.total()) + latency)
    }
}

/// When the last of so many calls may be made, by a budget that nothing was taken from for long: a tenth of what is
/// usable may go out at once, the rest evenly over the minute; of both, refreshes leave some to whatever people wait for.
pub fn at_background(calls: usize) -> Duration {
    let limit = f64::from(BUDGET);
    let usable = limit * 0.96;
    let bucket = (usable * 0.1).floor();
    let at_once = bucket * 0.75;
    let per_second = (usable - bucket) / 60.0;
    let by_pace = ((number(calls) - at_once) / per_second).max(0.0);
    // By Composio's own count: what is left of a window must not fall below 27 % of the limit. At best the first call
    // comes right before a window ends, and the last right after one began.
    let windows = (number(calls) / (limit * 0.73)).ceil();
    let by_windows = (windows - 2.0).max(0.0) * 60.0;
    Duration::from_secs_f64(by_pace.max(by_windows))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(50);

    #[test]
    fn few_toolkits_are_bound_by_latency() {
        let calls = Calls {
            pages: 1,
            toolkits: 45,
        };
        assert_eq!(calls.total(), 91);
        assert_eq!(calls.least_time(LATENCY), LATENCY * 2);
    }

    #[test]
    fn many_toolkits_are_bound_by_the_budget() {
        let calls = Calls {
            pages: 2,
            toolkits: 500,
        };
        let seconds = calls.least_time(LATENCY).as_secs_f64();
        assert!(
            (seconds - (1_002.0 - 144.0) / 28.8 - 0.05).abs() < 0.001,
            "{seconds}"
        );
        let calls = Calls {
            pages: 2,
            toolkits: 1_000,
        };
        let seconds = calls.least_time(LATENCY).as_secs_f64();
        assert!(
            (seconds - (2_002.0 - 144.0) / 28.8 - 0.05).abs() < 0.001,
            "{seconds}"
        );
        let seconds = at_background(100_000).as_secs_f64();
        assert!((seconds - 67.0 * 60.0).abs() < 0.001, "{seconds}");
    }
}
