//! Exhaustive exploration of small groups, within bounds: `crates/raft-model` does the work.
//!
//! Why here too: the large searches take an hour and are built for speed, and a checker that has
//! never found anything may be blind: with `--planted`, each bug that says so must be found.
//!
//! Invariants:
//! - bugs are planted in the scratch copy alone;
//! - the copy without a bug must come out clean under the same searches.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::planted::{Scratch, bug_name, header, patches};
use crate::run::{cargo, line, run, target_folder};

/// The exit code of `raft-model` when a rule was broken.
const BROKEN: i32 = 100;

/// Runs the large searches, each for `seconds` at most, with progress.
///
/// # Errors
/// When a rule is broken or a search is not exhausted in time.
pub fn model_check(root: &Path, seconds: u64) -> Result<()> {
    build(root, None)?;
    let binary = target_folder(root)?.join("release/raft-model");
    for list in ["small", "large"] {
        let limit = seconds.to_string();
        run(Command::new(&binary).args(["--list", list, "--seconds", &limit]))?;
    }
    println!("no rule is broken within the printed bounds");
    Ok(())
}

/// Plants each bug of `bugs/*.patch` that has a line `model:` and demands that this rule breaks.
///
/// # Errors
/// When a patch does not apply, or its bug was not found by the rule that it names.
pub fn model_check_planted(root: &Path) -> Result<()> {
    let scratch = Scratch::new(root)?;
    scratch.restore()?;
    let (found, _) = hunt(&scratch)?;
    ensure!(found.is_none(), "the tree without a bug is not clean: {found:?}");
    let mut missed = Vec::new();
    let mut table = String::from("| bug | rule | seconds |\n| --- | --- | --- |\n");
    for patch in &patches(root)? {
        let name = bug_name(patch);
        let text = fs::read_to_string(patch).with_context(|| name.clone())?;
        let Some(rule) = header(&text, "model") else { continue };
        println!("\n── {name}, which {rule} must find");
        scratch.plant(patch)?;
        let (found, seconds) = hunt(&scratch).with_context(|| name.clone())?;
        if found.as_deref() == Some(rule) {
            table.push_str(&format!("| {name} | {rule} | {seconds:.1} |\n"));
        } else {
            missed.push(format!("{name} (found: {found:?})"));
        }
    }
    println!("\n{table}");
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    println!("all planted bugs of consensus were found");
    Ok(())
}

fn build(root: &Path, target: Option<&Path>) -> Result<()> {
    let mut command = cargo(root);
    command.args(["build", "--quiet", "--release", "--locked", "--package", "kvraft-raft-model"]);
    if let Some(target) = target {
        command.env("CARGO_TARGET_DIR", target);
    }
    run(&mut command)
}

/// Builds the copy and searches it until the first find. Names the broken rule.
fn hunt(scratch: &Scratch) -> Result<(Option<String>, f64)> {
    build(&scratch.tree(), Some(&scratch.target()))?;
    let mut command = Command::new(scratch.target().join("release/raft-model"));
    command.args(["--list", "hunt"]);
    println!("$ {}", line(&command));
    let start = Instant::now();
    let output = command.output().context("starting the search")?;
    let seconds = start.elapsed().as_secs_f64();
    let report = String::from_utf8_lossy(&output.stdout);
    let steps = report.lines().skip_while(|line| !line.starts_with("BROKEN"));
    steps.for_each(|line| println!("  {line}"));
    let found = report.lines().find_map(|line| line.strip_prefix("FAIL ")).map(str::to_owned);
    match output.status.code() {
        Some(0) => Ok((None, seconds)),
        Some(BROKEN) => Ok((found, seconds)),
        _ => bail!("the search did not run: {}", output.status),
    }
}
