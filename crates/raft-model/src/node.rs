//! One server of the model: the production value, its disk, and what is on the way to the disk.
//!
//! Why neighbours instead of ids: every server calls itself 1, its right neighbour 2 and its left
//! neighbour 3, so that turning the ring leaves every server's state as it is.
//!
//! Invariants:
//! - the production value is only ever changed through `step` and `finish`;
//! - `disk` and then `writes` are the log and the hard state that the value has;
//! - between two events, nothing waits in the value but for what an event brings.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{
    Entry, EntryKind, HardState, Index, Instant, MemberId, Members, Position, Term, Ticket, Write,
};
use kvraft_raft::{
    AppendOutcome, Body, Change, Config, Input, Message, Output, PeerState, Raft, RoleName, Start,
};

use crate::{bounds::Bounds, rules::Rule};

/// How every server calls itself.
pub(crate) const ME: MemberId = MemberId(1);
/// How every server calls the next one in the ring.
pub(crate) const RIGHT: MemberId = MemberId(2);
/// How every server calls the one before it in the ring.
pub(crate) const LEFT: MemberId = MemberId(3);

/// One server.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    raft: Raft,
    disk: Disk,
    /// Handed to the disk, not yet durable, in order.
    writes: VecDeque<Write>,
    crash_count: u8,
    /// Heartbeats in this term as its leader.
    heartbeat_count: u8,
    clock: Instant,
    /// The clock when a leader may last have been heard.
    heard: Instant,
}

/// What survives a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Disk {
    hard_state: HardState,
    entries: Vec<Entry>,
}

/// What may happen to a server, apart from messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Local {
    /// The oldest write under way becomes durable, and the server is told.
    Sync,
    /// The server stops and starts again with what is on its disk.
    Crash,
    /// It has heard that the term before this one began, its timeout passes, and it is granted
    /// pre-votes: it campaigns in this term.
    Campaign(u64),
    /// Its timeout passes: it gives up the leader that it follows.
    Doubt,
    /// A client's entry arrives.
    Propose,
    /// Its heartbeat is due.
    Heartbeat,
    /// As leader, it is asked to remove some.
    Remove(Removed),
}

/// Who is to be removed, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Removed {
    /// The leader itself.
    Me,
    /// Its right neighbour.
    Right,
    /// Its left neighbour.
    Left,
    /// Both neighbours, through a joint configuration.
    Both,
}

impl Removed {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Me, Self::Right, Self::Left, Self::Both];

    fn changes(self) -> Vec<Change> {
        let removed: &[MemberId] = match self {
            Self::Me => &[ME],
            Self::Right => &[RIGHT],
            Self::Left => &[LEFT],
            Self::Both => &[RIGHT, LEFT],
        };
        removed.iter().map(|id| Change::Remove { id: *id }).collect()
    }
}

/// What an event did to a server.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    /// The server afterwards.
    pub node: Node,
    /// What it sent, in its own names.
    pub messages: Vec<Message>,
    /// A rule that it broke all by itself.
    pub broken: Option<Rule>,
}

/// An entry, as far as servers must agree on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Its term.
    pub term: u64,
    kind: EntryKind,
    /// Of a configuration: voters and outgoing voters, whom each server calls by other names.
    counts: [usize; 2],
}

impl Tag {
    fn of(entry: &Entry) -> Self {
        let members = (entry.kind == EntryKind::Config)
            .then(|| Members::decode(entry.payload.clone()).expect("what was appended is sound"));
        let counts = members.map_or([0; 2], |m| [m.voters().len(), m.voters_outgoing().len()]);
        Self { term: entry.term.0, kind: entry.kind, counts }
    }
}

