//! A follower that has missed many keys comes back while writes go on.
//!
//! Why: catching up is work for the leader, and clients must not notice it.
//!
//! Invariants:
//! - load is offered at a fixed rate, to the leader alone, and latency counts from when a request
//!   was due, so that queueing is not hidden;
//! - "before" is measured with the follower down, as "during" is but for its catching up;
//! - the follower has caught up when it has applied what the leader had at its start, and is no
//!   further behind than one look at both takes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fleet::Fleet;
use crate::ports::free_ports;
use crate::processes::Guard;
use crate::run::{build_release, need, output, target_folder, wait_for};

/// How long the most is measured, and the load before.
const MEASURE_TIME: Duration = Duration::from_secs(10);

/// Least time of the load while the follower catches up: fewer requests say little of a percentile.
const DURING_TIME_MIN: Duration = Duration::from_secs(3);

/// How long catching up may take.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(300);

/// Clients that find out the most that the cluster takes.
const CLIENTS: &str = "128";

/// Clients that carry an offered load: enough that no request waits for one in a short stall, which
/// would show as the server's latency long after the stall.
const OFFERING_CLIENTS: &str = "2048";

/// Connections of either.
const CONNECTIONS: &str = "16";

/// Time between two looks at the follower. A look starts two processes, which take their part of a
/// small machine from what is measured.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct RejoinOptions {
    /// Keys that are written while the follower is down.
    pub keys: u64,
    /// Offered load in percent of the most.
    pub rate_percent: u64,
    /// Entries that the journals keep behind the checkpoint; the server's default if `None`.
    pub retained_entries: Option<u64>,
}

/// What the load generator saw.
struct Reading {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    error_count: u64,
}

