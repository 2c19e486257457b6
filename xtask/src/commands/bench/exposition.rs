//! Numbers out of Prometheus' text format, in which both the operator and the API server tell theirs.

/// Adds up the samples of a metric whose labels all have one of the values allowed for them. A label that is not named
/// in `allowed` may have any value. 0 if there is no such sample: a counter that never counted is left out.
pub fn sum(text: &str, metric: &str, allowed: &[(&str, &[&str])]) -> f64 {
    text.lines()
        .filter_map(|line| sample(line, metric))
        .filter(|(labels, _)| {
            allowed
                .iter()
                .all(|(name, values)| label(labels, name).is_some_and(|value| values.contains(&value)))
        })
        .map(|(_, value)| value)
        .sum()
}

/// The labels, without braces, and the value of a line, if it is a sample of that metric.
fn sample<'a>(line: &'a str, metric: &str) -> Option<(&'a str, f64)> {
    let rest = line.strip_prefix(metric)?;
    let (labels, value) = match rest.strip_prefix('{') {
        // Label values may hold braces; the last one closes.
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest.strip_prefix(' ')?),
    };
    // A time stamp may follow.
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some((labels, value))
}

/// The value of a label. Escapes are left as they are: no value that is asked for here contains any.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = labels;
    loop {
        let (key, tail) = rest.split_once("=\"")?;
        let end = closing_quote(tail)?;
        if key.trim_start_matches(',').trim() == name {
            return Some(&tail[..end]);
        }
        rest = &tail[end + 1..];
    }
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

    #[test]
    fn samples_add_up_by_label() {
        for (allowed, expected) in [
            (&[][..], 20.0),
            (&[("resource", &["pods"][..])][..], 5.0),
            (&[("verb", &["PATCH", "PUT"][..])][..], 17.0),
            (&[("resource", &["pods"][..]), ("verb", &["PATCH"][..])][..], 2.0),
            (&[("verb", &["DELETE"][..])][..], 0.0),
            (&[("missing", &["x"][..])][..], 0.0),
        ] {
            assert_eq!(sum(TEXT, "requests_total", allowed), expected, "{allowed:?}");
        }
        assert_eq!(sum(TEXT, "up", &[]), 1.0);
        assert_eq!(sum(TEXT, "absent", &[]), 0.0);
    }

    #[test]
    fn a_label_is_found_behind_one_with_quotes() {
        assert_eq!(label(r#"a="x \" ,b=\"1",b="2""#, "b"), Some("2"));
    }
}
