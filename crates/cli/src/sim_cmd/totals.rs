//! What a sweep adds up, and how it is told: to people and to programs.

use std::{collections::BTreeMap, time::Duration};

use kvraft_sim::{Choices, Report, Searched, Sometimes, digest};
use serde_json::{Value, json};

use super::{SimArgs, json_of, print_violation, replay_command};

/// What came of one seed of a sweep.
pub(super) struct One {
    pub(super) report: Report,
    /// Of real time, for one run of it.
    pub(super) took: Duration,
    pub(super) is_repeated: bool,
    pub(super) difference: Option<String>,
}

/// What a sweep adds up, shared by its threads.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) seeds: u64,
    events: u64,
    operations: u64,
    virtual_time: Duration,
    sometimes: Sometimes,
    /// Histories that the search took, and those of them on which its budget ran out.
    searched: u64,
    search_unknown: u64,
    /// Seeds that were run twice.
    repeated: u64,
    /// Seeds whose second run was not the first again, with the first event that differs.
    differing: Vec<(u64, String)>,
    /// By check.
    broken: BTreeMap<&'static str, u64>,
    /// By fault in the plan: seeds that had it, and those of them that broke a rule.
    faults: BTreeMap<String, (u64, u64)>,
    pub(super) failures: Vec<Report>,
    /// The same for the same seeds, in whatever order they were run.
    trace_hash: u64,
    /// Real time of all runs that count, one after another.
    busy: Duration,
    /// Virtual time of each seed over its real time.
    speeds: Vec<f64>,
}

/// How fast a sweep was.
struct Speed {
    events_per_second: f64,
    operations_per_second: f64,
    /// Times real time, in the middle of all seeds.
    median: f64,
    /// The most memory that the process had, for each of its threads.
    job_size_bytes: Option<u64>,
}

impl Totals {
    pub(super) fn add(&mut self, one: One) {
        let One { report, took, is_repeated, difference } = one;
        self.seeds += 1;
        self.events += report.event_count;
        self.operations += report.operation_count;
        self.virtual_time += report.virtual_time;
        self.sometimes += report.sometimes;
        self.repeated += u64::from(is_repeated);
        self.differing.extend(difference.map(|text| (report.scenario.seed, text)));
        self.searched += u64::from(report.searched.is_some());
        self.search_unknown += u64::from(report.searched == Some(Searched::Unknown));
        let run = [report.scenario.seed, report.trace_hash].map(u64::to_le_bytes).concat();
        self.trace_hash = self.trace_hash.wrapping_add(digest(&run));
        self.busy += took;
        self.speeds.push(report.virtual_time.as_secs_f64() / took.as_secs_f64().max(1e-9));
        let is_broken = report.violation.is_some();
        let mut faults: Vec<String> = report.scenario.plan.faults().iter().map(word_of).collect();
        faults.sort();
        faults.dedup();
        for fault in faults {
            let (seeds, broken) = self.faults.entry(fault).or_default();
            (*seeds, *broken) = (*seeds + 1, *broken + u64::from(is_broken));
        }
        if let Some(violation) = &report.violation {
            *self.broken.entry(violation.check.name()).or_default() += 1;
            self.failures.push(report);
        }
    }

    pub(super) fn failure_count(&self) -> u64 {
        (self.failures.len() + self.differing.len()) as u64
    }

    /// Counters of what should have happened and did not.
    pub(super) fn never(&self) -> Vec<&'static str> {
        let rows = self.sometimes.rows();
        rows.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    fn speed(&self, jobs: usize) -> Speed {
        let busy = self.busy.as_secs_f64().max(1e-9);
        let mut speeds = self.speeds.clone();
        speeds.sort_by(f64::total_cmp);
        let peak = peak_size_bytes();
        Speed {
            events_per_second: self.events as f64 / busy,
            operations_per_second: self.operations as f64 / busy,
            median: speeds.get(speeds.len() / 2).copied().unwrap_or_default(),
            job_size_bytes: peak.map(|bytes| bytes / jobs.max(1) as u64),
        }
    }

