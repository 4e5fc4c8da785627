//! Plants each bug of `bugs/*.patch` in a scratch copy and demands that it is found.
//!
//! Each bug is looked for from several starting seeds, drawn at run time: a bug that is found from
//! a seed that somebody chose shows little. `crates/hunt` does the looking; it is quick to build.
//!
//! Invariants:
//! - only the check that the patch names counts, what else fails on the way is shown beside it;
//! - the patches of `bugs/blind` name none: any check counts, and the score says which it was;
//! - the unchanged tree must be clean on all seeds that any bug was looked for with.

mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::planted::{Bug, Judge, PROFILE, Scratch, blind_patches, check_patches, patch, patches};
use crate::run::cargo;

/// How to look for bugs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BugOptions {
    /// By name; all, when there is none.
    pub names: Vec<String>,
    /// Those that were written without a look at the simulator. They are scored, not demanded.
    pub blind: bool,
    /// Starting seeds for each bug.
    pub runs: usize,
    /// Seconds for each of them.
    pub seconds: u64,
    /// Seconds to make the first find of each bug smaller.
    pub shrink_seconds: u64,
    /// The number that the starting seeds are made of. `None`: drawn.
    pub from: Option<u64>,
}

/// Seeds in which something has to happen once.
const HAPPENS_SEED_COUNT: u64 = 100;

/// Bugs that CI looks for, another few each day.
const CI_BUG_COUNT: usize = 3;

/// Looks for every bug, or for those that are named.
///
/// # Errors
/// When a patch does not apply, a bug was not found by its check from every starting seed, the tree
/// without one is not clean on the same seeds, or a bug is named that only the model checker looks
/// for.
pub fn bugs(root: &Path, options: &BugOptions) -> Result<()> {
    let all = if options.blind { blind_patches(root)? } else { patches(root)? };
    let paths = match options.names.as_slice() {
        [] => all,
        names => names.iter().map(|name| patch(all.clone(), name)).collect::<Result<_>>()?,
    };
    let bugs = paths.iter().map(|path| Bug::read(path)).collect::<Result<Vec<_>>>()?;
    let bugs = without_the_model_checkers(bugs, !options.names.is_empty())?;
    let from = options.from.unwrap_or_else(drawn);
    let starts: Vec<u64> = (0..options.runs as u64).map(|run| start_of(from, run)).collect();
    println!("starting seeds {starts:?}; to repeat: --from {from}");
    let scratch = Scratch::new(root)?;
    let clean = keep_clean(&scratch)?;
    let mut sought = Sought::default();
    let mut scores = Vec::new();
    for (number, bug) in (1..).zip(&bugs) {
        println!("\n── {number}/{} {}: {}", bugs.len(), bug.name, table::judge(bug));
        // What is wrong with one bug says nothing of the others.
        let score = look_for(&scratch, bug, &starts, options, &mut sought);
        scores.push(score.unwrap_or_else(|error| {
            println!("  {error:#}");
            Score { bug: bug.clone(), runs: Vec::new(), build_seconds: 0.0, shrunk: None }
        }));
    }
    scratch.restore()?;
    println!("\nseeds made of {from}\n\n{}", table::table(&scores));
    sought.are_clean(&clean)?;
    if options.blind {
        return Ok(());
    }
    let missed: Vec<_> = scores.iter().filter(|score| !score.is_caught()).collect();
    let names: Vec<_> = missed.iter().map(|score| score.bug.name.as_str()).collect();
    ensure!(missed.is_empty(), "not found from every starting seed: {}", names.join(", "));
    println!("all {} planted bugs were found from every starting seed", scores.len());
    Ok(())
}

/// Leaves out what only the model checker looks for. Whoever named one of them is told: no check
/// here looks for it.
fn without_the_model_checkers(bugs: Vec<Bug>, are_named: bool) -> Result<Vec<Bug>> {
    let (models, bugs): (Vec<_>, Vec<_>) =
        bugs.into_iter().partition(|bug| bug.judge == Judge::Model);
    let names: Vec<_> = models.iter().map(|bug| bug.name.as_str()).collect();
    ensure!(
        !are_named || names.is_empty(),
        "{}: only `cargo xtask model-check --planted` looks for it",
        names.join(", "),
    );
    Ok(bugs)
}

/// What CI does: every patch applies, and a few of the bugs, others each day, are found.
///
/// # Errors
/// As [`bugs`].
pub(crate) fn bugs_of_the_day(root: &Path) -> Result<()> {
    println!("{} patches apply", check_patches(root)?);
    let all = patches(root)?.iter().map(|path| Bug::read(path)).collect::<Result<Vec<_>>>()?;
    let is_simulated = |bug: &&Bug| matches!(bug.judge, Judge::Check(_));
    let simulated: Vec<_> = all.iter().filter(is_simulated).collect();
    ensure!(!simulated.is_empty(), "no bug is the simulator's to find");
    let day = usize::try_from(since_epoch().as_secs() / (24 * 60 * 60)).context("a day")?;
    let of_today = (0..CI_BUG_COUNT).map(|n| simulated[(day * CI_BUG_COUNT + n) % simulated.len()]);
    let names = of_today.map(|bug| bug.name.clone()).collect();
    bugs(
        root,
        &BugOptions { names, blind: false, runs: 1, seconds: 30, shrink_seconds: 0, from: None },
    )
}

