//! A small world for servers of one group: a network that is a list, disks that forget what was not
//! made durable, and the rules of Raft checked at every step.
//!
//! Every input is encoded and decoded before it is given to a server, so that the encoding is tested
//! with everything else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use kvraft_base::{
    Entry, EntryKind, HardState, Index, Instant, MemberId, Members, Position, Reader, Term, Ticket,
    Write, Writer,
};
use kvraft_raft::{
    AppendOutcome, Body, Config, Event, Fetch, Input, Message, Output, Raft, Refusal, RoleName,
    Start, StartError, Status,
};

use crate::{
    disk::Disk,
    text::{compact, describe},
};

/// One server and what belongs to it.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) raft: Option<Raft>,
    pub(crate) disk: Disk,
    /// Written, not yet durable.
    pub(crate) writes: VecDeque<Write>,
    pub(crate) manual_disk: bool,
    /// Handed over, not yet applied.
    machine: VecDeque<Entry>,
    pub(crate) manual_machine: bool,
    pub(crate) applied: Position,
    pub(crate) installing: Option<Shipment>,
    pub(crate) cut: bool,
    pub(crate) lives: u64,
    /// How much faster its clock goes than the world's, in parts per million.
    pub(crate) drift_ppm: i64,
    /// Its configuration when its last turn ended, and what was last traced of it.
    pub(crate) members: Members,
    pub(crate) members_told: String,
}

impl Node {
    pub(crate) fn status(&self) -> Option<Status> {
        self.raft.as_ref().map(Raft::status)
    }

    /// The journal as written, durable or not.
    pub(crate) fn journal(&self) -> Disk {
        let mut disk = self.disk.clone();
        for write in &self.writes {
            disk.write(write);
        }
        disk
    }
}

/// A snapshot that a leader wants to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Shipment {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) term: Term,
    pub(crate) position: Position,
}

/// Everything.
pub(crate) struct World {
    pub(crate) nodes: BTreeMap<MemberId, Node>,
    pub(crate) members: Members,
    pub(crate) network: Vec<Message>,
    /// Links on which nothing arrives, from whom to whom.
    pub(crate) blocked: BTreeSet<(MemberId, MemberId)>,
    pub(crate) shipments: Vec<Shipment>,
    pub(crate) now: Instant,
    /// What happened since it was last taken, as text.
    pub(crate) trace: Vec<String>,
    /// Also trace messages as they leave.
    pub(crate) verbose: bool,
    pub(crate) proposed: BTreeMap<u64, Result<Position, Refusal>>,
    /// What clients were told: which payload is at a position, if it commits.
    pub(crate) accepted: BTreeMap<Position, Bytes>,
    payloads: BTreeMap<u64, Bytes>,
    pub(crate) reads: BTreeMap<u64, Result<Index, Refusal>>,
    next_ticket: u64,
    seed: u64,
    pub(crate) rules: Rules,
}

/// What has been seen, to be held against what comes (Raft figure 3).
#[derive(Default)]
pub(crate) struct Rules {
    leaders: BTreeMap<Term, MemberId>,
    votes: BTreeMap<(MemberId, Term), MemberId>,
    pub(crate) committed: BTreeMap<Index, Entry>,
    commit_max: Index,
    /// Commit index of the world when the read was asked.
    reads: BTreeMap<u64, Index>,
}

impl World {
    pub(crate) fn new(count: u64, seed: u64, configure: impl Fn(&mut Config)) -> Self {
        Self::with_spares(count, 0, seed, configure)
    }

