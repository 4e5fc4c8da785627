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
use kvraft_base::{Instant, MemberId, Ticket};
use kvraft_raft::{Event, Status};
use kvraft_replica::{
    ClientRequest, Fatal, Frame, Hop, JournalIn, JournalLane, MachineIn, MachineLane, Node, NodeIn,
    NotSent, Now, PeerLane, Replica, Reply, TableIn, TableLane,
};
use tokio::sync::oneshot;

/// Inputs taken in one turn at most, so that a flood cannot starve deadlines.
const TURN_INPUT_COUNT_MAX: usize = 4096;

/// Frames from peers that may wait for the core thread. Beyond, they are dropped.
const PEER_FRAME_COUNT_MAX: usize = 8192;

/// The longest sleep without a deadline: bounds how late a stop is seen.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Where the driver's outputs go.
pub(crate) trait Edge: Send + Sync + 'static {
    /// Hands a frame to the transport. Never blocks; may drop, and says so if it does at once.
    fn send_to_peer(&self, to: MemberId, lane: PeerLane, frame: Bytes) -> Result<(), NotSent>;
    /// Logs and counts.
    fn on_event(&self, event: &Event);
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
    Node(NodeIn),
    Machine(MachineIn),
    Stop,
}

enum JournalMsg {
    In(JournalIn),
    Stop,
}

enum TableMsg {
    In(TableIn),
    Stop,
}

/// Requests that wait for their reply.
type Tickets = Mutex<HashMap<Ticket, oneshot::Sender<Reply>>>;

/// The handle that the edge holds: cheap to share, never blocks.
pub(crate) struct Driver {
    core: Sender<CoreIn>,
    tickets: Arc<Tickets>,
    ticket_next: AtomicU64,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
    peer_frames: Arc<AtomicUsize>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Clock,
}

/// A request was not admitted: too many are waiting.
#[derive(Debug)]
pub(crate) struct Overloaded;

/// Forgets a ticket when its waiter goes away, so that nothing leaks when clients give up.
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
        self.driver.waiting.fetch_sub(1, Ordering::Relaxed);
        reply
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.ticket == Ticket::ZERO {
            return;
        }
        let mut tickets = self.driver.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.remove(&self.ticket);
        drop(tickets);
        // The core releases the place when it has seen both the request and this: until then the
        // request still takes memory.
        self.driver.send(CoreIn::Node(NodeIn::Cancel(self.ticket)));
    }
}

impl Driver {
    /// Starts the threads of a replica. `first_ticket` differs from life to life, so that a late
    /// answer to an earlier life finds nobody.
    pub(crate) fn start(
        replica: Replica,
        origin: StdInstant,
        waiting_max: usize,
        first_ticket: u64,
        edge: Arc<dyn Edge>,
    ) -> std::io::Result<Self> {
        assert!(0 < first_ticket && first_ticket < 1 << 62, "tickets have room to grow");
        let clock = Clock { origin };
        let (core_tx, core_rx) = channel();
        let (journal_tx, journal_rx) = channel();
        let (table_tx, table_rx) = channel();
        let tickets = Arc::new(Tickets::default());
        let peer_frames = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::new(AtomicUsize::new(0));
        let core = Core {
            node: replica.node,
            machine: replica.machine,
            node_inbox: Vec::new(),
            machine_inbox: Vec::new(),
            hops: Vec::new(),
            replies: Vec::new(),
            inputs: core_rx,
            journal: journal_tx,
            table: table_tx,
            tickets: Arc::clone(&tickets),
            peer_frames: Arc::clone(&peer_frames),
            waiting: Arc::clone(&waiting),
            edge: Arc::clone(&edge),
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
            tickets,
            ticket_next: AtomicU64::new(first_ticket),
            waiting,
            waiting_max,
            peer_frames,
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

    /// Admits a request. `make` gets the ticket, since commands carry it.
    pub(crate) fn request(
        &self,
        make: impl FnOnce(Ticket) -> ClientRequest,
    ) -> Result<Pending<'_>, Overloaded> {
        if self.waiting_max <= self.waiting.fetch_add(1, Ordering::Relaxed) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Overloaded);
        }
        let ticket = Ticket(self.ticket_next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, sender);
        let input = CoreIn::Node(NodeIn::Client { ticket, request: make(ticket) });
        if self.core.send(input).is_err() {
            // The core has stopped: dropping the sender tells the waiter so.
            self.tickets.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
        }
        Ok(Pending { driver: self, ticket, receiver: Some(receiver) })
    }

    /// A frame from a peer; dropped when too many are waiting. Returns what is to be answered then.
    pub(crate) fn on_frame(&self, from: MemberId, frame: Bytes) -> Option<Bytes> {
        if PEER_FRAME_COUNT_MAX <= self.peer_frames.fetch_add(1, Ordering::Relaxed) {
            self.peer_frames.fetch_sub(1, Ordering::Relaxed);
            return Frame::answer_to_dropped(&frame);
        }
        self.send(CoreIn::Node(NodeIn::Frame { from, frame }));
        None
    }

    /// A peer's connection came up or went down.
    pub(crate) fn on_connection(&self, peer: MemberId, up: bool) {
        let input = if up { NodeIn::Connected(peer) } else { NodeIn::Disconnected(peer) };
        self.send(CoreIn::Node(input));
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
    replies: Vec<Reply>,
    inputs: Receiver<CoreIn>,
    journal: Sender<JournalMsg>,
    table: Sender<TableMsg>,
    tickets: Arc<Tickets>,
    peer_frames: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
    edge: Arc<dyn Edge>,
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
        // First the channel, then the tickets: who comes in between finds the channel closed.
        drop(self.inputs);
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
            CoreIn::Node(input) => {
                if matches!(input, NodeIn::Frame { .. }) {
                    self.peer_frames.fetch_sub(1, Ordering::Relaxed);
                }
                if matches!(input, NodeIn::Cancel(_)) {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                self.node_inbox.push(input);
            }
            CoreIn::Machine(input) => self.machine_inbox.push(input),
            CoreIn::Stop => return false,
        }
        true
    }

    /// Steps both lanes once. What they leave for each other is taken in the next turn, together
    /// with what has arrived by then and under a clock read anew.
    fn turn(&mut self) {
        let now = self.clock.now();
        self.node.step(now, &mut self.node_inbox, &mut self.hops);
        self.route();
        self.machine.step(now, &mut self.machine_inbox, &mut self.hops);
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
                Hop::Reply(reply) => self.replies.push(reply),
                Hop::Event(event) => self.edge.on_event(&event),
                Hop::Fatal(fatal) => self.edge.on_fatal(fatal),
            }
        }
    }

    fn answer(&mut self) {
        if self.replies.is_empty() {
            return;
        }
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = Vec::with_capacity(self.replies.len());
        for reply in self.replies.drain(..) {
            if let Some(sender) = tickets.remove(&reply.ticket) {
                waiting.push((sender, reply));
            }
        }
        drop(tickets);
        for (sender, reply) in waiting {
            // A receiver that has gone away cancels its ticket by itself.
            drop(sender.send(reply));
        }
    }

    fn publish(&self) {
        let kv = self.machine.kv();
        self.edge.on_status(&Snapshot { raft: self.node.status(), revision: kv.revision().0 });
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
            Hop::Journal(_) | Hop::Table(_) | Hop::Peer { .. } | Hop::Reply(_) => {
                unreachable!("disk lanes answer the node and the machine only")
            }
        }
    }
}
