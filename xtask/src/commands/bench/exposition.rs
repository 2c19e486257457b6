//! Numbers out of Prometheus' text format, in which both the operator and the API server tell theirs.

/// The labels of a sample.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a>(&'a str);

impl<'a> Labels<'a> {
    /// The value of a label. Escapes are left as they are: no value that is asked for here contains any.
    pub fn get(self, name: &str) -> Option<&'a str> {
        let mut rest = self.0;
        loop {
            let (key, tail) = rest.split_once("=\"")?;
            let end = closing_quote(tail)?;
            if key.trim_start_matches(',').trim() == name {
                return Some(&tail[..end]);
            }
            rest = &tail[end + 1..];
        }
    }
}

/// The samples of a metric. There are none while nothing was counted.
pub fn samples<'a>(text: &'a str, metric: &str) -> impl Iterator<Item = (Labels<'a>, f64)> {
    text.lines().filter_map(move |line| sample(line, metric))
}

/// The labels and the value of a line, if it is a sample of that metric.
fn sample<'a>(line: &'a str, metric: &str) -> Option<(Labels<'a>, f64)> {
    let rest = line.strip_prefix(metric)?;
    let (labels, value) = match rest.strip_prefix('{') {
        // Label values may hold braces; the last one closes.
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest.strip_prefix(' ')?),
    };
    // A time stamp may follow.
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some((Labels(labels), value))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{resource="pods",verb="GET"} 3
requests_total{resource="pods",verb="PATCH"} 2
requests_total{resource="secrets",verb="PATCH",note="a \"}\" b"} 1.5e1 1700000000
requests_total_seconds{resource="pods",verb="GET"} 99
up 1
"#;

    fn values(metric: &str) -> Vec<f64> {
        samples(TEXT, metric).map(|(_, value)| value).collect()
    }

    #[test]
    fn samples_are_those_of_the_metric_alone() {
        assert_eq!(values("requests_total"), [3.0, 2.0, 15.0]);
        assert_eq!(values("up"), [1.0]);
        assert_eq!(values("absent"), [0.0; 0]);
    }

    #[test]
    fn labels_are_found_by_name() {
        let verbs: Vec<_> = samples(TEXT, "requests_total")
            .map(|(labels, _)| (labels.get("resource"), labels.get("verb"), labels.get("source")))
            .collect();
        assert_eq!(
            verbs,
            [
                (Some("pods"), Some("GET"), None),
                (Some("pods"), Some("PATCH"), None),
                (Some("secrets"), Some("PATCH"), None)
            ]
        );
    }

    #[test]
    fn a_label_is_found_behind_one_with_quotes() {
        assert_eq!(Labels(r#"a="x \" ,b=\"1",b="2""#).get("b"), Some("2"));
    }
}