/// Measures, and prints a markdown table; demands that p99 at most doubles.
///
/// # Errors
/// When a server or the load generator fails, or p99 more than doubles.
pub fn rejoin(root: &Path, options: &RejoinOptions) -> Result<()> {
    need("etcdctl", "etcd-client")?;
    let binary = build_release(root)?;
    let parent = target_folder(root)?;
    let folder = tempfile::tempdir_in(&parent).context("a folder for the servers' data")?;
    let retained = options.retained_entries.map(|n| format!("limits.retained-entries={n}"));
    let arguments: Vec<&str> = retained.iter().flat_map(|set| ["--set", set]).collect();
    let mut fleet = Fleet::new(&binary, folder.path(), free_ports(6)?, 3, 3, &arguments);
    fleet.found()?;
    let leader = fleet.leader(&[0, 1, 2])?;
    let follower = (leader + 1) % 3;
    let endpoint = fleet.endpoints(&[leader]);
    eprintln!("writing {} keys with a follower down", options.keys);
    let missed_from = fleet.status(leader)?.applied;
    fleet.kill(follower);
    output(prefill(&binary, &endpoint, options.keys).stderr(Stdio::inherit()))?;
    let most = measure(&binary, &endpoint, None, MEASURE_TIME)?;
    let text = format!("{:.0}", most.per_second * options.rate_percent as f64 / 100.0);
    let rate: u64 = text.parse().context("a rate")?;
    eprintln!("at most {:.0} puts/s; offering {rate}", most.per_second);
    let before = measure(&binary, &endpoint, Some(rate), MEASURE_TIME)?;
    let missed = fleet.status(leader)?.applied - missed_from;
    let (during, took) = catch_up(&binary, &mut fleet, leader, follower, rate)?;
    let how = match fleet.log(follower).contains("installed a snapshot") {
        true => "snapshot",
        false => "journal",
    };
    println!(
        "| keys | entries missed | caught up by | in s | offered puts/s | | puts/s | p50 ms | p99 ms | failed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let head =
        format!("| {} | {missed} | {how} | {:.1} | {rate} |", options.keys, took.as_secs_f64());
    println!("{head} before | {} |", row(&before));
    println!("| | | | | | during | {} |", row(&during));
    fleet.equal_hashes(&[0, 1, 2])?;
    ensure!(
        during.p99_ms <= 2.0 * before.p99_ms,
        "p99 is {:.2} ms during and {:.2} ms before: more than twice",
        during.p99_ms,
        before.p99_ms
    );
    Ok(())
}

fn row(reading: &Reading) -> String {
    let Reading { per_second, p50_ms, p99_ms, error_count } = reading;
    format!("{per_second:.0} | {p50_ms:.2} | {p99_ms:.2} | {error_count}")
}

/// Starts the follower under load; what the load saw until it had caught up, and when it had.
fn catch_up(
    binary: &Path,
    fleet: &mut Fleet,
    leader: usize,
    follower: usize,
    rate: u64,
) -> Result<(Reading, Duration)> {
    let endpoint = fleet.endpoints(&[leader]);
    let mut load = bench(binary, "put", &endpoint, Some(rate), CATCH_UP_TIME_MAX * 2);
    let load = Guard::spawn(&mut load)?;
    let start = Instant::now();
    let target = fleet.status(leader)?.applied;
    fleet.start_founder(follower)?;
    wait_for("the follower", CATCH_UP_TIME_MAX, || {
        std::thread::sleep(LOOK_INTERVAL);
        let look = Instant::now();
        let leads_at = fleet.status(leader)?.applied;
        let applied = fleet.status(follower)?.applied;
        // What has been written between the two looks is no arrears.
        let slack = rate * u64::try_from(look.elapsed().as_millis()).unwrap_or(u64::MAX) / 1_000;
        ensure!(target <= applied && leads_at <= applied + slack, "{applied} of {leads_at}");
        Ok(())
    })?;
    let took = start.elapsed();
    std::thread::sleep(DURING_TIME_MIN.saturating_sub(took));
    Ok((parse(&load.interrupt()?)?, took))
}

/// Writes every key once, and reads for a moment.
fn prefill(binary: &Path, endpoint: &str, keys: u64) -> Command {
    let mut command = bench(binary, "range", endpoint, None, Duration::from_millis(100));
    command.args(["--key-space", &keys.to_string()]);
    command
}

fn bench(
    binary: &Path,
    operation: &str,
    endpoint: &str,
    rate: Option<u64>,
    duration: Duration,
) -> Command {
    let mut command = Command::new(binary);
    command.args(["bench", operation, "-w", "json", "--endpoints", endpoint]);
    let clients = if rate.is_some() { OFFERING_CLIENTS } else { CLIENTS };
    command.args(["--clients", clients, "--connections", CONNECTIONS]);
    command.args(["--duration", &format!("{}ms", duration.as_millis())]);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn measure(
    binary: &Path,
    endpoint: &str,
    rate: Option<u64>,
    duration: Duration,
) -> Result<Reading> {
    parse(&output(&mut bench(binary, "put", endpoint, rate, duration))?)
}

/// Reads what `kvraft bench -w json` printed.
fn parse(report: &str) -> Result<Reading> {
    let report: Value =
        serde_json::from_str(report).with_context(|| format!("not JSON: {report:?}"))?;
    let number = |name: &str| {
        report.pointer(name).and_then(Value::as_f64).with_context(|| format!("no number {name}"))
    };
    Ok(Reading {
        per_second: number("/operations_per_second")?,
        p50_ms: number("/latency_us/p50")? / 1_000.0,
        p99_ms: number("/latency_us/p99")? / 1_000.0,
        error_count: report["error_count"].as_u64().context("no number /error_count")?,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{parse, prefill, row};

    #[test]
    fn report_is_read() {
        let report = r#"{"operations_per_second": 2.0, "error_count": 1,
            "latency_us": {"p50": 1500, "p99": 3000}}"#;
        assert_eq!(row(&parse(report).unwrap()), "2 | 1.50 | 3.00 | 1");
        assert!(parse("{}").is_err());
    }

    #[test]
    fn prefilling_is_a_range() {
        let command = prefill(Path::new("kvraft"), "h:1", 7);
        let line = crate::run::line(&command);
        assert!(line.starts_with("kvraft bench range -w json") && line.contains("--key-space 7"));
    }
}