    /// Servers after the first `count` are not members yet; what they know are those who are.
    pub(crate) fn with_spares(
        count: u64,
        spare_count: u64,
        seed: u64,
        configure: impl Fn(&mut Config),
    ) -> Self {
        let members = Members::new((1..=count).map(MemberId)).unwrap();
        let node = |id| {
            let mut config = Config::new(MemberId(id));
            configure(&mut config);
            let disk = Disk {
                hard_state: HardState::default(),
                released: Position::ZERO,
                entries: Vec::new(),
                attested: Index::ZERO,
                table: Position::ZERO,
                names_members: false,
            };
            let node = Node {
                config,
                raft: None,
                disk,
                writes: VecDeque::new(),
                manual_disk: false,
                machine: VecDeque::new(),
                manual_machine: false,
                applied: Position::ZERO,
                installing: None,
                cut: false,
                lives: 0,
                drift_ppm: 0,
                members: members.clone(),
                members_told: format!("{members} committed"),
            };
            (MemberId(id), node)
        };
        Self {
            nodes: (1..=count + spare_count).map(node).collect(),
            members,
            network: Vec::new(),
            blocked: BTreeSet::new(),
            shipments: Vec::new(),
            now: Instant::ZERO,
            trace: Vec::new(),
            verbose: false,
            proposed: BTreeMap::new(),
            accepted: BTreeMap::new(),
            payloads: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_ticket: 1,
            seed,
            rules: Rules::default(),
        }
    }

    pub(crate) fn node(&mut self, id: MemberId) -> &mut Node {
        self.nodes.get_mut(&id).expect("the script names an existing server")
    }

    /// What a server's clock shows.
    pub(crate) fn clock(&self, id: MemberId) -> Instant {
        let ppm = i128::from(self.nodes[&id].drift_ppm);
        let now = i128::from(self.now.0);
        Instant(u64::try_from(now + now * ppm / 1_000_000).unwrap())
    }

    /// When, in the world's time, a server's deadline passes.
    pub(crate) fn due(&self, id: MemberId) -> Option<Instant> {
        let node = &self.nodes[&id];
        let deadline = node.raft.as_ref()?.deadline();
        if node.drift_ppm == 0 || deadline == Instant::NEVER {
            return Some(deadline);
        }
        let rate = 1_000_000 + i128::from(node.drift_ppm);
        let at = i128::from(deadline.0) * 1_000_000 / rate + 2;
        Some(Instant(u64::try_from(at).unwrap()))
    }

    pub(crate) fn ids(&self) -> Vec<MemberId> {
        self.nodes.keys().copied().collect()
    }

    /// Starts a server from its disk. The tail begins `extra` entries before what is needed.
    pub(crate) fn start(&mut self, id: MemberId, extra: u64) -> Result<(), StartError> {
        let members = self.members_at(self.nodes[&id].disk.table.index);
        let (now, seed) = (self.clock(id), self.seed);
        let node = self.node(id);
        node.lives += 1;
        let disk = &node.disk;
        let first = disk.table.index.0.saturating_sub(extra) + 1;
        let tail = disk.entries.iter().filter(|e| first <= e.index.0).cloned().collect();
        let start = Start {
            hard_state: disk.hard_state,
            members,
            members_are_old: disk.table.index < disk.released.index && !disk.names_members,
            applied: disk.table,
            released: disk.released,
            last: disk.last(),
            tail,
            attested: disk.attested,
        };
        node.applied = disk.table;
        // What a script puts on a disk before the first start counts as agreed.
        let given = disk.hard_state.commit.min(disk.last().index).max(disk.table.index);
        let seed = seed.wrapping_mul(1000) + node.lives;
        node.raft = Some(Raft::new(node.config.clone(), start, seed, now)?);
        self.rules.commit_max = self.rules.commit_max.max(given);
        self.turn(id, Vec::new());
        Ok(())
    }

    /// Power fails: what is not durable is gone.
    pub(crate) fn crash(&mut self, id: MemberId) {
        let node = self.node(id);
        node.raft = None;
        node.writes.clear();
        node.machine.clear();
        if let Some(shipment) = node.installing.take() {
            self.report(&shipment, None);
        }
    }

    /// Gives inputs to a server, ends the turn, and carries out what it asks for; again as long as
    /// its own disk and machine answer.
    pub(crate) fn turn(&mut self, id: MemberId, inputs: Vec<Input>) {
        let mut inputs = inputs;
        for _ in 0..TURNS_MAX {
            let now = self.clock(id);
            let Some(raft) = &mut self.node(id).raft else { return };
            for input in inputs.drain(..) {
                raft.step(now, recode(&input));
            }
            let mut out = Output::default();
            raft.finish(now, &mut out);
            assert!(now < raft.deadline(), "a fired deadline moves on");
            inputs = self.carry_out(id, out);
            if inputs.is_empty() {
                return self.check_node(id);
            }
        }
        panic!("{id} and its disk and machine do not come to rest");
    }

