//! Three servers become five, and then three others, while clients write.
//!
//! Why: a change of members that takes writes away, or loses one, is worse than none.
//!
//! Three kinds of clients write at once: `kvraft client`, whose every acknowledgement is timed;
//! `etcdctl`, a process for each key; and `kvraft bench`, which loads the servers. Servers come by
//! `--join` and by `etcdctl member add`; they go by `etcdctl` and by `kvraft`, the leader first.
//!
//! Invariants:
//! - a write that was not acknowledged is made again with the same value: so every key must be
//!   there in the end;
//! - between two acknowledgements, whoever got them, there is never more than [`PAUSE_MAX`];
//! - none of the last three servers is one of the first three.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::PATIENCE;
use crate::fleet::Fleet;
use crate::ports::free_ports;
use crate::processes::Guard;
use crate::run::{build_release, need, output, wait_for};

/// Longest time without an acknowledged write.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Time between two changes, so that each can be seen by itself.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Servers, past and future.
const SERVER_COUNT: u16 = 6;

/// Clients at a prompt.
const PROMPT_COUNT: usize = 2;

/// What `kvraft bench` offers per second, enough to be noticed and to leave room for the rest.
const BENCH_RATE: &str = "500";

/// Builds the binary and lets a cluster grow and shrink.
///
/// # Errors
/// A pause that was too long, a write that was lost, or a step that could not be made.
pub fn grow_and_shrink(root: &Path) -> Result<()> {
    need("etcdctl", "etcd-client")?;
    under_load(&build_release(root)?)
}

/// An acknowledged write: its key, and when.
struct Acked {
    key: String,
    at: Instant,
}

/// What the writers share.
struct Load<'a> {
    binary: &'a Path,
    /// Of all servers, past and future.
    endpoints: String,
    stop: AtomicBool,
    acked: Mutex<Vec<Acked>>,
}

pub(crate) fn under_load(binary: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let base_port = free_ports(2 * SERVER_COUNT)?;
    let mut fleet = Fleet::new(binary, folder.path(), base_port, SERVER_COUNT, 3, &[]);
    fleet.found()?;
    let everybody: Vec<usize> = (0..usize::from(SERVER_COUNT)).collect();
    let load = Load {
        binary,
        endpoints: fleet.endpoints(&everybody),
        stop: AtomicBool::new(false),
        acked: Mutex::default(),
    };
    let outcome = std::thread::scope(|scope| {
        let mut writers: Vec<_> = (0..PROMPT_COUNT)
            .map(|number| {
                let load = &load;
                scope.spawn(move || load.prompt(number))
            })
            .collect();
        writers.push(scope.spawn(|| load.etcdctl()));
        let changed = change(&mut fleet, &load);
        load.stop.store(true, Ordering::Relaxed);
        let ended = writers.into_iter().map(|writer| writer.join().expect("no panic"));
        ended.chain([changed]).collect::<Result<Vec<()>>>()
    });
    outcome?;
    let acked = load.acked.into_inner().expect("writers do not panic");
    report_pause(&acked)?;
    let last = [3, 4, 5];
    read_back(&fleet, &last, &acked)?;
    fleet.equal_hashes(&last)
}

/// From three to five, to three, and to three others.
fn change(fleet: &mut Fleet, load: &Load<'_>) -> Result<()> {
    load.wait_for_more(100)?;
    let bench = load.bench(&fleet.endpoints(&[0, 1, 2]))?;
    let mut present = vec![0, 1, 2];
    join(fleet, &mut present, 3)?;
    add_by_etcdctl(fleet, &mut present, 4)?;
    load.wait_for_more(200)?;
    report_bench("while growing", bench)?;
    let bench = load.bench(&fleet.endpoints(&[3, 4]))?;
    let leader = fleet.leader(&present)?;
    let first = if leader < 3 { leader } else { 0 };
    let founders: Vec<usize> =
        [first].into_iter().chain((0..3).filter(|at| *at != first)).collect();
    remove(fleet, &mut present, founders[0], false)?;
    remove(fleet, &mut present, founders[1], true)?;
    load.wait_for_more(200)?;
    join(fleet, &mut present, 5)?;
    fleet.kvraft(&present, &["move-leader", "s6"])?;
    println!("s6 leads");
    std::thread::sleep(SETTLE_TIME);
    remove(fleet, &mut present, founders[2], false)?;
    load.wait_for_more(200)?;
    report_bench("while shrinking", bench)
}

