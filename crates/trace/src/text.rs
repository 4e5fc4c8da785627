//! A run as text: a line for each event, a column for its node, so that an eye can follow one.

use std::fmt::Write as _;

use crate::run::{Clock, Event, Fate, Outcome, Run};

/// The whole text, violations first.
#[must_use]
pub fn write(run: &Run) -> String {
    let mut text = format!("{}\n", run.title);
    if !run.command.is_empty() {
        put(&mut text, format_args!("again with: {}\n", run.command));
    }
    if let Some(why) = &run.truncated {
        put(&mut text, format_args!("not everything is here: {why}\n"));
    }
    for violation in &run.violations {
        let at = time(run, violation.at);
        put(
            &mut text,
            format_args!("VIOLATION at {at}: {}: {}\n", violation.check, violation.text),
        );
    }
    text.push('\n');
    let width = run.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or_default();
    for (number, event) in run.events.iter().enumerate() {
        line(run, number, event, width, &mut text);
    }
    if !run.operations.is_empty() {
        text.push_str("\noperations\n");
    }
    for operation in &run.operations {
        let to = operation.to.map_or_else(|| "…".to_owned(), |to| time(run, to));
        let outcome = match operation.outcome {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        };
        let name = &run.nodes[usize::from(operation.client.0)].name;
        put(
            &mut text,
            format_args!(
                "{} to {to}  {name}  {}. {}: {outcome} {}\n",
                time(run, operation.from),
                operation.number,
                operation.text,
                operation.answer
            ),
        );
    }
    text
}

fn line(run: &Run, number: usize, event: &Event, width: usize, text: &mut String) {
    let name = &run.nodes[usize::from(event.node.0)].name;
    // Each node has its own depth, so that its events stand under each other.
    let depth = usize::from(event.node.0) * 2;
    let at = time(run, event.at);
    put(text, format_args!("{number:>7} {at:>12} {:depth$}{name:<width$} {}", "", event.kind));
    for field in &event.fields {
        put(text, format_args!(" {}={}", field.name, field.value));
    }
    if let Some(cause) = event.cause {
        put(text, format_args!(" ← {}", cause.0));
    }
    if event.fate == Some(Fate::Lost) {
        text.push_str(" (lost)");
    }
    text.push('\n');
}

fn time(run: &Run, at: u64) -> String {
    match run.clock {
        Clock::Logical => at.to_string(),
        Clock::Virtual | Clock::Wall => {
            format!("{}.{:06}s", at / 1_000_000_000, at / 1_000 % 1_000_000)
        }
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything");
}
