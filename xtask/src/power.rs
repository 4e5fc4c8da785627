//! Power losses under the shipped binary: a cluster on a disk that forgets what was not synced, all
//! of it killed in mid-load, started again on what is left.
//!
//! Why: the simulator cuts the power of simulated disks. This does it to the program that ships,
//! with real threads, files and clients: behind `--volatile-disk` what was not synced lives in the
//! process only, so SIGKILL takes it away.
//!
//! Invariants:
//! - a write counts as acknowledged only when `etcdctl` said so; all others may be there or not;
//! - the load crosses the border of a journal's segment shortly before each power loss, so that a
//!   new segment's name, too, must have been made durable;
//! - what a planted bug may fail is only what follows a power loss. A cluster that does not start
//!   at first, or is too slow, fails the run, whatever was planted.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};

use crate::cluster::{Cluster, kill_all};
use crate::planted::{self, Scratch};
use crate::run::{build_release, need};

/// How the cluster is started, ports and data aside.
const ARGUMENTS: [&str; 4] = ["cluster", "-n", "3", "--volatile-disk"];

/// Who writes: many small values, for many turns of the journal, and large ones to fill segments.
const WRITERS: [Writer; 5] = [
    Writer { name: "small-1", value_size_bytes: 100 },
    Writer { name: "small-2", value_size_bytes: 100 },
    Writer { name: "small-3", value_size_bytes: 100 },
    Writer { name: "large-1", value_size_bytes: LARGE_SIZE_BYTES },
    Writer { name: "large-2", value_size_bytes: LARGE_SIZE_BYTES },
];

/// Below the largest request, 1.5 MiB.
const LARGE_SIZE_BYTES: usize = 1024 * 1024;

/// Acknowledged bytes of a round: a whole segment of 64 MiB, and so little more that nothing that
/// is done later to the journal's directory can have made the new segment's name durable.
const ROUND_SIZE_BYTES: u64 = (64 + 4) * 1024 * 1024;

/// Shortest load, however fast the machine is.
const LOAD_TIME_MIN: Duration = Duration::from_secs(2);

/// Longest load, on a machine that is slow but not hopeless.
const LOAD_TIME_MAX: Duration = Duration::from_secs(120);

/// Cuts the power under the tree's binary, then under the same with each of the `planted` bugs.
///
/// # Errors
/// When an acknowledged write was lost, or none was with a bug planted.
pub fn power_loss(root: &Path, round_count: u32, planted: &[String]) -> Result<()> {
    need("etcdctl", "etcd-client")?;
    let all = planted::patches(root)?;
    let patches = planted.iter().map(|name| planted::patch(all.clone(), name));
    let patches = patches.collect::<Result<Vec<_>>>()?;
    survives(&build_release(root)?, round_count)?;
    let scratch = Scratch::new(root)?;
    let mut missed = Vec::new();
    for (name, patch) in planted.iter().zip(&patches) {
        println!("\n── {name}, with which a power loss must show");
        scratch.plant(patch)?;
        let binary = scratch.build("kvraft", "release", "kvraft")?;
        match lose_power(&binary, round_count).with_context(|| name.clone())? {
            Verdict::Kept => missed.push(name.as_str()),
            Verdict::Lost { round, how } => println!("{name} shows in round {round}: {how:#}"),
        }
    }
    ensure!(missed.is_empty(), "nothing was lost with {}", missed.join(", "));
    if !planted.is_empty() {
        println!("\nall {} planted bugs show", planted.len());
    }
    Ok(())
}

/// Demands that `binary` loses nothing in `round_count` power losses.
///
/// # Errors
/// What was lost.
pub(crate) fn survives(binary: &Path, round_count: u32) -> Result<()> {
    match lose_power(binary, round_count)? {
        Verdict::Kept => Ok(()),
        Verdict::Lost { round, how } => Err(how.context(format!("power loss {round}"))),
    }
}

/// What came of some power losses.
enum Verdict {
    /// Every acknowledged write is there, on all servers alike.
    Kept,
    Lost {
        /// The power loss, from 1, after which it was seen.
        round: u32,
        how: Error,
    },
}

/// Runs the rounds on the same data until one loses something.
fn lose_power(binary: &Path, round_count: u32) -> Result<Verdict> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let data = folder.path().join("data");
    let base_port = Cluster::free_ports()?;
    let start = || Cluster::start(binary, &ARGUMENTS, &data, base_port);
    let mut cluster = start()?;
    let mut acknowledged = Vec::new();
    for round in 1..=round_count {
        acknowledged.extend(load_and_kill(&cluster, round)?);
        drop(cluster);
        let started = Instant::now();
        let result = start().and_then(|cluster| {
            let back = started.elapsed();
            all_there(&cluster, &acknowledged)?;
            cluster.equal_hashes()?;
            println!("healthy after {:.1} s, hashes are equal", back.as_secs_f64());
            Ok(cluster)
        });
        match result {
            Ok(back) => cluster = back,
            Err(how) => return Ok(Verdict::Lost { round, how }),
        }
    }
    cluster.stop()?;
    Ok(Verdict::Kept)
}

/// One client that writes one value after the other.
#[derive(Clone, Copy)]
struct Writer {
    name: &'static str,
    value_size_bytes: usize,
}

/// What one writer wrote in one round.
struct Written {
    /// What all keys begin with, and no other writer's or round's.
    prefix: String,
    value_size_bytes: usize,
    acknowledged: Vec<String>,
    /// Attempts without an answer: there or not, both is right.
    unanswered_count: usize,
}

