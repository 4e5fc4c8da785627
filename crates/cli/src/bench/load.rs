//! The clients: what they send, when, and what they note.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroU64},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use kvraft_base::Prng;
use kvraft_client::proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tokio::sync::Semaphore;
use tonic::{Status, transport::Channel};

/// Latencies above this, in µs, are noted as this: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// How long a client rests after an error, so that a dead server is not hammered.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// What is sent; shared by all clients.
#[derive(Debug)]
pub(super) struct Load {
    seed: u64,
    key_count: NonZeroU64,
    value: Bytes,
    read_percent: u64,
    serializable: bool,
    timeout: Duration,
    done_count: AtomicU64,
    error_count: AtomicU64,
}

/// What some clients saw. Not one for each: its histograms are a quarter of a megabyte, and memory
/// that is touched for the first time while requests are due makes them late.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) reads: Histogram<u64>,
    pub(super) writes: Histogram<u64>,
    pub(super) errors: BTreeMap<String, u64>,
    /// When the last request was answered.
    pub(super) elapsed: Duration,
}

impl Tally {
    pub(super) fn new() -> Self {
        // Three digits are exact enough for percentiles and cost 16 bits per bucket and power.
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("the bounds are in order and the digits in 0..=5")
        };
        Self {
            reads: histogram(),
            writes: histogram(),
            errors: BTreeMap::new(),
            elapsed: Duration::ZERO,
        }
    }

    /// One answer, and when it came.
    fn note(&mut self, is_read: bool, latency_us: u64, elapsed: Duration) {
        let histogram = if is_read { &mut self.reads } else { &mut self.writes };
        histogram.saturating_record(latency_us);
        self.elapsed = self.elapsed.max(elapsed);
    }
}

impl Load {
    pub(super) fn new(
        seed: u64,
        key_count: NonZeroU64,
        value_size: usize,
        read_percent: u64,
        serializable: bool,
        timeout: Duration,
    ) -> Self {
        let mut value = vec![0; value_size];
        Prng::new(seed).fork("value").fill(&mut value);
        Self {
            seed,
            key_count,
            value: value.into(),
            read_percent,
            serializable,
            timeout,
            done_count: AtomicU64::new(0),
            error_count: AtomicU64::new(0),
        }
    }

    pub(super) fn key_count(&self) -> u64 {
        self.key_count.get()
    }

    /// Requests answered and failed so far.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.done_count.load(Ordering::Relaxed), self.error_count.load(Ordering::Relaxed))
    }

    /// Writes one key.
    pub(super) async fn put(&self, client: &mut KvClient<Channel>, key: u64) -> Result<(), String> {
        let (key, value) = (name(key), self.value.clone());
        self.answer(client.put(PutRequest { key, value, ..PutRequest::default() })).await
    }

    async fn range(&self, client: &mut KvClient<Channel>, key: u64) -> Result<(), String> {
        let (key, serializable) = (name(key), self.serializable);
        let request = RangeRequest { key, serializable, ..RangeRequest::default() };
        self.answer(client.range(request)).await
    }

    async fn answer<R>(
        &self,
        answer: impl Future<Output = Result<R, Status>>,
    ) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(describe(&status)),
            Err(_elapsed) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// The server's words, or the innermost cause on our side.
fn describe(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match std::error::Error::source(status) {
        None if !status.message().is_empty() => status.message().to_owned(),
        None => status.code().description().to_owned(),
        Some(_) => cause.to_string(),
    }
}

/// The name of a key: all of one length, in order.
fn name(key: u64) -> Bytes {
    format!("bench/{key:010}").into()
}

/// When requests are due.
#[derive(Debug)]
pub(super) struct Schedule {
    start: Instant,
    duration: Duration,
    rate: Option<NonZeroU32>,
    /// One permit for each request that is due and not yet taken.
    due: Semaphore,
    taken_count: AtomicU64,
    /// Of those, how many were due before a client was free.
    late_count: AtomicU64,
    is_stopped: AtomicBool,
}

impl Schedule {
    pub(super) fn new(start: Instant, duration: Duration, rate: Option<NonZeroU32>) -> Self {
        Self {
            start,
            duration,
            rate,
            due: Semaphore::new(0),
            taken_count: AtomicU64::new(0),
            late_count: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// No request is sent any more; those under way are finished.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.due.close();
    }

    fn is_over(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed) || self.duration <= self.elapsed()
    }

    /// Hands out requests at the rate, if there is one, from a thread of its own: tokio's timer
    /// counts milliseconds, which is as long as a request takes. The thread ends with the schedule.
    pub(super) fn start(self: Arc<Self>) -> Option<JoinHandle<()>> {
        let rate = self.rate?;
        Some(std::thread::spawn(move || {
            let mut number = 0;
            while !self.is_over() {
                std::thread::sleep(due_at(number, rate).saturating_sub(self.elapsed()));
                // After a late wake-up, everything that has become due meanwhile.
                let mut count = 0;
                while due_at(number, rate) <= self.elapsed() {
                    number += 1;
                    count += 1;
                }
                self.due.add_permits(count);
            }
            self.stop();
        }))
    }

    /// Waits for the next request; the moment from which its latency counts, or `None` at the end.
    pub(super) async fn next(&self) -> Option<Instant> {
        let Some(rate) = self.rate else {
            return (!self.is_over()).then(Instant::now);
        };
        if let Ok(permit) = self.due.try_acquire() {
            permit.forget();
            self.late_count.fetch_add(1, Ordering::Relaxed);
        } else {
            self.due.acquire().await.ok()?.forget();
        }
        if self.is_over() {
            return None;
        }
        let number = self.taken_count.fetch_add(1, Ordering::Relaxed);
        Some(self.start + due_at(number, rate))
    }

    /// How many requests had to wait until a client was free.
    pub(super) fn late_count(&self) -> u64 {
        self.late_count.load(Ordering::Relaxed)
    }

    /// How many requests have been taken.
    #[cfg(test)]
    pub(super) fn taken_count(&self) -> u64 {
        self.taken_count.load(Ordering::Relaxed)
    }
}

/// When the request of this number is due, since the start.
fn due_at(number: u64, rate: NonZeroU32) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// One client: a request at a time until the time is up. What it sees goes into the tally.
pub(super) async fn client(
    number: u64,
    load: Arc<Load>,
    schedule: Arc<Schedule>,
    mut channel: KvClient<Channel>,
    tally: Arc<Mutex<Tally>>,
) {
    let mut prng = Prng::new(load.seed).fork(&format!("client {number}"));
    // A client that panicked has left whole numbers behind.
    let tally = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(since) = schedule.next().await {
        let key = prng.below(load.key_count());
        let is_read = prng.below(100) < load.read_percent;
        let answer = if is_read {
            load.range(&mut channel, key).await
        } else {
            load.put(&mut channel, key).await
        };
        match answer {
            Ok(()) => {
                let latency_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                load.done_count.fetch_add(1, Ordering::Relaxed);
                tally().note(is_read, latency_us, schedule.elapsed());
            }
            Err(error) => {
                *tally().errors.entry(error).or_insert(0) += 1;
                load.error_count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}
