//! `kvraft bench`: a load generator for any etcd v3 endpoint.
//!
//! It uses the raw generated client, one attempt per request, so that what is measured is the
//! server and not our retries.
//!
//! Invariants:
//! - at a rate, latency counts from the moment at which a request was due, not from when a busy
//!   client came round to sending it;
//! - a failed request is counted as an error and is in no percentile.
//!
//! What it lacks: histograms on disk, several machines, transactions and watches.

mod load;
mod report;

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    num::{NonZeroU32, NonZeroU64},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use kvraft_client::proto::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use self::{
    load::{Load, Schedule, Tally},
    report::Report,
};
use crate::connection::{Output, WriteOut, parse_duration, print};

/// What a request does.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Write a random key.
    Put,
    /// Read a random key.
    Range,
    /// One or the other.
    Mixed,
}

/// Measure how fast a cluster answers; kvraft's or etcd's
///
/// Without --rate each client sends its next request when the last one is answered. With it,
/// requests are due at a fixed rate whether or not the servers keep up, and their latency counts
/// from when they were due.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  kvraft bench put --clients 64 --duration 20s
  kvraft bench range --consistency s --key-space 1000 --clients 16
  kvraft bench mixed --read-percent 90 --rate 5000 --clients 256 -w json
  kvraft bench put --endpoints 127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383 --connections 3")]
pub(crate) struct BenchArgs {
    /// What the requests do
    #[arg(value_enum)]
    operation: Operation,
    /// Servers, host:port or http://host:port; connections are spread over them in turn
    #[arg(
        long,
        env = "KVRAFT_ENDPOINTS",
        value_name = "ADDRESSES",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// How many requests may be under way at once
    #[arg(long, value_name = "COUNT", default_value = "16")]
    clients: NonZeroU32,
    /// How many connections they share [default: one per client, at most 16]
    #[arg(long, value_name = "COUNT")]
    connections: Option<NonZeroU32>,
    /// How long to send requests
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    duration: Duration,
    /// Size of each value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    value_size: usize,
    /// How many different keys
    #[arg(long, value_name = "COUNT", default_value = "10000")]
    key_space: NonZeroU64,
    /// Requests per second, of all clients together
    #[arg(long, value_name = "COUNT")]
    rate: Option<NonZeroU32>,
    /// How many of 100 requests read (for mixed)
    #[arg(long, value_name = "PERCENT", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(0..=100))]
    read_percent: u64,
    /// How reads are served: l linearizable, s from what the server has at hand
    #[arg(long, value_name = "KIND", default_value = "l", value_parser = ["l", "s"])]
    consistency: String,
    /// How long a request may take before it counts as an error
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Decides the order of keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

impl BenchArgs {
    fn connection_count(&self) -> u32 {
        self.connections.map_or_else(|| self.clients.get().min(16), NonZeroU32::get)
    }

    /// How many of 100 requests read.
    fn read_percent(&self) -> u64 {
        match self.operation {
            Operation::Put => 0,
            Operation::Range => 100,
            Operation::Mixed => self.read_percent,
        }
    }
}

/// Measures and prints the report; an error if nothing succeeded.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    let channels = connect(&args).await?;
    let load = Arc::new(Load::new(
        args.seed,
        args.key_space,
        args.value_size,
        args.read_percent(),
        args.consistency == "s",
        args.timeout,
    ));
    if 0 < args.read_percent() {
        prepare(&args, &load, &channels).await?;
    }
    let (tallies, late_count) = measure(&args, &load, &channels).await;
    let report = Report::new(&args, tallies, late_count);
    match args.output.write_out {
        WriteOut::Json => print(&report.json()?)?,
        WriteOut::Simple => print(report.text().as_bytes())?,
    }
    if report.is_empty() {
        bail!("no request succeeded");
    }
    Ok(())
}

