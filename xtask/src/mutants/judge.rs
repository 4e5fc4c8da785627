//! Who looks at a mutant: simulation and scenarios, what is quick first, until the first notices.
//!
//! Why in turns: most mutants that a simulation notices fail within its first seconds, and most of
//! the others fail a scenario; only what is left is worth minutes.
//!
//! Invariants:
//! - unit tests have no say;
//! - every run of the judge is bounded in time and memory, and is the same process that is stopped;
//! - the clean tree goes through the scenarios of every package that a chosen mutant is in;
//! - what goes wrong beside the mutant, a full disk or a judge without tests, ends the whole run.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::planted::{PROFILE, Scratch};
use crate::run::cargo;

/// The package and the program that simulates.
const HUNT_PACKAGE: &str = "kvraft-hunt";
const HUNT: &str = "hunt";

/// What a simulation may take over its time, in seconds of a processor, before it counts as
/// endless.
const GRACE_SECONDS: u64 = 20;

/// What the scenarios of one program may take, in seconds of a processor, before they count as
/// endless: many times what they need.
const SCENARIOS_SECONDS_MAX: u64 = 120;

/// The same in seconds that pass, for what waits without end: a busy machine makes nothing endless.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a run of the judge may take of memory, in KiB.
const MEMORY_KIB_MAX: u64 = 4 << 20;

/// SIGXCPU and SIGKILL, which end a process whose seconds are over.
const STOPPED: [i32; 2] = [24, 9];

/// The first simulation has this part of the time of the second.
const FIRST_LOOK_DIVISOR: u64 = 5;

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It does not compile.
    Unviable,
    /// A check of the simulator failed, as told.
    Simulated(String),
    /// The judge did not end, or took too much of a processor.
    Endless,
    /// The simulator ended without a verdict: a stack that is too deep, no memory.
    Died,
    /// A scenario failed: whose, and which.
    Scenario(&'static str, String),
    /// Nobody noticed.
    Survived,
}

impl Outcome {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Unviable => "does not compile".to_owned(),
            Self::Simulated(detail) => format!("simulation: {detail}"),
            Self::Endless => "endless".to_owned(),
            Self::Died => "the simulator died".to_owned(),
            Self::Scenario(whose, which) => format!("{whose}: {which}"),
            Self::Survived => "SURVIVED".to_owned(),
        }
    }

    pub(super) fn kind(&self) -> String {
        match self {
            Self::Unviable => "did not compile".to_owned(),
            Self::Simulated(_) => "noticed by simulation".to_owned(),
            Self::Endless => "did not end".to_owned(),
            Self::Died => "killed the simulator".to_owned(),
            Self::Scenario(whose, _) => format!("noticed by {whose}"),
            Self::Survived => "survived".to_owned(),
        }
    }
}

/// One look at a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// The first part of the simulation's time, or all of it.
    Simulation {
        is_first: bool,
    },
    Scenarios(Scenarios),
}

/// Integration tests that play scenarios, each a program of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scenarios {
    /// What they are called where the outcomes are counted.
    name: &'static str,
    package: &'static str,
    programs: &'static [&'static str],
    /// Which tests of the programs.
    arguments: &'static [&'static str],
}

/// The golden scenarios of `crates/raft/testdata`.
const RAFT: Scenarios = Scenarios {
    name: "scenarios of raft",
    package: "kvraft-raft",
    programs: &["raft"],
    arguments: &["scripts::"],
};

/// Random worlds of servers that are raft alone, liars and lost disks among them.
const RAFT_WORLDS: Scenarios =
    Scenarios { name: "simulation of raft alone", arguments: &["--skip", "scripts::"], ..RAFT };

/// Nodes that are stepped by hand. What only encodes frames is no scenario.
const NODES: Scenarios = Scenarios {
    name: "scenarios of nodes",
    package: "kvraft-replica",
    programs: &["nodes"],
    arguments: &["--skip", "frame", "--skip", "a_dropped_forward"],
};

/// The store on a simulated disk that damages and lies.
const STORE: Scenarios = Scenarios {
    name: "scenarios of store",
    package: "kvraft-store",
    programs: &["store"],
    arguments: &["--skip", "crash::", "--skip", "install::"],
};

/// The power is cut at every single operation.
const STORE_CUT: Scenarios = Scenarios { arguments: &["crash::", "install::"], ..STORE };

/// Whole servers on simulated disks, played from plans or stepped by hand.
const SERVERS: Scenarios = Scenarios {
    name: "scenarios of whole servers",
    package: "kvraft-sim",
    programs: &[
        "false_clean",
        "recover",
        "regress",
        "replicas",
        "scenarios",
        "table_lane",
        "upgrade",
    ],
    arguments: &[],
};

