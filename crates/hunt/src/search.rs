//! The search itself: seeds on several threads, and what is left of the run that was found.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use kvraft_sim::{Check, Choices, Judged, Report, Scenario, Sometimes, Trial, run_bounded, shrink};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This check fails.
    Fails(Check),
    /// Some check fails.
    FailsAny,
    /// Two runs of one seed differ.
    Differs,
    /// What a sweep counts under this name never happens.
    Never(String),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("happens:")) {
            ("any", _) => Ok(Self::FailsAny),
            ("deterministic", _) => Ok(Self::Differs),
            (_, Some(what)) => {
                let rows = Sometimes::default().rows();
                let is_known = rows.iter().any(|(name, _)| *name == what);
                let unknown = || format!("a sweep counts nothing of the name {what}");
                is_known.then(|| Self::Never(what.to_owned())).ok_or_else(unknown)
            }
            (name, None) => Ok(Self::Fails(name.parse()?)),
        }
    }
}

/// How to search.
pub(crate) struct Hunt<'a> {
    pub(crate) wanted: &'a Wanted,
    pub(crate) from: u64,
    pub(crate) seeds: u64,
    pub(crate) until: Instant,
    pub(crate) jobs: usize,
    /// Says on stderr how many seeds there were, more and more seldom.
    pub(crate) is_loud: bool,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) is_found: bool,
    /// The run that broke the rule.
    pub(crate) report: Option<Report>,
    pub(crate) detail: String,
    /// Runs that were done.
    pub(crate) seed_count: u64,
    /// Other checks that failed on the way, and how often.
    pub(crate) others: BTreeMap<String, u64>,
    sometimes: Sometimes,
}

impl Hunt<'_> {
    /// Seeds one after another until the first find.
    pub(crate) fn run(&self) -> Found {
        let (next, enough) = (AtomicU64::new(0), AtomicBool::new(false));
        let found = Mutex::new(Found::default());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while !enough.load(Ordering::Relaxed) && self.has_time() {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if self.seeds <= number {
                            break;
                        }
                        let (report, differs) = self.run_one(self.from.wrapping_add(number));
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        if self.has_time() && !found.is_found {
                            found.add(self.wanted, report, differs);
                            found.say(self.is_loud);
                        }
                        // Whether something never happens is known at the end.
                        enough.store(found.is_found, Ordering::Relaxed);
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Wanted::Never(what) = self.wanted {
            found.look_for(what);
        }
        found
    }

    fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    /// A run, and whether a second one of the same seed differs if that is looked for.
    fn run_one(&self, seed: u64) -> (Report, bool) {
        let run = || run_bounded(seed, Choices::default(), &|| self.has_time());
        let report = run();
        let differs = *self.wanted == Wanted::Differs && run().trace_hash != report.trace_hash;
        (report, differs)
    }
}

impl Found {
    fn add(&mut self, wanted: &Wanted, report: Report, differs: bool) {
        self.seed_count += 1;
        self.sometimes += report.sometimes;
        if differs {
            self.is_found = true;
            self.detail = format!("two runs of seed {} differ", report.scenario.seed);
            return;
        }
        let Some(violation) = &report.violation else { return };
        if *wanted == Wanted::FailsAny || *wanted == Wanted::Fails(violation.check) {
            self.is_found = true;
            self.detail = violation.to_string();
            self.report = Some(report);
            return;
        }
        *self.others.entry(violation.check.name().to_owned()).or_default() += 1;
    }

    fn say(&self, is_loud: bool) {
        if is_loud && self.is_found {
            eprintln!("  {} in run {}", self.detail.lines().next().unwrap_or(""), self.seed_count);
        } else if is_loud && self.seed_count.is_power_of_two() {
            eprintln!("  {} runs", self.seed_count);
        }
    }

    fn look_for(&mut self, what: &str) {
        let rows = self.sometimes.rows();
        let count = rows.iter().find(|(name, _)| *name == what).map_or(0, |(_, count)| *count);
        self.is_found = count == 0;
        self.detail = format!("{what}: {count} times in {} seeds", self.seed_count);
    }
}

/// The smallest run that fails the same check, as far as time allows, and whether nothing more can
/// be taken from it. `None` if the run failed no check.
pub(crate) fn shrunk(report: &Report, until: Instant, is_loud: bool) -> Option<(Scenario, bool)> {
    let trial = Trial::of(report)?;
    let start = Scenario { check: Some(trial.check), ..report.scenario.clone() };
    let judge = |candidates: &[Scenario]| {
        for (place, candidate) in candidates.iter().enumerate() {
            if until <= Instant::now() {
                return Judged::Stop;
            }
            if let Some(scenario) = trial.fails(candidate) {
                return Judged::Fails(place, scenario);
            }
        }
        Judged::NoneFails
    };
    let mut said = None;
    let shrunk = shrink(start, judge, |step| {
        let plan = &step.smallest.plan;
        let left = (plan.operation_count(), plan.faults().len());
        if is_loud && said.replace(left) != Some(left) {
            eprintln!("  {} operations and {} faults are left", left.0, left.1);
        }
    });
    Some((shrunk.smallest, shrunk.is_minimal))
}
