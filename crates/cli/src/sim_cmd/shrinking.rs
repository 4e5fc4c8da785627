//! `kvraft sim --shrink`: the smallest run that fails alike, and the bundle that shows it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use kvraft_sim::{Judged, Report, Scenario, ShrinkStep, Shrunk, Trial, record_scenario, shrink};
use kvraft_trace::run::Run;

use super::plan_files::{self, Origin};

/// How to search.
pub(super) struct Effort {
    /// Candidates that are tried at once.
    pub(super) jobs: usize,
    /// The search ends after this time with what it has.
    pub(super) time_max: Duration,
    /// No progress bar.
    pub(super) is_quiet: bool,
}

/// What came of a search.
pub(super) struct Found {
    /// The smallest run, run once more with all its events.
    pub(super) report: Report,
    /// The same for people to look at.
    recorded: Option<Run>,
    /// Nothing more can be taken from it.
    pub(super) is_minimal: bool,
    /// Runs that were tried.
    pub(super) tried_count: u64,
    pub(super) took: Duration,
}

/// Shrinks a run that broke a rule; `None` if it broke none.
pub(super) fn search(report: &Report, effort: &Effort) -> Option<Found> {
    let trial = Trial::of(report)?;
    let bar = progress(effort);
    let began = Instant::now();
    let judges = Judges { trial, effort, began, tried_count: AtomicU64::new(0) };
    let whole = report.scenario.plan.len();
    let mut start = report.scenario.clone();
    (start.check, start.config.trace_line_count) = (Some(trial.check), 0);
    let shrunk = shrink(
        start,
        |candidates| {
            bar.set_position(judges.tried_count.load(Ordering::Relaxed));
            judges.judge(candidates)
        },
        |step| bar.set_message(describe(&step, whole)),
    );
    bar.finish_and_clear();
    let Shrunk { mut smallest, is_minimal, .. } = shrunk;
    smallest.config.trace_line_count = usize::MAX;
    let tried_count = judges.tried_count.into_inner();
    let (report, recorded) = record_scenario(smallest);
    Some(Found { report, recorded, is_minimal, tried_count, took: began.elapsed() })
}

fn describe(step: &ShrinkStep<'_, Scenario>, whole: usize) -> String {
    let Scenario { plan, config, .. } = step.smallest;
    let (operations, faults) = (plan.operation_count(), plan.faults().len());
    format!(
        "{operations} operations and {faults} faults of {whole}, {} clients, {} servers",
        plan.clients().len(),
        config.servers
    )
}

fn progress(effort: &Effort) -> ProgressBar {
    if effort.is_quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    let style = "{spinner} {pos} runs tried in {elapsed}: {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

struct Judges<'a> {
    trial: Trial,
    effort: &'a Effort,
    began: Instant,
    tried_count: AtomicU64,
}

impl Judges<'_> {
    /// Tries candidates in their order on several threads. The first that fails counts, and not the
    /// one that is done first, so that the outcome does not depend on how many threads there are.
    fn judge(&self, candidates: &[Scenario]) -> Judged<Scenario> {
        let next = AtomicUsize::new(0);
        let best: Mutex<Option<(usize, Scenario)>> = Mutex::new(None);
        let found = || best.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            for _ in 0..self.effort.jobs.min(candidates.len()) {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let is_late = found().as_ref().is_some_and(|(first, _)| *first < place);
                        if candidates.len() <= place || is_late || self.is_over() {
                            break;
                        }
                        self.tried_count.fetch_add(1, Ordering::Relaxed);
                        if let Some(scenario) = self.trial.fails(&candidates[place]) {
                            let mut found = found();
                            if found.as_ref().is_none_or(|(first, _)| place < *first) {
                                *found = Some((place, scenario));
                            }
                        }
                    }
                });
            }
        });
        match best.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((place, scenario)) => Judged::Fails(place, scenario),
            None if self.is_over() => Judged::Stop,
            None => Judged::NoneFails,
        }
    }

    fn is_over(&self) -> bool {
        self.effort.time_max < self.began.elapsed()
    }
}

/// Writes what somebody needs who was not there: the plan, the events, the history, where it comes
/// from.
///
/// # Errors
/// In words: a file cannot be written.
pub(super) fn write_bundle(
    folder: &Path,
    whole: &Report,
    found: &mut Found,
    origin: &Origin,
) -> Result<(), String> {
    let wrong =
        |path: &Path, error: &std::io::Error| format!("cannot write {}: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| wrong(folder, &error))?;
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| wrong(&path, &error))
    };
    plan_files::write(&plan_path(folder), &found.report.scenario, origin)?;
    plan_files::write(&folder.join("whole.plan"), &whole.scenario, origin)?;
    write("events.txt", found.report.last_events.join("\n") + "\n")?;
    write("history.jsonl", found.report.history.to_jsonl())?;
    write("about.txt", about(folder, whole, found, origin))?;
    let replay = Origin::File(plan_path(folder)).replay();
    let recorded = plan_files::titled(found.recorded.take(), replay)?;
    plan_files::write_page(&folder.join("run.html"), &recorded)
}

/// The plan of a bundle.
pub(super) fn plan_path(folder: &Path) -> PathBuf {
    folder.join("run.plan")
}

fn about(folder: &Path, whole: &Report, found: &Found, origin: &Origin) -> String {
    let mut text = String::new();
    let violation =
        found.report.violation.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let shrunk = if found.is_minimal {
        "nothing more can be taken from it in one step"
    } else {
        "the time was over before everything was tried"
    };
    let lines = [
        ("violation", violation),
        ("replay", Origin::File(plan_path(folder)).replay()),
        ("whole run", origin.replay()),
        ("version", format!("kvraft {}", env!("CARGO_PKG_VERSION"))),
        ("trace hash", format!("{:016x}", found.report.trace_hash)),
        (
            "lines of the plan",
            format!("{} of {}", found.report.scenario.plan.len(), whole.scenario.plan.len()),
        ),
        ("shrunk", format!("{} runs in {:.1?}; {shrunk}", found.tried_count, found.took)),
    ];
    for (name, value) in lines {
        let Ok(()) = writeln!(text, "{name}: {value}") else {
            unreachable!("text takes everything");
        };
    }
    text
}