    pub(super) fn json(
        &self,
        args: &SimArgs,
        choices: Choices,
        took: Duration,
        jobs: usize,
    ) -> Value {
        let failures = self
            .failures
            .iter()
            .map(|report| json_of(args, replay_command(choices, report.scenario.seed), report));
        let differing =
            self.differing.iter().map(|(seed, text)| json!({"seed": seed, "first": text}));
        let faults = self
            .faults
            .iter()
            .map(|(name, (seeds, broken))| (name, json!({"seeds": seeds, "broken": broken})));
        let mut value = json!({
            "seeds": self.seeds,
            "operations": self.operations,
            "events": self.events,
            "virtual_seconds": self.virtual_time.as_secs_f64(),
            "seconds": took.as_secs_f64(),
            "trace_hash": format!("{:016x}", self.trace_hash),
            "searched": self.searched,
            "search_unknown": self.search_unknown,
            "repeated": self.repeated,
            "differing": differing.collect::<Vec<_>>(),
            "sometimes": self.sometimes.rows().into_iter().collect::<BTreeMap<_, _>>(),
            "never": self.never(),
            "broken": self.broken,
            "faults": faults.collect::<BTreeMap<_, _>>(),
            "failures": failures.collect::<Vec<_>>(),
        });
        if args.stats {
            let speed = self.speed(jobs);
            value["stats"] = json!({
                "events_per_core_second": speed.events_per_second,
                "operations_per_core_second": speed.operations_per_second,
                "times_real_time_median": speed.median,
                "bytes_per_job": speed.job_size_bytes,
            });
        }
        value
    }

    pub(super) fn print_speed(&self, jobs: usize) {
        let speed = self.speed(jobs);
        println!(
            "for each second of a core: {:.0} events, {:.0} checked operations",
            speed.events_per_second, speed.operations_per_second,
        );
        println!("virtual time is {:.0} times real time in the median seed", speed.median);
        if let Some(bytes) = speed.job_size_bytes {
            println!("at most {} MB of memory for each job", bytes / 1_000_000);
        }
    }

    pub(super) fn print(&self, choices: Choices, took: Duration) {
        println!(
            "{} seeds, {} operations, {} events, {:.0} s of virtual time in {:.1} s",
            self.seeds,
            self.operations,
            self.events,
            self.virtual_time.as_secs_f64(),
            took.as_secs_f64(),
        );
        for (name, count) in self.sometimes.rows() {
            println!("  {count:>10}  {name}");
        }
        println!("{} seeds run twice, {} differed", self.repeated, self.differing.len());
        println!(
            "{} histories searched, {} of them unknown: the budget ran out",
            self.searched, self.search_unknown,
        );
        println!("trace hash of all seeds: {:016x}", self.trace_hash);
        let never = self.never();
        if !never.is_empty() {
            println!("NEVER happened: {}", never.join(", "));
        }
        for (seed, text) in &self.differing {
            println!("\nNOT DETERMINISTIC seed {seed}; the first event that differs:\n{text}");
        }
        if self.failure_count() == 0 {
            println!("clean");
            return;
        }
        self.print_failures(choices);
    }

    fn print_failures(&self, choices: Choices) {
        if self.failures.is_empty() {
            return;
        }
        println!("\n{} seeds broke a rule:", self.failures.len());
        for (check, count) in &self.broken {
            println!("  {count:>10}  {check}");
        }
        println!("by the faults in their plans:");
        for (fault, (seeds, broken)) in &self.faults {
            if 0 < *broken {
                println!("  {broken:>10}  {fault}, of {seeds} seeds with it");
            }
        }
        for report in &self.failures {
            print_violation(&replay_command(choices, report.scenario.seed), report, false);
        }
    }
}

/// The word that a plan calls a fault by.
fn word_of(timed: &kvraft_sim::TimedFault) -> String {
    timed.fault.to_string().split_whitespace().next().unwrap_or_default().to_owned()
}

/// The most memory that this process has had, where the system tells.
fn peak_size_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}
