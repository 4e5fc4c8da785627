//! The whole of what must hold before a change moves on, in one command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Result, anyhow, ensure};

use crate::bugs::{bugs_of_the_day, build_clean};
use crate::run::{Step, build_release, cargo, need, output, run, run_steps};
use crate::{conformance, determinism, readme, seed_demo, tidy};

/// Seeds that every change is simulated with.
const SEEDS: &str = "0..200";

/// Runs every check, cheap ones first, and ends at the first that fails.
///
/// # Errors
/// What failed first.
pub fn ci(root: &Path) -> Result<()> {
    need("etcdctl", "etcd-client")?;
    let set_up = readme::set_up(root)?;
    let tree_before = tree_state(root)?;
    let test = format!("the README's test command: cargo {}", set_up.test.join(" "));
    let steps = vec![
        Step::new("format", || run(cargo(root).args(["fmt", "--all", "--check"]))),
        Step::new("tidy", || check_tidy(root)),
        Step::new("clippy", || clippy(root)),
        Step::new("documentation", || documentation(root)),
        Step::new(test, || run(cargo(root).args(&set_up.test))),
        Step::new("simulation", || simulation(root)),
        Step::new("determinism", || determinism(root)),
        Step::new("planted bugs of the day", || bugs_of_the_day(root)),
        Step::new("the older system's example", || seed_demo(root, None)),
        Step::new("conformance", || conformance(root, &[])),
        Step::new("the tree is as it was", || {
            ensure!(tree_before == tree_state(root)?, "ci changed the tree: see git status");
            Ok(())
        }),
    ];
    run_steps(steps)
}

/// Runs tidy and prints what it found.
///
/// # Errors
/// When a rule is broken, or the tree cannot be read.
pub fn check_tidy(root: &Path) -> Result<()> {
    let report = tidy::check(root)?;
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    for error in &report.errors {
        println!("error: {error}");
    }
    ensure!(report.errors.is_empty(), "{} breaches of the rules", report.errors.len());
    println!("{} files are tidy, {} warnings", report.file_count, report.warnings.len());
    Ok(())
}

fn clippy(root: &Path) -> Result<()> {
    let arguments = "clippy --workspace --all-targets --locked -- -D warnings";
    run(cargo(root).args(arguments.split(' ')))
}

fn documentation(root: &Path) -> Result<()> {
    let arguments = "doc --workspace --no-deps --locked";
    run(cargo(root).args(arguments.split(' ')).env("RUSTDOCFLAGS", "-D warnings"))
}

fn simulation(root: &Path) -> Result<()> {
    let kvraft = build_both(root)?;
    run(Command::new(kvraft).current_dir(root).args(["sim", "--seeds", SEEDS, "--jobs", "2"]))
}

/// Builds the released binary and gives its path, and beside it what planted bugs are looked for
/// with: a release compiles one large crate after the other and leaves half a core idle.
fn build_both(root: &Path) -> Result<PathBuf> {
    thread::scope(|scope| {
        let beside = scope.spawn(|| build_clean(root));
        let kvraft = build_release(root);
        beside.join().map_err(|_| anyhow!("the build of the planted profile panicked"))??;
        kvraft
    })
}

/// What git says has changed; nothing where there is no repository.
fn tree_state(root: &Path) -> Result<String> {
    if !root.join(".git").exists() {
        return Ok(String::new());
    }
    let arguments = ["-c", "safe.directory=*", "status", "--porcelain", "--untracked-files=all"];
    output(Command::new("git").args(arguments).current_dir(root))
}
