//! The flight recorder: keeps the inputs of the deciding lanes in a ring of files, so that what a
//! server did can be run again and looked at.
//!
//! The core's thread turns each turn into bytes ([`kvraft_replica::flight::Tape`]) and puts them
//! into a bounded buffer; a thread of its own writes them down every few milliseconds. Files are
//! never synced: they outlive the process, and most of them a loss of power.
//!
//! Invariants:
//! - the lanes never wait for it: what finds no room in the buffer is left out, which ends the
//!   segment, and the next one begins with the state as it is then;
//! - the ring takes no more room than it is given: the oldest segment goes first;
//! - a failure to write ends the recording, and nothing else.
//!
//! What it lacks: the state of the machine where it is larger than a sixteenth of the ring. Only
//! consensus is recorded then.

mod ring;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kvraft_base::{ClusterId, MemberId};
use kvraft_replica::{
    Hop, MachineIn, MachineLane, Node, NodeIn, Now,
    flight::{Cut, Follows, Image, KIND_RECORDS, Tape},
};

use ring::Ring;
pub use ring::{flight_file_name, flight_files};

/// Name of the folder in the data directory.
pub const FLIGHT_DIRECTORY: &str = "flight";

/// Bytes that wait to be written, at most.
const BUFFER_SIZE_BYTES_MAX: usize = 8 << 20;

/// A buffer that is used again keeps so many bytes, at most.
const SPARE_SIZE_BYTES_MAX: usize = 1 << 20;

/// How long the writer lets bytes gather: what a killed process loses. A quarter of it would cost
/// twice as much.
const GATHER_TIME: Duration = Duration::from_millis(40);

/// How long somebody who ends the process waits for what is in the buffer.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// What a recorder is told of the server.
pub(crate) struct FlightConfig {
    pub(crate) directory: PathBuf,
    /// What the ring may take, in bytes.
    pub(crate) size_bytes: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    pub(crate) incarnation: u64,
}

enum Item {
    Image(Box<Image>, Follows),
    /// A block of turns.
    Records(Vec<u8>),
    Cut(Cut),
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    size_bytes: usize,
    /// Of a block that was written: memory that is there already.
    spare: Vec<u8>,
    /// The writer sleeps until something is pushed. Otherwise it looks by itself.
    is_idle: bool,
    /// Somebody waits for the buffer to be empty.
    hurries: bool,
    stops: bool,
    is_writing: bool,
    /// Nothing is recorded any more.
    has_failed: bool,
}

/// What the core and the writer share.
#[derive(Default)]
struct Sink {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
    /// The present file is full.
    wants_image: AtomicBool,
    has_failed: AtomicBool,
}

/// All recorders of the process, for whoever is about to end it.
static SINKS: Mutex<Vec<Weak<Sink>>> = Mutex::new(Vec::new());

/// Has all that was recorded written down, or gives up after a second: for whoever is about to end
/// the process.
pub fn flush_flight_recorders() {
    let sinks = SINKS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    sinks.iter().filter_map(Weak::upgrade).for_each(|sink| sink.flush());
}

/// The core's side of a recorder.
pub(crate) struct Flight {
    sink: Arc<Sink>,
    writer: Option<JoinHandle<()>>,
    machine_image_size_bytes_max: u64,
    /// There while turns are recorded.
    tape: Option<Tape>,
    /// What will lie between the last segment and the next.
    next: Follows,
}

impl Flight {
    /// Starts the writer.
    pub(crate) fn start(config: FlightConfig) -> std::io::Result<Self> {
        let sink = Arc::new(Sink::default());
        let machine_image_size_bytes_max = config.size_bytes / 16;
        let ring = Ring::open(config)?;
        let shared = Arc::clone(&sink);
        let writer = std::thread::Builder::new()
            .name("kvraft-flight".to_owned())
            .spawn(move || write(&shared, ring))?;
        let mut sinks = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.retain(|sink| 0 < sink.strong_count());
        sinks.push(Arc::downgrade(&sink));
        let writer = Some(writer);
        let (tape, next) = (None, Follows::Start);
        Ok(Self { sink, writer, machine_image_size_bytes_max, tape, next })
    }

    /// A turn begins: keeps what is taken into it, before it can go wrong.
    pub(crate) fn begin(
        &mut self,
        now: Now,
        (node, node_inbox): (&mut Node, &[NodeIn]),
        (machine, machine_inbox): (&mut MachineLane, &[MachineIn]),
    ) {
        if self.sink.has_failed.load(Ordering::Relaxed) {
            return self.pause(machine, None);
        }
        if self.tape.is_none() || self.sink.wants_image.load(Ordering::Relaxed) {
            self.begin_segment(node, machine);
        }
        let Some(tape) = &mut self.tape else {
            return self.miss_turn();
        };
        if !tape.turn(now, node_inbox, machine_inbox) {
            return self.pause(machine, Some(Cut::Installed));
        }
        self.hand_over(machine);
    }

