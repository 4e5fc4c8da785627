//! `kvraft check`: is a recorded history linearizable?

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use kvraft_sim::{History, Searched, judge};

/// A history that contradicts itself ends with this code, as a run of the simulator does.
const EXIT_VIOLATION: u8 = 100;

/// The search could not tell within its budget.
const EXIT_UNKNOWN: u8 = 3;

/// Arguments of `kvraft check`.
#[derive(Debug, Args)]
#[command(
    about = "Check whether a recorded history is linearizable",
    long_about = "Check whether what clients were told can be explained by one store on which \
        every operation took effect at one moment between its call and its return. The file has \
        one event a line: see docs/simulation.md.",
    after_help = "Examples:\n  \
        kvraft sim --seed 42 --history run.jsonl && kvraft check run.jsonl\n\n\
        Exit codes: 0 linearizable, 100 not, 3 unknown, 1 the file cannot be read."
)]
pub(crate) struct CheckArgs {
    /// The history, as JSON lines
    history: PathBuf,
    /// Tries of an operation that the search may take, for each key if keys can be told apart
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    steps_max: u64,
}

/// Runs the command.
pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let name = args.history.display();
    let text =
        std::fs::read_to_string(&args.history).with_context(|| format!("cannot read {name}"))?;
    let history = History::from_jsonl(&text).with_context(|| format!("{name} is no history"))?;
    let judgement = judge(&history, args.steps_max);
    println!(
        "{} operations, {} of them known to have taken effect",
        judgement.operation_count, judgement.known_count
    );
    if judgement.is_placed {
        for violation in &judgement.witness {
            println!("VIOLATION by the recorded order: {violation}");
        }
        if judgement.witness.is_empty() {
            println!("the recorded order explains it");
        }
    }
    println!("search: {}", judgement.searched);
    let unjudged_count = if judgement.is_placed { 0 } else { judgement.unsearched_count };
    if 0 < unjudged_count {
        println!(
            "nobody judged {unjudged_count} reads of the past and compactions: the history has no \
             places"
        );
    }
    Ok(match judgement.searched {
        _ if judgement.is_violated() => ExitCode::from(EXIT_VIOLATION),
        _ if 0 < unjudged_count => ExitCode::from(EXIT_UNKNOWN),
        Searched::Unknown => ExitCode::from(EXIT_UNKNOWN),
        Searched::Linearizable | Searched::Violation(_) => ExitCode::SUCCESS,
    })
}
