//! The clock of a node, and its records on their way to the tracing server.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kvraft_trace::{
    action::Action, clock::VectorClock, record::Record, token::Token, tracer::Tracer,
};
use tokio::sync::{Notify, watch};

/// What a node that traces holds; cheap to share.
#[derive(Debug)]
pub struct Outbox {
    buffer: Mutex<Buffer>,
    /// Something is there to be sent.
    pub(crate) filled: Notify,
    /// Whether tokens are given.
    started: watch::Sender<bool>,
}

/// Records that wait, and the clock under which they are made.
#[derive(Debug)]
pub struct Buffer {
    pub(crate) tracer: Tracer,
    /// Whether the tracing server has said where the clock stands.
    is_started: bool,
    /// Highest number under which somebody knows of a record of an earlier life.
    known_by_others: u64,
    pub(crate) waiting: VecDeque<Record>,
    waiting_size_bytes: usize,
    lost_count: u64,
}

/// Bytes of records that wait for the tracing server, at most: some seconds of a busy server.
pub const BUFFER_SIZE_BYTES_MAX: usize = 16 << 20;

/// What a record takes beside its text.
const RECORD_OVERHEAD_BYTES: usize = 256;

impl Outbox {
    /// That of a node of this name, which must be one that
    /// [`is_identity`](kvraft_trace::clock::is_identity) accepts.
    #[must_use]
    pub fn new(identity: &str) -> Self {
        let buffer = Buffer {
            tracer: Tracer::new(identity),
            is_started: false,
            known_by_others: 0,
            waiting: VecDeque::new(),
            waiting_size_bytes: 0,
            lost_count: 0,
        };
        let started = watch::Sender::new(false);
        Self { buffer: Mutex::new(buffer), filled: Notify::new(), started }
    }

    /// The tracing server has said where the clock stands: see [`Buffer::start`].
    pub(crate) fn start(&self, clock: &VectorClock) {
        self.buffer().start(clock);
        self.started.send_replace(true);
    }

    /// Waits until tokens are given, which needs the tracing server.
    pub async fn gives_tokens(&self) {
        // It ends only when the outbox does.
        drop(self.started.subscribe().wait_for(|is_started| *is_started).await);
    }

    /// Records something, in one piece.
    pub fn with<T>(&self, what: impl FnOnce(&mut Buffer) -> T) -> T {
        let done = what(&mut self.buffer());
        self.filled.notify_one();
        done
    }

    /// The records that wait.
    pub fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Begins a trace; ids are drawn by the caller, at random.
    pub fn create_trace(&mut self, trace: u64) {
        self.put(|tracer| tracer.create_trace(trace));
    }

    /// Records an action, if there is room for it.
    pub fn record(&mut self, trace: u64, action: &Action) {
        self.put(|tracer| tracer.record(trace, action));
    }

    /// Makes a token for a message; `None` while the clock is not known, or there is no room.
    pub fn token(&mut self, trace: u64) -> Option<Token> {
        if !self.is_started {
            return None;
        }
        let mut made = None;
        self.put(|tracer| {
            let (token, record) = tracer.generate_token(trace);
            made = Some(token);
            record
        });
        made
    }

    /// A message has brought a token.
    pub fn receive(&mut self, token: &Token) {
        let own = token.clock.get(self.tracer.identity());
        if !self.is_started {
            self.known_by_others = self.known_by_others.max(own);
        }
        if BUFFER_SIZE_BYTES_MAX <= self.waiting_size_bytes {
            // What is known goes on even where its record is lost.
            self.tracer.merge(&token.clock);
        }
        self.put(|tracer| tracer.receive_token(token));
    }

    /// The records that the tracing server does not have yet, in order.
    pub fn waiting(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.waiting.iter()
    }

    /// What they take, in bytes.
    #[must_use]
    pub fn waiting_size_bytes(&self) -> usize {
        self.waiting_size_bytes
    }

    /// How many things were not recorded for want of room.
    #[must_use]
    pub fn lost_count(&self) -> u64 {
        self.lost_count
    }

    /// The tracing server has this node's records up to `clock`. Records of this life that were
    /// made before anybody knew where the clock stands are counted on from there.
    pub fn start(&mut self, clock: &VectorClock) {
        if self.is_started {
            return;
        }
        self.is_started = true;
        let identity = Arc::clone(self.tracer.identity());
        let base = clock.get(&identity).max(self.known_by_others);
        let mut last = clock.clone();
        last.merge(self.tracer.clock());
        last.set(&identity, base.saturating_add(self.tracer.clock().get(&identity)));
        for record in &mut self.waiting {
            let own = base.saturating_add(record.own());
            record.clock.merge(clock);
            record.clock.set(&identity, own);
        }
        // Their clocks have grown.
        self.waiting_size_bytes = self.waiting.iter().map(size_bytes).sum();
        self.tracer = Tracer::resume(identity, last);
    }

    /// The tracing server has all records up to this number.
    pub fn taken(&mut self, own: u64) {
        while self.waiting.front().is_some_and(|record| record.own() <= own) {
            let record = self.waiting.pop_front().expect("there is a first one");
            self.waiting_size_bytes -= size_bytes(&record);
        }
    }

    /// Makes a record, if there is room for it.
    fn put(&mut self, make: impl FnOnce(&mut Tracer) -> Record) {
        if BUFFER_SIZE_BYTES_MAX <= self.waiting_size_bytes {
            self.lost_count += 1;
            return;
        }
        let record = make(&mut self.tracer);
        self.waiting_size_bytes += size_bytes(&record);
        self.waiting.push_back(record);
    }
}

fn size_bytes(record: &Record) -> usize {
    RECORD_OVERHEAD_BYTES + record.body.len() + 32 * record.clock.len()
}
