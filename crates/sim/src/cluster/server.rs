//! One simulated server: the production lanes over a simulated disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use kvraft_base::{
    Disk, Entry, EntryKind, HardState, Index, Instant, MemberId, Members, Position, Term, Ticket,
    Write, WriteId,
};
use kvraft_kv::Versions;
use kvraft_replica::{
    Hop, JournalIn, JournalLane, MachineIn, MachineLane, Node, NodeIn, Now, OpenOptions, Replica,
    ReplicaError, TableIn, TableLane,
};
use kvraft_store::{Identity, Note};

use super::operator::OperatorRequest;
use crate::{clock::Clock, disk::SimDisk, history::OpName, plan::Build};

/// The wall clock at the start of a run: any will do, the same every time.
const WALL_ORIGIN_MS: i64 = 1_700_000_000_000;

/// The four lanes, as actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LaneId {
    Node,
    Journal,
    Machine,
    Table,
}

/// Input of any lane.
#[derive(Debug)]
pub(crate) enum LaneIn {
    Node(NodeIn),
    Journal(JournalIn),
    Machine(MachineIn),
    Table(TableIn),
}

impl LaneIn {
    pub(crate) fn lane(&self) -> LaneId {
        match self {
            Self::Node(_) => LaneId::Node,
            Self::Journal(_) => LaneId::Journal,
            Self::Machine(_) => LaneId::Machine,
            Self::Table(_) => LaneId::Table,
        }
    }
}

/// The lanes of a running server, with what waits for each.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) node: Node,
    journal: JournalLane,
    pub(crate) machine: MachineLane,
    table: TableLane,
    node_inbox: Vec<NodeIn>,
    journal_inbox: Vec<JournalIn>,
    machine_inbox: Vec<MachineIn>,
    table_inbox: Vec<TableIn>,
    /// Lanes whose last step still costs time: inputs gather meanwhile, which is group commit.
    pub(crate) busy: BTreeMap<LaneId, ()>,
    /// When the world will look at the deadline of node and machine.
    pub(crate) wake_at: BTreeMap<LaneId, Instant>,
}

/// Who waits for a ticket's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A client: its number, its attempt and the operation.
    Client(u64, u64, OpName),
    Operator(OperatorRequest),
    /// The process itself, which hands over before it stops.
    Stop,
}

/// Whether a server may ever run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    InUse,
    /// It has left the cluster and was switched off.
    Retired,
    /// Its disk is lost.
    Destroyed,
}

/// A server that may be up or down; its disk outlives its process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: MemberId,
    pub(crate) disk: SimDisk,
    /// Counts the lives of this server: events of earlier ones are stale.
    pub(crate) boot: u64,
    pub(crate) lanes: Option<Lanes>,
    pub(crate) standing: Standing,
    /// The last settled configuration that it has told of in any of its lives.
    pub(crate) members: Option<Arc<Members>>,
    /// Who waits for which ticket.
    pub(crate) tickets: BTreeMap<Ticket, Waiter>,
    /// Tickets of this life of which an answer may still come though nobody waits: the client has
    /// stopped, or was told that nobody knows.
    pub(crate) released: BTreeSet<Ticket>,
    ticket_next: Ticket,
    pub(crate) clock: Clock,
    /// Stopped for a while: its process exists and does nothing.
    pub(crate) paused: bool,
    /// Which build its next process is of.
    pub(crate) build: Build,
    /// The newest cluster version that any of its processes has known.
    pub(crate) newest_known: u32,
}

/// What a build knows. The old one is one version behind.
pub(crate) fn versions_of(build: Build) -> Versions {
    let new = Versions::OF_BUILD;
    match build {
        Build::Old => Versions { newest: new.newest - 1, ..new },
        Build::New => new,
    }
}

/// What a step did to the journal: the writes that are durable now.
pub(crate) struct Synced {
    pub(crate) writes: Vec<Write>,
    pub(crate) reset: Option<Position>,
}

