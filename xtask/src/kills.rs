//! A thousand keys, each written by an `etcdctl` of its own, while the leader is killed, started
//! again, and the next leader is killed once the first has caught up.
//!
//! Why: this is what durable and available mean to whoever uses the store.
//!
//! Invariants:
//! - each write is repeated until it is acknowledged, with the same value: so every key must be
//!   there in the end, whatever became of the attempts;
//! - both kills happen while writes are under way, and the second not before the server that was
//!   killed first holds all that was written until it came back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{Cluster, Killed, PATIENCE};
use crate::run::{output, wait_for};

/// Keys.
const WRITE_COUNT: usize = 1_000;

/// Acknowledged keys at which the leader is killed, started again, and the next leader is killed
/// and started again at the earliest.
const KILL_AT: usize = 200;
const RESTART_AT: usize = 400;
const KILL_AGAIN_AT: usize = 500;
const RESTART_AGAIN_AT: usize = 800;

/// Clients that write at once. Most of their time goes into starting `etcdctl`.
const WRITER_COUNT: usize = 4;

/// Longest time from SIGKILL of a leader to an acknowledged write that was begun afterwards, the
/// start of `etcdctl` included.
const RESUME_TIME_MAX: Duration = Duration::from_millis(500);

/// An acknowledged write.
struct Write {
    number: usize,
    /// When the attempt that was acknowledged began and ended.
    begun: Instant,
    ended: Instant,
    /// Since the first attempt.
    took: Duration,
}

/// What the writers share.
#[derive(Default)]
struct Progress {
    next: AtomicUsize,
    acknowledged: Mutex<Vec<Write>>,
}

/// Writes, kills, and gives the pairs that must be there.
pub(crate) fn write_under_kills(cluster: &mut Cluster) -> Result<Vec<(String, String)>> {
    let progress = Progress::default();
    let start = Instant::now();
    let mut guards = Vec::new();
    let kills = {
        let cluster = &*cluster;
        std::thread::scope(|scope| {
            let writers: Vec<_> =
                (0..WRITER_COUNT).map(|_| scope.spawn(|| progress.write_all(cluster))).collect();
            let kills = kill_two(cluster, &progress, &mut guards);
            if kills.is_err() {
                progress.next.store(WRITE_COUNT, Ordering::Relaxed);
            }
            for writer in writers {
                writer.join().expect("writers do not panic")?;
            }
            kills
        })
    };
    cluster.restarted.append(&mut guards);
    let kills = kills?;
    let mut writes = progress.acknowledged.into_inner().expect("writers do not panic");
    ensure!(writes.len() == WRITE_COUNT, "{} of {WRITE_COUNT} were acknowledged", writes.len());
    report(&writes, &kills, start)?;
    writes.sort_by_key(|write| write.number);
    Ok(writes.iter().map(|write| pair(write.number)).collect())
}

fn pair(number: usize) -> (String, String) {
    (format!("kill/{number:04}"), format!("value {number}"))
}

/// Kills the leader, has it back, and kills the next.
fn kill_two(
    cluster: &Cluster,
    progress: &Progress,
    guards: &mut Vec<crate::processes::Guard>,
) -> Result<[Killed; 2]> {
    progress.wait_for(KILL_AT)?;
    let first = cluster.kill(cluster.leader()?)?;
    progress.wait_for(RESTART_AT)?;
    let leader = wait_for("a second leader", PATIENCE, || cluster.leader())?;
    let missed = cluster.status(leader)?.revision;
    guards.push(first.recipe.start()?);
    let back = Instant::now();
    wait_for("the restarted server", PATIENCE, || {
        let revision = cluster.status(first.server)?.revision;
        ensure!(missed <= revision, "server {} is at revision {revision}", first.server);
        Ok(())
    })?;
    println!("server {} caught up in {:.2} s", first.server, back.elapsed().as_secs_f64());
    progress.wait_for(KILL_AGAIN_AT)?;
    let second = cluster.kill(cluster.leader()?)?;
    let count = progress.count();
    ensure!(count < RESTART_AGAIN_AT, "{count} keys were written before the second kill: too few");
    progress.wait_for(RESTART_AGAIN_AT)?;
    guards.push(second.recipe.start()?);
    Ok([first, second])
}

/// Prints the figures, and demands that writes went on soon.
fn report(writes: &[Write], kills: &[Killed], start: Instant) -> Result<()> {
    let longest = writes.iter().map(|write| write.took).max().unwrap_or_default();
    println!(
        "{} writes acknowledged in {:.1} s, the longest after {:.2} s with all its attempts",
        writes.len(),
        start.elapsed().as_secs_f64(),
        longest.as_secs_f64()
    );
    for kill in kills {
        let after = writes.iter().filter(|write| kill.at <= write.begun);
        let first = after.map(|write| write.ended).min().context("no write after the kill")?;
        let resumed = first - kill.at;
        let seconds = resumed.as_secs_f64();
        println!("writes went on {seconds:.3} s after server {} was killed", kill.server);
        ensure!(resumed < RESUME_TIME_MAX, "writes went on only {seconds:.3} s after a kill");
    }
    Ok(())
}

impl Progress {
    /// One client: takes the next key until there is none.
    fn write_all(&self, cluster: &Cluster) -> Result<()> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if WRITE_COUNT <= number {
                return Ok(());
            }
            let (key, value) = pair(number);
            let first = Instant::now();
            let mut begun = first;
            wait_for("an acknowledged write", PATIENCE, || {
                begun = Instant::now();
                let printed = output(&mut cluster.command(&["put", &key, &value]))?;
                ensure!(printed.trim() == "OK", "put: {printed:?}");
                Ok(())
            })?;
            let ended = Instant::now();
            let write = Write { number, begun, ended, took: ended - first };
            self.acknowledged.lock().expect("writers do not panic").push(write);
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("writers do not panic").len()
    }

    /// Waits until so many keys are acknowledged.
    fn wait_for(&self, count: usize) -> Result<()> {
        let mut before = (self.count(), Instant::now());
        while before.0 < count {
            std::thread::sleep(Duration::from_millis(2));
            let now = self.count();
            if now != before.0 {
                before = (now, Instant::now());
            } else if PATIENCE < before.1.elapsed() {
                bail!("no write was acknowledged in {PATIENCE:?}, after {now} of {WRITE_COUNT}");
            }
        }
        Ok(())
    }
}