/// Who looks at a change of this file, one after the other. Scenarios of a package that does not
/// contain the file would show nothing.
fn looks(file: &str) -> Vec<Look> {
    let (quick, thorough) = match file {
        _ if file.starts_with("crates/raft/") => (Some(RAFT), Some(RAFT_WORLDS)),
        _ if file.starts_with("crates/store/") => (Some(STORE), Some(STORE_CUT)),
        _ if file.starts_with("crates/replica/") => (Some(NODES), None),
        _ => (None, None),
    };
    let mut looks = vec![Look::Simulation { is_first: true }];
    looks.extend(quick.map(Look::Scenarios));
    looks.push(Look::Scenarios(SERVERS));
    looks.push(Look::Simulation { is_first: false });
    looks.extend(thorough.map(Look::Scenarios));
    looks
}

/// Who looks at the scratch copy as it is.
pub(super) struct Judge<'a> {
    pub(super) scratch: &'a Scratch,
    /// The first seed.
    pub(super) from: u64,
    /// Seconds of simulation.
    pub(super) seconds: u64,
    /// Threads of it.
    pub(super) jobs: usize,
}

impl Judge<'_> {
    /// What becomes of the change in this file of the copy.
    pub(super) fn judge(&self, file: &str) -> Result<Outcome> {
        let Some(hunt) = self.build(&[HUNT])? else { return Ok(Outcome::Unviable) };
        for look in looks(file) {
            let outcome = match look {
                Look::Simulation { is_first } => self.simulate(&hunt[0], is_first)?,
                Look::Scenarios(scenarios) => self.play(scenarios)?,
            };
            if outcome != Outcome::Survived {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Survived)
    }

    /// Builds these programs, unless the copy does not compile.
    ///
    /// Always for the same packages, and always with a test among them: what is built with other
    /// features for another program would be built twice.
    fn build(&self, programs: &[&str]) -> Result<Option<Vec<PathBuf>>> {
        let mut command = cargo(&self.scratch.tree());
        command.args(["build", "--locked", "--message-format", "json", "--profile", PROFILE]);
        command.args(["--package", HUNT_PACKAGE, "--bin", HUNT, "--test", SERVERS.programs[0]]);
        command.args([RAFT, NODES, STORE, SERVERS].iter().flat_map(|it| ["--package", it.package]));
        let tests = programs.iter().filter(|program| **program != HUNT);
        command.args(tests.flat_map(|program| ["--test", *program]));
        command.env("CARGO_TARGET_DIR", self.scratch.target());
        let built = command.output().context("building")?;
        let messages = String::from_utf8_lossy(&built.stdout);
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            ensure!(has_compile_error(&messages), "cargo build failed by itself: {said}");
            return Ok(None);
        }
        let paths = executables(&messages);
        let of = |program: &&str| {
            let path = paths.get(*program).cloned();
            path.with_context(|| format!("cargo does not say where {program} is"))
        };
        programs.iter().map(of).collect::<Result<_>>().map(Some)
    }

    fn simulate(&self, binary: &Path, is_first: bool) -> Result<Outcome> {
        let seconds =
            if is_first { self.seconds.div_ceil(FIRST_LOOK_DIVISOR) } else { self.seconds };
        // The second look begins far from where the first ended.
        let from = if is_first { self.from } else { self.from ^ (1 << 32) };
        // A mutant, or a busy machine, may be so slow that no seed comes to its end at first.
        for patience in [1, 5, 25] {
            if let Some(outcome) = self.simulate_for(binary, from, seconds * patience)? {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Endless)
    }

    /// Nothing when no seed was simulated to its end.
    fn simulate_for(&self, binary: &Path, from: u64, seconds: u64) -> Result<Option<Outcome>> {
        let mut arguments = vec!["--check".to_owned(), "any".to_owned()];
        let numbers = [("--from", from), ("--seconds", seconds), ("--jobs", self.jobs as u64)];
        arguments.extend(numbers.iter().flat_map(|(key, n)| [(*key).to_owned(), n.to_string()]));
        let bound = seconds * self.jobs as u64 + GRACE_SECONDS;
        let ended = self.bounded(binary, &arguments, &self.scratch.tree(), bound)?;
        let Some((is_well, text)) = ended else { return Ok(Some(Outcome::Endless)) };
        if !is_well {
            return Ok(Some(Outcome::Died));
        }
        let found: Value = serde_json::from_str(&text).context("reading the verdict")?;
        let detail = found["detail"].as_str().unwrap_or_default();
        let has_ended = 0 < found["seeds"].as_u64().unwrap_or_default();
        match found["is_found"].as_bool() {
            Some(true) => Ok(Some(Outcome::Simulated(shortened(detail)))),
            Some(false) => Ok(has_ended.then_some(Outcome::Survived)),
            None => bail!("the verdict does not say whether anything was found"),
        }
    }

    fn play(&self, scenarios: Scenarios) -> Result<Outcome> {
        let folder = scenarios.package.trim_start_matches("kvraft-");
        let folder = self.scratch.tree().join("crates").join(folder);
        let arguments: Vec<_> = scenarios.arguments.iter().map(|&it| it.to_owned()).collect();
        let Some(programs) = self.build(scenarios.programs)? else {
            bail!("{} do not compile, and the servers did", scenarios.name);
        };
        for program in programs {
            match self.bounded(&program, &arguments, &folder, SCENARIOS_SECONDS_MAX)? {
                None => return Ok(Outcome::Endless),
                Some((true, text)) => {
                    ensure!(has_tests(&text), "{} have no tests", scenarios.name);
                }
                Some((false, text)) => {
                    return Ok(Outcome::Scenario(scenarios.name, failed_tests(&text)));
                }
            }
        }
        Ok(Outcome::Survived)
    }

    /// Runs a program, for so many seconds of a processor at most: whether it succeeded and what it
    /// printed, or nothing when it had to be stopped.
    fn bounded(
        &self,
        program: &Path,
        arguments: &[String],
        folder: &Path,
        seconds_max: u64,
    ) -> Result<Option<(bool, String)>> {
        // A shell, since bounds are a process's own; a file, since nobody empties a pipe.
        let printed = self.scratch.target().join("judge.out");
        let mut command = Command::new("sh");
        let bounds = format!("ulimit -v {MEMORY_KIB_MAX}; ulimit -t {seconds_max}");
        command.arg("-c").arg(format!("{bounds}; exec \"$0\" \"$@\""));
        command.arg(program).args(arguments).current_dir(folder);
        command.stdout(File::create(&printed)?).stderr(Stdio::null());
        let mut child = command.spawn().context("starting the judge")?;
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if until < Instant::now() {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if status.signal().is_some_and(|signal| STOPPED.contains(&signal)) {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&std::fs::read(&printed)?).into_owned();
        Ok(Some((status.success(), text)))
    }
}

/// The programs that cargo says it has built, by their names.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = |message: Value| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    };
    messages.filter_map(program).collect()
}

