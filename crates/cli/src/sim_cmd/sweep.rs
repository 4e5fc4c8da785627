//! `kvraft sim --seeds`: many seeds on all cores, and what a person sees meanwhile.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    ops::Range,
    process::ExitCode,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvraft_sim::{Choices, first_difference, run, run_bounded};

use super::{
    EXIT_DIFFERS, LAST_EVENT_COUNT, SimArgs, exit_code, jobs, print_violation, replay_command,
    totals::{One, Totals},
};

/// One seed in so many of a sweep is run twice: the second run must be the first again.
const REPEATED_ONE_IN: u64 = 20;

/// Which part of a sweep: `index` of `count`, from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    index: u64,
    count: u64,
}

pub(super) fn parse_shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(index, count)| {
        Some(Shard { index: index.parse().ok()?, count: count.parse().ok()? })
    });
    match parts {
        Some(shard) if 1 <= shard.index && shard.index <= shard.count => Ok(shard),
        Some(_) | None => Err("write I/N with I from 1 to N, as in 1/4".to_owned()),
    }
}

pub(super) fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(first, end)| {
        Some(first.trim().parse::<u64>().ok()?..end.trim().parse::<u64>().ok()?)
    });
    match parts {
        Some(range) if range.start < range.end => Ok(range),
        Some(_) => Err("the range is empty: write FIRST..END with FIRST below END".to_owned()),
        None => Err("write FIRST..END, as in 0..1000".to_owned()),
    }
}

/// A sweep under way: what its threads share, and what the status line shows.
struct Sweep<'a> {
    args: &'a SimArgs,
    choices: Choices,
    began: Instant,
    totals: Mutex<Totals>,
    /// Seeds that run now, and since when.
    running: Mutex<BTreeMap<u64, Instant>>,
    bar: ProgressBar,
}

/// Runs the seeds.
pub(super) fn sweep(args: &SimArgs, seeds: Range<u64>) -> ExitCode {
    let jobs = jobs(args);
    let Shard { index, count } = args.shard.unwrap_or(Shard { index: 1, count: 1 });
    let first = seeds.start + (index - 1);
    let sweep = Sweep {
        args,
        choices: args.choices(args.servers, 0),
        began: Instant::now(),
        totals: Mutex::default(),
        running: Mutex::default(),
        bar: progress(seeds.end.saturating_sub(first).div_ceil(count)),
    };
    let next = AtomicU64::new(first);
    let (is_enough, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        if !args.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            let asked = questions();
            let (sweep, is_over) = (&sweep, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    if asked.recv_timeout(Duration::from_millis(100)).is_ok() {
                        sweep.bar.suspend(|| sweep.print_status());
                    }
                }
            });
        }
        let work = || {
            while !is_enough.load(Ordering::Relaxed) {
                let seed = next.fetch_add(count, Ordering::Relaxed);
                if seeds.end <= seed {
                    break;
                }
                if args.max_fail <= sweep.run_seed(seed) {
                    is_enough.store(true, Ordering::Relaxed);
                }
            }
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().expect("a run that panics is a finding, not a panic here");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    sweep.bar.finish_and_clear();
    sweep.tell(jobs)
}

impl Sweep<'_> {
    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one seed, and returns how many have failed by now.
    fn run_seed(&self, seed: u64) -> u64 {
        self.running().insert(seed, Instant::now());
        let one = run_one(self.args, self.choices, seed);
        self.running().remove(&seed);
        if !self.args.json {
            if let Some(violation) = &one.report.violation {
                self.bar.suspend(|| println!("FAIL seed {seed}: {violation}"));
            } else if Duration::from_secs(self.args.slow_seconds) < one.took {
                self.bar.suspend(|| println!("SLOW seed {seed}: {:.1?}", one.took));
            }
        }
        let mut totals = self.totals();
        totals.add(one);
        self.bar.set_position(totals.seeds);
        totals.failure_count()
    }

    fn print_status(&self) {
        let totals = self.totals();
        let took = self.began.elapsed().as_secs_f64().max(1e-9);
        eprintln!(
            "{} seeds in {took:.0} s, {:.1} a second; {} failed",
            totals.seeds,
            totals.seeds as f64 / took,
            totals.failure_count(),
        );
        let never = totals.never();
        if !never.is_empty() {
            eprintln!("not yet happened: {}", never.join(", "));
        }
        for (seed, since) in self.running().iter() {
            eprintln!("seed {seed} runs for {:.1?}", since.elapsed());
        }
    }

    /// Runs the shortest of the seeds that failed once more, with its last events as text: sweeps
    /// keep none.
    fn print_shortest_failure(&self, totals: &Totals) {
        let Some(shortest) = totals.failures.iter().min_by_key(|report| report.event_count) else {
            return;
        };
        let seed = shortest.scenario.seed;
        let choices = Choices { trace_line_count: LAST_EVENT_COUNT, ..self.choices };
        let began = Instant::now();
        let limit = Duration::from_secs(self.args.seed_seconds_max);
        let report = run_bounded(seed, choices, &|| began.elapsed() < limit);
        println!("\nseed {seed}, the shortest of those that failed:");
        print_violation(&replay_command(choices, seed), &report, true);
        println!();
    }

    /// What came of it.
    fn tell(&self, jobs: usize) -> ExitCode {
        let took = self.began.elapsed();
        let totals = self.totals();
        if self.args.json {
            println!("{}", totals.json(self.args, self.choices, took, jobs));
        } else {
            self.print_shortest_failure(&totals);
            totals.print(self.choices, took);
            if self.args.stats {
                totals.print_speed(jobs);
            }
        }
        match (totals.failures.is_empty(), totals.failure_count()) {
            (true, 1..) => ExitCode::from(EXIT_DIFFERS),
            (is_clean, _) => exit_code(!is_clean),
        }
    }
}

fn run_one(args: &SimArgs, choices: Choices, seed: u64) -> One {
    let began = Instant::now();
    let limit = Duration::from_secs(args.seed_seconds_max);
    let report = run_bounded(seed, choices, &|| began.elapsed() < limit);
    let took = began.elapsed();
    // Drawn, and not every so many: each shard must have its share.
    let is_drawn = kvraft_base::Prng::new(seed).fork("repeated").chance(1, REPEATED_ONE_IN);
    let is_repeated = is_drawn && report.violation.is_none();
    let is_equal = !is_repeated || run(seed, choices).trace_hash == report.trace_hash;
    let difference = (!is_equal).then(|| {
        let found = first_difference(seed, choices);
        found.unwrap_or_else(|| "a third and a fourth run were equal again".to_owned())
    });
    One { report, took, is_repeated, difference }
}

/// A message for each line `t` that a person enters. Its thread ends with the process: reading a
/// terminal cannot be given up.
fn questions() -> std::sync::mpsc::Receiver<()> {
    let (asks, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if line.trim() == "t" && asks.send(()).is_err() {
                return;
            }
        }
    });
    asked
}

fn progress(count: u64) -> ProgressBar {
    let bar = ProgressBar::new(count);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
    bar
}
