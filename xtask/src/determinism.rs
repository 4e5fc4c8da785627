//! One seed gives one run, whatever builds it and however many threads run beside it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run::{build_debug, build_release, line, output};

/// Seeds that both builds run.
const SEEDS: &str = "0..30";

/// Runs the same seeds in a debug build on one thread and in a release build on three, and demands
/// the same fingerprint of everything that happened.
///
/// # Errors
/// When they differ, or a run breaks a rule.
pub fn determinism(root: &Path) -> Result<()> {
    let debug = trace_hash(root, &build_debug(root)?, "1")?;
    let release = trace_hash(root, &build_release(root)?, "3")?;
    ensure!(debug == release, "seeds {SEEDS}: debug has the trace hash {debug}, release {release}");
    println!("seeds {SEEDS}: trace hash {debug} in debug on one thread and in release on three");
    Ok(())
}

/// The hash of a sweep: equal for equal runs of the same seeds, in whatever order they end.
fn trace_hash(root: &Path, kvraft: &Path, jobs: &str) -> Result<String> {
    let mut command = Command::new(kvraft);
    command.current_dir(root).args(["sim", "--seeds", SEEDS, "--json", "--jobs", jobs]);
    println!("$ {}", line(&command));
    let told: Value = serde_json::from_str(&output(&mut command)?).context("the sweep's JSON")?;
    let hash = told["trace_hash"].as_str().context("the sweep tells its trace hash")?;
    Ok(hash.to_owned())
}
