//! Gives a replica's lanes threads, channels and the real clock.
//!
//! Node and Machine share one thread and run to completion (a hop between threads costs more than
//! either does for a put); the journal's fsync and the table's writing have a thread each. Replies
//! cross to the async edge once per batch.
//!
//! Invariants:
//! - a lane is touched by its own thread only;
//! - completions from journal and table always find room; client requests are admitted up to a
//!   bound and refused beyond; frames from peers beyond a bound are dropped, which raft tolerates;
//! - the first [`Hop::Fatal`] ends the process through `on_fatal`; nothing is retried.
//!
//! What it lacks: the bytes of a request count from when it is decoded, not while it arrives; an
//! answer on its way to a slow client counts nowhere.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use kvraft_base::{Instant, MemberId, Ticket, limits};
use kvraft_raft::{Event, Membership, Status};
use kvraft_replica::{
    ClientRequest, Fatal, Frame, Hop, JournalIn, JournalLane, MachineIn, MachineLane, Node, NodeIn,
    NotSent, Now, PeerLane, Replica, Reply, TableIn, TableLane,
};
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};

use crate::flight::Flight;

/// Inputs taken in one turn at most, so that a flood cannot starve deadlines.
const TURN_INPUT_COUNT_MAX: usize = 4096;

/// What a waiting request takes beside its bytes: its task, its stream, its place in the maps.
pub(crate) const REQUEST_OVERHEAD_BYTES: usize = 2048;

/// The longest sleep without a deadline: bounds how late a stop is seen.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Where the driver's outputs go.
pub(crate) trait Edge: Send + Sync + 'static {
    /// Hands a frame to the transport. Never blocks; may drop, and says so if it does at once.
    fn send_to_peer(&self, to: MemberId, lane: PeerLane, frame: Bytes) -> Result<(), NotSent>;
    /// Logs and counts.
    fn on_event(&self, event: &Event);
    /// The configuration in force has changed, or is known to be committed now. First called in the
    /// first turn.
    fn on_members(&self, _membership: &Membership) {}
    /// Ends the process.
    fn on_fatal(&self, fatal: Fatal);
    /// After each turn in which something changed.
    fn on_status(&self, status: &Snapshot);
}

/// What the core thread publishes about itself after its turns.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) raft: Status,
    pub(crate) revision: i64,
    /// Of the state.
    pub(crate) cluster_version: u32,
}

/// Reads both clocks.
#[derive(Clone, Copy, Debug)]
struct Clock {
    origin: StdInstant,
}