/// What recovery found, for the checks.
pub(crate) struct Found {
    pub(crate) hard_state: HardState,
    pub(crate) applied: Position,
    /// The log begins behind this.
    pub(crate) released: Position,
    pub(crate) tail: Vec<(Index, Term)>,
    pub(crate) last: Position,
    /// It knows that a part of its log is missing.
    pub(crate) muted: bool,
    pub(crate) notes: Vec<Note>,
}

impl Server {
    pub(crate) fn new(id: MemberId, disk: SimDisk, build: Build) -> Self {
        Self {
            id,
            disk,
            boot: 0,
            lanes: None,
            standing: Standing::InUse,
            members: None,
            tickets: BTreeMap::new(),
            released: BTreeSet::new(),
            ticket_next: Ticket(1),
            clock: Clock::new(WALL_ORIGIN_MS),
            paused: false,
            build,
            newest_known: 0,
        }
    }

    /// Both clocks, as this server sees them.
    pub(crate) fn now(&self, world: Instant) -> Now {
        Now { instant: self.clock.monotonic(world), wall_ms: self.clock.wall_ms(world) }
    }

    /// Formats the disk of a new server.
    pub(crate) fn format(&self, identity: &Identity) -> Result<(), String> {
        kvraft_store::format(&self.disk, identity).map_err(|error| error.to_string())
    }

    /// What its build knows.
    pub(crate) fn versions(&self) -> Versions {
        versions_of(self.build)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.lanes.is_some()
    }

    /// Starts the process: the same recovery as in production.
    pub(crate) fn start(&mut self, options: OpenOptions, now: Now) -> Result<Found, ReplicaError> {
        assert!(self.lanes.is_none(), "a server is started when it is down");
        self.boot += 1;
        self.newest_known = self.newest_known.max(options.versions.newest);
        let (replica, found) = Self::open(&self.disk, options, now)?;
        self.lanes = Some(Lanes {
            node: replica.node,
            journal: replica.journal,
            machine: replica.machine,
            table: replica.table,
            node_inbox: Vec::new(),
            journal_inbox: Vec::new(),
            machine_inbox: Vec::new(),
            table_inbox: Vec::new(),
            busy: BTreeMap::new(),
            wake_at: BTreeMap::new(),
        });
        Ok(found)
    }

    fn open(
        disk: &SimDisk,
        options: OpenOptions,
        now: Now,
    ) -> Result<(Replica, Found), ReplicaError> {
        let disk: Box<dyn Disk> = disk.handle();
        let replica = kvraft_replica::open(disk.as_ref(), options, now)?;
        let found = found(&replica);
        Ok((replica, found))
    }

    /// What a process would find on this disk and, if it is to write, what it then makes durable:
    /// one entry. One that misses a part of its log writes nothing.
    ///
    /// # Errors
    /// In words, why it could not start or write.
    pub(crate) fn recover(
        disk: &SimDisk,
        options: OpenOptions,
        now: Now,
        writes: bool,
    ) -> Result<(Found, Option<Write>), String> {
        let mut opened = Self::open(disk, options, now).map_err(|error| error.to_string());
        let written = match &mut opened {
            Ok((replica, found)) if writes && !found.muted => {
                Some(write_next(&mut replica.journal, found, now))
            }
            Ok(_) | Err(_) => None,
        };
        // Nothing is written on the way out.
        disk.sever();
        let (_, found) = opened?;
        Ok((found, written.transpose()?))
    }

    /// Ends the process. The caller has severed the disk first, so that nothing is written on the
    /// way out. Returns who was waiting.
    pub(crate) fn stop(&mut self) -> Vec<Waiter> {
        self.lanes = None;
        self.paused = false;
        self.released.clear();
        std::mem::take(&mut self.tickets).into_values().collect()
    }

    /// A ticket for a request.
    pub(crate) fn ticket(&mut self, waiter: Waiter) -> Ticket {
        let ticket = self.ticket_next;
        self.ticket_next = ticket.next();
        self.tickets.insert(ticket, waiter);
        ticket
    }
}