/// One bug and what came of each run.
pub(crate) struct Score {
    bug: Bug,
    runs: Vec<Run>,
    build_seconds: f64,
    /// Operations and faults of the run that is left, and whether it is minimal.
    shrunk: Option<(u64, u64, bool)>,
}

/// One search.
struct Run {
    is_found: bool,
    /// By which check.
    check: Option<String>,
    seeds: u64,
    seconds: f64,
    /// Other checks that failed before.
    others: BTreeMap<String, u64>,
}

impl Score {
    fn is_caught(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| run.is_found)
    }
}

fn look_for(
    scratch: &Scratch,
    bug: &Bug,
    starts: &[u64],
    options: &BugOptions,
    sought: &mut Sought,
) -> Result<Score> {
    scratch.plant(&bug.patch)?;
    let began = Instant::now();
    let check = match &bug.judge {
        Judge::Check(check) => check.as_str(),
        Judge::AnyCheck => "any",
        Judge::Test(arguments) => return run_test(scratch, bug, arguments),
        Judge::Model => bail!("the model checker's"),
    };
    let binary = scratch.build("kvraft-hunt", PROFILE, "hunt")?;
    let build_seconds = began.elapsed().as_secs_f64();
    let (mut runs, mut shrunk) = (Vec::new(), None);
    for start in starts {
        // The first find is made smaller; that tells enough.
        let shrink_seconds = if shrunk.is_none() { options.shrink_seconds } else { 0 };
        let hunt = Hunt { binary: &binary, from: *start, check, seconds: options.seconds };
        let seeds = if check.starts_with("happens:") { HAPPENS_SEED_COUNT } else { u64::MAX };
        let found = hunt.run(seeds, shrink_seconds)?;
        println!("  from {start}: {}", table::found(&found));
        let count = |part: &str| found["shrunk"][part].as_u64();
        if let (Some(operations), Some(faults)) = (count("operations"), count("faults")) {
            let is_minimal = found["shrunk"]["is_minimal"] == Value::Bool(true);
            shrunk = Some((operations, faults, is_minimal));
        }
        let run = Run::of(&found)?;
        sought.add(check, *start, run.seeds);
        runs.push(run);
    }
    Ok(Score { bug: bug.clone(), runs, build_seconds, shrunk })
}

impl Run {
    fn of(found: &Value) -> Result<Self> {
        let others = found["others"].as_object().context("'others' is not told")?;
        let others =
            others.iter().filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)));
        Ok(Self {
            is_found: found["is_found"].as_bool().context("'is_found' is not told")?,
            check: found["check"].as_str().map(str::to_owned),
            seeds: found["seeds"].as_u64().context("'seeds' is not told")?,
            seconds: found["seconds"].as_f64().context("'seconds' is not told")?,
            others: others.collect(),
        })
    }
}

/// Demands that a test fails on the bug, as it does not without it.
fn run_test(scratch: &Scratch, bug: &Bug, arguments: &[String]) -> Result<Score> {
    let test = |how: &[&str]| {
        let mut command = cargo(&scratch.tree());
        command.args(["test", "--quiet", "--profile", PROFILE, "--locked"]).args(how);
        command.args(arguments).env("CARGO_TARGET_DIR", scratch.target());
        command.output().with_context(|| format!("testing {}", bug.name))
    };
    let began = Instant::now();
    let built = test(&["--no-run"])?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let build_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let is_found = !test(&[])?.status.success();
    let seconds = began.elapsed().as_secs_f64();
    println!("  {}", if is_found { "fails, as it must" } else { "PASSES" });
    let run = Run { is_found, check: None, seeds: 0, seconds, others: BTreeMap::new() };
    scratch.restore()?;
    if is_found {
        let passes = test(&[])?.status.success();
        ensure!(passes, "the test fails on the tree without the bug, too");
    }
    Ok(Score { bug: bug.clone(), runs: vec![run], build_seconds, shrunk: None })
}

/// One call of the program that looks.
struct Hunt<'a> {
    binary: &'a Path,
    from: u64,
    check: &'a str,
    seconds: u64,
}

