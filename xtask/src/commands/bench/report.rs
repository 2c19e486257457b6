//! Figures, and how they are shown.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::machine::Machine;
use super::phases::Findings;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Of anything that is counted.
    Count,
    /// One number by another; shown as `1/x` where that says more.
    Ratio,
    /// Shown with two digits.
    Seconds,
    /// Of memory.
    MiB,
    /// Of something stored.
    KiB,
    /// Of one core.
    Percent,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value:.0}"),
            Self::Ratio if value > 0.0 && value < 0.5 => format!("1/{:.1}", 1.0 / value),
            Self::Ratio => format!("{value:.2}"),
            Self::Seconds => format!("{value:.2} s"),
            Self::MiB => format!("{value:.1} MiB"),
            Self::KiB => format!("{value:.1} KiB"),
            Self::Percent => format!("{value:.1} %"),
        }
    }
}

/// One number that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// Stable name for programs, such as `pending.callsPerLook`.
    pub id: &'static str,
    /// What it is, for people.
    pub what: String,
    /// The number; absent if there was nothing to measure.
    pub value: Option<f64>,
    /// What it counts.
    pub unit: Unit,
    /// The most it should be; absent where the number only informs.
    pub at_most: Option<f64>,
}

impl Figure {
    /// A number without a target.
    pub fn new(id: &'static str, what: impl Into<String>, unit: Unit, value: impl Into<Option<f64>>) -> Self {
        Self {
            id,
            what: what.into(),
            value: value.into(),
            unit,
            at_most: None,
        }
    }

    /// The same with a target.
    #[must_use]
    pub fn at_most(self, limit: impl Into<Option<f64>>) -> Self {
        Self {
            at_most: limit.into(),
            ..self
        }
    }

    /// Whether the target is met; `None` without one. What could not be measured does not meet it.
    pub fn met(&self) -> Option<bool> {
        self.at_most
            .map(|limit| self.value.is_some_and(|value| value <= limit))
    }

    fn cells(&self) -> [String; 4] {
        [
            self.what.clone(),
            self.value
                .map_or_else(|| "nothing".to_owned(), |value| self.unit.show(value)),
            self.at_most
                .map_or_else(String::new, |limit| format!("<= {}", self.unit.show(limit))),
            match self.met() {
                Some(true) => "yes".to_owned(),
                Some(false) => "NO".to_owned(),
                None => String::new(),
            },
        ]
    }
}

/// The figures as a table. Numbers are aligned to the right.
pub fn table(figures: &[Figure]) -> String {
    let head = ["what", "measured", "target", "met"].map(str::to_owned);
    let rows: Vec<[String; 4]> = figures.iter().map(Figure::cells).collect();
    let width = |column: usize| {
        rows.iter()
            .chain([&head])
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths = [0, 1, 2, 3].map(width);
    let mut text = String::new();
    let mut line = |row: &[String; 4]| {
        let [what, measured, target, met] = row;
        let [first, second, third, fourth] = widths;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {what:<first$} | {measured:>second$} | {target:>third$} | {met:<fourth$} |"
        );
    };
    line(&head);
    line(&widths.map(|width| "-".repeat(width)));
    rows.iter().for_each(line);
    text
}

/// Everything as JSON, for comparing runs.
pub fn json(machine: &Machine, setup: &Value, findings: &Findings) -> Value {
    let Findings { figures, served } = findings;
    let figures: Vec<Value> = figures
        .iter()
        .map(|figure| {
            let mut value = json!(figure);
            value["met"] = json!(figure.met());
            value
        })
        .collect();
    json!({ "machine": machine, "setup": setup, "figures": figures, "served": served })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::phases::Served;

    fn figures() -> Vec<Figure> {
        vec![
            Figure::new("a.ratio", "calls per look", Unit::Ratio, 0.01).at_most(1.0 / 90.0),
            Figure::new("a.time", "p50", Unit::Seconds, 2.5).at_most(2.3),
            Figure::new("a.memory", "memory", Unit::MiB, 20.0),
            Figure::new("a.none", "nothing to see", Unit::Count, None).at_most(0.0),
        ]
    }

    #[test]
    fn a_target_is_met_up_to_its_limit() {
        let met: Vec<_> = figures().iter().map(Figure::met).collect();
        assert_eq!(met, [Some(true), Some(false), None, Some(false)]);
        let exactly = Figure::new("x", "x", Unit::Count, 3.0).at_most(3.0);
        assert_eq!(exactly.met(), Some(true));
    }

    #[test]
    fn the_table_lines_up() {
        let expected = "\
| what           | measured |    target | met |
| -------------- | -------- | --------- | --- |
| calls per look |  1/100.0 | <= 1/90.0 | yes |
| p50            |   2.50 s | <= 2.30 s | NO  |
| memory         | 20.0 MiB |           |     |
| nothing to see |  nothing |      <= 0 | NO  |
";
        assert_eq!(table(&figures()), expected);
    }

    #[test]
    fn json_names_each_figure() {
        let findings = Findings {
            figures: figures(),
            served: vec![Served::default()],
        };
        let report = json(&Machine::default(), &json!({ "objects": 4 }), &findings);
        assert_eq!(report["setup"]["objects"], 4);
        assert_eq!(
            report["figures"][1],
            json!({ "id": "a.time", "what": "p50", "value": 2.5, "unit": "seconds", "atMost": 2.3, "met": false })
        );
        assert_eq!(report["figures"][2]["met"], Value::Null);
        assert_eq!(report["served"][0]["calls"]["total"], 0);
    }
}
