//! Simulates seeds from one on until a named check fails, makes that run smaller, and says what it
//! took in one line of JSON. `cargo xtask bugs` builds it anew for each planted bug.
//!
//! Why not `kvraft sim`: that is built with servers, clients and everything they stand on, and is
//! slow to build. This is the simulator and little more.
//!
//! Invariants:
//! - only the named check counts; what else fails on the way is told beside it;
//! - it ends when its time is over, whatever a bug does to a run, as long as the lanes return.

mod search;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use kvraft_sim::{Scenario, page, record_scenario};
use serde_json::{Value, json};

use search::{Found, Hunt, Wanted, shrunk};

/// Looks for one broken rule from a seed on.
#[derive(Parser)]
#[command(name = "hunt")]
struct Arguments {
    /// The first seed
    #[arg(long)]
    from: u64,
    /// How many seeds at most
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    seeds: u64,
    /// The check that must fail, by its name; `any`; `deterministic`: each seed runs twice and must
    /// be the same; or `happens:WHAT`: something that a sweep counts never happens in all seeds
    #[arg(long)]
    check: Wanted,
    /// Seconds for the search
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds to make what was found smaller: 0 leaves it
    #[arg(long, default_value_t = 0)]
    shrink_seconds: u64,
    /// Threads
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Write what was found into this folder: `run.plan`, and `run.html`, which shows it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Say on stderr how far it has come
    #[arg(long)]
    progress: bool,
}

fn main() -> ExitCode {
    match hunt(&Arguments::parse()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What came of it, in one line.
fn hunt(arguments: &Arguments) -> Result<Value, String> {
    // A panic inside a run is a finding, and counted as such.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let hunt = Hunt {
        wanted: &arguments.check,
        from: arguments.from,
        seeds: arguments.seeds,
        until: began + Duration::from_secs(arguments.seconds),
        jobs: arguments.jobs.max(1),
        is_loud: arguments.progress,
    };
    let found = hunt.run();
    let seconds = began.elapsed().as_secs_f64();
    let shrunk = shrink(arguments, &found);
    let smallest = shrunk.as_ref().map(|(smallest, _)| smallest);
    let whole = found.report.as_ref().map(|report| &report.scenario);
    if let (Some(folder), Some(run)) = (&arguments.out, smallest.or(whole)) {
        write(folder, run)?;
    }
    let others: BTreeMap<&str, u64> = found.others.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    Ok(json!({
        "seeds": found.seed_count,
        "seconds": seconds,
        "found": found.report.as_ref().map(|report| report.scenario.seed),
        "is_found": found.is_found,
        "check": found.report.as_ref().and_then(|it| it.violation.as_ref()).map(|it| it.check.name()),
        "detail": found.detail,
        "others": others,
        "shrunk": shrunk.map(|(smallest, is_minimal)| json!({
            "operations": smallest.plan.operation_count(),
            "faults": smallest.plan.faults().len(),
            "is_minimal": is_minimal,
            "plan": smallest.to_string(),
        })),
    }))
}

/// What is left of the run, when there is one and time was given, and whether that is minimal.
fn shrink(arguments: &Arguments, found: &Found) -> Option<(Scenario, bool)> {
    let report = found.report.as_ref().filter(|_| 0 < arguments.shrink_seconds)?;
    let until = Instant::now() + Duration::from_secs(arguments.shrink_seconds);
    shrunk(report, until, arguments.progress)
}

/// Writes a run, and the page that shows it.
fn write(folder: &Path, run: &Scenario) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("cannot write into {}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(wrong)?;
    let plan = folder.join("run.plan");
    std::fs::write(&plan, run.to_string()).map_err(wrong)?;
    let (_, recorded) = record_scenario(run.clone());
    let mut recorded = recorded.ok_or("the cluster could not be set up: nothing to show")?;
    recorded.command = format!("kvraft sim --plan {}", plan.display());
    std::fs::write(folder.join("run.html"), page(&[&recorded])).map_err(wrong)
}
