//! etcd, kvraft and servers that do nothing, measured side by side.
//!
//! Why: a number alone says nothing. etcd shows what users have; the servers that do nothing show
//! what this machine, this library and these message types allow at all.
//!
//! Invariants:
//! - one load generator, one machine, runs of the systems interleaved, medians reported;
//! - every server syncs its log before it acknowledges;
//! - processor time and memory are read from the kernel, for the server processes only.
//!
//! What it deliberately lacks: several machines. The load generator shares the processors.

mod systems;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::processes::usage;
use crate::run::{build_release, need, output, target_folder};
use systems::System;

/// Offered load of the second table, in percent of what etcd reached at most.
const RATE_PERCENT: u64 = 70;

/// Clients that carry the offered load: enough that none waits for its turn.
const RATE_CLIENT_COUNT: u32 = 256;

/// What to measure, and for how long.
#[derive(Debug)]
pub struct BenchOptions {
    /// Length of one run in seconds.
    pub seconds: u64,
    /// Runs of each system at each load; the median counts.
    pub round_count: usize,
    /// Numbers of clients, each with one request under way.
    pub clients: Vec<u32>,
    /// Size of each value in bytes.
    pub value_size: usize,
    /// Folder for the servers' data; in the target folder when absent.
    pub data_dir: Option<PathBuf>,
}

/// What one run of the load generator gave.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_op: f64,
    resident_mib: f64,
}

/// Measures the three systems and prints markdown on stdout; progress goes to stderr.
///
/// # Errors
/// When a program is missing, a server does not start, or the load generator fails.
pub fn bench_etcd(root: &Path, options: &BenchOptions) -> Result<()> {
    need("etcd", "etcd-server")?;
    need("etcdctl", "etcd-client")?;
    ensure!(0 < options.round_count && !options.clients.is_empty(), "nothing to measure");
    let kvraft = build_release(root)?;
    let parent = match &options.data_dir {
        Some(folder) => folder.clone(),
        None => target_folder(root)?,
    };
    let folder = tempfile::tempdir_in(&parent).context("a folder for the servers' data")?;
    let systems = [
        systems::no_op(&kvraft)?,
        systems::etcd(&folder.path().join("etcd"))?,
        systems::kvraft(&kvraft, &folder.path().join("kvraft"))?,
    ];
    for system in &systems {
        measure(&kvraft, system, options, options.clients[0], None)?; // Warms up.
    }
    println!("{}\n", conditions(options)?);
    let etcd_max = closed_loop(&kvraft, &systems, options)?;
    open_loop(&kvraft, &systems, options, etcd_max)
}

