//! Plants each bug of `bugs/*.patch` in a scratch copy and demands that the simulator finds it.
//!
//! Why: a sweep that finds nothing shows something only when it would have found something.
//!
//! The copy serves every other test that has to fail on a planted bug, too.
//!
//! Invariants:
//! - the tree itself is never touched: the copy lies in the target folder;
//! - the unchanged copy must be clean under the same seeds, so that a find is due to the bug.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{cargo, line, output, run, target_folder};

/// The exit code of `kvraft sim` when a check was violated.
const VIOLATION: i32 = 100;

/// Runs every planted bug through the simulator with seeds `0..seed_count`.
///
/// # Errors
/// When there is no bug to plant, a patch does not apply, or a bug was not found.
pub fn planted_bugs(root: &Path, seed_count: u64) -> Result<()> {
    let patches = patches(root)?;
    let scratch = Scratch::new(root)?;
    scratch.restore()?;
    ensure!(sweep(&scratch, seed_count)?.code == 0, "the tree without a bug is not clean");
    let mut missed = Vec::new();
    let mut table = String::from("| bug | check | seeds | seconds |\n| --- | --- | --- | --- |\n");
    for patch in &patches {
        let name = bug_name(patch);
        let text = fs::read_to_string(patch).with_context(|| name.clone())?;
        let check = match (header(&text, "check"), header(&text, "model")) {
            (Some(check), _) => check,
            // Judged by `model-check --planted` alone.
            (None, Some(_)) => continue,
            (None, None) => bail!("{name}: neither a line 'check:' nor a line 'model:'"),
        };
        println!("\n── {name}, which {check} must find");
        scratch.plant(patch)?;
        let swept = sweep(&scratch, seed_count).with_context(|| name.clone())?;
        match &swept.found {
            Some((seed, found)) if found == check => {
                let row = format!("| {name} | {check} | {} | {:.1} |", seed + 1, swept.seconds);
                table.push_str(&row);
                table.push('\n');
            }
            Some((seed, found)) => missed.push(format!("{name} (seed {seed}, but by {found})")),
            None => missed.push(format!("{name} (exit code {})", swept.code)),
        }
    }
    println!("\n{table}");
    ensure!(missed.is_empty(), "not found in {seed_count} seeds: {}", missed.join(", "));
    println!("all planted bugs were found");
    Ok(())
}

/// A copy of the tree in the target folder, which bugs are planted in.
pub(crate) struct Scratch {
    root: PathBuf,
    folder: PathBuf,
}

impl Scratch {
    /// Names the place of the copy. It is as an earlier run left it.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_path_buf(), folder: target_folder(root)?.join("planted") })
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    /// Makes the copy equal to the tracked files of the tree, writing only what differs so that
    /// builds stay short.
    pub(crate) fn restore(&self) -> Result<()> {
        let git = ["-c", "safe.directory=*", "ls-files", "-z"];
        let listing = output(Command::new("git").args(git).current_dir(&self.root))?;
        for path in listing.split('\0').filter(|path| !path.is_empty()) {
            let (from, to) = (self.root.join(path), self.tree().join(path));
            let contents = fs::read(&from).with_context(|| format!("reading {path}"))?;
            if fs::read(&to).ok().as_ref() != Some(&contents) {
                fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
                fs::write(&to, contents)?;
            }
        }
        Ok(())
    }

    /// Makes the copy equal to the tree with this one patch applied.
    pub(crate) fn plant(&self, patch: &Path) -> Result<()> {
        self.restore()?;
        let mut command = Command::new("git");
        command.args(["apply", "--verbose"]).arg(patch).current_dir(self.tree());
        // The copy lies inside the repository; without the ceiling git would look for the files
        // there.
        run(command.env("GIT_CEILING_DIRECTORIES", &self.folder))
    }

    /// Builds the copy with a profile of its own workspace and gives the path of the binary.
    pub(crate) fn build(&self, profile: &str) -> Result<PathBuf> {
        let build = self.target();
        let mut command = cargo(&self.tree());
        command.args(["build", "--quiet", "--profile", profile, "--locked", "--package", "kvraft"]);
        run(command.env("CARGO_TARGET_DIR", &build))?;
        Ok(build.join(profile).join("kvraft"))
    }
}

/// The patch of a bug that is called by its name.
///
/// # Errors
/// When there is none.
pub(crate) fn patch(root: &Path, name: &str) -> Result<PathBuf> {
    let names: Vec<_> = patches(root)?.into_iter().map(|path| (bug_name(&path), path)).collect();
    let known = || names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let found = names.iter().find(|(known, _)| known == name);
    Ok(found.with_context(|| format!("no bug is called {name}; there are {}", known()))?.1.clone())
}

pub(crate) fn bug_name(patch: &Path) -> String {
    patch.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The value of a line `key: value` above the diff.
pub(crate) fn header<'a>(patch: &'a str, key: &str) -> Option<&'a str> {
    let above = patch.lines().take_while(|line| !line.starts_with("diff "));
    above.filter_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim).next()
}

pub(crate) fn patches(root: &Path) -> Result<Vec<PathBuf>> {
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

/// What a sweep of a copy came to.
struct Swept {
    code: i32,
    /// The first seed that broke a rule, and the name of the check that said so.
    found: Option<(u64, String)>,
    seconds: f64,
}

/// Builds the copy and sweeps the seeds in order until the first find.
fn sweep(scratch: &Scratch, seed_count: u64) -> Result<Swept> {
    let mut command = Command::new(scratch.build("sim")?);
    let seeds = format!("0..{seed_count}");
    command.args(["sim", "--seeds", &seeds, "--jobs", "1", "--max-fail", "1"]);
    println!("$ {}", line(&command));
    let start = Instant::now();
    let output = command.output().context("starting the simulator")?;
    let seconds = start.elapsed().as_secs_f64();
    let report = String::from_utf8_lossy(&output.stdout);
    let found = report.lines().find_map(first_find);
    for line in report.lines().filter(|line| line.starts_with("FAIL")) {
        println!("  {line}");
    }
    println!("  {seconds:.1} s, {}", output.status);
    let code = output.status.code().context("the simulator was killed by a signal")?;
    ensure!(code == 0 || code == VIOLATION, "the simulator did not run: exit code {code}");
    Ok(Swept { code, found, seconds })
}

/// Seed and check of a line `FAIL seed 17: one-vote-per-term: …`.
fn first_find(line: &str) -> Option<(u64, String)> {
    let (seed, rest) = line.strip_prefix("FAIL seed ")?.split_once(": ")?;
    let check = rest.split_once(':')?.0;
    Some((seed.parse().ok()?, check.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{first_find, header};

    /// The report names seed and check in one line.
    #[test]
    fn a_find_is_read_from_the_report() {
        let line = "FAIL seed 17: one-vote-per-term: server 1 voted for 2 and 3 in term 4";
        assert_eq!(first_find(line), Some((17, "one-vote-per-term".to_owned())));
        assert_eq!(first_find("clean"), None);
    }

    /// Only lines above the diff are the header.
    #[test]
    fn the_header_names_the_check() {
        let patch = "Votes leave early.\ncheck: a-check\n\ndiff --git a b\ncheck: not this";
        assert_eq!(header(patch, "check"), Some("a-check"));
        assert_eq!(header("diff --git a b\ncheck: not this", "check"), None);
    }
}
