//! What was measured, for people and for programs.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{BenchArgs, Operation, load::Tally};

/// All clients' tallies as one.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    operation: String,
    operations: u64,
    operations_per_second: f64,
    /// From the start to the last answer.
    seconds: f64,
    error_count: u64,
    /// How often each error was seen.
    errors: BTreeMap<String, u64>,
    latency_us: Latency,
    /// Of reads and writes apart, if there were both.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_latency_us: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_latency_us: Option<Latency>,
    /// The rate asked for, requests per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    /// Requests that were due before a client was free: their latency has that wait in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<u64>,
    clients: u32,
    connections: u32,
    value_size: usize,
    key_space: u64,
}

/// Percentiles in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    min: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p95: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
        Self {
            min: histogram.min(),
            mean: (histogram.mean() * 10.0).round() / 10.0,
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p95: histogram.value_at_quantile(0.95),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }

    fn text(&self) -> String {
        let ms = |us: u64| format!("{:.2} ms", us as f64 / 1_000.0);
        format!(
            "mean {:.2} ms  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            self.mean / 1_000.0,
            ms(self.p50),
            ms(self.p90),
            ms(self.p99),
            ms(self.p999),
            ms(self.max)
        )
    }
}

impl Report {
    pub(super) fn new(args: &BenchArgs, tallies: Vec<Tally>, late_count: u64) -> Self {
        let mut sum = Tally::new();
        for tally in tallies {
            let same = "all histograms have the same bounds";
            sum.reads.add(&tally.reads).expect(same);
            sum.writes.add(&tally.writes).expect(same);
            sum.elapsed = sum.elapsed.max(tally.elapsed);
            for (error, count) in tally.errors {
                *sum.errors.entry(error).or_insert(0) += count;
            }
        }
        let is_mixed = args.operation == Operation::Mixed;
        let read_latency_us = is_mixed.then(|| Latency::new(&sum.reads));
        let write_latency_us = is_mixed.then(|| Latency::new(&sum.writes));
        let mut all = sum.reads;
        all.add(&sum.writes).expect("all histograms have the same bounds");
        let seconds = sum.elapsed.as_secs_f64();
        let rate = if 0.0 < seconds { all.len() as f64 / seconds } else { 0.0 };
        Self {
            operation: args
                .operation
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().to_owned()),
            operations: all.len(),
            operations_per_second: (rate * 10.0).round() / 10.0,
            seconds,
            error_count: sum.errors.values().sum(),
            errors: sum.errors,
            latency_us: Latency::new(&all),
            read_latency_us,
            write_latency_us,
            rate: args.rate.map(Into::into),
            late: args.rate.map(|_| late_count),
            clients: args.clients.get(),
            connections: args.connection_count(),
            value_size: args.value_size,
            key_space: args.key_space.get(),
        }
    }

    /// True if no request succeeded.
    pub(super) fn is_empty(&self) -> bool {
        self.operations == 0
    }

    pub(super) fn json(&self) -> Result<Vec<u8>> {
        let mut out = serde_json::to_vec(self).context("writing JSON")?;
        out.push(b'\n');
        Ok(out)
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{}: {} done in {:.1} s, {:.0} per second, {} errors ({} clients, {} connections)",
            self.operation,
            self.operations,
            self.seconds,
            self.operations_per_second,
            self.error_count,
            self.clients,
            self.connections
        );
        if let Some(rate) = self.rate {
            let _ = writeln!(out, "offered: {rate} per second");
        }
        if let Some(late) = self.late.filter(|late| self.operations < 100 * late) {
            let of = self.operations;
            let _ = writeln!(out, "{late} of {of} waited for a free client: give more --clients");
        }
        if !self.is_empty() {
            let _ = writeln!(out, "latency: {}", self.latency_us.text());
        }
        for (name, latency) in
            [("reads", &self.read_latency_us), ("writes", &self.write_latency_us)]
        {
            if let Some(latency) = latency {
                let _ = writeln!(out, "{name:>7}: {}", latency.text());
            }
        }
        for (error, count) in &self.errors {
            let _ = writeln!(out, "{count:>7} × {error}");
        }
        out
    }
}