/// What the rules and the model look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: u64,
    /// Whether it follows somebody.
    pub follows: bool,
    /// Term that survives a crash.
    pub disk_term: u64,
    /// Vote in its term.
    pub vote: Option<MemberId>,
    /// Its log, from index 1.
    pub log: Vec<Tag>,
    /// Its log as it would be after a crash.
    pub disk_log: Vec<Tag>,
    /// Its commit index.
    pub commit: Index,
    /// The configuration in force, in the server's own names.
    pub members: Members,
    /// If it leads: up to where followers that it sends ahead to are known to match.
    pub matched: Vec<(MemberId, Index)>,
    /// Writes under way.
    pub write_count: usize,
    /// Crashes so far.
    pub crash_count: u8,
    /// Heartbeats in this term as its leader.
    pub heartbeat_count: u8,
}

impl Look {
    /// Whether the log on disk has this entry.
    #[must_use]
    pub(crate) fn disk_holds(&self, position: Position) -> bool {
        let Some(at) = position.index.0.checked_sub(1) else { return true };
        let at = usize::try_from(at).expect("logs of a model are short");
        self.disk_log.get(at).is_some_and(|tag| tag.term == position.term.0)
    }
}

impl Node {
    /// A server that has never run.
    #[must_use]
    pub(crate) fn fresh(bounds: &Bounds) -> Self {
        let disk = Disk::default();
        let clock = Instant(CLOCK_START);
        let raft = start(bounds, &disk, clock);
        let writes = VecDeque::new();
        Self { raft, disk, writes, crash_count: 0, heartbeat_count: 0, clock, heard: clock }
    }

    /// A look at it.
    #[must_use]
    pub(crate) fn look(&self) -> Look {
        let status = self.raft.status();
        let mut log = self.disk.clone();
        self.writes.iter().for_each(|write| log.take(write));
        let ahead = status.peers.iter().filter(|peer| peer.state == PeerState::Replicate);
        let tags = |disk: &Disk| disk.entries.iter().map(Tag::of).collect();
        Look {
            role: status.role,
            term: status.term.0,
            follows: status.role == RoleName::Follower && status.leader.is_some(),
            disk_term: self.disk.hard_state.term.0,
            vote: status.vote,
            log: tags(&log),
            disk_log: tags(&self.disk),
            commit: status.commit,
            members: self.raft.members().clone(),
            matched: ahead.map(|peer| (peer.id, peer.matched)).collect(),
            write_count: self.writes.len(),
            crash_count: self.crash_count,
            heartbeat_count: self.heartbeat_count,
        }
    }

    /// The whole log, as the disk will have it.
    fn log(&self) -> Disk {
        let mut log = self.disk.clone();
        self.writes.iter().for_each(|write| log.take(write));
        log
    }

    /// Whether the last configuration in the log is in force (Raft §6).
    fn follows_log(&self) -> bool {
        let log = self.log();
        let last = log.entries.iter().rfind(|entry| entry.kind == EntryKind::Config);
        let members = last.map(|entry| Members::decode(entry.payload.clone()));
        *self.raft.members() == members.and_then(Result::ok).unwrap_or_else(everyone)
    }

