//! Plants each bug of `bugs/*.patch` in a scratch copy and demands that the simulator finds it.
//!
//! Why: a sweep that finds nothing shows something only when it would have found something.
//!
//! Invariants:
//! - the tree itself is never touched: the copy lies in the target folder;
//! - the unchanged copy must be clean under the same seeds, so that a find is due to the bug.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::run::{cargo, line, output, run, target_folder};

/// The exit code of `kvraft sim` when a check was violated.
const VIOLATION: i32 = 100;

/// Lines of the simulator's report that are shown for each find.
const REPORT_LINE_COUNT: usize = 12;

/// Runs every planted bug through the simulator with seeds `0..seed_count`.
///
/// # Errors
/// When there is no bug to plant, a patch does not apply, or a bug was not found.
pub fn planted_bugs(root: &Path, seed_count: u64) -> Result<()> {
    let patches = patches(root)?;
    let scratch = target_folder(root)?.join("planted");
    let tree = scratch.join("tree");
    copy(root, &tree)?;
    ensure!(sweep(&scratch, seed_count)? == 0, "the tree without a bug is not clean");
    let mut missed = Vec::new();
    for patch in &patches {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        println!("\n── {name}");
        copy(root, &tree)?;
        apply(patch, &tree)?;
        let code = sweep(&scratch, seed_count).with_context(|| name.clone())?;
        println!("── {name}: {}", if code == VIOLATION { "found" } else { "MISSED" });
        if code != VIOLATION {
            missed.push(format!("{name} (exit code {code})"));
        }
    }
    ensure!(missed.is_empty(), "not found in {seed_count} seeds: {}", missed.join(", "));
    println!("\nall {} planted bugs were found", patches.len());
    Ok(())
}

fn patches(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("bugs");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut patches: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    patches.sort();
    ensure!(!patches.is_empty(), "{} holds no patch: nothing to plant", folder.display());
    Ok(patches)
}

/// Makes `tree` equal to the tracked files of `root`, writing only what differs so that builds
/// stay short.
fn copy(root: &Path, tree: &Path) -> Result<()> {
    let git = ["-c", "safe.directory=*", "ls-files", "-z"];
    let listing = output(Command::new("git").args(git).current_dir(root))?;
    for path in listing.split('\0').filter(|path| !path.is_empty()) {
        let (from, to) = (root.join(path), tree.join(path));
        let contents = fs::read(&from).with_context(|| format!("reading {path}"))?;
        if fs::read(&to).ok().as_ref() != Some(&contents) {
            fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
            fs::write(&to, contents)?;
        }
    }
    Ok(())
}

fn apply(patch: &Path, tree: &Path) -> Result<()> {
    // The copy lies inside the repository; without the ceiling git would look for the files there.
    let ceiling = tree.parent().context("the copy lies in the target folder")?;
    let mut command = Command::new("git");
    command.args(["apply", "--verbose"]).arg(patch);
    run(command.current_dir(tree).env("GIT_CEILING_DIRECTORIES", ceiling))
}

/// Builds the copy, sweeps the seeds, shows the end of the report and gives the exit code.
fn sweep(scratch: &Path, seed_count: u64) -> Result<i32> {
    let build = scratch.join("target");
    let mut command = cargo(&scratch.join("tree"));
    command.args(["build", "--quiet", "--profile", "sim", "--locked", "--package", "kvraft"]);
    run(command.env("CARGO_TARGET_DIR", &build))?;
    let mut command = Command::new(build.join("sim/kvraft"));
    command.args(["sim", "--seeds", &format!("0..{seed_count}"), "--jobs", "2"]);
    println!("$ {}", line(&command));
    let start = Instant::now();
    let output = command.output().context("starting the simulator")?;
    let report = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = report.lines().collect();
    for line in &lines[lines.len().saturating_sub(REPORT_LINE_COUNT)..] {
        println!("  {line}");
    }
    println!("  {:.1} s, {}", start.elapsed().as_secs_f64(), output.status);
    output.status.code().context("the simulator was killed by a signal")
}