impl Clock {
    fn now(self) -> Now {
        let elapsed = self.origin.elapsed();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: Instant(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Into the core thread.
enum CoreIn {
    /// A client's request, and who waits for the outcome.
    Request(Ticket, ClientRequest, Waiter),
    /// Nobody waits for it any more.
    Cancel(Ticket),
    Node(NodeIn),
    Machine(MachineIn),
    /// Nobody who waits will be answered.
    Abandon,
    Stop,
}

/// Who waits for a reply, and the memory that the request takes until then.
struct Waiter {
    reply: oneshot::Sender<Reply>,
    _admission: OwnedSemaphorePermit,
}

enum JournalMsg {
    In(JournalIn),
    Stop,
}

enum TableMsg {
    In(TableIn),
    Stop,
}

/// Replies of one turn on their way to those who wait for them.
type Answers = Vec<(Waiter, Reply)>;

/// The handle that the edge holds: cheap to share, never blocks.
pub(crate) struct Driver {
    core: Sender<CoreIn>,
    ticket_next: AtomicU64,
    /// Memory that requests may still take, in bytes.
    admission: Arc<Semaphore>,
    /// Bytes of frames that wait for the core thread.
    peer_frames_size: Arc<AtomicUsize>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Clock,
}

/// A request was not admitted: too many are waiting.
#[derive(Debug)]
pub(crate) struct Overloaded;

/// Tells the core when the waiter goes away, so that nothing leaks when clients give up.
pub(crate) struct Pending<'a> {
    driver: &'a Driver,
    ticket: Ticket,
    receiver: Option<oneshot::Receiver<Reply>>,
}

impl Pending<'_> {
    /// Waits for the outcome. `None`: the server is stopping.
    pub(crate) async fn outcome(mut self) -> Option<Reply> {
        let receiver = self.receiver.take()?;
        let reply = receiver.await.ok();
        self.ticket = Ticket::ZERO; // Answered: nothing to cancel.
        reply
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.ticket == Ticket::ZERO {
            return;
        }
        // The core gives the memory back when it has seen this: until then the request takes it.
        self.driver.send(CoreIn::Cancel(self.ticket));
    }
}

impl Driver {
    /// Starts the threads of a replica, and a task of the runtime it is called in. `first_ticket`
    /// differs from life to life, so that a late answer to an earlier life finds nobody.
    /// `waiting_size_max` bounds the memory of waiting requests, in bytes.
    pub(crate) fn start(
        replica: Replica,
        origin: StdInstant,
        waiting_size_max: usize,
        first_ticket: u64,
        flight: Option<Flight>,
        edge: Arc<dyn Edge>,
    ) -> std::io::Result<Self> {
        assert!(0 < first_ticket && first_ticket < 1 << 62, "tickets have room to grow");
        let clock = Clock { origin };
        let (core_tx, core_rx) = channel();
        let (journal_tx, journal_rx) = channel();
        let (table_tx, table_rx) = channel();
        let (answers, answered) = unbounded_channel();
        tokio::spawn(hand_out(answered));
        let peer_frames_size = Arc::new(AtomicUsize::new(0));
        let core = Core {
            node: replica.node,
            machine: replica.machine,
            node_inbox: Vec::new(),
            machine_inbox: Vec::new(),
            hops: Vec::new(),
            answering: Vec::new(),
            waiters: HashMap::new(),
            answers,
            inputs: core_rx,
            journal: journal_tx,
            table: table_tx,
            peer_frames_size: Arc::clone(&peer_frames_size),
            edge: Arc::clone(&edge),
            flight,
            clock,
        };
        let (journal, table) = (replica.journal, replica.table);
        let (journal_core, table_core) = (core_tx.clone(), core_tx.clone());
        let (journal_edge, table_edge) = (Arc::clone(&edge), edge);
        let threads = vec![
            spawn("kvraft-core", move || core.run())?,
            spawn("kvraft-journal", move || {
                run_journal(journal, &journal_rx, &journal_core, &journal_edge, clock);
            })?,
            spawn("kvraft-table", move || {
                run_table(table, &table_rx, &table_core, &table_edge, clock);
            })?,
        ];
        Ok(Self {
            core: core_tx,
            ticket_next: AtomicU64::new(first_ticket),
            admission: Arc::new(Semaphore::new(waiting_size_max.min(Semaphore::MAX_PERMITS))),
            peer_frames_size,
            threads: Mutex::new(threads),
            clock,
        })
    }

    /// The wall clock, in milliseconds since 1970.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.clock.now().wall_ms
    }

    fn send(&self, input: CoreIn) {
        // A closed channel means that the core has stopped; so does everything else then.
        drop(self.core.send(input));
    }

    /// Admits a request of about this size. `make` gets the ticket, since commands carry it.
    pub(crate) fn request(
        &self,
        size_bytes: usize,
        make: impl FnOnce(Ticket) -> ClientRequest,
    ) -> Result<Pending<'_>, Overloaded> {
        let cost = u32::try_from(REQUEST_OVERHEAD_BYTES + size_bytes).unwrap_or(u32::MAX);
        let admission = Arc::clone(&self.admission).try_acquire_many_owned(cost);
        let admission = admission.map_err(|_| Overloaded)?;
        let ticket = Ticket(self.ticket_next.fetch_add(1, Ordering::Relaxed));
        let (reply, receiver) = oneshot::channel();
        // When the core has stopped, the waiter is dropped here, which tells the receiver.
        self.send(CoreIn::Request(ticket, make(ticket), Waiter { reply, _admission: admission }));
        Ok(Pending { driver: self, ticket, receiver: Some(receiver) })
    }

    /// A frame from a peer; false when there is no room for it.
    pub(crate) fn on_frame(&self, from: MemberId, frame: Bytes) -> bool {
        let size = limits::peer_frame_cost(frame.len());
        let before = self.peer_frames_size.fetch_add(size, Ordering::Relaxed);
        let most = limits::PEER_INBOX_SIZE_BYTES_MAX;
        let room = limits::peer_frame_finds_room(frame.len(), before, most);
        if room {
            self.send(CoreIn::Node(NodeIn::Frame { from, frame }));
        } else {
            self.peer_frames_size.fetch_sub(size, Ordering::Relaxed);
        }
        room
    }

    /// A peer's connection came up or went down.
    pub(crate) fn on_connection(&self, peer: MemberId, up: bool) {
        let input = if up { NodeIn::Connected(peer) } else { NodeIn::Disconnected(peer) };
        self.send(CoreIn::Node(input));
    }

    /// Somebody outside says that the leader is dead.
    pub(crate) fn on_leader_suspected(&self) {
        self.send(CoreIn::Node(NodeIn::LeaderSuspected));
    }

    /// Tells whoever waits that the server has stopped for them: their outcomes will not be known
    /// here.
    pub(crate) fn abandon(&self) {
        self.send(CoreIn::Abandon);
    }

    /// Stops the threads after what has been accepted is written, and waits for them.
    pub(crate) fn stop(&self) {
        self.send(CoreIn::Stop);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A thread that panicked has already ended the process through the panic hook.
            drop(thread.join());
        }
    }
}

