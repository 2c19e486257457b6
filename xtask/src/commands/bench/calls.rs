//! What the simulator's call log says about the operator.

use std::collections::{BTreeMap, HashMap, HashSet};

use composio_sim::Call;
use jiff::Timestamp;

use super::statistics::{number, percentile};

/// Length of the window that Composio counts calls in.
const MINUTE: f64 = 60.0;

/// Looks at accounts, and what they cost.
#[derive(Debug, Default, PartialEq)]
pub struct Looks {
    /// Calls that read accounts by id, alone or many at once.
    pub calls: usize,
    /// Accounts looked at, each look counted.
    pub accounts: usize,
    /// Every other call, by `METHOD route`.
    pub others: BTreeMap<String, usize>,
}

impl Looks {
    /// Counts them.
    pub fn of(calls: &[Call]) -> Self {
        let mut counted = Self::default();
        for call in calls {
            let looked_at = accounts_looked_at(call).len();
            if looked_at > 0 {
                counted.calls += 1;
                counted.accounts += looked_at;
            } else {
                *counted.others.entry(call.operation()).or_default() += 1;
            }
        }
        counted
    }

    /// Calls per account looked at; `None` if none was.
    pub fn calls_per_look(&self) -> Option<f64> {
        (self.accounts > 0).then(|| number(self.calls) / number(self.accounts))
    }

    /// The other calls in words, such as `3 GET /auth_configs`.
    pub fn describe_others(&self) -> String {
        let list: Vec<String> = self
            .others
            .iter()
            .map(|(operation, count)| format!("{count} {operation}"))
            .collect();
        list.join(", ")
    }
}

