//! How the cluster version is raised: the leader asks all members what they know.
//!
//! The leader asks in rounds for as long as it knows a newer version than the cluster has. A round
//! in which every member of the configuration in force has said that it knows one, learners too,
//! ends with an entry that raises the version to that. Within a round it asks again and again who
//! has not answered, since a question or an answer may get lost. What was said in an earlier round,
//! or over a connection that has closed since, does not count: its sender may run an older build by
//! now.
//!
//! Invariants:
//! - an entry that raises the version is proposed only by a leader, and only to a version that all
//!   members of the configuration in force have said to know in this round;
//! - in a cluster that has the newest version that its leader knows nothing is asked.
//!
//! What it lacks: a promise of a member not to change its build between its answer and the entry.
//! One that does stops when it applies the entry, and needs a build that knows the version.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kvraft_base::{EntryKind, Instant, MemberId, Term, Ticket};
use kvraft_kv::{Command, Origin, Request, Versions};
use kvraft_raft::Input;
use serde::{Deserialize, Serialize};

use super::Node;
use crate::{
    frame::{Frame, Round},
    hop::{Hop, Now, PeerLane},
    outgoing::send,
};

/// Nobody waits for the outcome; no edge and no peer reaches this number.
pub(super) const VERSION_TICKET: Ticket = Ticket(u64::MAX);

/// How many times a round asks who has not answered.
const ASKS_OF_A_ROUND: u32 = 10;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct VersionIo {
    /// What this server knows.
    known: Versions,
    /// How long a round takes.
    interval: Duration,
    /// The version of the state that the machine has reached.
    current: u32,
    /// The term in which this server leads.
    term: Option<Term>,
    /// Rounds in this life.
    round: u64,
    /// How many times more this round asks.
    asks_left: u32,
    /// When it asks again, or the next round begins.
    ask_at: Instant,
    /// What each member has said to know in this round.
    said: BTreeMap<MemberId, Versions>,
    /// What this leader has put into the log in this term, or is putting there.
    proposed: Option<u32>,
}

impl VersionIo {
    pub(super) fn new(known: Versions, interval: Duration, current: u32) -> Self {
        Self {
            known,
            interval,
            current,
            term: None,
            round: 0,
            asks_left: 0,
            ask_at: Instant::NEVER,
            said: BTreeMap::new(),
            proposed: None,
        }
    }

    /// The machine has reached a state of this version.
    pub(super) fn on_version(&mut self, version: u32) {
        self.current = version;
        if self.proposed.is_some_and(|proposed| proposed <= version) {
            self.end_round();
        }
    }

    /// Another process may answer from now on.
    pub(super) fn on_disconnected(&mut self, peer: MemberId) {
        self.said.remove(&peer);
    }

    /// It did not get into the log: the next round tries again.
    pub(super) fn on_refused(&mut self) {
        self.end_round();
    }

    /// What was said has been of use, or is of none any more.
    fn end_round(&mut self) {
        self.proposed = None;
        self.asks_left = 0;
        self.said.clear();
    }

    pub(super) fn deadline(&self) -> Instant {
        if self.is_raising() { self.ask_at } else { Instant::NEVER }
    }

    fn is_raising(&self) -> bool {
        self.term.is_some() && self.current < self.known.newest && self.proposed.is_none()
    }

    /// What all of them have said to know, if that is more than the cluster has.
    fn agreed(&self, members: &BTreeSet<MemberId>) -> Option<u32> {
        let said: Option<Vec<Versions>> =
            members.iter().map(|id| self.said.get(id).copied()).collect();
        let said = said?;
        let least = said.iter().map(|versions| versions.newest).min()?;
        let is_known = said.iter().all(|versions| versions.supports(least));
        (self.current < least && is_known).then_some(least)
    }
}

impl Node {
    /// Begins a round when it is time, and raises the version when all members know a newer one.
    pub(super) fn tend_version(&mut self, now: Now, out: &mut Vec<Hop>) {
        // A hollow leader does not know which version the state has.
        let leads = self.is_leading() && !self.raft.is_hollow();
        let term = leads.then(|| self.raft.hard_state().term);
        if self.version_io.term != term {
            let it = &mut self.version_io;
            it.end_round();
            (it.term, it.ask_at) = (term, now.instant + it.interval);
        }
        if !self.version_io.is_raising() {
            return;
        }
        if self.version_io.ask_at <= now.instant {
            self.ask(now.instant, out);
        }
        if let Some(version) = self.version_io.agreed(&self.raft.members().ids()) {
            let known = self.version_io.known;
            assert!(known.supports(version), "a leader raises to a version that it knows");
            self.version_io.proposed = Some(version);
            let request = Request::RaiseVersion { version };
            let command = Command::new(Origin::default(), now.wall_ms, request);
            let (ticket, kind) = (VERSION_TICKET, EntryKind::Command);
            let payload = command.encode();
            self.raft.step(now.instant, Input::Propose { ticket, kind, payload });
        }
    }

    /// Asks who has not answered in this round, or everybody in the next one.
    fn ask(&mut self, now: Instant, out: &mut Vec<Hop>) {
        let it = &mut self.version_io;
        if it.asks_left == 0 {
            it.round += 1;
            it.asks_left = ASKS_OF_A_ROUND;
            it.said = [(self.me, it.known)].into();
        }
        it.asks_left -= 1;
        it.ask_at = now + it.interval / ASKS_OF_A_ROUND;
        let round = Round { incarnation: self.incarnation, number: it.round };
        for to in self.raft.members().ids().iter().filter(|id| !it.said.contains_key(id)) {
            send(*to, PeerLane::Control, &Frame::VersionsWanted { round }, out);
        }
    }

    /// A leader asks what this server knows.
    pub(super) fn on_versions_wanted(&self, from: MemberId, round: Round, out: &mut Vec<Hop>) {
        let versions = self.version_io.known;
        send(from, PeerLane::Control, &Frame::Versions { round, versions }, out);
    }

    /// A member says what it knows.
    pub(super) fn on_versions(&mut self, from: MemberId, round: Round, versions: Versions) {
        let it = &mut self.version_io;
        if round == (Round { incarnation: self.incarnation, number: it.round }) {
            it.said.insert(from, versions);
        }
    }
}
