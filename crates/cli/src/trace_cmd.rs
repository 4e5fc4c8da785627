//! `kvraft trace`: looks at recorded traces, and turns them into what other viewers read.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use kvraft_trace::{
    convert::run_of_log,
    perfetto,
    record::Log,
    rules::{self, Verdict},
    shiviz, text, verify,
};

/// A trace that breaks a rule, or has clocks that cannot be believed, ends with this code.
const EXIT_VIOLATION: u8 = 100;

/// What is wrong with a trace is listed up to so many lines.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Arguments of `kvraft trace`.
#[derive(Debug, Args)]
#[command(
    about = "Convert, check and verify recorded traces",
    long_about = "Convert, check and verify recorded traces, of kvraft and of other programs that \
        write trace_output.log (JSON lines) or shiviz_output.log. Which one a file is, is seen \
        from its first line."
)]
pub(crate) struct TraceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Convert(ConvertArgs),
    Check(CheckArgs),
    Verify(VerifyArgs),
}

/// Convert a trace into what a viewer reads
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvraft trace convert --to shiviz trace_output.log -o shiviz.log
      ShiViz takes few events at a time: a long trace becomes shiviz.1.log, shiviz.2.log …
  kvraft trace convert --to perfetto trace_output.log -o run.json
      Open it at https://ui.perfetto.dev
  kvraft trace convert --to html shiviz_output.log -o run.html
  kvraft trace convert --to text trace_output.log | less")]
struct ConvertArgs {
    /// Into what
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Format,
    /// The trace
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write; the standard output if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Events of a window for ShiViz, at most
    #[arg(long, default_value_t = shiviz::WINDOW_EVENTS_MAX, value_name = "COUNT",
          value_parser = window_size)]
    window: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Windows that ShiViz takes: clocks from 1, without holes
    Shiviz,
    /// JSON for Perfetto and Chrome
    Perfetto,
    /// A page that shows it, in one file
    Html,
    /// A line for each event
    Text,
    /// JSON lines, as in trace_output.log
    Json,
}

/// Judge a trace by Raft's rules
///
/// Rules are evaluated over what happened before what. A rule whose actions do not occur in the
/// trace does not apply to it. A process that is killed takes its last records along: a rule that
/// asks for one of those is neither kept nor broken but unknown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvraft trace check trace_output.log

Exit codes: 0 no rule is broken, though some may be unknown, 100 one is broken, 1 the file cannot be judged.")]
struct CheckArgs {
    /// The trace
    file: PathBuf,
}

/// Verify the clocks of a trace: no holes, no steps back, no cycles
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvraft trace verify shiviz_output.log
  kvraft trace verify --all shiviz_output.log | less

Exit codes: 0 the clocks are right, 100 they are not, 1 the file cannot be read.")]
struct VerifyArgs {
    /// The trace
    file: PathBuf,
    /// Print every problem, not only the first 20
    #[arg(long)]
    all: bool,
}

/// Runs the command.
pub(crate) fn run(args: &TraceArgs) -> Result<ExitCode> {
    match &args.command {
        Command::Convert(args) => convert(args),
        Command::Check(args) => check(&args.file),
        Command::Verify(args) => verify(args),
    }
}

fn window_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a window has room for at least 1 event".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(format!("{error}")),
    }
}

/// Reads a trace; says so if its end is missing.
fn read(path: &Path) -> Result<Log> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let log = Log::read(&bytes).with_context(|| format!("{name} is no trace"))?;
    if log.cut_short {
        eprintln!("note: the last line of {name} ends in the middle and is left out");
    }
    Ok(log)
}

fn convert(args: &ConvertArgs) -> Result<ExitCode> {
    let log = read(&args.file)?;
    let name = args.file.display().to_string();
    let as_run = || run_of_log(&log, &name).with_context(|| name.clone());
    let text = match args.to {
        Format::Shiviz => {
            let windows = shiviz::windows(&log, args.window).with_context(|| name.clone())?;
            return write_windows(args.output.as_deref(), &windows);
        }
        Format::Perfetto => perfetto::write(&as_run()?),
        Format::Html => kvraft_trace::run::page(&[&as_run()?]),
        Format::Text => text::write(&as_run()?),
        Format::Json => log.to_json_lines(),
    };
    write(args.output.as_deref(), &text)?;
    Ok(ExitCode::SUCCESS)
}

fn write(path: Option<&Path>, text: &str) -> Result<()> {
    match path {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        }
        None => match std::io::stdout().lock().write_all(text.as_bytes()) {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write"),
        },
    }
}

/// One file for one window; several are numbered before the ending of their name.
fn write_windows(path: Option<&Path>, windows: &[String]) -> Result<ExitCode> {
    let Some(path) = path.filter(|_| windows.len() != 1) else {
        if 1 < windows.len() {
            bail!(
                "the trace is too long for one window of ShiViz: give -o FILE, and it is written \
                 in {} files",
                windows.len()
            );
        }
        write(path, windows.first().map_or("", String::as_str))?;
        return Ok(ExitCode::SUCCESS);
    };
    for (number, window) in (1..).zip(windows) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let ending = path.extension().map(|it| format!(".{}", it.to_string_lossy()));
        let name = format!("{stem}.{number}{}", ending.unwrap_or_default());
        let path = path.with_file_name(name);
        write(Some(&path), window)?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path) -> Result<ExitCode> {
    let log = read(path)?;
    let name = path.display().to_string();
    let judged = rules::judge(&log).with_context(|| name)?;
    let (mut broken, mut unknown) = (0, 0);
    for (rule, verdict) in judged {
        match verdict {
            Verdict::Held => println!("kept            {}: {}", rule.name, rule.says),
            Verdict::NotApplicable { why } => println!("not applicable  {}: {why}", rule.name),
            Verdict::Unknown(findings) => {
                unknown += 1;
                println!("unknown         {}: {}", rule.name, rule.says);
                list(&findings, PROBLEMS_SHOWN_MAX);
            }
            Verdict::Broken(findings) => {
                broken += 1;
                println!("BROKEN          {}: {}", rule.name, rule.says);
                list(&findings, PROBLEMS_SHOWN_MAX);
            }
        }
    }
    let unknown = if unknown == 0 { String::new() } else { format!(", {unknown} unknown") };
    println!("{} records, {broken} rules broken{unknown}", log.records.len());
    Ok(exit_code(broken != 0))
}

fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let log = read(&args.file)?;
    let problems = verify::verify(&log);
    list(&problems, if args.all { usize::MAX } else { PROBLEMS_SHOWN_MAX });
    println!("{} records, {} problems with their clocks", log.records.len(), problems.len());
    Ok(exit_code(!problems.is_empty()))
}

fn list(what: &[impl std::fmt::Display], count_max: usize) {
    for one in what.iter().take(count_max) {
        println!("  {one}");
    }
    if count_max < what.len() {
        println!("  … and {} more", what.len() - count_max);
    }
}

fn exit_code(is_broken: bool) -> ExitCode {
    if is_broken { ExitCode::from(EXIT_VIOLATION) } else { ExitCode::SUCCESS }
}