/// Every client sends as soon as it has its answer. Gives the most that etcd reached per second.
fn closed_loop(kvraft: &Path, systems: &[System], options: &BenchOptions) -> Result<f64> {
    println!("| clients | system | puts/s | of ceiling | p50 ms | p99 ms | CPU µs/put | RSS MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut etcd_max = 0.0_f64;
    for clients in &options.clients {
        let medians = rounds(kvraft, systems, options, *clients, None)?;
        let ceiling = medians[0].per_second;
        for (system, reading) in systems.iter().zip(&medians) {
            let share = 100.0 * reading.per_second / ceiling;
            println!("| {clients} | {} | {} |", system.name, row(reading, Some(share)));
        }
        etcd_max = etcd_max.max(medians[1].per_second);
    }
    Ok(etcd_max)
}

/// Requests are sent on time, whether or not answers have come: queueing is not hidden.
fn open_loop(
    kvraft: &Path,
    systems: &[System],
    options: &BenchOptions,
    etcd_max: f64,
) -> Result<()> {
    let text = format!("{:.0}", etcd_max * RATE_PERCENT as f64 / 100.0);
    let rate: u64 = text.parse().context("a rate")?;
    ensure!(0 < rate, "etcd answered nothing");
    println!("\nOffered {rate} puts/s, {RATE_PERCENT} % of etcd's most:\n");
    println!("| system | puts/s | p50 ms | p99 ms | CPU µs/put | RSS MiB |");
    println!("|---|---|---|---|---|---|");
    let medians = rounds(kvraft, systems, options, RATE_CLIENT_COUNT, Some(rate))?;
    for (system, reading) in systems.iter().zip(&medians) {
        println!("| {} | {} |", system.name, row(reading, None));
    }
    Ok(())
}

fn row(reading: &Reading, share: Option<f64>) -> String {
    let share = share.map(|percent| format!("{percent:.0} % | ")).unwrap_or_default();
    format!(
        "{:.0} | {share}{:.2} | {:.2} | {:.1} | {:.0}",
        reading.per_second,
        reading.p50_ms,
        reading.p99_ms,
        reading.cpu_us_per_op,
        reading.resident_mib
    )
}

/// The median reading of each system, the systems taking turns.
fn rounds(
    kvraft: &Path,
    systems: &[System],
    options: &BenchOptions,
    clients: u32,
    rate: Option<u64>,
) -> Result<Vec<Reading>> {
    let mut readings = vec![Vec::new(); systems.len()];
    for round in 1..=options.round_count {
        for (system, readings) in systems.iter().zip(&mut readings) {
            let reading = measure(kvraft, system, options, clients, rate)?;
            eprintln!(
                "round {round}/{}, {clients} clients, {}: {:.0} puts/s, p99 {:.2} ms",
                options.round_count, system.name, reading.per_second, reading.p99_ms
            );
            readings.push(reading);
        }
    }
    Ok(readings.iter().map(|readings| median_of(readings)).collect())
}

/// The median of each column by itself.
fn median_of(readings: &[Reading]) -> Reading {
    let column = |of: fn(&Reading) -> f64| median(readings.iter().map(of).collect());
    Reading {
        per_second: column(|reading| reading.per_second),
        p50_ms: column(|reading| reading.p50_ms),
        p99_ms: column(|reading| reading.p99_ms),
        cpu_us_per_op: column(|reading| reading.cpu_us_per_op),
        resident_mib: column(|reading| reading.resident_mib),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "there is a median only of something");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// One run of the load generator against one system.
fn measure(
    kvraft: &Path,
    system: &System,
    options: &BenchOptions,
    clients: u32,
    rate: Option<u64>,
) -> Result<Reading> {
    let before = used(system)?.0;
    let mut command = Command::new(kvraft);
    command.args(["bench", "put", "--write-out", "json"]);
    command.args(["--endpoints", &system.endpoints.join(",")]);
    command.args(["--clients", &clients.to_string()]);
    command.args(["--duration", &format!("{}s", options.seconds)]);
    command.args(["--value-size", &options.value_size.to_string()]);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    let report = output(&mut command).with_context(|| format!("bench of {}", system.name))?;
    let (after, resident_kib) = used(system)?;
    let cpu_us = after.saturating_sub(before);
    parse(&report, cpu_us, resident_kib).with_context(|| format!("the report says: {report}"))
}

/// Processor time (µs) used so far and memory (KiB) used now by all servers of `system`.
fn used(system: &System) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for pid in &system.pids {
        let usage = usage(*pid).with_context(|| format!("a server of {}", system.name))?;
        sum.0 += usage.cpu_us;
        sum.1 += usage.resident_kib;
    }
    Ok(sum)
}

/// Reads what `kvraft bench -w json` printed.
fn parse(report: &str, cpu_us: u64, resident_kib: u64) -> Result<Reading> {
    let report: Value = serde_json::from_str(report).context("not JSON")?;
    let number = |name: &str| {
        report.pointer(name).and_then(Value::as_f64).with_context(|| format!("no number {name}"))
    };
    let count = number("/operations")?;
    ensure!(0.0 < count, "no operation succeeded");
    ensure!(number("/error_count")? <= 0.0, "some operations failed");
    Ok(Reading {
        per_second: number("/operations_per_second")?,
        p50_ms: number("/latency_us/p50")? / 1_000.0,
        p99_ms: number("/latency_us/p99")? / 1_000.0,
        cpu_us_per_op: cpu_us as f64 / count,
        resident_mib: resident_kib as f64 / 1_024.0,
    })
}

/// The machine and the settings, for whoever compares.
fn conditions(options: &BenchOptions) -> Result<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let etcd = output(Command::new("etcd").arg("--version"))?;
    let etcd = etcd.lines().next().unwrap_or_default();
    let rustc = output(Command::new("rustc").arg("--version"))?;
    Ok(format!(
        "{model}, {cores} cores, Linux {}, {etcd}, {}. Three servers of each system and the load \
         generator on this one machine; values of {} bytes; medians of {} runs of {} s; fsync on.",
        kernel.trim(),
        rustc.trim(),
        options.value_size,
        options.round_count,
        options.seconds
    ))
}

#[cfg(test)]
mod tests {
    use super::{median, parse};

    #[test]
    fn median_is_the_middle_or_between() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0]).to_bits(), 2.5_f64.to_bits());
    }

    #[test]
    fn report_is_read() {
        let report = r#"{"operations": 4, "operations_per_second": 2.0, "error_count": 0,
            "latency_us": {"p50": 1500, "p99": 3000}}"#;
        let reading = parse(report, 100, 2048).unwrap();
        let text = super::row(&reading, Some(50.0));
        assert_eq!(text, "2 | 50 % | 1.50 | 3.00 | 25.0 | 2");
        let failed = report.replace("\"error_count\": 0", "\"error_count\": 1");
        assert!(parse(&failed, 100, 2048).unwrap_err().to_string().contains("failed"));
    }

    #[test]
    fn report_without_a_number_is_refused() {
        let error = parse("{\"operations\": 3}", 0, 0).unwrap_err().to_string();
        assert!(error.contains("error_count"), "{error}");
        assert!(parse("{\"operations\": 0}", 0, 0).is_err());
    }
}