    fn carry_out(&mut self, id: MemberId, out: Output) -> Vec<Input> {
        let mut inputs = Vec::new();
        for event in &out.events {
            self.on_event(id, event);
        }
        for message in out.messages {
            self.check_promise(&message);
            if self.verbose {
                self.trace.push(describe(&message));
            }
            self.network.push(message);
        }
        if let Some(membership) = &out.members {
            self.on_members(id, membership);
        }
        if let Some(write) = out.write {
            let node = self.node(id);
            if node.installing.is_some() {
                assert!(write.entries.is_empty(), "nothing is added to a journal being replaced");
                assert!(write.truncate_from.is_none(), "nor is it cut");
            }
            node.writes.push_back(write);
            if !node.manual_disk && node.installing.is_none() {
                inputs.extend(self.complete_writes(id, usize::MAX));
            }
        }
        for (ticket, result) in out.proposed {
            self.trace.push(match result {
                Ok(position) => format!("{id}: proposal {ticket} at {position}"),
                Err(refusal) => format!("{id}: proposal {ticket} refused: {refusal}"),
            });
            self.proposed.insert(ticket.0, result);
            if let (Ok(position), Some(payload)) = (result, self.payloads.get(&ticket.0)) {
                let payload = payload.clone();
                let before = self.accepted.insert(position, payload);
                assert_eq!(before, None, "a position is given to one proposal");
            }
        }
        for (ticket, result) in out.transfers {
            let led = |leader| self.rules.leaders.values().any(|id| *id == leader);
            assert!(result.is_ok_and(led) || result.is_err(), "who took over has led");
            self.trace.push(match result {
                Ok(leader) => format!("{id}: transfer {ticket} done, {leader} leads"),
                Err(refusal) => format!("{id}: transfer {ticket} refused: {refusal}"),
            });
        }
        for (ticket, result) in out.reads {
            self.on_read(id, ticket, result);
        }
        if !out.committed.is_empty() {
            let node = self.node(id);
            node.machine.extend(out.committed);
            if !node.manual_machine {
                inputs.extend(self.apply(id, usize::MAX));
            }
        }
        for fetch in out.fetches {
            inputs.push(self.answer_fetch(id, &fetch));
        }
        for request in out.snapshots {
            let position = self.nodes[&id].disk.table;
            let (from, to, term) = (id, request.to, request.term);
            // Asked for with every heartbeat until it is there.
            let waits = |other: &Shipment| (other.from, other.to, other.term) == (from, to, term);
            if !request.state_only || !self.shipments.iter().any(waits) {
                self.shipments.push(Shipment { from, to, term, position });
            }
        }
        inputs
    }

    fn on_event(&mut self, id: MemberId, event: &Event) {
        self.trace.push(format!("{id}: {}", compact(event)));
        if let Event::BecameLeader { term } = event {
            let leader = *self.rules.leaders.entry(*term).or_insert(id);
            assert_eq!(leader, id, "election safety: one leader per term");
            let journal = self.nodes[&id].journal();
            for (index, entry) in &self.rules.committed {
                let has = *index <= journal.released.index || journal.entries.contains(entry);
                assert!(has, "leader completeness: leader {id} lacks {}", entry.position());
            }
        }
    }

    fn on_read(&mut self, id: MemberId, ticket: Ticket, result: Result<Index, Refusal>) {
        if let Ok(index) = result {
            let floor = self.rules.reads[&ticket.0];
            assert!(floor <= index, "a read at {index} misses what was committed at {floor}");
        }
        self.trace.push(match result {
            Ok(index) => format!("{id}: read {ticket} at {index}"),
            Err(refusal) => format!("{id}: read {ticket} refused: {refusal}"),
        });
        self.reads.insert(ticket.0, result);
    }

