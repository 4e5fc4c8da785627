//! Files of one run: what `--plan` reads, and what `--write-plan`, `--html` and
//! `--trace-dir` write.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use kvraft_sim::Scenario;
use kvraft_trace::run::Run;

/// Where a run comes from: how a person is told to run it again.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// This command draws it again.
    Drawn(String),
    /// It was read from this file.
    File(PathBuf),
}

impl Origin {
    /// The command that runs it again.
    pub(super) fn replay(&self) -> String {
        match self {
            Self::Drawn(command) => command.clone(),
            Self::File(path) => format!("kvraft sim --plan {}", path.display()),
        }
    }
}

/// Reads a scenario.
///
/// # Errors
/// In words: the file, the line and the word.
pub(super) fn read(path: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    text.parse().map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes a scenario, with a head that says where it comes from and how to run it.
///
/// # Errors
/// In words: the file cannot be written.
pub(super) fn write(path: &Path, scenario: &Scenario, origin: &Origin) -> Result<(), String> {
    let mut text = String::new();
    let Ok(()) = write!(
        text,
        "# A simulated run: kvraft sim --plan {}\n# From: {}\n{scenario}",
        path.display(),
        origin.replay(),
    ) else {
        unreachable!("text takes everything");
    };
    write_text(path, &text)
}

/// What was recorded of a run, with the command and the version that make it again.
///
/// # Errors
/// In words: nothing was recorded.
pub(super) fn titled(recorded: Option<Run>, replay: String) -> Result<Run, String> {
    let mut recorded = recorded.ok_or("the cluster could not be set up: nothing to show")?;
    recorded.command = replay;
    recorded.version = format!("kvraft {}", env!("CARGO_PKG_VERSION"));
    Ok(recorded)
}

/// Writes a page that shows a run.
///
/// # Errors
/// In words: the file cannot be written.
pub(super) fn write_page(path: &Path, recorded: &Run) -> Result<(), String> {
    write_text(path, &kvraft_trace::run::page(&[recorded]))
}

/// Writes what shows a recorded run as `kvraft tracing-server` would have written it.
///
/// # Errors
/// In words: the folder cannot be made, or a file in it cannot be written.
pub(super) fn write_traces(folder: &Path, recorded: &Run) -> Result<(), String> {
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let log = kvraft_trace::convert::log_of_run(recorded);
    write_text(&folder.join("trace_output.log"), &log.to_json_lines())?;
    write_text(&folder.join("shiviz_output.log"), &kvraft_trace::shiviz::write_log(&log))
}

/// Writes a file.
///
/// # Errors
/// In words: which file, and why it cannot be written.
fn write_text(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
