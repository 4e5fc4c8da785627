//! From a bug to a picture of it: plants one in a scratch copy, finds it, makes the run that shows
//! it smaller, and opens the page at the moment in which a rule is broken.
//!
//! Why `crates/hunt` does the looking: it is the simulator and little more, and built in a minute.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::planted::{Bug, Judge, PROFILE, Scratch, blind_patches, patch, patches};
use crate::run::target_folder;

/// How long it is looked for, and then made smaller.
const SEARCH_SECONDS: u64 = 600;
const SHRINK_SECONDS: u64 = 60;

/// Shows the bug that is called `name`; gives the page.
///
/// # Errors
/// When there is no such bug, the simulator is not who must find it, or does not.
pub fn show_bug(root: &Path, name: &str, is_opened: bool) -> Result<PathBuf> {
    let known = [patches(root)?, blind_patches(root)?].concat();
    let bug = Bug::read(&patch(known, name)?)?;
    let check = match &bug.judge {
        Judge::Check(check) => check.as_str(),
        Judge::AnyCheck => "any",
        Judge::Test(_) => bail!("{name} is found by a test, not by the simulator: nothing to show"),
        Judge::Model => bail!("{name} is found by the model checker: nothing to show"),
    };
    // These two are properties of several runs: no single one shows them.
    let is_of_many = check == "deterministic" || check.starts_with("happens:");
    ensure!(!is_of_many, "{name} breaks '{check}', which no single run shows");
    let text = std::fs::read_to_string(&bug.patch)?;
    println!("{name}: {}", text.lines().next().unwrap_or_default());
    let began = Instant::now();
    let say = |what: &str| println!("\n[{:>5.1} s] {what}", began.elapsed().as_secs_f64());
    say("planted in a copy of the tree; the simulator is built with it (minutes the first time)");
    let scratch = Scratch::new(root)?;
    scratch.plant(&bug.patch)?;
    let hunt = scratch.build("kvraft-hunt", PROFILE, "hunt")?;
    say(&format!("seeds are simulated until '{check}' fails; then that run is made smaller"));
    let out = target_folder(root)?.join("show-bug").join(name);
    let found = look(&hunt, check, &out)?;
    let plan = std::fs::read_to_string(out.join("run.plan"))?;
    say(&format!("seed {}: {}", found["found"], first_line(&found["detail"])));
    println!("\nwhat is left of it:\n\n{plan}");
    let page = out.join("run.html");
    ensure!(page.is_file(), "{} was not written", page.display());
    println!("the page: {}", page.display());
    if is_opened {
        open(&page);
    }
    Ok(page)
}

/// Looks for a run in which `check` fails, and writes what is left of it; gives what was told.
fn look(hunt: &Path, check: &str, out: &Path) -> Result<Value> {
    if out.exists() {
        std::fs::remove_dir_all(out)?;
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = Command::new(hunt);
    command.args(["--from", "0", "--check", check, "--progress", "--jobs", &jobs.to_string()]);
    command.args(["--seconds", &SEARCH_SECONDS.to_string()]);
    command.args(["--shrink-seconds", &SHRINK_SECONDS.to_string(), "--out"]).arg(out);
    let output = command.stderr(Stdio::inherit()).output().context("starting the search")?;
    ensure!(output.status.success(), "the search failed: {}", output.status);
    let found: Value = serde_json::from_slice(&output.stdout).context("what the search found")?;
    let (seeds, others) = (&found["seeds"], &found["others"]);
    ensure!(
        found["is_found"] == Value::Bool(true),
        "'{check}' did not fail in {seeds} runs; other checks that did: {others}"
    );
    Ok(found)
}

fn first_line(text: &Value) -> &str {
    text.as_str().and_then(|text| text.lines().next()).unwrap_or_default()
}

/// Opens a page where there is a screen.
fn open(page: &Path) {
    let screens = ["DISPLAY", "WAYLAND_DISPLAY"];
    if !cfg!(target_os = "macos") && !screens.iter().any(|name| std::env::var_os(name).is_some()) {
        println!("there is no screen here: open it with a browser");
        return;
    }
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(opener);
    let started = command.arg(page).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !started.is_ok_and(|status| status.success()) {
        println!("{opener} does not open it: open it with a browser");
    }
}