    /// The machine takes in the oldest entries that it was handed.
    pub(crate) fn apply(&mut self, id: MemberId, count: usize) -> Option<Input> {
        let node = self.node(id);
        let count = count.min(node.machine.len());
        let entries: Vec<Entry> = node.machine.drain(..count).collect();
        for entry in &entries {
            self.apply_one(id, entry);
        }
        let last = entries.last()?.position();
        self.trace.push(format!("{id}: applied up to {last}"));
        Some(Input::Applied { index: last.index })
    }

    fn apply_one(&mut self, id: MemberId, entry: &Entry) {
        let agreed = self.rules.committed.entry(entry.index).or_insert_with(|| entry.clone());
        assert_eq!(agreed, entry, "state machine safety: one entry per committed index");
        let node = self.node(id);
        assert_eq!(entry.index, node.applied.index.next(), "the machine gets every entry once");
        assert!(node.disk.contains(entry.position()), "the machine never outruns its journal");
        node.applied = entry.position();
    }

    fn answer_fetch(&mut self, id: MemberId, fetch: &Fetch) -> Input {
        self.trace.push(format!(
            "{id}: fetch for {} after {}: {}..={}",
            fetch.peer, fetch.prev, fetch.first, fetch.last
        ));
        let disk = &self.nodes[&id].disk;
        let mut size = 0;
        let mut entries = Vec::new();
        for entry in disk.entries.iter().filter(|e| fetch.first <= e.index && e.index <= fetch.last)
        {
            size += entry.size_bytes();
            if !entries.is_empty() && fetch.size_bytes_max < size {
                break;
            }
            entries.push(entry.clone());
        }
        let there = disk.contains(fetch.prev) && !entries.is_empty();
        Input::Fetched { id: fetch.id, entries: there.then_some(entries) }
    }

    /// Makes the oldest writes durable.
    pub(crate) fn complete_writes(&mut self, id: MemberId, count: usize) -> Option<Input> {
        let node = self.node(id);
        let mut last = None;
        for _ in 0..count {
            let Some(write) = node.writes.pop_front() else { break };
            node.disk.write(&write);
            last = Some(write.id);
        }
        last.map(|write| Input::Durable { write })
    }

    /// The table now holds what the machine has applied; the journal before it may be released.
    pub(crate) fn settle(&mut self, id: MemberId, release: Option<Index>) {
        let node = self.node(id);
        let Some(durable) = node.status().map(|status| status.durable) else { return };
        assert!(node.applied.index <= durable, "the machine never outruns its journal");
        node.disk.table = node.applied;
        let Some(index) = release.map(|index| index.min(node.applied.index)) else { return };
        let Some(at) = node.disk.entries.iter().find(|entry| entry.index == index) else { return };
        let position = at.position();
        node.disk.released = position;
        node.disk.entries.retain(|entry| index < entry.index);
        self.turn(id, vec![Input::Released { position }]);
    }

    /// A snapshot arrives whole. Returns whether its installation has begun.
    pub(crate) fn begin_install(&mut self, shipment: &Shipment) -> bool {
        let Shipment { from, to, term, position } = *shipment;
        let node = self.node(to);
        let Some(raft) = &node.raft else { return false };
        if !raft.expects_snapshot(from, term, position) {
            return false;
        }
        node.installing = Some(shipment.clone());
        self.turn(to, vec![Input::SnapshotInstalling { position }]);
        true
    }

    /// The same, in one turn with a message that came just before.
    pub(crate) fn begin_install_after(&mut self, shipment: &Shipment) -> bool {
        let found = self.network.iter().position(|message| message.to == shipment.to);
        let now = self.clock(shipment.to);
        if let Some(at) = found {
            let message = self.network.remove(at);
            let Some(raft) = &mut self.node(shipment.to).raft else { return false };
            raft.step(now, Input::Receive(message));
        }
        self.begin_install(shipment)
    }

    /// The store has replaced table and journal; the sender hears of it.
    pub(crate) fn finish_shipment(&mut self, id: MemberId) {
        if let Some(shipment) = self.install(id) {
            self.report(&shipment, Some(shipment.position));
        }
    }

