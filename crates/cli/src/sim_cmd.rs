//! `kvraft sim`: one seeded run, or a sweep over many.

mod plan_files;
mod shrinking;
mod sweep;
mod totals;
mod ui;

use std::{
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use kvraft_sim::{
    Choices, FaultChoice, FaultKind, Profile, Report, Scenario, record_scenario, run_scenario,
};
use serde_json::{Value, json};

use plan_files::Origin;

/// A run that broke a rule ends with this code; 0 is clean, 2 a wrong command line.
const EXIT_VIOLATION: u8 = 100;

/// No rule was broken, but a seed's second run was not the first again.
const EXIT_DIFFERS: u8 = 101;

/// A file that cannot be read or written ends with the code of a wrong command line.
const EXIT_USAGE: u8 = 2;

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
        kvraft sim --seeds 0..1000 --jobs 2   a sweep; each seed draws its own cluster size\n  \
        kvraft sim --seeds 0..1000 --profile disk --faults=-power   some faults only\n  \
        kvraft sim --seed 42 --write-plan run.plan   the run as text, to look at and to edit\n  \
        kvraft sim --plan run.plan         what that text says\n  \
        kvraft sim --seed 42 --shrink      the smallest run that breaks the same rule\n\n\
        During a sweep on a terminal, t and Enter show how it stands.\n\n\
        Exit codes: 0 clean, 100 a rule was broken, 101 two runs of one seed differed,\n\
        2 wrong arguments or a file that cannot be read or written."
)]
pub(crate) struct SimArgs {
    /// Servers, 1 to 7 [default: 3 for one run; drawn from each seed in a sweep]
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..=7))]
    servers: Option<u64>,
    /// The seed of one run [default: drawn and printed]
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A sweep over these seeds: FIRST..END, END excluded
    #[arg(long, value_parser = sweep::parse_seeds)]
    seeds: Option<Range<u64>>,
    /// Threads of a sweep or of shrinking [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
    /// Clients [default: drawn from the seed]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: Option<u64>,
    /// The greatest number of operations a client may draw
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    ops_max: u64,
    /// Virtual seconds in which things go wrong [default: drawn from the seed]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Faults that a seed may draw
    #[arg(long, default_value = "everything", value_parser = profiles())]
    profile: String,
    // Its help names them all.
    #[arg(
        long,
        value_name = "NAMES",
        help = faults_help(),
        allow_hyphen_values = true,
        value_parser = parse_faults
    )]
    faults: Option<String>,
    /// Simulate only the I-th of N equal parts of the seeds, as in 1/4
    #[arg(long, value_name = "I/N", requires = "seeds", value_parser = sweep::parse_shard)]
    shard: Option<sweep::Shard>,
    /// Seconds of real time for one seed of a sweep; one that takes longer counts as broken
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    seed_seconds_max: u64,
    /// Name a seed of a sweep that takes longer than this, in seconds of real time
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    slow_seconds: u64,
    /// Print how fast a sweep was: events, operations and virtual time for each second of a core,
    /// and the memory that it needed
    #[arg(long, requires = "seeds")]
    stats: bool,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
    /// Write the history of one run to this file, for `kvraft check`
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    history: Option<PathBuf>,
    /// Write a page that shows one run to this file: open it with a browser
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    html: Option<PathBuf>,
    /// Write the traces of one run into this folder: trace_output.log and shiviz_output.log, as
    /// `kvraft tracing-server` does
    #[arg(long, value_name = "DIR", conflicts_with = "seeds")]
    trace_dir: Option<PathBuf>,
    /// Run what this file says, instead of drawing a run
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "seed", "seeds", "servers", "clients", "ops_max", "seconds", "profile", "faults"
        ]
    )]
    plan: Option<PathBuf>,
    /// Write one run to this file before it begins: its settings, its operations and its faults
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    write_plan: Option<PathBuf>,
    /// When the run breaks a rule, look for the smallest one that breaks the same rule, and write
    /// it to a folder: its plan, its events, its history
    #[arg(long, conflicts_with = "seeds")]
    shrink: bool,
    /// Seconds of real time for that
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..),
        requires = "shrink"
    )]
    shrink_time: u64,
    /// The folder [default: shrunk-SEED]
    #[arg(long, value_name = "DIR", requires = "shrink")]
    out: Option<PathBuf>,
    /// Serve a page on this machine alone that shows the run while it goes on, with buttons to stop
    /// and step it, to break things and to mend them
    #[arg(
        long,
        conflicts_with_all = ["seeds", "html", "history", "write_plan", "shrink", "trace", "json"]
    )]
    ui: bool,
    /// Port of that page [default: one that is free]
    #[arg(long, value_name = "PORT", default_value_t = 0, requires = "ui")]
    ui_port: u16,
    /// Stop a sweep after this many seeds that broke a rule
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    max_fail: u64,
    /// Print every event of one run, in columns
    #[arg(long, conflicts_with = "seeds")]
    trace: bool,
}

