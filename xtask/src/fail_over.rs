//! Where the time goes between the death of a leader and the first entry that its successor has
//! committed, from the structured logs of the shipped binary.
//!
//! Why: the fail-over budget in `docs/internals/raft.md` is worth what was measured of it.
//!
//! Invariants:
//! - every step is measured in the log of the server that leads next, on one clock;
//! - each leader is killed at a quiet moment: all servers are back and agree.

mod compare;

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{PATIENCE, SERVER_COUNT, Status, status_of};
use crate::ports::free_ports;
use crate::processes::Guard;
use crate::run::{build_release, need, signal, wait_for};

pub use compare::fail_over_compared;

/// How long everybody has been back before the next leader is killed.
const QUIET_TIME: Duration = Duration::from_millis(1500);

/// What is logged of elections and commits.
const LOG_LEVEL: &str = "info,kvraft_server::edge=debug,kvraft_server::peers=debug";

/// The steps, each with the message that ends it, in order. The first begins with the kill.
const STEPS: [(&str, &str); 5] = [
    ("the closed connection is noticed", "connection"),
    ("jitter", "asks whether it would be elected"),
    ("PreVote", "campaigns"),
    ("vote", "became leader"),
    ("no-op committed", "committed"),
];

/// Kills `kill_count` leaders and prints what each step took.
///
/// # Errors
/// When a cluster cannot be run, or a log lacks a step.
pub fn fail_over(root: &Path, kill_count: usize) -> Result<()> {
    need("etcdctl", "etcd-client")?;
    let binary = build_release(root)?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let base_port = free_ports(2 * SERVER_COUNT)?;
    let servers = (0..SERVER_COUNT).map(|number| {
        let log = folder.path().join(format!("{number}.log"));
        let folder = folder.path().to_path_buf();
        Server { number, base_port, log, folder, coord: None, running: None }
    });
    let mut servers: Vec<Server> = servers.collect();
    for server in &mut servers {
        server.start(&binary)?;
    }
    let mut measured = Vec::new();
    for kill in 1..=kill_count {
        let leader = wait_for("a quiet cluster", PATIENCE, || quiet_leader(&servers))?;
        std::thread::sleep(QUIET_TIME);
        let marks: Vec<usize> = servers.iter().map(Server::log_size).collect();
        let killed_us = time_of_day_us();
        signal(servers[leader].pid()?, "KILL")?;
        servers[leader].running = None;
        let next = wait_for("the next leader", PATIENCE, || leader_among(&servers, None))?;
        let steps = wait_for("its log", PATIENCE, || {
            steps(&servers[next].log_from(marks[next])?, leader, killed_us)
        })?;
        let text: Vec<String> = steps.iter().map(|us| milliseconds(*us)).collect();
        println!("kill {kill}: server {} after {} ms", next + 1, text.join(" + "));
        measured.push(steps);
        servers[leader].start(&binary)?;
    }
    print_table(&measured);
    Ok(())
}

/// One server and its log.
struct Server {
    number: u16,
    base_port: u16,
    folder: PathBuf,
    log: PathBuf,
    coord: Option<SocketAddr>,
    running: Option<Guard>,
}

