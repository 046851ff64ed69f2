//! What was measured, for programs (JSON) and for people (tables), with a verdict per goal.

use crate::machine::Environment;
use crate::stats::Summary;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Everything of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Number of this format.
    pub format: u32,
    /// See there.
    pub environment: Environment,
    /// One per subject.
    pub sections: Vec<Section>,
}

/// One subject.
#[derive(Debug, Serialize)]
pub struct Section {
    /// Short name, stable.
    pub name: &'static str,
    /// What was done, in a sentence or two.
    pub what: String,
    /// One per system and load.
    pub rows: Vec<Row>,
    /// One per goal.
    pub verdicts: Vec<Verdict>,
    /// What a reader must know to read the numbers right.
    pub notes: Vec<String>,
}

impl Section {
    /// A section with nothing in it.
    pub fn new(name: &'static str, what: impl Into<String>) -> Section {
        Section { name, what: what.into(), rows: Vec::new(), verdicts: Vec::new(), notes: Vec::new() }
    }

    /// The value of a metric, if it was measured.
    pub fn value(&self, load: &str, system: &str, metric: &str) -> Option<&Summary> {
        let row = self.rows.iter().find(|row| row.load == load && row.system == system)?;
        row.metrics.iter().find(|(name, _)| *name == metric).map(|(_, value)| value)
    }
}

/// One system under one load.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The load.
    pub load: String,
    /// The system.
    pub system: String,
    /// By name with unit, in the order of columns.
    #[serde(serialize_with = "as_map")]
    pub metrics: Vec<(&'static str, Summary)>,
}

fn as_map<S: serde::Serializer>(metrics: &[(&'static str, Summary)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().map(|(name, value)| (name, value)))
}

/// Whether a goal is met: the unfavourable end of the interval must clear it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The goal as a person would say it.
    pub goal: String,
    /// What was measured.
    pub measured: Summary,
    /// `at_least` or `at_most`.
    pub limit: Limit,
    /// Met, missed, or the interval holds the limit.
    pub outcome: Outcome,
}

/// A bound.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Larger is better.
    AtLeast(f64),
    /// Smaller is better.
    AtMost(f64),
}

/// See [`Verdict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Even the unfavourable end clears the limit.
    Met,
    /// The median clears it, the unfavourable end does not.
    Unclear,
    /// The median does not.
    Missed,
}

impl Verdict {
    /// Compares.
    pub fn new(goal: impl Into<String>, measured: Summary, limit: Limit) -> Verdict {
        let clears = |value: f64| match limit {
            Limit::AtLeast(bound) => value >= bound,
            Limit::AtMost(bound) => value <= bound,
        };
        let outcome = match (clears(measured.median), clears(measured.low) && clears(measured.high)) {
            (true, true) => Outcome::Met,
            (true, false) => Outcome::Unclear,
            (false, _) => Outcome::Missed,
        };
        Verdict { goal: goal.into(), measured, limit, outcome }
    }
}

impl Report {
    /// Tables for people; they are Markdown.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let environment = &self.environment;
        let _ = writeln!(
            text,
            "{} | {} x {} | {} | load {} | {}{}",
            environment.kernel,
            environment.cpus.len(),
            environment.cpu,
            environment.congestion_control,
            environment.load,
            environment.time,
            if environment.optimized { "" } else { " | NOT AN OPTIMIZED BUILD" }
        );
        for section in &self.sections {
            let _ = writeln!(text, "\n## {}\n\n{}\n", section.name, section.what);
            if !section.rows.is_empty() {
                let _ = writeln!(text, "{}", rows_table(&section.rows));
            }
            if !section.verdicts.is_empty() {
                let _ = writeln!(text, "\n{}", verdicts_table(&section.verdicts));
            }
            for note in &section.notes {
                let _ = writeln!(text, "\nNote: {note}");
            }
        }
        text
    }
}

fn rows_table(rows: &[Row]) -> Table {
    let mut columns: Vec<&'static str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.metrics) {
        if !columns.contains(name) {
            columns.push(name);
        }
    }
    let mut table = markdown(["load", "system"].into_iter().chain(columns.iter().copied()));
    for row in rows {
        let values: BTreeMap<&str, &Summary> = row.metrics.iter().map(|(name, value)| (*name, value)).collect();
        let cells = columns.iter().map(|name| values.get(name).map_or("".into(), |value| shown(value)));
        table.add_row([row.load.clone(), row.system.clone()].into_iter().chain(cells));
    }
    table
}

fn verdicts_table(verdicts: &[Verdict]) -> Table {
    let mut table = markdown(["goal", "limit", "measured", "outcome"]);
    for verdict in verdicts {
        let limit = match verdict.limit {
            Limit::AtLeast(bound) => format!(">= {}", number(bound)),
            Limit::AtMost(bound) => format!("<= {}", number(bound)),
        };
        let outcome = match verdict.outcome {
            Outcome::Met => "met",
            Outcome::Unclear => "unclear",
            Outcome::Missed => "MISSED",
        };
        table.add_row([verdict.goal.clone(), limit, shown(&verdict.measured), outcome.into()]);
    }
    table
}

fn markdown<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn shown(value: &Summary) -> String {
    if value.samples.len() < 2 {
        return number(value.median);
    }
    format!("{} ({} .. {})", number(value.median), number(value.low), number(value.high))
}

/// Three significant digits, or all of a large whole number.
fn number(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { 2 - value.abs().log10().floor() as i32 };
    let text = format!("{value:.*}", digits.clamp(0, 6) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in
            [(0.0, "0"), (0.012345, "0.0123"), (1.5, "1.5"), (12.345, "12.3"), (8_123_456.0, "8123456"), (99.96, "100")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_unfavourable_end_decides() {
        let measured = Summary { median: 1.1, low: 0.9, high: 1.2, samples: vec![0.9, 1.1, 1.2] };
        let outcome = |limit| Verdict::new("goal", measured.clone(), limit).outcome;
        assert_eq!(outcome(Limit::AtLeast(0.8)), Outcome::Met);
        assert_eq!(outcome(Limit::AtLeast(1.0)), Outcome::Unclear);
        assert_eq!(outcome(Limit::AtLeast(1.15)), Outcome::Missed);
        assert_eq!(outcome(Limit::AtMost(1.0)), Outcome::Missed);
        assert_eq!(outcome(Limit::AtMost(1.2)), Outcome::Met);
    }
}