fn join(fleet: &mut Fleet, present: &mut Vec<usize>, at: usize) -> Result<()> {
    let start = Instant::now();
    fleet.join(at, present, &[])?;
    fleet.member(present, at, false)?;
    present.push(at);
    said(fleet, "joined and votes", at, start);
    Ok(())
}

fn add_by_etcdctl(fleet: &mut Fleet, present: &mut Vec<usize>, at: usize) -> Result<()> {
    let start = Instant::now();
    let (name, url) = (fleet.nodes[at].name.clone(), format!("http://{}", fleet.nodes[at].peer));
    let urls = format!("--peer-urls={url}");
    fleet.etcdctl(present, &["member", "add", &name, "--learner", &urls])?;
    fleet.join(at, present, &[])?;
    let member = fleet.member(present, at, true)?;
    wait_for("a promotion", PATIENCE, || {
        fleet.etcdctl(present, &["member", "promote", &member.id])
    })?;
    fleet.member(present, at, false)?;
    present.push(at);
    said(fleet, "was added, started and promoted", at, start);
    Ok(())
}

fn remove(fleet: &mut Fleet, present: &mut Vec<usize>, at: usize, own: bool) -> Result<()> {
    let start = Instant::now();
    let member = fleet.member(present, at, false)?;
    present.retain(|other| *other != at);
    let leads = fleet.status(at)?.leads;
    if own {
        fleet.kvraft(present, &["member", "remove", &member.name])?;
    } else {
        fleet.etcdctl(present, &["member", "remove", &member.id])?;
    }
    fleet.wait_for_end(at)?;
    let what = if leads { "led, was removed and has ended" } else { "was removed and has ended" };
    said(fleet, what, at, start);
    Ok(())
}

fn said(fleet: &Fleet, what: &str, at: usize, start: Instant) {
    println!("{} {what}, in {:.2} s", fleet.nodes[at].name, start.elapsed().as_secs_f64());
    std::thread::sleep(SETTLE_TIME);
}

impl Load<'_> {
    fn count(&self) -> usize {
        self.acked.lock().expect("writers do not panic").len()
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn acknowledge(&self, key: String) {
        let acked = Acked { key, at: Instant::now() };
        self.acked.lock().expect("writers do not panic").push(acked);
    }

    /// Waits until so many more keys are acknowledged.
    fn wait_for_more(&self, count: usize) -> Result<()> {
        let wanted = self.count() + count;
        wait_for("acknowledged writes", PATIENCE, || {
            let now = self.count();
            ensure!(wanted <= now, "{now} of {wanted} keys are acknowledged");
            Ok(())
        })
    }

    /// Writes one key after the other at one prompt.
    fn prompt(&self, number: usize) -> Result<()> {
        let mut command = Command::new(self.binary);
        command.args(["client", "--endpoints", &self.endpoints]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut prompt = Prompt::start(&mut command)?;
        for at in 0.. {
            if self.is_over() {
                break;
            }
            let key = format!("grow/{number}/{at:06}");
            while !prompt.put(&key)? {
                ensure!(!self.is_over(), "{key} was never acknowledged");
            }
            self.acknowledge(key);
        }
        Ok(())
    }

    /// Writes each key with a process of its own, until it is acknowledged.
    fn etcdctl(&self) -> Result<()> {
        for at in 0.. {
            if self.is_over() {
                break;
            }
            let key = format!("grow/etcdctl/{at:06}");
            wait_for("an acknowledged write", PATIENCE, || {
                let mut command = Command::new("etcdctl");
                command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.endpoints));
                command.args(["--dial-timeout=2s", "--command-timeout=5s", "put", &key, &key]);
                let printed = output(&mut command)?;
                ensure!(printed.trim() == "OK", "put: {printed:?}");
                Ok(())
            })?;
            self.acknowledge(key);
        }
        Ok(())
    }

    /// Starts the load generator; it goes on until it is interrupted.
    fn bench(&self, endpoints: &str) -> Result<Guard> {
        let mut command = Command::new(self.binary);
        command.args(["bench", "put", "-w", "json", "--duration", "10m", "--rate", BENCH_RATE]);
        command.args(["--endpoints", endpoints]).stdin(Stdio::null()).stdout(Stdio::piped());
        Guard::spawn(&mut command)
    }
}