    /// Whether nothing has changed, not even a clock.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.raft == other.raft
            && self.disk == other.disk
            && self.writes == other.writes
            && (self.crash_count, self.heartbeat_count)
                == (other.crash_count, other.heartbeat_count)
    }

    /// A message arrives.
    #[must_use]
    pub(crate) fn receive(&self, bounds: &Bounds, message: &Message) -> Effect {
        self.run(bounds, |turn| {
            match message.body {
                Body::VoteRequest { .. } => turn.be_persuaded(message.term),
                _ => turn.node.heard = turn.node.clock,
            }
            turn.step(Input::Receive(message.clone()));
        })
    }

    /// Something else happens.
    #[must_use]
    pub(crate) fn happen(&self, bounds: &Bounds, local: Local) -> Effect {
        self.run(bounds, |turn| match local {
            Local::Sync => turn.sync(),
            Local::Crash => turn.crash(),
            Local::Campaign(term) => {
                turn.campaign(Term(term));
                // Who has no vote any more does not campaign; nothing has happened then.
                if turn.node.raft.status().role != RoleName::Candidate {
                    turn.node = self.clone();
                    turn.messages.clear();
                }
            }
            Local::Doubt => turn.expire(),
            Local::Propose => turn.step(Input::Propose {
                ticket: Ticket(0),
                kind: EntryKind::Command,
                payload: Bytes::new(),
            }),
            Local::Heartbeat => {
                turn.node.heartbeat_count += 1;
                turn.expire();
            }
            Local::Remove(removed) => {
                turn.step(Input::ChangeMembers { ticket: Ticket(0), changes: removed.changes() })
            }
        })
    }

    fn run(&self, bounds: &Bounds, event: impl FnOnce(&mut Turn<'_>)) -> Effect {
        let led = self.raft.status().role == RoleName::Leader;
        let before = self.raft.status().commit;
        let mut turn = Turn { bounds, node: self.clone(), messages: Vec::new(), broken: None };
        let done = catch_unwind(AssertUnwindSafe(|| {
            event(&mut turn);
            while turn.bounds.write_count_max < turn.node.writes.len() {
                turn.sync();
            }
        }));
        if done.is_err() {
            let node = self.clone();
            return Effect { node, messages: Vec::new(), broken: Some(Rule::Assertion) };
        }
        if !turn.node.follows_log() {
            turn.broken = turn.broken.or(Some(Rule::MembersWhenAppended));
        }
        let status = turn.node.raft.status();
        if status.role != RoleName::Leader {
            turn.node.heartbeat_count = 0;
        } else if led
            && before < status.commit
            && turn.node.raft.term_at(status.commit) != Some(status.term)
        {
            turn.broken = turn.broken.or(Some(Rule::CommitsOwnTerm));
        }
        Effect { node: turn.node, messages: turn.messages, broken: turn.broken }
    }
}

/// A server while something happens to it.
struct Turn<'a> {
    bounds: &'a Bounds,
    node: Node,
    messages: Vec<Message>,
    broken: Option<Rule>,
}

impl Turn<'_> {
    fn step(&mut self, input: Input) {
        let role = self.node.raft.status().role;
        self.node.raft.step(self.node.clock, input);
        self.finish();
        let campaigns = self.node.raft.status().role == RoleName::PreCandidate;
        assert!(!campaigns || role == RoleName::PreCandidate, "no timer fires by itself");
    }

    /// Ends the turn, and has the machine apply at once what it is given: that touches nothing but
    /// the bounds of memory, which are far away.
    fn finish(&mut self) {
        loop {
            let mut out = Output::default();
            self.node.raft.finish(self.node.clock, &mut out);
            assert!(out.fetches.is_empty(), "the whole log is in memory");
            assert!(out.snapshots.is_empty(), "no journal is ever released");
            self.node.writes.extend(out.write);
            for message in out.messages {
                self.send(message);
            }
            let Some(last) = out.committed.last() else { return };
            if !out.committed.iter().all(|entry| self.node.disk.entries.contains(entry)) {
                self.broken = self.broken.or(Some(Rule::AppliedIsDurable));
            }
            self.node.raft.step(self.node.clock, Input::Applied { index: last.index });
        }
    }

    fn send(&mut self, message: Message) {
        if !self.node.disk.backs(&message) {
            self.broken = self.broken.or(Some(Rule::PromiseIsDurable));
        }
        self.messages.push(message);
    }

    fn sync(&mut self) {
        let write = self.node.writes.pop_front().expect("a write is under way");
        self.node.disk.take(&write);
        self.step(Input::Durable { write: write.id });
    }

    fn crash(&mut self) {
        self.node.writes.clear();
        self.node.crash_count += 1;
        self.node.raft = start(self.bounds, &self.node.disk, self.node.clock);
        self.node.heard = self.node.clock;
    }

    /// The next timer fires.
    fn expire(&mut self) {
        self.node.clock = self.node.clock.max(self.node.raft.deadline());
        self.finish();
    }

    /// Whoever may help to elect another stops what would keep it from that: a leader finds that it
    /// hears from no majority, a follower has not heard its leader for a while. Otherwise a vote
    /// request is ignored, which is as if it were late.
    fn be_persuaded(&mut self, term: Term) {
        let status = self.node.raft.status();
        match status.role {
            RoleName::Leader if status.term < term => self.lose_quorum(),
            RoleName::Follower if status.term < term => {
                self.node.clock = self.node.clock.max(self.node.heard + DISLOYAL_AFTER);
            }
            RoleName::Follower if status.leader.is_some() && status.vote.is_none() => self.expire(),
            _ => {}
        }
    }

    fn lose_quorum(&mut self) {
        self.node.clock = self.node.clock + QUORUM_LOST_AFTER;
        self.finish();
        self.node.heard = self.node.clock;
    }

    /// From any role to candidate of `term`. Pre-votes are granted without being asked for: the
    /// model lets more servers campaign than the protocol does.
    fn campaign(&mut self, term: Term) {
        let before = Term(term.0 - 1);
        if self.node.raft.status().term < before {
            // Any answer from the term before would do.
            let body = Body::PreVoteAnswer { campaign: before, granted: false };
            self.step(Input::Receive(Message { from: RIGHT, to: ME, term: before, body }));
        }
        if self.node.raft.status().role == RoleName::Leader {
            self.lose_quorum();
        }
        if self.node.raft.status().role != RoleName::PreCandidate {
            self.expire();
        }
        for peer in [RIGHT, LEFT] {
            if self.node.raft.status().role == RoleName::PreCandidate {
                let body = Body::PreVoteAnswer { campaign: term, granted: true };
                self.step(Input::Receive(Message { from: peer, to: ME, term: before, body }));
            }
        }
        self.node.heard = self.node.clock;
    }
}