/// Resolves what waits for the replies, on a thread of the runtime: waking a task is cheap there.
async fn hand_out(mut answers: UnboundedReceiver<Answers>) {
    while let Some(batch) = answers.recv().await {
        for (waiter, reply) in batch {
            // A receiver that has gone away cancels its ticket by itself.
            drop(waiter.reply.send(reply));
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Node and Machine on one thread.
struct Core {
    node: Node,
    machine: MachineLane,
    node_inbox: Vec<NodeIn>,
    machine_inbox: Vec<MachineIn>,
    hops: Vec<Hop>,
    /// Replies of this turn.
    answering: Answers,
    waiters: HashMap<Ticket, Waiter>,
    answers: UnboundedSender<Answers>,
    inputs: Receiver<CoreIn>,
    journal: Sender<JournalMsg>,
    table: Sender<TableMsg>,
    peer_frames_size: Arc<AtomicUsize>,
    edge: Arc<dyn Edge>,
    /// There when this server keeps what its lanes are given.
    flight: Option<Flight>,
    clock: Clock,
}

impl Core {
    fn run(mut self) {
        self.publish();
        while self.gather() {
            self.turn();
        }
        drop(self.journal.send(JournalMsg::Stop));
        drop(self.table.send(TableMsg::Stop));
        if let Some(flight) = self.flight.take() {
            flight.finish();
        }
        // Whoever still waits learns from the dropped waiters that the server has stopped.
    }

    /// Waits for input or the next deadline, then takes what has arrived. False: stop.
    fn gather(&mut self) -> bool {
        if self.node_inbox.is_empty() && self.machine_inbox.is_empty() {
            let now = self.clock.now().instant;
            let deadline = self.node.deadline().min(self.machine.deadline());
            match self.inputs.recv_timeout(deadline.since(now).min(SLEEP_MAX)) {
                Ok(input) => {
                    if !self.sort(input) {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        for _ in 1..TURN_INPUT_COUNT_MAX {
            let Ok(input) = self.inputs.try_recv() else {
                break;
            };
            if !self.sort(input) {
                return false;
            }
        }
        true
    }

    fn sort(&mut self, input: CoreIn) -> bool {
        match input {
            CoreIn::Request(ticket, request, waiter) => {
                self.waiters.insert(ticket, waiter);
                self.node_inbox.push(NodeIn::Client { ticket, request });
            }
            CoreIn::Cancel(ticket) => {
                self.waiters.remove(&ticket);
                self.node_inbox.push(NodeIn::Cancel(ticket));
            }
            CoreIn::Node(input) => {
                if let NodeIn::Frame { frame, .. } = &input {
                    let size = limits::peer_frame_cost(frame.len());
                    self.peer_frames_size.fetch_sub(size, Ordering::Relaxed);
                }
                self.node_inbox.push(input);
            }
            CoreIn::Machine(input) => self.machine_inbox.push(input),
            // The receivers are told by this.
            CoreIn::Abandon => self.waiters.clear(),
            CoreIn::Stop => return false,
        }
        true
    }

    /// Steps both lanes once. What they leave for each other is taken in the next turn, together
    /// with what has arrived by then and under a clock read anew.
    fn turn(&mut self) {
        let now = self.clock.now();
        if let Some(flight) = &mut self.flight {
            let node = (&mut self.node, self.node_inbox.as_slice());
            flight.begin(now, node, (&mut self.machine, &self.machine_inbox));
        }
        self.node.step(now, &mut self.node_inbox, &mut self.hops);
        if let Some(flight) = &mut self.flight {
            flight.node_done(&self.node, &self.hops);
        }
        self.route();
        self.machine.step(now, &mut self.machine_inbox, &mut self.hops);
        if let Some(flight) = &mut self.flight {
            flight.end(&mut self.machine, &self.hops);
        }
        self.route();
        self.publish();
        self.answer();
    }

    fn route(&mut self) {
        for hop in self.hops.drain(..) {
            match hop {
                Hop::Node(input) => self.node_inbox.push(input),
                Hop::Machine(input) => self.machine_inbox.push(input),
                Hop::Journal(input) => drop(self.journal.send(JournalMsg::In(input))),
                Hop::Table(input) => drop(self.table.send(TableMsg::In(input))),
                Hop::Peer { to, lane, frame } => {
                    let kept = Frame::is_forward(&frame).then(|| frame.clone());
                    let sent = self.edge.send_to_peer(to, lane, frame);
                    if let (Err(reason), Some(frame)) = (sent, kept) {
                        self.node_inbox.push(NodeIn::Undelivered { to, frame, reason });
                    }
                }
                Hop::Reply(reply) => {
                    // One that is not here has gone away.
                    if let Some(waiter) = self.waiters.remove(&reply.ticket) {
                        self.answering.push((waiter, reply));
                    }
                }
                Hop::Event(event) => self.edge.on_event(&event),
                Hop::Members(membership) => self.edge.on_members(&membership),
                Hop::Fatal(fatal) => self.edge.on_fatal(fatal),
            }
        }
    }

    /// Crosses to the edge's threads once for all replies of a turn.
    fn answer(&mut self) {
        if !self.answering.is_empty() {
            // A closed channel means that the runtime is gone, and with it whoever waited.
            drop(self.answers.send(std::mem::take(&mut self.answering)));
        }
    }

    fn publish(&self) {
        let kv = self.machine.kv();
        self.edge.on_status(&Snapshot {
            raft: self.node.status(),
            revision: kv.revision().0,
            cluster_version: kv.cluster_version(),
        });
    }
}

fn run_journal(
    mut lane: JournalLane,
    inputs: &Receiver<JournalMsg>,
    core: &Sender<CoreIn>,
    edge: &Arc<dyn Edge>,
    clock: Clock,
) {
    let (mut inbox, mut hops) = (Vec::new(), Vec::new());
    let mut running = true;
    while running {
        let Ok(first) = inputs.recv() else {
            return;
        };
        for message in std::iter::once(first).chain(inputs.try_iter()) {
            match message {
                JournalMsg::In(input) => inbox.push(input),
                JournalMsg::Stop => running = false,
            }
        }
        lane.step(clock.now(), &mut inbox, &mut hops);
        hand_over(&mut hops, core, edge);
    }
}

fn run_table(
    mut lane: TableLane,
    inputs: &Receiver<TableMsg>,
    core: &Sender<CoreIn>,
    edge: &Arc<dyn Edge>,
    clock: Clock,
) {
    let (mut inbox, mut hops) = (Vec::new(), Vec::new());
    loop {
        match inputs.recv() {
            Ok(TableMsg::In(input)) => inbox.push(input),
            Ok(TableMsg::Stop) | Err(_) => return,
        }
        lane.step(clock.now(), &mut inbox, &mut hops);
        hand_over(&mut hops, core, edge);
    }
}

/// Journal and table speak to node and machine only.
fn hand_over(hops: &mut Vec<Hop>, core: &Sender<CoreIn>, edge: &Arc<dyn Edge>) {
    for hop in hops.drain(..) {
        match hop {
            Hop::Node(input) => drop(core.send(CoreIn::Node(input))),
            Hop::Machine(input) => drop(core.send(CoreIn::Machine(input))),
            Hop::Fatal(fatal) => edge.on_fatal(fatal),
            Hop::Event(event) => edge.on_event(&event),
            Hop::Journal(_)
            | Hop::Table(_)
            | Hop::Peer { .. }
            | Hop::Reply(_)
            | Hop::Members(_) => {
                unreachable!("disk lanes answer the node and the machine only")
            }
        }
    }
}