impl Server {
    fn start(&mut self, binary: &Path) -> Result<()> {
        let address = |number, role| format!("127.0.0.1:{}", self.base_port + 2 * number + role);
        let member = |number| format!("{}={}", number + 1, address(number, 1));
        let members: Vec<String> = (0..SERVER_COUNT).map(member).collect();
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(binary);
        command.args(["server", "--log-format", "json", "--log-level", LOG_LEVEL, "--data-dir"]);
        command.arg(self.folder.join(format!("data-{}", self.number)));
        command.args(["--member", &(self.number + 1).to_string()]);
        command.args(["--listen-client", &address(self.number, 0)]);
        command.args(["--listen-peer", &address(self.number, 1)]);
        command.args(["--initial-cluster", &members.join(",")]);
        if let Some(coord) = self.coord {
            command.args(["--set", &format!("coord={coord}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running = Some(Guard::spawn(&mut command)?);
        Ok(())
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.running.as_ref().context("the server does not run")?.pid())
    }

    fn status(&self) -> Result<Status> {
        status_of(&format!("127.0.0.1:{}", self.base_port + 2 * self.number))
    }

    fn log_size(&self) -> usize {
        std::fs::metadata(&self.log)
            .map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(0))
    }

    fn log_from(&self, mark: usize) -> Result<String> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(mark as u64))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// `except` does not answer.
fn leader_among(servers: &[Server], except: Option<usize>) -> Result<usize> {
    let leads = |(at, server): (usize, &Server)| {
        Some(at) != except
            && server.running.is_some()
            && server.status().is_ok_and(|status| status.leads)
    };
    servers.iter().enumerate().position(leads).context("no server says that it leads")
}

/// The leader, when all servers run and have applied the same.
fn quiet_leader(servers: &[Server]) -> Result<usize> {
    let leader = leader_among(servers, None)?;
    let applied: Result<Vec<u64>> =
        servers.iter().map(|server| Ok(server.status()?.applied)).collect();
    let applied = applied?;
    ensure!(applied.iter().all(|index| *index == applied[0]), "applied differs: {applied:?}");
    Ok(leader)
}

/// What each step took, in microseconds, as the next leader's log tells.
fn steps(log: &str, killed: usize, killed_us: u64) -> Result<[u64; STEPS.len()]> {
    let killed = (killed + 1).to_string();
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut before = killed_us;
    let mut steps = [0; STEPS.len()];
    for (step, (name, message)) in steps.iter_mut().zip(STEPS) {
        let is_end = |line: &Value| {
            let text = line["message"].as_str().unwrap_or_default();
            let peer = line["peer"].as_str().is_none_or(|peer| peer == killed);
            peer && if message == "connection" { text.contains(message) } else { text == message }
        };
        let line =
            lines.find(is_end).with_context(|| format!("the log lacks the end of: {name}"))?;
        let stamp = line["timestamp"].as_str().and_then(stamp_us).context("a time stamp")?;
        *step = (stamp + DAY_US - before) % DAY_US;
        before = stamp;
    }
    Ok(steps)
}

fn print_table(measured: &[[u64; STEPS.len()]]) {
    println!("\n| step | median | least | most |\n|---|---|---|---|");
    let totals = measured.iter().map(|steps| steps.iter().sum()).collect();
    let columns = (0..STEPS.len()).map(|at| measured.iter().map(|steps| steps[at]).collect());
    let names = STEPS.iter().map(|(name, _)| *name).chain(["all of it"]);
    for (name, mut column) in names.zip(columns.chain([totals])) {
        let column: &mut Vec<u64> = &mut column;
        column.sort_unstable();
        let (least, most) = (column[0], column[column.len() - 1]);
        let text = [column[column.len() / 2], least, most].map(milliseconds);
        println!("| {name} | {} ms | {} ms | {} ms |", text[0], text[1], text[2]);
    }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{}", us / 1_000, us % 1_000 / 100)
}

const DAY_US: u64 = 86_400_000_000;

fn time_of_day_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros() % u128::from(DAY_US)).expect("a day is far below 2^64")
}

/// Microseconds since midnight of `2026-11-21T07:10:36.633256Z`.
fn stamp_us(stamp: &str) -> Option<u64> {
    let time = stamp.split_once('T')?.1.trim_end_matches('Z');
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut whole = 0;
    for part in seconds.split(':') {
        whole = whole * 60 + part.parse::<u64>().ok()?;
    }
    let fraction: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(whole * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::{milliseconds, stamp_us, steps};

    #[test]
    fn stamps_are_microseconds_of_the_day() {
        assert_eq!(stamp_us("2026-11-21T01:00:02.633256Z"), Some(3_602_633_256));
        assert_eq!(stamp_us("2026-11-21T00:00:00.5Z"), Some(500_000));
        assert_eq!(stamp_us("yesterday"), None);
        assert_eq!(milliseconds(12_345), "12.3");
    }

    #[test]
    fn steps_are_the_times_between_the_events() {
        let line = |ms: u64, text: &str| {
            format!(
                "{{\"timestamp\":\"xT00:00:01.{ms:03}Z\",\"message\":\"{text}\",\"peer\":\"2\"}}\n"
            )
        };
        let log = [
            line(1, "peer connection: gone"),
            line(11, "asks whether it would be elected"),
            line(13, "campaigns"),
            line(18, "became leader"),
            line(25, "committed"),
        ];
        assert_eq!(
            steps(&log.concat(), 1, 1_000_000).unwrap(),
            [1_000, 10_000, 2_000, 5_000, 7_000]
        );
        assert!(steps(&log[..4].concat(), 1, 1_000_000).is_err());
    }
}