/// What the writers of a round share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    acknowledged_bytes: AtomicU64,
}

/// Lets all writers write, kills the cluster among them, and gives what they wrote.
fn load_and_kill(cluster: &Cluster, round: u32) -> Result<Vec<Written>> {
    let load = Load::default();
    // Looked up before: the power is to go at the moment when the load is written.
    let pids = cluster.pids()?;
    let start = Instant::now();
    let (killed, written) = std::thread::scope(|scope| {
        let load = &load;
        let write = |writer| scope.spawn(move || writer_runs(cluster, writer, round, load));
        let threads = WRITERS.map(write);
        let killed = load.wait(start).and_then(|()| kill_all(&pids));
        let seconds = start.elapsed().as_secs_f64();
        load.stop.store(true, Ordering::Relaxed);
        let written: Result<Vec<Written>> = threads
            .into_iter()
            .map(|thread| thread.join().expect("writers do not panic"))
            .collect();
        (killed.map(|()| seconds), written)
    });
    let (seconds, written) = (killed?, written?);
    let count: usize = written.iter().map(|one| one.acknowledged.len()).sum();
    let unanswered: usize = written.iter().map(|one| one.unanswered_count).sum();
    println!(
        "round {round}: {count} writes, {:.1} MiB, acknowledged in {seconds:.1} s; all killed; \
         {unanswered} writes without an answer",
        load.acknowledged_bytes.into_inner() as f64 / f64::from(1 << 20),
    );
    let idle = written.iter().find(|one| one.acknowledged.is_empty());
    ensure!(idle.is_none(), "a writer had no write acknowledged");
    Ok(written)
}

impl Load {
    /// Waits until the round's load is written.
    fn wait(&self, start: Instant) -> Result<()> {
        loop {
            let size = self.acknowledged_bytes.load(Ordering::Relaxed);
            if ROUND_SIZE_BYTES <= size && LOAD_TIME_MIN <= start.elapsed() {
                return Ok(());
            }
            if LOAD_TIME_MAX < start.elapsed() {
                bail!("only {size} bytes were acknowledged in {LOAD_TIME_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Writes until told to stop.
fn writer_runs(cluster: &Cluster, writer: Writer, round: u32, load: &Load) -> Result<Written> {
    let prefix = format!("round-{round}/{}/", writer.name);
    let value_size_bytes = writer.value_size_bytes;
    let mut acknowledged = Vec::new();
    let mut attempt_count = 0;
    while !load.stop.load(Ordering::Relaxed) {
        attempt_count += 1;
        let key = format!("{prefix}{attempt_count:06}");
        if put(cluster, &key, &value(&key, value_size_bytes))? {
            acknowledged.push(key);
            load.acknowledged_bytes.fetch_add(value_size_bytes as u64, Ordering::Relaxed);
        }
    }
    let unanswered_count = attempt_count - acknowledged.len();
    Ok(Written { prefix, value_size_bytes, acknowledged, unanswered_count })
}

/// The one value that is ever written at a key: so a foreign one is seen, whoever wrote it.
fn value(key: &str, size_bytes: usize) -> String {
    let mut value = key.repeat(size_bytes.div_ceil(key.len()));
    value.truncate(size_bytes);
    value
}

/// Whether the write was acknowledged.
fn put(cluster: &Cluster, key: &str, value: &str) -> Result<bool> {
    // A short patience: nobody answers once the power is gone.
    let mut command = cluster.command(&["--command-timeout=2s", "put", key]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("starting etcdctl")?;
    let mut stdin = child.stdin.take().context("standard input is a pipe")?;
    // When etcdctl ends early it says so by its exit code.
    drop(stdin.write_all(value.as_bytes()));
    drop(stdin);
    let output = child.wait_with_output()?;
    Ok(output.status.success() && output.stdout.starts_with(b"OK"))
}

/// Demands that everything acknowledged is there, and nothing that nobody wrote.
fn all_there(cluster: &Cluster, written: &[Written]) -> Result<()> {
    let mut missing = Vec::new();
    let mut surplus_count = 0;
    for one in written {
        let printed = cluster.etcdctl(&["get", "--prefix", &one.prefix])?;
        let found = pairs(&printed);
        for (key, found) in &found {
            let right = *found == value(key, one.value_size_bytes);
            ensure!(right, "{key} holds what nobody wrote: {:.60}", found);
        }
        let lost = one.acknowledged.iter().filter(|key| !found.contains_key(key.as_str()));
        let lost: Vec<&String> = lost.collect();
        surplus_count += found.len() + lost.len() - one.acknowledged.len();
        missing.extend(lost);
    }
    let count: usize = written.iter().map(|one| one.acknowledged.len()).sum();
    if let Some(first) = missing.first() {
        bail!("{} of {count} acknowledged writes are lost, {first} among them", missing.len());
    }
    println!("{count} acknowledged writes are there, and {surplus_count} without an answer");
    Ok(())
}

/// Keys and values as `etcdctl get` prints them, a line each.
fn pairs(printed: &str) -> BTreeMap<&str, &str> {
    let mut lines = printed.lines();
    std::iter::from_fn(|| Some((lines.next()?, lines.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::{pairs, value};

    #[test]
    fn values_have_their_size_and_tell_their_key() {
        assert_eq!(value("key", 7), "keykeyk");
        assert_ne!(value("a/1", 100), value("a/2", 100));
    }

    #[test]
    fn pairs_are_read_line_by_line() {
        let found = pairs("a\n1\nb\n2\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
    }
}