impl Disk {
    fn take(&mut self, write: &Write) {
        if let Some(first) = write.truncate_from {
            self.entries.retain(|entry| entry.index < first);
        }
        for entry in &write.entries {
            let next = self.last().index.next();
            assert!(entry.index == next, "a write follows what is on disk");
            self.entries.push(entry.clone());
        }
        self.hard_state = write.hard_state;
    }

    fn last(&self) -> Position {
        self.entries.last().map_or(Position::ZERO, Entry::position)
    }

    fn holds(&self, position: Position) -> bool {
        position.index == Index::ZERO
            || self.entries.iter().any(|entry| entry.position() == position)
    }

    /// Whether what the message promises would survive a crash of its sender.
    fn backs(&self, message: &Message) -> bool {
        let HardState { term, vote, .. } = self.hard_state;
        let in_term = term == message.term;
        match &message.body {
            Body::VoteAnswer { granted: true } => in_term && vote == Some(message.to),
            Body::VoteRequest { .. } => in_term && vote == Some(ME),
            Body::VoteAnswer { granted: false } | Body::PreVoteAnswer { .. } => in_term,
            Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } } => {
                in_term && self.holds(*matched)
            }
            Body::AppendAnswer { outcome: AppendOutcome::Conflict { .. } } => in_term,
            Body::HeartbeatAnswer { matched, .. } => {
                matched.index == Index::ZERO || (in_term && self.holds(*matched))
            }
            // Everything else leaves at once and promises nothing.
            _ => true,
        }
    }
}

fn everyone() -> Members {
    Members::new([ME, RIGHT, LEFT]).expect("three distinct ids")
}

fn start(bounds: &Bounds, disk: &Disk, clock: Instant) -> Raft {
    let mut config = Config::new(ME);
    config.append_size_bytes_max = bounds.append_size_bytes_max;
    let last = disk.last();
    let start = Start {
        hard_state: disk.hard_state,
        last,
        tail: disk.entries.clone(),
        attested: last.index,
        ..Start::fresh(everyone())
    };
    Raft::new(config, start, SEED, clock)
        .expect("a disk that only lost its end can be started from")
}

/// Heartbeats are 100 ms apart, and three may be missed.
const DISLOYAL_AFTER: Duration = Duration::from_millis(300);

/// The longest time that a leader, or a follower's wait, can last without being heard.
const QUORUM_LOST_AFTER: Duration = Duration::from_secs(2);

const CLOCK_START: u64 = 1_000_000_000_000;

/// Drawn are only durations, which the model ignores.
const SEED: u64 = 1;