/// Makes an entry durable behind what was found. It is of the next term, in which this server has
/// neither voted nor seen another entry.
fn write_next(journal: &mut JournalLane, found: &Found, now: Now) -> Result<Write, String> {
    let (term, index) = (found.hard_state.term.next(), found.last.index.next());
    let write = Write {
        id: WriteId(1),
        hard_state: HardState { term, vote: None, ..found.hard_state },
        truncate_from: None,
        entries: vec![Entry::new(term, index, EntryKind::Noop, Bytes::new())],
    };
    let mut hops = Vec::new();
    journal.step(now, &mut vec![JournalIn::Write(write.clone())], &mut hops);
    match hops.as_slice() {
        [Hop::Node(NodeIn::Durable(id))] if *id == write.id => Ok(write),
        other => Err(format!("the first write after recovery ended with {other:?}")),
    }
}

fn found(replica: &Replica) -> Found {
    let raft = replica.node.raft();
    let status = raft.status();
    let applied = replica.machine.kv().applied();
    let tail = (applied.index.0 + 1..=status.last.index.0)
        .filter_map(|index| raft.term_at(Index(index)).map(|term| (Index(index), term)))
        .collect();
    let (last, muted) = (status.last, status.muted);
    Found {
        hard_state: raft.hard_state(),
        applied,
        released: status.released,
        tail,
        last,
        muted,
        notes: replica.notes.clone(),
    }
}

impl Lanes {
    pub(crate) fn push(&mut self, input: LaneIn) {
        match input {
            LaneIn::Node(input) => self.node_inbox.push(input),
            LaneIn::Journal(input) => self.journal_inbox.push(input),
            LaneIn::Machine(input) => self.machine_inbox.push(input),
            LaneIn::Table(input) => self.table_inbox.push(input),
        }
    }

    pub(crate) fn has_input(&self, lane: LaneId) -> bool {
        match lane {
            LaneId::Node => !self.node_inbox.is_empty(),
            LaneId::Journal => !self.journal_inbox.is_empty(),
            LaneId::Machine => !self.machine_inbox.is_empty(),
            LaneId::Table => !self.table_inbox.is_empty(),
        }
    }

    pub(crate) fn deadline(&self, lane: LaneId) -> Instant {
        match lane {
            LaneId::Node => self.node.deadline(),
            LaneId::Machine => self.machine.deadline(),
            LaneId::Journal | LaneId::Table => Instant::NEVER,
        }
    }

    /// Steps one lane over all that waits for it.
    pub(crate) fn step(&mut self, lane: LaneId, now: Now, hops: &mut Vec<Hop>) -> Synced {
        let mut synced = Synced { writes: Vec::new(), reset: None };
        match lane {
            LaneId::Node => self.node.step(now, &mut self.node_inbox, hops),
            LaneId::Machine => self.machine.step(now, &mut self.machine_inbox, hops),
            LaneId::Table => self.table.step(now, &mut self.table_inbox, hops),
            LaneId::Journal => {
                let asked: Vec<Write> = self.journal_inbox.iter().filter_map(write_of).collect();
                self.journal.step(now, &mut self.journal_inbox, hops);
                for hop in hops.iter() {
                    if let Hop::Node(NodeIn::Durable(id)) = hop {
                        let durable = asked.iter().filter(|write| write.id <= *id);
                        synced.writes = durable.cloned().collect();
                    }
                    if let Hop::Node(NodeIn::ResetDone(position)) = hop {
                        synced.reset = Some(*position);
                    }
                }
            }
        }
        synced
    }
}

fn write_of(input: &JournalIn) -> Option<Write> {
    match input {
        JournalIn::Write(write) => Some(write.clone()),
        JournalIn::Release(_) | JournalIn::Reset { .. } | JournalIn::Fetch(_) => None,
    }
}

/// The members of a simulated cluster: 1 to `count`.
pub(crate) fn members(count: u64) -> Members {
    Members::new((1..=count).map(MemberId)).expect("sizes 1 to 7 are checked before")
}