fn profiles() -> clap::builder::PossibleValuesParser {
    let names: Vec<_> = Profile::ALL.iter().map(|profile| profile.name()).collect();
    clap::builder::PossibleValuesParser::new(names)
}

fn faults_help() -> String {
    let names: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
    let what = "Faults in every seed (NAME) and in none (-NAME), separated by commas";
    format!("{what}: {}", names.join(", "))
}

fn parse_faults(text: &str) -> Result<String, String> {
    FaultChoice::default().switch(text).map(FaultChoice::switches)
}

impl SimArgs {
    fn choices(&self, servers: Option<u64>, trace_line_count: usize) -> Choices {
        let profile = self.profile.parse().expect("only names of profiles are accepted");
        let faults = FaultChoice { profile, ..FaultChoice::default() };
        let faults = faults
            .switch(self.faults.as_deref().unwrap_or_default())
            .expect("only names of faults are accepted");
        Choices {
            servers,
            clients: self.clients,
            ops_max: self.ops_max,
            first_phase: self.seconds.map(Duration::from_secs),
            faults,
            trace_line_count,
        }
    }
}

/// Runs the command.
pub(crate) fn main(args: &SimArgs) -> ExitCode {
    // A panic inside a run is a finding, printed as such: not also as a stack trace.
    std::panic::set_hook(Box::new(|_| {}));
    match &args.seeds {
        Some(seeds) => sweep::sweep(args, seeds.clone()),
        None => one(args),
    }
}

fn drawn_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut prng = kvraft_base::Prng::new(u64::try_from(since.as_nanos()).unwrap_or(0));
    prng.below(1 << 32)
}

/// The run of the command line, and where it comes from.
fn scenario_of(args: &SimArgs) -> Result<(Scenario, Origin), String> {
    let trace_line_count = if args.trace { usize::MAX } else { LAST_EVENT_COUNT };
    if let Some(path) = &args.plan {
        let mut scenario = plan_files::read(path)?;
        scenario.config.trace_line_count = trace_line_count;
        return Ok((scenario, Origin::File(path.clone())));
    }
    let seed = args.seed.unwrap_or_else(drawn_seed);
    let choices = args.choices(args.servers.or(Some(3)), trace_line_count);
    let origin = Origin::Drawn(replay_command(choices, seed));
    Ok((Scenario::draw(seed, choices), origin))
}