/// Opens all connections; servers that cannot be reached are left out with a warning.
async fn connect(args: &BenchArgs) -> Result<Vec<KvClient<Channel>>> {
    let mut reachable = Vec::new();
    let mut last_error = None;
    for name in &args.endpoints {
        let uri = if name.contains("://") { name.clone() } else { format!("http://{name}") };
        let endpoint = Endpoint::from_shared(uri)
            .with_context(|| format!("endpoint {name:?}"))?
            .connect_timeout(Duration::from_secs(3))
            .tcp_nodelay(true);
        match endpoint.connect().await {
            Ok(_) => reachable.push(endpoint),
            Err(error) => {
                eprintln!("cannot connect to {name}, going on without it");
                last_error = Some(anyhow::Error::new(error).context(format!("endpoint {name}")));
            }
        }
    }
    if reachable.is_empty() {
        let error = last_error.unwrap_or_else(|| anyhow::Error::msg("no endpoint is given"));
        return Err(error.context("no server can be reached"));
    }
    let mut channels = Vec::new();
    for endpoint in reachable.iter().cycle().take(args.connection_count() as usize) {
        let channel = endpoint.connect().await.context("opening connections")?;
        channels.push(KvClient::new(channel).max_decoding_message_size(usize::MAX));
    }
    Ok(channels)
}

/// Writes every key once, so that reads find something.
async fn prepare(args: &BenchArgs, load: &Arc<Load>, channels: &[KvClient<Channel>]) -> Result<()> {
    let bar = bar(args.key_space.get(), "{msg} [{bar:40}] {pos}/{len} keys");
    bar.set_message("preparing");
    let writers = (0..args.clients.get()).zip(channels.iter().cycle()).map(|(first, channel)| {
        let (load, channel, bar) = (Arc::clone(load), channel.clone(), bar.clone());
        let step = args.clients.get() as usize;
        tokio::spawn(async move {
            let mut channel = channel;
            for key in (u64::from(first)..load.key_count()).step_by(step) {
                load.put(&mut channel, key).await?;
                bar.inc(1);
            }
            Ok::<_, String>(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await?.map_err(anyhow::Error::msg).context("writing the keys to read")?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Lets all clients run for the time; what they saw, and how many requests waited for a client.
async fn measure(
    args: &BenchArgs,
    load: &Arc<Load>,
    channels: &[KvClient<Channel>],
) -> (Vec<Tally>, u64) {
    let tallies: Vec<_> = channels.iter().map(|_| Arc::new(Mutex::new(Tally::new()))).collect();
    let start = Instant::now();
    let schedule = Arc::new(Schedule::new(start, args.duration, args.rate));
    schedule.clone().start();
    let places = channels.iter().zip(&tallies).cycle();
    let mut clients = JoinSet::new();
    for (number, (channel, tally)) in (0..args.clients.get()).zip(places) {
        let (load, schedule) = (Arc::clone(load), Arc::clone(&schedule));
        let (channel, tally) = (channel.clone(), Arc::clone(tally));
        clients.spawn(load::client(u64::from(number), load, schedule, channel, tally));
    }
    let watching = tokio::spawn(watch(Arc::clone(&schedule), Arc::clone(load), args.duration));
    let mut seen = Vec::new();
    while let Some(end) = clients.join_next().await {
        if let Err(error) = end {
            seen.push(Tally { errors: BTreeMap::from([(error.to_string(), 1)]), ..Tally::new() });
        }
    }
    schedule.stop();
    watching.abort();
    for tally in tallies {
        let tally = Arc::into_inner(tally).expect("all clients have ended");
        seen.push(tally.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    (seen, schedule.late_count())
}

/// Draws the bar, and ends the run early on Ctrl-C.
async fn watch(schedule: Arc<Schedule>, load: Arc<Load>, duration: Duration) {
    let bar = bar(duration.as_millis().try_into().unwrap_or(u64::MAX), "[{bar:40}] {msg}");
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let mut before = (Instant::now(), 0);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return schedule.stop(),
            _ = ticks.tick() => {}
        }
        let elapsed = schedule.elapsed().min(duration);
        bar.set_position(elapsed.as_millis().try_into().unwrap_or(u64::MAX));
        let (done, errors) = load.progress();
        let seconds = before.0.elapsed().as_secs_f64();
        if 1.0 <= seconds {
            let per_second = (done - before.1) as f64 / seconds;
            let left = (duration - elapsed).as_secs();
            bar.set_message(format!("{per_second:.0}/s  {errors} errors  {left} s left"));
            before = (Instant::now(), done);
        }
        if elapsed == duration {
            bar.finish_and_clear();
        }
    }
}

/// A bar on a terminal, nothing elsewhere.
fn bar(length: u64, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template(template).expect("the templates above are well-formed");
    ProgressBar::new(length).with_style(style)
}

#[cfg(test)]
mod tests;