    /// The store has replaced table and journal.
    pub(crate) fn install(&mut self, id: MemberId) -> Option<Shipment> {
        let shipment = self.node(id).installing.take()?;
        let position = shipment.position;
        let members = self.members_at(position.index);
        let durable = self.complete_writes(id, usize::MAX);
        let node = self.node(id);
        if !node.raft.as_ref().is_some_and(|raft| raft.keeps_log(position)) {
            node.disk.released = position;
            node.disk.entries.clear();
        }
        node.disk.table = position;
        node.applied = position;
        node.machine.clear();
        let mut inputs: Vec<Input> = durable.into_iter().collect();
        inputs.push(Input::SnapshotInstalled { position, members });
        self.turn(id, inputs);
        Some(shipment)
    }

    pub(crate) fn report(&mut self, shipment: &Shipment, position: Option<Position>) {
        let report = Input::SnapshotReport { to: shipment.to, position };
        self.turn(shipment.from, vec![report]);
    }

    /// Sends a waiting snapshot, installs it and reports back.
    pub(crate) fn ship(&mut self, shipment: &Shipment) -> bool {
        let begun = self.begin_install(shipment);
        if begun {
            self.finish_shipment(shipment.to);
        } else {
            self.report(shipment, None);
        }
        begun
    }

    pub(crate) fn propose(&mut self, id: MemberId, payload: &[u8]) -> u64 {
        self.propose_batch(id, &[payload])
    }

    /// Proposes all in one turn; returns the last ticket.
    pub(crate) fn propose_batch(&mut self, id: MemberId, payloads: &[&[u8]]) -> u64 {
        let mut inputs = Vec::new();
        for payload in payloads {
            let ticket = self.ticket();
            let payload = Bytes::copy_from_slice(payload);
            self.payloads.insert(ticket, payload.clone());
            let kind = EntryKind::Command;
            inputs.push(Input::Propose { ticket: Ticket(ticket), kind, payload });
        }
        self.turn(id, inputs);
        self.next_ticket - 1
    }

    pub(crate) fn read(&mut self, id: MemberId) -> u64 {
        let ticket = self.ticket();
        self.rules.reads.insert(ticket, self.rules.commit_max);
        self.turn(id, vec![Input::Read { ticket: Ticket(ticket) }]);
        ticket
    }

    pub(crate) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    /// Delivers or loses a message that has been taken off the network.
    pub(crate) fn deliver(&mut self, message: Message) {
        self.deliver_together(vec![message]);
    }

    /// Each server gets all that is for it in one turn.
    pub(crate) fn deliver_together(&mut self, messages: Vec<Message>) {
        let mut inputs: BTreeMap<MemberId, Vec<Input>> = BTreeMap::new();
        for message in messages {
            let is_cut = |id| self.nodes.get(id).is_some_and(|node| node.cut);
            let blocked = self.blocked.contains(&(message.from, message.to));
            if !blocked && !is_cut(&message.from) && !is_cut(&message.to) {
                inputs.entry(message.to).or_default().push(Input::Receive(message));
            }
        }
        for (id, inputs) in inputs {
            self.turn(id, inputs);
        }
    }

    /// Delivers until nothing is on its way. Time stands still.
    pub(crate) fn settle_network(&mut self) {
        for _ in 0..100_000 {
            if self.network.is_empty() {
                return;
            }
            let message = self.network.remove(0);
            self.deliver(message);
        }
        panic!("messages follow messages without end");
    }

    /// Lets time pass, delivering everything at once and firing every deadline.
    pub(crate) fn run(&mut self, until: Instant) {
        loop {
            self.settle_network();
            let deadlines = self.nodes.keys().filter_map(|id| self.due(*id));
            let next = deadlines.min().unwrap_or(Instant::NEVER).min(until);
            self.now = self.now.max(next);
            for id in self.ids() {
                self.turn(id, Vec::new());
            }
            if until <= next {
                return self.settle_network();
            }
        }
    }