/// The ids that a call reads accounts by.
fn accounts_looked_at(call: &Call) -> Vec<String> {
    match call.operation().as_str() {
        "GET /connected_accounts" => call.query_values("connected_account_ids"),
        "GET /connected_accounts/{id}" => call
            .path
            .rsplit('/')
            .next()
            .map(str::to_owned)
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}

/// The accounts that were looked at with success.
pub fn seen(calls: &[Call]) -> HashSet<String> {
    calls
        .iter()
        .filter(|call| call.status == Some(200))
        .flat_map(accounts_looked_at)
        .collect()
}

/// When each account was first looked at with success.
pub fn first_looks(calls: &[Call]) -> HashMap<String, Timestamp> {
    let mut first = HashMap::new();
    for call in in_order(calls)
        .into_iter()
        .filter(|call| call.status == Some(200))
    {
        for id in accounts_looked_at(call) {
            first.entry(id).or_insert(call.time);
        }
    }
    first
}

/// Seconds between two looks at the same account: the given percentile over all of them.
pub fn time_between_looks(calls: &[Call], percent: usize) -> Option<f64> {
    let mut last: HashMap<String, f64> = HashMap::new();
    let mut gaps = Vec::new();
    for call in in_order(calls) {
        let at = seconds(call);
        for id in accounts_looked_at(call) {
            if let Some(before) = last.insert(id, at) {
                gaps.push(at - before);
            }
        }
    }
    percentile(&gaps, percent)
}

/// The most calls that arrived within any 60 seconds. No 60 seconds in which Composio could count see more.
pub fn busiest_minute(calls: &[Call]) -> usize {
    let times: Vec<f64> = in_order(calls).into_iter().map(seconds).collect();
    let mut first = 0;
    let mut most = 0;
    for (last, time) in times.iter().enumerate() {
        while time - times[first] >= MINUTE {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}

/// Seconds from the arrival of the first call to that of the last; `None` without calls.
pub fn span(calls: &[Call]) -> Option<f64> {
    let sorted = in_order(calls);
    Some(seconds(sorted.last()?) - seconds(sorted.first()?))
}

/// Calls that Composio refused because of the rate.
pub fn refused(calls: &[Call]) -> usize {
    calls.iter().filter(|call| call.status == Some(429)).count()
}

/// By arrival: the log is in the order in which calls were finished.
fn in_order(calls: &[Call]) -> Vec<&Call> {
    let mut sorted: Vec<&Call> = calls.iter().collect();
    sorted.sort_by_key(|call| call.time);
    sorted
}

fn seconds(call: &Call) -> f64 {
    call.time.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn call(second: i64, method: &str, route: &str, path: &str, query: &str, status: u16) -> Call {
        Call {
            seq: 1,
            time: Timestamp::from_second(second).unwrap(),
            method: method.to_owned(),
            path: path.to_owned(),
            route: Some(route.to_owned()),
            query: query.to_owned(),
            body: Value::Null,
            status: Some(status),
            fault: None,
            executions: 1,
            user_agent: None,
            key: None,
            request_id: String::new(),
        }
    }

    fn list(second: i64, ids: &str, status: u16) -> Call {
        let route = "/connected_accounts";
        call(
            second,
            "GET",
            route,
            "/api/v3.1/connected_accounts",
            &format!("connected_account_ids={ids}&limit=100"),
            status,
        )
    }

    fn single(second: i64, id: &str) -> Call {
        let path = format!("/api/v3.1/connected_accounts/{id}");
        call(second, "GET", "/connected_accounts/{id}", &path, "", 200)
    }

    fn inventory(second: i64) -> Call {
        let path = "/api/v3.1/connected_accounts";
        call(second, "GET", "/connected_accounts", path, "user_ids=u1,u2", 200)
    }

    #[test]
    fn looks_are_told_from_other_calls() {
        let calls = [
            list(1, "ca_1,ca_2,ca_3", 200),
            single(1, "ca_4"),
            inventory(1),
            inventory(2),
        ];
        let looks = Looks::of(&calls);
        assert_eq!((looks.calls, looks.accounts), (2, 4));
        assert_eq!(looks.calls_per_look(), Some(0.5));
        assert_eq!(looks.describe_others(), "2 GET /connected_accounts");
        assert_eq!(Looks::of(&[]).calls_per_look(), None);
    }

    #[test]
    fn only_answered_looks_have_seen_anything() {
        let calls = [list(1, "ca_1", 200), list(1, "ca_2", 429), single(1, "ca_3")];
        let seen = seen(&calls);
        assert!(seen.contains("ca_1") && seen.contains("ca_3") && !seen.contains("ca_2"));
        assert_eq!(refused(&calls), 1);
    }

    #[test]
    fn the_time_between_looks_is_taken_per_account() {
        let calls = [
            list(10, "ca_1,ca_2", 200),
            // Finished later, but arrived earlier.
            list(6, "ca_1", 200),
            list(13, "ca_2", 200),
        ];
        assert_eq!(time_between_looks(&calls, 1), Some(3.0));
        assert_eq!(time_between_looks(&calls, 100), Some(4.0));
        assert_eq!(time_between_looks(&calls[..1], 50), None);
    }

    #[test]
    fn the_first_look_is_the_first_that_was_answered() {
        let calls = [
            list(9, "ca_1", 200),
            list(5, "ca_1,ca_2", 429),
            list(7, "ca_1", 200),
        ];
        let expected = HashMap::from([("ca_1".to_owned(), Timestamp::from_second(7).unwrap())]);
        assert_eq!(first_looks(&calls), expected);
    }

    #[test]
    fn the_span_is_from_the_first_arrival_to_the_last() {
        assert_eq!(span(&[7, 4, 9].map(inventory)), Some(5.0));
        assert_eq!(span(&[]), None);
    }

    #[test]
    fn the_busiest_minute_slides() {
        let calls = [0, 30, 59, 60, 89, 200].map(inventory);
        // 30, 59, 60 and 89 lie within less than 60 seconds; 0 and 60 do not.
        assert_eq!(busiest_minute(&calls), 4);
        assert_eq!(busiest_minute(&[]), 0);
    }
}