/// Ends the load generator and prints what it saw.
fn report_bench(when: &str, bench: Guard) -> Result<()> {
    let text = bench.interrupt()?;
    let report: Value = serde_json::from_str(&text).with_context(|| format!("bench: {text:?}"))?;
    println!(
        "kvraft bench {when}: {} operations, {} not acknowledged {}",
        report["operations"], report["error_count"], report["errors"]
    );
    Ok(())
}

/// A running `kvraft client`.
struct Prompt {
    process: Guard,
    answers: Receiver<String>,
}

impl Prompt {
    fn start(command: &mut Command) -> Result<Self> {
        let mut process = Guard::spawn(command)?;
        let (sender, answers) = channel();
        let errors = sender.clone();
        let (stdout, stderr) = (process.child.stdout.take(), process.child.stderr.take());
        let stdout = stdout.context("its output is a pipe")?;
        let stderr = stderr.context("its errors are a pipe")?;
        // They end with the process; whoever listened may have gone before.
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|l| errors.send(l))
        });
        Ok(Self { process, answers })
    }

    /// Whether the key was acknowledged with itself as its value.
    fn put(&mut self, key: &str) -> Result<bool> {
        let stdin = self.process.child.stdin.as_mut().context("its input is a pipe")?;
        writeln!(stdin, "put {key} {key}").context("the prompt has ended")?;
        let answer = self.answers.recv_timeout(PATIENCE * 4).context("the prompt says nothing")?;
        if answer != "OK" {
            println!("{key}: {answer}");
        }
        Ok(answer == "OK")
    }
}

/// Prints the longest pause, and demands that it is short.
fn report_pause(acked: &[Acked]) -> Result<()> {
    let mut times: Vec<Instant> = acked.iter().map(|acked| acked.at).collect();
    times.sort_unstable();
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = pauses.max().context("nothing was acknowledged")?;
    let took = times[times.len() - 1] - times[0];
    println!(
        "{} writes acknowledged in {:.1} s, the longest pause between two {:.3} s",
        times.len(),
        took.as_secs_f64(),
        longest.as_secs_f64()
    );
    ensure!(longest <= PAUSE_MAX, "writes paused for {:.3} s", longest.as_secs_f64());
    Ok(())
}

/// Demands that every acknowledged key has its value.
fn read_back(fleet: &Fleet, nodes: &[usize], acked: &[Acked]) -> Result<()> {
    let printed = fleet.etcdctl(nodes, &["get", "--prefix", "grow/"])?;
    let lines: Vec<&str> = printed.lines().collect();
    let mut missing = acked.iter().map(|acked| acked.key.as_str()).collect::<Vec<_>>();
    missing.sort_unstable();
    let found: Vec<&str> =
        lines.chunks(2).filter(|pair| pair.first() == pair.last()).map(|pair| pair[0]).collect();
    missing.retain(|key| found.binary_search(key).is_err());
    ensure!(missing.is_empty(), "{} were acknowledged and are gone: {missing:?}", missing.len());
    println!("all {} acknowledged writes are there", acked.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{AtomicBool, Command, Load, Mutex};
    use crate::processes::is_running;

    /// A check that fails early leaves no load behind.
    #[test]
    fn the_load_does_not_outlive_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("endless");
        // Written by a process of its own: nobody here holds it open when it is started.
        let script = "printf '#!/bin/sh\nexec sleep 60\n' > \"$0\" && chmod +x \"$0\"";
        let written = Command::new("sh").args(["-c", script]).arg(&program).status().unwrap();
        assert!(written.success());
        let endpoints = "h:1".to_owned();
        let (stop, acked) = (AtomicBool::new(false), Mutex::default());
        let load = Load { binary: &program, endpoints, stop, acked };
        let bench = load.bench("h:1").unwrap();
        let pid = bench.child.id();
        assert!(is_running(pid));
        drop(bench);
        assert!(!is_running(pid));
    }
}