/// rustc has found something wrong, and it is not the machine that failed.
fn has_compile_error(messages: &str) -> bool {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_error =
        |it: Value| it["reason"] == "compiler-message" && it["message"]["level"] == "error";
    messages.into_iter().any(is_error)
}

/// A test program says that it has run at least one.
fn has_tests(printed: &str) -> bool {
    let counts = printed.lines().filter_map(|line| line.strip_prefix("running "));
    counts.into_iter().any(|rest| !rest.starts_with("0 "))
}

/// A line must show the mutant, too.
fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

/// The tests that a test program says have failed; it died if it names none.
fn failed_tests(printed: &str) -> String {
    let failed = printed.lines().filter_map(|line| {
        line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
    });
    let scenarios = printed.lines().filter_map(|line| {
        line.split_once("other than recorded: ").map(|(_, names)| names.to_owned())
    });
    let names: Vec<String> = scenarios.chain(failed).collect();
    if names.is_empty() { "died".to_owned() } else { shortened(&names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::{
        Look, NODES, RAFT, STORE, executables, failed_tests, has_compile_error, has_tests, looks,
    };

    #[test]
    fn only_scenarios_that_contain_the_file_are_played() {
        let raft = looks("crates/raft/src/leader.rs");
        assert!(raft.contains(&Look::Scenarios(RAFT)) && !raft.contains(&Look::Scenarios(STORE)));
        let replica = looks("crates/replica/src/node.rs");
        assert!(!replica.contains(&Look::Scenarios(RAFT)));
        assert!(replica.contains(&Look::Scenarios(NODES)));
        assert_eq!(replica[0], Look::Simulation { is_first: true });
    }

    #[test]
    fn what_failed_is_named() {
        let text = "test a::b ... ok\ntest a::c ... FAILED\nother than recorded: x y\n";
        assert_eq!(failed_tests(text), "x y, a::c");
        assert_eq!(failed_tests("test a::b ... ok\n"), "died");
    }

    #[test]
    fn a_machine_that_fails_is_no_mutant_that_does_not_compile() {
        let message = |level: &str| {
            let message = json!({ "level": level });
            json!({ "reason": "compiler-message", "message": message }).to_string()
        };
        assert!(has_compile_error(&[message("warning"), message("error")].join("\n")));
        assert!(!has_compile_error(&message("warning")));
        assert!(!has_compile_error(""));
    }

    #[test]
    fn a_filter_that_matches_nothing_is_no_judge() {
        assert!(has_tests("\nrunning 1 test\ntest a ... ok\n"));
        assert!(!has_tests("\nrunning 0 tests\n"));
    }

    #[test]
    fn programs_are_read_from_what_cargo_says() {
        let message = |name: &str, executable: serde_json::Value| {
            json!({ "target": { "name": name }, "executable": executable }).to_string()
        };
        let lines = [message("a", json!(null)), "noise".into(), message("b", json!("/t/b-1"))];
        let found = executables(&lines.join("\n"));
        assert_eq!(found, [("b".to_owned(), PathBuf::from("/t/b-1"))].into());
    }
}
