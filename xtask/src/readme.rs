//! What the README promises, read from the README itself.
//!
//! Why: a promise that is run on every change stays true.
//!
//! Invariant: below the heading `## Set-up` stand exactly two commands: the one that runs the main
//! job, and the one that passes the tests.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The command that runs the main job.
const RUN: &str = "cargo run --release -- cluster -n 3";

/// The command that passes the tests.
const TEST: &str = "cargo test --workspace";

/// The two set-up commands, as arguments behind `cargo`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SetUp {
    /// Runs the main job.
    pub(crate) run: Vec<String>,
    /// Passes the tests.
    pub(crate) test: Vec<String>,
}

/// Reads the set-up commands of the README in `root`.
///
/// # Errors
/// When they are not exactly the two that are expected.
pub(crate) fn set_up(root: &Path) -> Result<SetUp> {
    parse(&std::fs::read_to_string(root.join("README.md")).context("reading README.md")?)
}

fn parse(text: &str) -> Result<SetUp> {
    let section = text.split_once("\n## Set-up\n").context("README.md has no `## Set-up`")?.1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut fenced = false;
    let mut commands = Vec::new();
    for line in section.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced && !line.trim().is_empty() {
            commands.push(line.trim());
        }
    }
    ensure!(
        commands == [RUN, TEST],
        "`## Set-up` in README.md must hold `{RUN}` and `{TEST}`, and holds {commands:?}"
    );
    let arguments = |command: &str| command.split(' ').skip(1).map(str::to_owned).collect();
    Ok(SetUp { run: arguments(RUN), test: arguments(TEST) })
}

#[cfg(test)]
mod tests {
    use super::{RUN, TEST, parse};

    #[test]
    fn two_commands_are_found() {
        let text = format!("# X\n\n## Set-up\n\n```sh\n{RUN}\n```\n\n```sh\n{TEST}\n```\n\n## Y\n");
        let set_up = parse(&text).unwrap();
        assert_eq!(set_up.run, ["run", "--release", "--", "cluster", "-n", "3"]);
        assert_eq!(set_up.test, ["test", "--workspace"]);
    }

    #[test]
    fn third_command_is_refused() {
        let text = format!("# X\n\n## Set-up\n\n```sh\nmake\n{RUN}\n{TEST}\n```\n");
        assert!(parse(&text).unwrap_err().to_string().contains("make"));
    }

    #[test]
    fn missing_section_is_refused() {
        assert!(parse(&format!("# X\n```sh\n{RUN}\n{TEST}\n```\n")).is_err());
    }
}
