//! How fast the simulator is, with all checks on: events, checked operations and virtual time for
//! each second of one core, and the memory that a seed needs.
//!
//! `cargo bench -p kvraft-sim --bench speed [SEEDS]`. The seeds are always the same, so that two
//! versions of the simulator can be compared; `valgrind --tool=callgrind` counts its instructions
//! where the time of a shared machine says little.

#![expect(clippy::disallowed_types, reason = "a benchmark has a clock")]

use std::time::Instant;

use kvraft_sim::{Choices, FaultChoice, Profile, Report, run};

/// Seeds of each shape, unless it is said otherwise.
const SEED_COUNT: u64 = 40;

struct Shape {
    name: &'static str,
    choices: Choices,
}

fn shapes() -> [Shape; 3] {
    let of = |profile| FaultChoice { profile, ..FaultChoice::default() };
    let quiet = Choices { faults: of(Profile::Quiet), ..Choices::default() };
    let everything = Choices { faults: of(Profile::Everything), ..Choices::default() };
    // Five servers, about a hundred operations, faults, healing, convergence.
    let vopr = Choices { servers: Some(5), clients: Some(4), ops_max: 40, ..everything };
    [
        Shape { name: "quiet", choices: quiet },
        Shape { name: "everything", choices: everything },
        Shape { name: "VOPR-shaped", choices: vopr },
    ]
}

fn main() {
    let words = std::env::args().skip(1);
    let seed_count = words.filter_map(|word| word.parse().ok()).next().unwrap_or(SEED_COUNT);
    println!("| shape | seeds | events/s | operations/s | times real time, median | peak MB |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for Shape { name, choices } in shapes() {
        let mut speeds = Vec::new();
        let (mut events, mut operations, mut seconds) = (0, 0, 0.0);
        for seed in 0..seed_count {
            let began = Instant::now();
            let report = run(seed, choices);
            let took = began.elapsed().as_secs_f64();
            assert_clean(name, &report);
            (events, operations) =
                (events + report.event_count, operations + report.operation_count);
            seconds += took;
            speeds.push(report.virtual_time.as_secs_f64() / took);
        }
        speeds.sort_by(f64::total_cmp);
        println!(
            "| {name} | {seed_count} | {:.0} | {:.0} | {:.0} | {:.0} |",
            events as f64 / seconds,
            operations as f64 / seconds,
            speeds[speeds.len() / 2],
            peak_megabytes().unwrap_or_default(),
        );
    }
}

fn assert_clean(name: &str, report: &Report) {
    let seed = report.scenario.seed;
    assert_eq!(report.violation, None, "seed {seed} of {name} is no measure");
}

/// The most memory that this process has had so far, where the system tells.
fn peak_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024.0 / 1e6)
}
