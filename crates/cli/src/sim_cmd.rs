//! `kvraft sim`: one seeded run, or a sweep over many.

use std::{
    io::IsTerminal,
    ops::Range,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvraft_sim::{Choices, Report, Sometimes, run};

/// A run that broke a rule ends with this code; 0 is clean, 2 a wrong command line.
const EXIT_VIOLATION: u8 = 100;

/// Events printed before a violation.
const LAST_EVENT_COUNT: usize = 60;

/// Arguments of `kvraft sim`.
#[derive(Debug, Args)]
#[command(
    about = "Simulate a cluster under faults, all from one seed",
    long_about = "Simulate a cluster and its clients in this process: no ports, no files. Servers \
        crash, stall, disconnect and come back; the network delays, loses, repeats and divides; \
        every rule is checked on every event. The same seed gives the same run, always.",
    after_help = "Examples:\n  \
        kvraft sim -n 5                    one run of five servers, seed drawn and printed\n  \
        kvraft sim -n 5 --seed 42          the same run again\n  \
        kvraft sim --seeds 0..1000 --jobs 2   a sweep; each seed draws its own cluster size\n\n\
        Exit codes: 0 clean, 100 a rule was broken, 2 wrong arguments."
)]
pub(crate) struct SimArgs {
    /// Servers, 1 to 7 [default: 3 for one run; drawn from each seed in a sweep]
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..=7))]
    servers: Option<u64>,
    /// The seed of one run [default: drawn and printed]
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A sweep over these seeds: FIRST..END, END excluded
    #[arg(long, value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// Threads of a sweep [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
    /// Clients [default: drawn from the seed]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: Option<u64>,
    /// The greatest number of operations a client may draw
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    ops_max: u64,
    /// Stop a sweep after this many seeds that broke a rule
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    max_fail: u64,
    /// Print every event of one run, in columns
    #[arg(long, conflicts_with = "seeds")]
    trace: bool,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(first, end)| {
        Some(first.trim().parse::<u64>().ok()?..end.trim().parse::<u64>().ok()?)
    });
    match parts {
        Some(range) if range.start < range.end => Ok(range),
        Some(_) => Err("the range is empty: write FIRST..END with FIRST below END".to_owned()),
        None => Err("write FIRST..END, as in 0..1000".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn main(args: &SimArgs) -> ExitCode {
    // A panic inside a run is a finding, printed as such: not also as a stack trace.
    std::panic::set_hook(Box::new(|_| {}));
    match &args.seeds {
        Some(seeds) => sweep(args, seeds.clone()),
        None => one(args),
    }
}

fn drawn_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut prng = kvraft_base::Prng::new(u64::try_from(since.as_nanos()).unwrap_or(0));
    prng.below(1 << 32)
}

fn one(args: &SimArgs) -> ExitCode {
    let seed = args.seed.unwrap_or_else(drawn_seed);
    let choices = Choices {
        servers: args.servers.or(Some(3)),
        clients: args.clients,
        ops_max: args.ops_max,
        trace_line_count: if args.trace { usize::MAX } else { LAST_EVENT_COUNT },
    };
    println!("seed {seed}");
    let began = Instant::now();
    let report = run(seed, choices);
    if args.trace {
        print_lines(&report);
    }
    print_summary(&report, began.elapsed());
    match &report.violation {
        None => ExitCode::SUCCESS,
        Some(_) => {
            print_violation(args, choices, &report, !args.trace);
            ExitCode::from(EXIT_VIOLATION)
        }
    }
}

fn print_lines(report: &Report) {
    for line in &report.last_events {
        println!("{line}");
    }
}

fn print_summary(report: &Report, took: Duration) {
    let config = &report.config;
    println!(
        "{} servers, {} clients, {} faults: {} operations, {} entries agreed on, {} leaders, \
         {} events in {:.1} s of virtual time ({:.2} s)",
        config.servers,
        config.clients,
        report.plan.len(),
        report.operation_count,
        report.entry_count,
        report.leader_count,
        report.event_count,
        report.virtual_time.as_secs_f64(),
        took.as_secs_f64(),
    );
    let verdict = if report.violation.is_some() { "a rule was broken" } else { "clean" };
    println!("trace hash {:016x}, {verdict}", report.trace_hash);
}

fn replay_command(args: &SimArgs, choices: Choices, seed: u64) -> String {
    let mut command = format!("kvraft sim --seed {seed}");
    // A sweep without -n draws the size from the seed; one run has its default.
    let servers =
        choices.servers.unwrap_or_else(|| kvraft_sim::ClusterConfig::draw(seed, choices).servers);
    command.push_str(&format!(" -n {servers}"));
    if let Some(clients) = args.clients {
        command.push_str(&format!(" --clients {clients}"));
    }
    if args.ops_max != Choices::default().ops_max {
        command.push_str(&format!(" --ops-max {}", args.ops_max));
    }
    command
}

fn print_violation(args: &SimArgs, choices: Choices, report: &Report, with_events: bool) {
    let Some(violation) = &report.violation else {
        return;
    };
    if with_events && !report.last_events.is_empty() {
        println!("\nthe last events:");
        print_lines(report);
    }
    println!("\nVIOLATION {violation}");
    println!("replay:   {}", replay_command(args, choices, report.seed));
}

/// What a sweep adds up, shared by its threads.
#[derive(Default)]
struct Totals {
    seeds: u64,
    events: u64,
    operations: u64,
    virtual_time: Duration,
    sometimes: Sometimes,
    failures: Vec<Report>,
}

fn sweep(args: &SimArgs, seeds: Range<u64>) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = args.jobs.and_then(|jobs| usize::try_from(jobs).ok()).unwrap_or(cores);
    let choices = Choices {
        servers: args.servers,
        clients: args.clients,
        ops_max: args.ops_max,
        trace_line_count: 0,
    };
    let bar = progress(seeds.end - seeds.start);
    let next = AtomicU64::new(seeds.start);
    let enough = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seeds.end <= seed {
                        break;
                    }
                    let report = run(seed, choices);
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(violation) = &report.violation {
                        bar.suspend(|| println!("FAIL seed {seed}: {violation}"));
                    }
                    totals.add(report);
                    bar.set_position(totals.seeds);
                    if args.max_fail <= totals.failures.len() as u64 {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.print(args, choices, began.elapsed())
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

impl Totals {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.events += report.event_count;
        self.operations += report.operation_count;
        self.virtual_time += report.virtual_time;
        self.sometimes += report.sometimes;
        if report.violation.is_some() {
            self.failures.push(report);
        }
    }

    fn print(&self, args: &SimArgs, choices: Choices, took: Duration) -> ExitCode {
        println!(
            "{} seeds, {} operations, {} events, {:.0} s of virtual time in {:.1} s",
            self.seeds,
            self.operations,
            self.events,
            self.virtual_time.as_secs_f64(),
            took.as_secs_f64(),
        );
        for (name, count) in self.sometimes.rows() {
            let never = if count == 0 { "  NEVER" } else { "" };
            println!("  {count:>10}  {name}{never}");
        }
        if self.failures.is_empty() {
            println!("clean");
            return ExitCode::SUCCESS;
        }
        println!("\n{} seeds broke a rule:", self.failures.len());
        for report in &self.failures {
            print_violation(args, choices, report, false);
        }
        ExitCode::from(EXIT_VIOLATION)
    }
}