    fn begin_segment(&mut self, node: &mut Node, machine: &mut MachineLane) {
        if !self.sink.has_room() {
            return;
        }
        let max = self.machine_image_size_bytes_max;
        let Some(image) = Image::of(node, machine, max) else { return };
        self.sink.wants_image.store(false, Ordering::Relaxed);
        if self.tape.is_some() {
            self.sink.push(Item::Cut(Cut::Full));
        } else {
            self.tape = Some(Tape::new(machine));
        }
        let follows = std::mem::replace(&mut self.next, Follows::Nothing);
        self.sink.push(Item::Image(Box::new(image), follows));
    }

    /// The node has made its step.
    pub(crate) fn node_done(&mut self, node: &Node, hops: &[Hop]) {
        if let Some(tape) = &mut self.tape {
            tape.node_done(node, hops);
        }
    }

    /// The turn is over.
    pub(crate) fn end(&mut self, machine: &mut MachineLane, hops: &[Hop]) {
        if let Some(tape) = &mut self.tape {
            tape.end(machine, hops);
            self.hand_over(machine);
        }
    }

    fn hand_over(&mut self, machine: &mut MachineLane) {
        let Some(tape) = &mut self.tape else { return };
        let has_room = self.sink.push_records(tape.bytes());
        tape.clear();
        if !has_room {
            tracing::warn!("flight recorder: the disk is too slow, turns are left out");
            self.pause(machine, Some(Cut::Lost));
        }
    }

    /// Ends the segment; the next turns are not recorded, until a new one begins.
    fn pause(&mut self, machine: &mut MachineLane, cut: Option<Cut>) {
        if let Some(tape) = self.tape.take() {
            tape.stop(machine);
            self.next = Follows::Gap(1);
            if let Some(cut) = cut {
                self.sink.push(Item::Cut(cut));
            }
        }
    }

    fn miss_turn(&mut self) {
        if let Follows::Gap(count) = &mut self.next {
            *count += 1;
        }
    }

    /// The lanes have stopped: says so in the recording, and waits until it is written.
    pub(crate) fn finish(mut self) {
        if self.tape.take().is_some() {
            self.sink.push(Item::Cut(Cut::Stopped));
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.sink.state().stops = true;
        self.sink.filled.notify_one();
        if let Some(writer) = self.writer.take() {
            // One that has panicked has ended the process.
            drop(writer.join());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Sink {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self) -> bool {
        self.state().size_bytes < BUFFER_SIZE_BYTES_MAX / 2
    }

    /// What is small, or rare.
    fn push(&self, item: Item) {
        let mut state = self.state();
        state.items.push_back(item);
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut State) {
        if std::mem::take(&mut state.is_idle) {
            self.filled.notify_one();
        }
    }

    /// False: there was no room.
    fn push_records(&self, bytes: &[u8]) -> bool {
        let mut state = self.state();
        if BUFFER_SIZE_BYTES_MAX < state.size_bytes + bytes.len() {
            return false;
        }
        state.size_bytes += bytes.len();
        if let Some(Item::Records(last)) = state.items.back_mut() {
            last.extend_from_slice(bytes);
            return true;
        }
        let mut block = std::mem::take(&mut state.spare);
        block.push(KIND_RECORDS);
        block.extend_from_slice(bytes);
        state.items.push_back(Item::Records(block));
        self.wake(&mut state);
        true
    }

    fn flush(&self) {
        let until = Instant::now() + FLUSH_TIME_MAX;
        let mut state = self.state();
        while (!state.items.is_empty() || state.is_writing) && !state.has_failed {
            state.hurries = true;
            self.filled.notify_one();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.drained.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is to be written; `None` when nothing will come any more. Under load the writer looks
    /// every few milliseconds, and nobody has to wake it.
    fn take(&self) -> Option<VecDeque<Item>> {
        let mut state = self.gather(self.state());
        while state.items.is_empty() {
            if state.stops {
                return None;
            }
            state.is_idle = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state = self.gather(state);
        }
        state.is_idle = false;
        state.hurries = false;
        state.is_writing = true;
        state.size_bytes = 0;
        Some(std::mem::take(&mut state.items))
    }

    /// Lets bytes gather for a moment, unless somebody waits for them.
    fn gather<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let until = Instant::now() + GATHER_TIME;
        while !state.hurries && !state.stops {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.filled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// A block was written: its memory is used again.
    fn give_back(&self, mut block: Vec<u8>) {
        block.clear();
        block.shrink_to(SPARE_SIZE_BYTES_MAX);
        self.state().spare = block;
    }

    fn written(&self, failed: bool) {
        let mut state = self.state();
        state.is_writing = false;
        if failed {
            state.has_failed = true;
            state.items.clear();
            self.has_failed.store(true, Ordering::Relaxed);
        }
        self.drained.notify_all();
    }
}

/// The writer's thread.
fn write(sink: &Sink, mut ring: Ring) {
    while let Some(items) = sink.take() {
        let written = items.into_iter().try_for_each(|item| match item {
            Item::Image(image, follows) => ring.begin(&image, follows),
            Item::Records(block) => {
                let appended = ring.append(&block);
                sink.give_back(block);
                appended
            }
            Item::Cut(cut) => ring.end(cut),
        });
        if ring.is_full() {
            sink.wants_image.store(true, Ordering::Relaxed);
        }
        if let Err(error) = &written {
            tracing::warn!("flight recorder: {error}; nothing is recorded any more");
        }
        sink.written(written.is_err());
        if written.is_err() {
            return;
        }
    }
}
