//! `kvraft replay`: runs what flight recorders have kept through the same code again.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use kvraft_kv::Redaction;
use kvraft_replica::flight::{self, Segment};
use kvraft_server::{FLIGHT_DIRECTORY, flight_file_name, flight_files};
use kvraft_sim::replay::{self, NamedSegment, Outcome, Viewed};
use kvraft_trace::text;

/// A turn came out otherwise than it was recorded.
const EXIT_DIFFERS: u8 = 1;
/// A recording cannot be read, or the command was not understood.
const EXIT_USAGE: u8 = 2;

/// Run again what servers have recorded, and compare
///
/// Every server keeps what its lanes are given in a ring of files beside its data
/// (--flight-recorder). This runs it through the same code to the same states; several servers of
/// one cluster become one run, put in order by their messages. The servers may be running.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kvraft replay ./data
      Is what the server did what this program does? Names the first turn that differs
  kvraft replay ./kvraft-data/server-*/data --html incident.html
      What happened, in the viewer: a server each, messages between them
  kvraft replay ./data --to text | less
  kvraft replay --redact ./for-others --redact-keys ./kvraft-data/server-*/data
      A copy without values and keys, to be given away; `kvraft replay ./for-others/*` runs it:
      roles, terms, indexes and messages are what they were, and so are consensus' digests

Exit codes: 0 everything is equal, 1 a turn differs, 2 a recording cannot be read.")]
pub(crate) struct ReplayArgs {
    /// Data directories of servers, or folders of recordings
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    /// Write a copy without the values into this new folder, and go on with the copy
    ///
    /// Every byte of a value becomes an x, and the state machine, which compares values, is left
    /// out: consensus alone is run. Names and addresses of servers stay.
    #[arg(long, value_name = "FOLDER")]
    redact: Option<PathBuf>,
    /// Without the keys, too
    #[arg(long, requires = "redact")]
    redact_keys: bool,
    /// Write a page that shows the run
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the run
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each event
    Text,
}

/// Runs the command.
pub(crate) fn run(args: &ReplayArgs) -> ExitCode {
    match replay_all(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_DIFFERS),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn replay_all(args: &ReplayArgs) -> Result<bool> {
    let mut servers = Vec::new();
    for directory in &args.directories {
        let segments = read(directory)?;
        let owner = replay::owner(&segments)
            .map_err(|error| anyhow!("{}: {error}", directory.display()))?;
        servers.push((owner, segments));
    }
    check_cluster(&servers)?;
    if let Some(folder) = &args.redact {
        let all = args.redact_keys;
        let redaction = if all { Redaction::KeysAndValues } else { Redaction::Values };
        servers = redact(folder, servers, redaction)?;
    }
    // Lanes that break an assertion are caught, and told.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut viewed, mut all_equal) = (Vec::new(), true);
    let looks = args.html.is_some() || args.to.is_some();
    for ((_, member), segments) in servers {
        let bar = progress_bar(&segments);
        let mut turns = Vec::new();
        let outcome = replay::replay(
            &segments,
            env!("CARGO_PKG_VERSION"),
            |bytes| bar.inc(bytes),
            |turn| {
                if looks {
                    turns.push(turn);
                }
            },
        );
        bar.finish_and_clear();
        tell(member, &outcome);
        all_equal &= outcome.divergence.is_none();
        viewed.push(Viewed { member, turns });
    }
    show(args, &viewed)?;
    Ok(all_equal)
}

type Server = ((kvraft_base::ClusterId, kvraft_base::MemberId), Vec<NamedSegment>);

/// Servers of two clusters, or one server twice, are no run.
fn check_cluster(servers: &[Server]) -> Result<()> {
    let cluster = servers.first().map(|((cluster, _), _)| *cluster);
    if servers.iter().any(|((other, _), _)| Some(*other) != cluster) {
        bail!("the recordings are of different clusters");
    }
    let mut members: Vec<_> = servers.iter().map(|((_, member), _)| *member).collect();
    members.sort();
    match members.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => bail!("two of the recordings are of member {:x}", pair[0]),
        None => Ok(()),
    }
}