fn one(args: &SimArgs) -> ExitCode {
    match run_one_scenario(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run_one_scenario(args: &SimArgs) -> Result<ExitCode, String> {
    let (scenario, origin) = scenario_of(args)?;
    if args.ui {
        return ui::serve(scenario, origin.replay(), args.ui_port);
    }
    if let Some(path) = &args.write_plan {
        plan_files::write(path, &scenario, &origin)?;
    }
    if !args.json {
        println!("seed {}", scenario.seed);
    }
    let began = Instant::now();
    let report = run_as_asked(args, scenario, &origin)?;
    if let Some(path) = &args.history {
        std::fs::write(path, report.history.to_jsonl())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let took = began.elapsed();
    if args.shrink && report.violation.is_some() {
        return shrink_one(args, &report, &origin);
    }
    if args.json {
        println!("{}", json_of(args, origin.replay(), &report));
        return Ok(exit_code(report.violation.is_some()));
    }
    if args.trace {
        print_lines(&report);
    }
    print_summary(&report, took);
    print_violation(&origin.replay(), &report, !args.trace);
    Ok(exit_code(report.violation.is_some()))
}

/// Runs it, and writes what shows it: a page, its traces.
fn run_as_asked(args: &SimArgs, scenario: Scenario, origin: &Origin) -> Result<Report, String> {
    if args.html.is_none() && args.trace_dir.is_none() {
        return Ok(run_scenario(scenario, &|| true));
    }
    let (report, recorded) = record_scenario(scenario);
    let recorded = plan_files::titled(recorded, origin.replay())?;
    if let Some(path) = &args.html {
        plan_files::write_page(path, &recorded)?;
    }
    if let Some(folder) = &args.trace_dir {
        plan_files::write_traces(folder, &recorded)?;
    }
    Ok(report)
}

/// Shrinks a run that broke a rule, and shows what is left of it.
fn shrink_one(args: &SimArgs, whole: &Report, origin: &Origin) -> Result<ExitCode, String> {
    let effort = shrinking::Effort {
        jobs: jobs(args),
        time_max: Duration::from_secs(args.shrink_time),
        is_quiet: args.json,
    };
    if !args.json {
        print_violation(&origin.replay(), whole, false);
    }
    let mut found = shrinking::search(whole, &effort).expect("it broke a rule");
    let folder = args.out.clone();
    let folder = folder.unwrap_or_else(|| format!("shrunk-{}", whole.scenario.seed).into());
    shrinking::write_bundle(&folder, whole, &mut found, origin)?;
    let replay = Origin::File(shrinking::plan_path(&folder)).replay();
    let plan = &found.report.scenario.plan;
    if args.json {
        let mut json = json_of(args, replay, &found.report);
        json["plan_lines"] = json!(plan.len());
        json["plan_lines_before"] = json!(whole.scenario.plan.len());
        json["minimal"] = json!(found.is_minimal);
        json["shrink_seconds"] = json!(found.took.as_secs_f64());
        println!("{json}");
        return Ok(exit_code(true));
    }
    println!("\n{} runs tried in {:.1?}; what is left:\n", found.tried_count, found.took);
    print!("{}", found.report.scenario);
    print_violation(&replay, &found.report, false);
    println!("bundle:   {}", folder.display());
    Ok(exit_code(true))
}

fn exit_code(is_broken: bool) -> ExitCode {
    if is_broken { ExitCode::from(EXIT_VIOLATION) } else { ExitCode::SUCCESS }
}

fn json_of(args: &SimArgs, replay: String, report: &Report) -> Value {
    json!({
        "seed": report.scenario.seed,
        "check": report.violation.as_ref().map(|violation| violation.check.name()),
        "detail": report.violation.as_ref().map(|violation| violation.detail.clone()),
        "replay": replay,
        "profile": args.profile,
        "servers": report.scenario.config.servers,
        "events": report.event_count,
        "operations": report.operation_count,
        "virtual_seconds": report.virtual_time.as_secs_f64(),
        "trace_hash": format!("{:016x}", report.trace_hash),
    })
}

fn print_lines(report: &Report) {
    for line in &report.last_events {
        println!("{line}");
    }
}

fn print_summary(report: &Report, took: Duration) {
    let config = &report.scenario.config;
    println!(
        "{} servers, {} clients, {} faults: {} operations, {} entries agreed on, {} leaders, \
         {} events in {:.1} s of virtual time ({:.2} s)",
        config.servers,
        report.scenario.plan.clients().len(),
        report.scenario.plan.faults().len(),
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

fn replay_command(choices: Choices, seed: u64) -> String {
    let mut command = format!("kvraft sim --seed {seed}");
    // A sweep without -n draws the size from the seed; one run has its default.
    let servers =
        choices.servers.unwrap_or_else(|| kvraft_sim::ClusterConfig::draw(seed, choices).servers);
    command.push_str(&format!(" -n {servers}"));
    if let Some(clients) = choices.clients {
        command.push_str(&format!(" --clients {clients}"));
    }
    if choices.ops_max != Choices::default().ops_max {
        command.push_str(&format!(" --ops-max {}", choices.ops_max));
    }
    if let Some(first_phase) = choices.first_phase {
        command.push_str(&format!(" --seconds {}", first_phase.as_secs()));
    }
    if choices.faults.profile != Profile::default() {
        command.push_str(&format!(" --profile {}", choices.faults.profile.name()));
    }
    let switches = choices.faults.switches();
    if !switches.is_empty() {
        command.push_str(&format!(" --faults={switches}"));
    }
    command
}

fn print_violation(replay: &str, report: &Report, with_events: bool) {
    let Some(violation) = &report.violation else {
        return;
    };
    if with_events && !report.last_events.is_empty() {
        println!("\nthe last events:");
        print_lines(report);
    }
    println!("\nVIOLATION {violation}");
    println!("replay:   {replay}");
}

/// Threads of a sweep or of shrinking.
fn jobs(args: &SimArgs) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    args.jobs.and_then(|jobs| usize::try_from(jobs).ok()).unwrap_or(cores)
}
