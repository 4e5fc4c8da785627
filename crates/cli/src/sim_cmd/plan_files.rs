//! Files of one run: what `--plan` reads, and what `--write-plan` and `--html` write.

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
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Writes a page that shows a run.
///
/// # Errors
/// In words: there is nothing to show, or the file cannot be written.
pub(super) fn write_page(path: &Path, recorded: Option<Run>, replay: String) -> Result<(), String> {
    let mut recorded = recorded.ok_or("the cluster could not be set up: nothing to show")?;
    recorded.command = replay;
    recorded.version = format!("kvraft {}", env!("CARGO_PKG_VERSION"));
    std::fs::write(path, kvraft_trace::run::page(&[&recorded]))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
