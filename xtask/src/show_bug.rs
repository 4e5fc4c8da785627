//! From a bug to a picture of it: plants one in a scratch copy, finds it, makes the run that shows
//! it smaller, and opens the page at the moment in which a rule is broken.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::planted::{Bug, Judge, Scratch, patch};
use crate::run::target_folder;

/// The profile of the workspace that makes many builds short.
const PROFILE: &str = "planted";

/// Seeds that are simulated before this is given up.
const SEED_COUNT: u64 = 20_000;

/// The exit code of `kvraft sim` when a rule was broken.
const VIOLATION: i32 = 100;

/// Shows the bug that is called `name`.
///
/// # Errors
/// When there is no such bug, the simulator is not who must find it, or does not.
pub fn show_bug(root: &Path, name: &str) -> Result<()> {
    let bug = Bug::read(&patch(root, name)?)?;
    let Judge::Check(check) = &bug.judge else {
        bail!("{name} is not for the simulator to find");
    };
    let scratch = Scratch::new(root)?;
    scratch.restore()?;
    scratch.plant(&bug.patch)?;
    let kvraft = scratch.build("kvraft", PROFILE, "kvraft")?;
    let replay = find(&kvraft, check)?;
    println!("found: {}", replay.join(" "));
    let out = target_folder(root)?.join("bugs").join(name);
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    let mut shrink = Command::new(&kvraft);
    shrink.args(&replay).args(["--shrink", "--shrink-time", "60", "--out"]).arg(&out);
    let status = shrink.stdout(Stdio::null()).status().context("starting the shrinking")?;
    ensure!(status.code() == Some(VIOLATION), "the run that broke a rule does so no more");
    let page = out.join("run.html");
    ensure!(page.is_file(), "{} was not written", page.display());
    println!("{}\nthe page: {}", std::fs::read_to_string(out.join("run.plan"))?, page.display());
    open(&page);
    Ok(())
}

/// Sweeps until `check` fails; gives the arguments that run it again.
fn find(kvraft: &Path, check: &str) -> Result<Vec<String>> {
    let mut first = 0;
    while first < SEED_COUNT {
        let range = format!("{first}..{SEED_COUNT}");
        let swept = Command::new(kvraft)
            .args(["sim", "--seeds", &range, "--max-fail", "1"])
            .stderr(Stdio::null())
            .output()
            .context("starting the sweep")?;
        let text = String::from_utf8_lossy(&swept.stdout);
        let line = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start));
        let Some(replay) = line("replay:") else { break };
        let arguments: Vec<String> = replay.split_whitespace().skip(1).map(str::to_owned).collect();
        let broken = line("VIOLATION ").unwrap_or_default();
        if broken.split(':').next() == Some(check) {
            return Ok(arguments);
        }
        println!("on the way: {broken}");
        let seed = arguments.iter().skip_while(|word| *word != "--seed").nth(1);
        first = seed.and_then(|seed| seed.parse::<u64>().ok()).context("a replay has a seed")? + 1;
    }
    bail!("{check} does not fail in {SEED_COUNT} seeds")
}

/// Opens a page where there is a screen.
fn open(page: &Path) {
    let has_screen =
        ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if has_screen && Command::new("xdg-open").arg(page).spawn().is_err() {
        println!("no program opens pages here: open it with a browser");
    }
}