/// Reads a recording: that of a data directory, or what lies in the folder itself.
fn read(directory: &Path) -> Result<Vec<NamedSegment>> {
    let beside_data = directory.join(FLIGHT_DIRECTORY);
    let folder = if beside_data.is_dir() { &beside_data } else { directory };
    let files =
        flight_files(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut segments = Vec::new();
    for (_, path) in files {
        let name = path.display().to_string();
        let bytes = match std::fs::read(&path) {
            // The ring of a running server has let go of it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes.with_context(|| format!("cannot read {name}"))?,
        };
        match Segment::read(&bytes.into()) {
            Ok(segment) => segments.push(NamedSegment { name, segment }),
            Err(error) => eprintln!("note: {name}: {error}; it is left out"),
        }
    }
    if segments.is_empty() {
        bail!("{}: there is no recording in it that can be read", folder.display());
    }
    Ok(segments)
}

/// Writes the copy, and takes its place: what is said and shown from here on is of the copy.
fn redact(folder: &Path, servers: Vec<Server>, redaction: Redaction) -> Result<Vec<Server>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty: a copy would be mixed with what is there", folder.display());
    }
    let mut copies = Vec::new();
    for (owner, segments) in servers {
        let of_server = folder.join(format!("{:x}", owner.1));
        std::fs::create_dir(&of_server)
            .with_context(|| format!("cannot make {}", of_server.display()))?;
        let mut copied = Vec::new();
        for NamedSegment { name, segment } in segments {
            match flight::redacted(&segment, redaction) {
                Ok(bytes) => copied.push(write_segment(&of_server, &segment, bytes)?),
                Err(error) => eprintln!("note: {name}: {error}; it is left out"),
            }
        }
        copies.push((owner, copied));
    }
    eprintln!(
        "written {}: a copy that can be given away; this is what is in it:",
        folder.display()
    );
    Ok(copies)
}

fn write_segment(folder: &Path, segment: &Segment, bytes: Vec<u8>) -> Result<NamedSegment> {
    let path = folder.join(flight_file_name(segment.header.number));
    let name = path.display().to_string();
    std::fs::write(&path, &bytes).with_context(|| format!("cannot write {name}"))?;
    let segment = Segment::read(&bytes.into()).with_context(|| format!("cannot read {name}"))?;
    Ok(NamedSegment { name, segment })
}

fn progress_bar(segments: &[NamedSegment]) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bytes = segments.iter().map(|named| named.segment.records_size_bytes()).sum();
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}

fn tell(member: kvraft_base::MemberId, outcome: &Outcome) {
    for note in &outcome.notes {
        eprintln!("note: {note}");
    }
    let Outcome { turns, compared, borders, .. } = outcome;
    eprintln!(
        "server {member:x}: {turns} turns, {compared} digests and {borders} whole states compared"
    );
    if let Some((applied, hash)) = outcome.state {
        eprintln!("server {member:x}: at index {applied} its state is {hash:016x}");
    }
    match &outcome.divergence {
        None => eprintln!("server {member:x}: equal"),
        Some(found) => eprintln!(
            "server {member:x}: DIFFERS: {}, turn {}, in the block at offset {}: {}",
            found.file, found.turn, found.offset, found.what
        ),
    }
}

fn show(args: &ReplayArgs, viewed: &[Viewed]) -> Result<()> {
    if args.html.is_none() && args.to.is_none() {
        return Ok(());
    }
    let mut run = replay::merge(viewed, "replay");
    run.version = format!("kvraft {}", env!("CARGO_PKG_VERSION"));
    if let Some(path) = &args.html {
        let page = kvraft_trace::run::page(&[&run]);
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("written {}: {} events", path.display(), run.events.len());
    }
    match args.to {
        Some(Format::Text) => crate::connection::print(text::write(&run).as_bytes()),
        None => Ok(()),
    }
}