    /// What one server's messages say must be so on its disk when they leave.
    fn check_promise(&mut self, message: &Message) {
        let disk = &self.nodes[&message.from].disk;
        let vote = match &message.body {
            Body::VoteRequest { .. } => Some(message.from),
            Body::VoteAnswer { granted: true } => Some(message.to),
            Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } } => {
                assert!(message.term <= disk.hard_state.term, "an answer's term is durable");
                assert!(disk.contains(*matched), "what is acknowledged is durable");
                None
            }
            Body::HeartbeatAnswer { matched, .. } => {
                assert!(disk.contains(*matched), "what is acknowledged is durable");
                None
            }
            _ => None,
        };
        if let Some(vote) = vote {
            let hard_state = disk.hard_state;
            assert_eq!(hard_state.term, message.term, "a vote is durable before it is told");
            assert_eq!(hard_state.vote, Some(vote), "a vote is durable before it is told");
            let key = (message.from, message.term);
            let before = *self.rules.votes.entry(key).or_insert(vote);
            assert_eq!(before, vote, "one vote per server and term, over all its lives");
        }
    }

    fn check_node(&mut self, id: MemberId) {
        let node = &self.nodes[&id];
        let Some(status) = node.status() else { return };
        if node.installing.is_none() {
            assert_eq!(status.last, node.journal().last(), "the journal is what consensus knows");
        }
        if self.rules.commit_max < status.commit {
            self.rules.commit_max = status.commit;
            let journal = node.journal();
            let entry = journal.entries.iter().find(|e| e.index == status.commit).unwrap();
            assert_eq!(entry.term, status.term, "only entries of the own term are counted");
            let holds = |id| self.nodes[&id].disk.contains(entry.position());
            // The commitment may have let the leader append the next configuration.
            let agreed =
                node.members.is_quorum(holds) || status.membership.members.is_quorum(holds);
            assert!(agreed, "committed is durable on a majority");
        }
        self.check_members(id, &status.membership.members);
        self.check_digest(id, &status);
    }

    /// The numbers that recordings compare are those of the state.
    fn check_digest(&self, id: MemberId, status: &Status) {
        let raft = self.nodes[&id].raft.as_ref().expect("who has a status runs");
        let number = |id: Option<MemberId>| id.map_or(0, |id| id.0);
        let HardState { term, vote, commit } = raft.hard_state();
        let parts = [
            term.0,
            number(vote),
            status.role as u64,
            number(status.leader),
            status.last.index.0,
            commit.0,
            status.durable.0,
            status.applied.0,
            raft.deadline().0,
        ];
        assert_eq!(raft.digest_parts(), parts, "the digest follows the state");
    }

    /// Log matching: logs that share a position share everything before it (Raft §5.3).
    pub(crate) fn check_log_matching(&self) {
        let journals: Vec<Disk> = self.nodes.values().map(Node::journal).collect();
        for (at, left) in journals.iter().enumerate() {
            for right in &journals[at + 1..] {
                let mut same = false;
                for entry in left.entries.iter().rev() {
                    let found = right.entries.iter().find(|e| e.index == entry.index);
                    let Some(other) = found else { continue };
                    same |= other.term == entry.term;
                    if same {
                        assert_eq!(entry, other, "log matching");
                    }
                }
            }
        }
    }

    pub(crate) fn commit_max(&self) -> Index {
        self.rules.commit_max
    }

    pub(crate) fn leader(&self) -> Option<MemberId> {
        let statuses = self.nodes.values().filter_map(Node::status);
        let leaders = statuses.filter(|status| status.role == RoleName::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id)
    }
}

/// Far more than what a server's own disk and machine ever have to answer at one time.
const TURNS_MAX: usize = 10_000;

/// Through bytes and back.
fn recode(input: &Input) -> Input {
    let mut writer = Writer::new();
    input.encode(&mut writer);
    let mut reader = Reader::new(writer.finish());
    let decoded = Input::decode(&mut reader).expect("what was encoded decodes");
    reader.finish().expect("decoding takes everything");
    assert_eq!(&decoded, input);
    decoded
}
