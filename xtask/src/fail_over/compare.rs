//! How long nobody commits after a leader's death or a silent pause: without a coordinator, with
//! one, and with one that lies.
//!
//! Why beside the steps: where a leader falls silent, no connection closes, and only the whole time
//! can be compared.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{DAY_US, Server, leader_among, milliseconds, quiet_leader, stamp_us, time_of_day_us};
use crate::cluster::{PATIENCE, SERVER_COUNT};
use crate::ports::free_ports;
use crate::processes::Guard;
use crate::run::{build_release, need, signal, wait_for};

/// How long everybody has been back before the next leader fails.
const QUIET_TIME: Duration = Duration::from_millis(700);

/// How often a lying coordinator says to everybody that the leader is dead, in milliseconds.
const LIE_INTERVAL_MS: &str = "20";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coordinator {
    None,
    Honest,
    Lying,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Kill,
    Pause,
}

/// Fails `count` leaders each way and prints median and 99th percentile of each.
///
/// # Errors
/// When a cluster cannot be run, or a log lacks an election.
pub fn fail_over_compared(root: &Path, count: usize) -> Result<()> {
    need("etcdctl", "etcd-client")?;
    let binary = build_release(root)?;
    let mut rows = Vec::new();
    for coordinator in [Coordinator::None, Coordinator::Honest, Coordinator::Lying] {
        for failure in [Failure::Kill, Failure::Pause] {
            let mut times = measure(&binary, coordinator, failure, count)?;
            times.sort_unstable();
            let percentile = |percent| milliseconds(times[(times.len() * percent - 1) / 100]);
            let (median, high) = (percentile(50), percentile(99));
            let most = milliseconds(times[times.len() - 1]);
            println!("{failure:?} with coordinator {coordinator:?}: {median} ms, p99 {high} ms");
            rows.push(format!(
                "| {failure:?} | {coordinator:?} | {median} ms | {high} ms | {most} ms |"
            ));
        }
    }
    println!("\n| failure | coordinator | median | p99 | most |\n|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}

fn measure(
    binary: &Path,
    coordinator: Coordinator,
    failure: Failure,
    count: usize,
) -> Result<Vec<u64>> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let (_running, coord) = start_coordinator(binary, coordinator)?;
    let base_port = free_ports(2 * SERVER_COUNT)?;
    let servers = (0..SERVER_COUNT).map(|number| {
        let log = folder.path().join(format!("{number}.log"));
        let folder = folder.path().to_path_buf();
        Server { number, base_port, log, folder, coord, running: None }
    });
    let mut servers: Vec<Server> = servers.collect();
    for server in &mut servers {
        server.start(binary)?;
    }
    let mut times = Vec::new();
    while times.len() < count {
        let leader = wait_for("a quiet cluster", PATIENCE, || quiet_leader(&servers))?;
        std::thread::sleep(QUIET_TIME);
        // On a busy machine leadership may have moved in the meantime.
        if leader_among(&servers, None).ok() != Some(leader) {
            continue;
        }
        let marks: Vec<usize> = servers.iter().map(Server::log_size).collect();
        let failed_us = time_of_day_us();
        let name = if failure == Failure::Kill { "KILL" } else { "STOP" };
        signal(servers[leader].pid()?, name)?;
        let next = wait_for("the next leader", PATIENCE, || leader_among(&servers, Some(leader)))?;
        times.push(wait_for("its log", PATIENCE, || {
            committed_after(&servers[next].log_from(marks[next])?, failed_us)
        })?);
        match failure {
            Failure::Kill => {
                servers[leader].running = None;
                servers[leader].start(binary)?;
            }
            Failure::Pause => signal(servers[leader].pid()?, "CONT")?,
        }
    }
    Ok(times)
}

/// The coordinator, if there is one, and where servers find it.
fn start_coordinator(
    binary: &Path,
    coordinator: Coordinator,
) -> Result<(Option<Guard>, Option<SocketAddr>)> {
    if coordinator == Coordinator::None {
        return Ok((None, None));
    }
    let port = free_ports(2)?;
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut command = Command::new(binary);
    command.args(["coord", "--num-servers", &SERVER_COUNT.to_string()]);
    command.args(["--listen-servers", &address(port).to_string()]);
    command.args(["--listen-clients", &address(port + 1).to_string()]);
    if coordinator == Coordinator::Lying {
        command.args(["--lie-interval-ms", LIE_INTERVAL_MS]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((Some(Guard::spawn(&mut command)?), Some(address(port))))
}

/// When a new leader had committed, in microseconds after the failure.
fn committed_after(log: &str, failed_us: u64) -> Result<u64> {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for message in ["became leader", "committed"] {
        let line = lines.find(|line| line["message"].as_str() == Some(message));
        let line = line.with_context(|| format!("the log lacks: {message}"))?;
        if message == "committed" {
            let stamp = line["timestamp"].as_str().and_then(stamp_us).context("a time stamp")?;
            return Ok((stamp + DAY_US - failed_us) % DAY_US);
        }
    }
    unreachable!("the last of them returns");
}
