//! What came of planted bugs, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::Score;
use crate::planted::{Bug, Judge};

/// Who must find a bug, in a few words.
pub(super) fn judge(bug: &Bug) -> String {
    match &bug.judge {
        Judge::Check(check) => check.clone(),
        Judge::AnyCheck => "any check".to_owned(),
        Judge::Test(arguments) => format!("test {}", arguments.join(" ")),
        Judge::Model => "the model checker".to_owned(),
    }
}

/// What one search came to, in a line.
pub(super) fn found(found: &Value) -> String {
    let (seeds, seconds) = (&found["seeds"], found["seconds"].as_f64().unwrap_or_default());
    let verdict = if found["is_found"] == Value::Bool(true) { "found" } else { "NOT FOUND" };
    let detail: String = found["detail"].as_str().unwrap_or_default().chars().take(160).collect();
    let mut text = format!("{verdict} in {seeds} seeds, {seconds:.1} s: {detail}");
    if found["others"].as_object().is_some_and(|others| !others.is_empty()) {
        text.push_str(&format!("; also {}", found["others"]));
    }
    if let Some(plan) = found["shrunk"]["plan"].as_str() {
        text.push_str(&format!("\n{plan}"));
    }
    text
}

/// The score as Markdown.
pub(super) fn table(scores: &[Score]) -> String {
    let mut text = String::from(
        "| bug | found by | caught | seeds p50 | p90 | seconds p50 | p90 | shrunk: operations + \
         faults | others before |\n|---|---|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for score in scores {
        let Ok(()) = writeln!(text, "{}", row(score)) else {
            unreachable!("text takes everything");
        };
    }
    let mut builds: Vec<f64> = scores.iter().map(|score| score.build_seconds).collect();
    let caught = scores.iter().filter(|score| score.is_caught()).count();
    let mut medians: Vec<f64> = scores.iter().filter_map(|score| seconds(score, 50)).collect();
    let lengths = scores.iter().filter_map(|score| score.shrunk);
    let mut lengths: Vec<f64> =
        lengths.map(|(operations, faults, _)| (operations + faults) as f64).collect();
    let summary = format!(
        "\n{caught} of {} bugs caught from every starting seed; median of the medians {}, greatest \
         {}; plans of {} operations and faults at the median; {} to build each.\n",
        scores.len(),
        shown(percentile(&mut medians, 50), " s"),
        shown(percentile(&mut medians, 100), " s"),
        percentile(&mut lengths, 50).map_or_else(|| "–".to_owned(), |length| length.to_string()),
        shown(percentile(&mut builds, 50), " s"),
    );
    text + &summary
}

fn row(score: &Score) -> String {
    let caught = score.runs.iter().filter(|run| run.is_found).count();
    let seeds = |percent| {
        let found = score.runs.iter().filter(|run| run.is_found && 0 < run.seeds);
        let mut seeds: Vec<f64> = found.map(|run| run.seeds as f64).collect();
        percentile(&mut seeds, percent).map_or_else(|| "–".to_owned(), |seeds| seeds.to_string())
    };
    let shrunk = score.shrunk.map_or_else(
        || "–".to_owned(),
        |(operations, faults, is_minimal)| {
            format!("{operations} + {faults}{}", if is_minimal { "" } else { " (time over)" })
        },
    );
    let mut others: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in score.runs.iter().flat_map(|run| &run.others) {
        *others.entry(name).or_default() += count;
    }
    let others: Vec<_> = others.iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!(
        "| {} | {} | {caught}/{} | {} | {} | {} | {} | {shrunk} | {} |",
        score.bug.name,
        found_by(score),
        score.runs.len(),
        seeds(50),
        seeds(90),
        shown(seconds(score, 50), ""),
        shown(seconds(score, 90), ""),
        others.join(", "),
    )
}

/// Who must find it; where that is left open, who did, and how often.
fn found_by(score: &Score) -> String {
    if score.bug.judge != Judge::AnyCheck {
        return judge(&score.bug);
    }
    let mut checks: BTreeMap<&str, u64> = BTreeMap::new();
    for check in score.runs.iter().filter_map(|run| run.check.as_deref()) {
        *checks.entry(check).or_default() += 1;
    }
    let checks: Vec<_> = checks.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if checks.is_empty() { "nobody".to_owned() } else { checks.join(", ") }
}

fn seconds(score: &Score, percent: usize) -> Option<f64> {
    let found = score.runs.iter().filter(|run| run.is_found);
    let mut seconds: Vec<f64> = found.map(|run| run.seconds).collect();
    percentile(&mut seconds, percent)
}

fn shown(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}{unit}"))
}

/// The nearest rank: a value that was measured, not one between two.
fn percentile(values: &mut [f64], percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_measured_values() {
        let mut values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(percentile(&mut values, 50), Some(3.0));
        assert_eq!(percentile(&mut values, 90), Some(5.0));
        assert_eq!(percentile(&mut [], 50), None);
    }
}