impl Hunt<'_> {
    /// What it printed. A bug may make a lane never return; then the process is ended.
    fn run(&self, seeds: u64, shrink_seconds: u64) -> Result<Value> {
        let mut command = Command::new(self.binary);
        let numbers = [
            ("--from", self.from),
            ("--seeds", seeds),
            ("--seconds", self.seconds),
            ("--shrink-seconds", shrink_seconds),
        ];
        for (name, number) in numbers {
            command.args([name, &number.to_string()]);
        }
        command.args(["--check", self.check]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting the search")?;
        let patience = Duration::from_secs(self.seconds + shrink_seconds + GRACE_SECONDS);
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if patience < began.elapsed() {
                child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code().is_none(), "the search did not run: {error}");
            bail!("the search from {} did not end by itself", self.from);
        }
        serde_json::from_slice(&output.stdout).context("reading what the search found")
    }
}

const GRACE_SECONDS: u64 = 60;

/// The longest time to show that the tree without a bug is clean from one starting seed.
const CLEAN_SECONDS: u64 = 1200;

/// Which seeds were looked at, by what was looked for.
#[derive(Default)]
struct Sought(BTreeMap<(String, u64), u64>);

impl Sought {
    fn add(&mut self, check: &str, start: u64, seeds: u64) {
        // Whatever else fails in a run of the clean tree is as wrong.
        let own_runs = check == "deterministic" || check.starts_with("happens:");
        let what = if own_runs { check } else { "any" };
        let most = self.0.entry((what.to_owned(), start)).or_default();
        *most = seeds.max(*most);
    }

    fn are_clean(&self, binary: &Path) -> Result<()> {
        let mut sum = 0;
        for ((check, from), seeds) in &self.0 {
            let hunt = Hunt { binary, from: *from, check, seconds: CLEAN_SECONDS };
            let found = hunt.run(*seeds, 0)?;
            let run = Run::of(&found)?;
            let detail = &found["detail"];
            ensure!(!run.is_found, "without a bug, seed {}: {detail}", found["found"]);
            ensure!(run.seeds == *seeds, "no time to show that the tree without a bug is clean");
            sum += seeds;
        }
        println!("without a bug the same seeds are clean: {sum} runs");
        Ok(())
    }
}

/// Builds the copy without a bug, so that the next build of it is short.
///
/// # Errors
/// When the copy cannot be made or built.
pub(crate) fn build_clean(root: &Path) -> Result<()> {
    let scratch = Scratch::new(root)?;
    scratch.restore()?;
    scratch.build("kvraft-hunt", PROFILE, "hunt").map(drop)
}

/// Builds the copy without a bug and puts the program aside.
fn keep_clean(scratch: &Scratch) -> Result<PathBuf> {
    scratch.restore()?;
    let began = Instant::now();
    let built = scratch.build("kvraft-hunt", PROFILE, "hunt")?;
    let clean = scratch.target().join("hunt-clean");
    fs::copy(&built, &clean).context("copying the program")?;
    println!("built without a bug in {:.1} s", began.elapsed().as_secs_f64());
    Ok(clean)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub(crate) fn drawn() -> u64 {
    u64::from(since_epoch().subsec_nanos())
}

/// Far apart, so that no two runs look at the same seeds. 32 bits, as `kvraft sim` draws them.
pub(crate) fn start_of(from: u64, run: u64) -> u64 {
    let mixed = (from ^ (run << 40)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::{Run, start_of, without_the_model_checkers};
    use crate::planted::{Bug, Judge};

    #[test]
    fn who_names_a_bug_of_the_model_checker_is_told() {
        let bug = |name: &str, judge| Bug {
            name: name.to_owned(),
            patch: Path::new(name).with_extension("patch"),
            judge,
        };
        let bugs = vec![bug("one", Judge::Model), bug("two", Judge::AnyCheck)];
        let all = without_the_model_checkers(bugs.clone(), false).unwrap();
        assert_eq!(all.iter().map(|bug| &bug.name).collect::<Vec<_>>(), ["two"]);
        let error = without_the_model_checkers(bugs, true).unwrap_err();
        assert!(error.to_string().starts_with("one: only"), "{error}");
    }

    #[test]
    fn starting_seeds_are_far_apart_and_small() {
        for from in [0, 1, 12_345] {
            let starts: BTreeSet<u64> = (0..5).map(|run| start_of(from, run)).collect();
            let ends = starts.iter().skip(1);
            assert!(starts.iter().zip(ends).all(|(first, next)| 100_000 < next - first));
            assert!(starts.iter().all(|start| *start <= u64::from(u32::MAX)));
        }
    }

    #[test]
    fn what_the_search_prints_is_read() {
        let printed = r#"{"is_found":true,"seeds":3,"seconds":0.5,"others":{"no-panic":2}}"#;
        let run = Run::of(&serde_json::from_str(printed).unwrap()).unwrap();
        assert!(run.is_found && run.seeds == 3 && run.others["no-panic"] == 2);
        assert!(Run::of(&serde_json::json!({})).is_err());
    }
}
