//! Nodes that talk to each other directly, with journals that are durable at once and machines that
//! only look at who waits. What passes between them is each test's to decide.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use kvraft_base::{Entry, Index, Instant, MemberId, Members, Position, Ticket};
use kvraft_kv::{Command, Origin, PutRequest, Request, Versions};
use kvraft_raft::{Change, Config, Event, Membership, Raft, RoleName, Start};
use kvraft_replica::{
    ClientRequest, Fatal, Frame, Hop, JournalIn, MachineIn, Node, NodeIn, NodeOptions, Now,
    Outcome, PeerLane, TableIn,
};

pub(crate) const A: MemberId = MemberId(1);
pub(crate) const B: MemberId = MemberId(2);
pub(crate) const C: MemberId = MemberId(3);

/// What leaves a node for another.
pub(crate) struct Sent {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) lane: PeerLane,
    pub(crate) frame: Frame,
}

type Pass = Box<dyn Fn(&Sent) -> bool>;

/// See the module.
pub(crate) struct Group {
    pub(crate) nodes: BTreeMap<MemberId, Node>,
    inboxes: BTreeMap<MemberId, Vec<NodeIn>>,
    pub(crate) now: Instant,
    /// Frames that it refuses are lost.
    pub(crate) pass: Pass,
    /// Frames that it picks, of those that pass, wait for [`Group::release`].
    pub(crate) hold: Pass,
    held: Vec<(MemberId, MemberId, Bytes)>,
    /// Everything that was said, delivered or not.
    pub(crate) said: Vec<Sent>,
    wire: VecDeque<(MemberId, MemberId, Bytes)>,
    /// Machines of these servers apply nothing.
    pub(crate) lazy: Vec<MemberId>,
    /// Outcomes that nodes decided.
    pub(crate) replies: Vec<(MemberId, Ticket, Outcome)>,
    /// Commands that the machine of the server that took them from a client has applied.
    pub(crate) done: Vec<(MemberId, Ticket)>,
    /// What machines were told that nobody waits for any more.
    pub(crate) cancelled: Vec<(MemberId, Ticket)>,
    /// What consensus had to tell.
    pub(crate) events: Vec<(MemberId, Event)>,
    /// What tables were asked to do.
    pub(crate) table: Vec<TableIn>,
    /// Every server's log, by server and index.
    pub(crate) written: BTreeMap<(MemberId, Index), Entry>,
    /// The configuration that each server was last told.
    pub(crate) told: BTreeMap<MemberId, Membership>,
    /// Who has ended because it was removed, at which entry.
    pub(crate) removed: Vec<(MemberId, Index)>,
    ticket: u64,
    options: NodeOptions,
}

/// A server's life in these tests.
pub(crate) fn incarnation(id: MemberId) -> u64 {
    id.0 * 100
}

fn fresh_node(
    id: MemberId,
    options: NodeOptions,
    bootstrap: &Members,
    now: Instant,
    change: &dyn Fn(&mut Config),
    versions: (Versions, u32),
) -> Node {
    let mut config = Config::new(id);
    change(&mut config);
    let raft = Raft::new(config, Start::fresh(bootstrap.clone()), id.0, now)
        .expect("a fresh server starts");
    Node::new(options, incarnation(id), raft, bootstrap.clone(), Position::ZERO, versions)
}

/// This build, in a cluster in which there is nothing to raise.
const RAISED: (Versions, u32) = (Versions::OF_BUILD, Versions::OF_BUILD.newest);

impl Group {
    /// Three servers, of which A leads.
    pub(crate) fn led_by_a(options: NodeOptions) -> Self {
        Self::led_by_a_with(options, |_| {})
    }

    /// The same, with other settings of consensus.
    pub(crate) fn led_by_a_with(options: NodeOptions, change: impl Fn(&mut Config)) -> Self {
        Self::led_by_a_of(options, change, |_| RAISED)
    }

    /// The same, with what each server's build knows and the version that its state has.
    pub(crate) fn led_by_a_of(
        options: NodeOptions,
        change: impl Fn(&mut Config),
        versions: impl Fn(MemberId) -> (Versions, u32),
    ) -> Self {
        let members = Members::new([A, B, C]).expect("three members are a cluster");
        let now = Instant(1_000_000_000);
        let node =
            |id: MemberId| (id, fresh_node(id, options, &members, now, &change, versions(id)));
        let mut group = Self {
            nodes: [A, B, C].map(node).into(),
            inboxes: BTreeMap::new(),
            now,
            pass: Box::new(|_| true),
            hold: Box::new(|_| false),
            held: Vec::new(),
            cancelled: Vec::new(),
            events: Vec::new(),
            table: Vec::new(),
            said: Vec::new(),
            wire: VecDeque::new(),
            lazy: Vec::new(),
            replies: Vec::new(),
            done: Vec::new(),
            written: BTreeMap::new(),
            told: BTreeMap::new(),
            removed: Vec::new(),
            ticket: 0,
            options,
        };
        while group.nodes[&A].status().role != RoleName::Leader {
            // The others hear A's campaign before their own time comes.
            let deadline = group.nodes[&A].deadline();
            group.now = group.now.max(deadline);
            group.input(A, Vec::new());
            group.settle();
        }
        group.advance(Duration::from_millis(100));
        assert_eq!(group.nodes[&B].status().leader, Some(A));
        group.said.clear();
        group
    }

    /// A server on a new disk that was formatted with this configuration.
    pub(crate) fn start(&mut self, id: MemberId, bootstrap: &Members) {
        let node = fresh_node(id, self.options, bootstrap, self.now, &|_| {}, RAISED);
        self.nodes.insert(id, node);
        self.input(id, Vec::new());
        self.settle();
    }

    pub(crate) fn clock(&self) -> Now {
        Now { instant: self.now, wall_ms: 1 }
    }

    /// A turn of one server, without what follows from it.
    pub(crate) fn input(&mut self, id: MemberId, mut inbox: Vec<NodeIn>) {
        let mut hops = Vec::new();
        let now = self.clock();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.step(now, &mut inbox, &mut hops);
        for hop in hops {
            self.on_hop(id, hop);
        }
    }

    fn on_hop(&mut self, id: MemberId, hop: Hop) {
        let inbox = self.inboxes.entry(id).or_default();
        match hop {
            Hop::Node(input) => inbox.push(input),
            Hop::Journal(JournalIn::Write(write)) => {
                let entries = write.entries.into_iter();
                self.written.extend(entries.map(|entry| ((id, entry.index), entry)));
                inbox.push(NodeIn::Durable(write.id));
            }
            Hop::Machine(MachineIn::Committed(entries)) => {
                let mut answered = Vec::new();
                let index = entries.last().map_or(Index::ZERO, |entry| entry.index);
                for entry in entries {
                    if let Ok(command) = Command::decode(entry.payload) {
                        if let Request::RaiseVersion { version } = command.request {
                            inbox.push(NodeIn::Version(version));
                        }
                        let origin = command.origin;
                        if origin.member == id && origin.incarnation == incarnation(id) {
                            answered.push(origin.ticket);
                        }
                    }
                }
                if !self.lazy.contains(&id) {
                    self.done.extend(answered.iter().map(|ticket| (id, *ticket)));
                    inbox.push(NodeIn::Applied { index, answered });
                }
            }
            Hop::Machine(MachineIn::Cancel(ticket)) => self.cancelled.push((id, ticket)),
            Hop::Peer { to, lane, frame } => {
                let decoded = Frame::decode(frame.clone()).expect("nodes speak well");
                let sent = Sent { from: id, to, lane, frame: decoded };
                if (self.hold)(&sent) && (self.pass)(&sent) {
                    self.held.push((id, to, frame));
                } else if (self.pass)(&sent) {
                    self.wire.push_back((id, to, frame));
                }
                self.said.push(sent);
            }
            Hop::Reply(reply) => self.replies.push((id, reply.ticket, reply.outcome)),
            Hop::Fatal(Fatal::Removed { index }) => {
                self.removed.push((id, index));
                self.nodes.remove(&id);
            }
            Hop::Fatal(fatal) => panic!("{fatal}"),
            Hop::Members(membership) => drop(self.told.insert(id, membership)),
            Hop::Event(event) => self.events.push((id, event)),
            Hop::Journal(JournalIn::Release(index)) => {
                let term = self.nodes[&id].raft().term_at(index).expect("it was applied");
                inbox.push(NodeIn::Released(Position::new(term, index)));
            }
            Hop::Table(input) => self.table.push(input),
            Hop::Journal(_) | Hop::Machine(_) => {}
        }
    }

    /// Until nobody has anything to say any more.
    pub(crate) fn settle(&mut self) {
        loop {
            for (from, to, frame) in std::mem::take(&mut self.wire) {
                self.inboxes.entry(to).or_default().push(NodeIn::Frame { from, frame });
            }
            self.inboxes.retain(|_, inbox| !inbox.is_empty());
            let Some((id, inbox)) = self.inboxes.pop_first() else { break };
            self.input(id, inbox);
        }
    }

    /// What was held arrives, in order.
    pub(crate) fn release(&mut self) {
        self.wire.extend(self.held.drain(..));
        self.settle();
    }

    /// Lets time pass, deadline by deadline.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let due = self
                .nodes
                .iter()
                .map(|(id, node)| (node.deadline(), *id))
                .min()
                .expect("somebody is there");
            if end < due.0 {
                break;
            }
            self.now = self.now.max(due.0);
            self.input(due.1, Vec::new());
            self.settle();
        }
        self.now = end;
    }

    /// A client of this server puts something.
    pub(crate) fn put(&mut self, id: MemberId) -> Ticket {
        self.put_value(id, Bytes::new())
    }

    pub(crate) fn put_value(&mut self, id: MemberId, value: Bytes) -> Ticket {
        let ticket = self.next_ticket();
        let request = ClientRequest::Propose(Self::command(id, ticket, value));
        self.input(id, vec![NodeIn::Client { ticket, request }]);
        ticket
    }

    /// A put, as this server's client wants it.
    pub(crate) fn command(id: MemberId, ticket: Ticket, value: Bytes) -> Bytes {
        let origin = Origin { member: id, incarnation: incarnation(id), ticket };
        let put = PutRequest { key: Bytes::from_static(b"k"), value, ..PutRequest::default() };
        Command::new(origin, 0, Request::Put(put)).encode()
    }

    /// A client of this server wants other members.
    pub(crate) fn change(&mut self, id: MemberId, changes: Vec<Change>) -> Ticket {
        self.request(id, ClientRequest::ChangeMembers(changes))
    }

    /// A client of this server wants something.
    pub(crate) fn request(&mut self, id: MemberId, request: ClientRequest) -> Ticket {
        let ticket = self.next_ticket();
        self.input(id, vec![NodeIn::Client { ticket, request }]);
        ticket
    }

    fn next_ticket(&mut self) -> Ticket {
        self.ticket += 1;
        Ticket(self.ticket)
    }

    /// What a node said to this client, once or not at all.
    pub(crate) fn reply(&self, id: MemberId, ticket: Ticket) -> Option<&Outcome> {
        let mut replies = self.replies.iter().filter(|r| r.0 == id && r.1 == ticket);
        let reply = replies.next().map(|(_, _, outcome)| outcome);
        assert!(replies.next().is_none(), "a second reply to {ticket}");
        reply
    }

    pub(crate) fn is_done(&self, id: MemberId, ticket: Ticket) -> bool {
        let count = self.done.iter().filter(|done| **done == (id, ticket)).count();
        assert!(count <= 1, "applied twice");
        count == 1
    }

    /// The configuration in force at this server, as text.
    pub(crate) fn members(&self, id: MemberId) -> String {
        self.nodes[&id].status().membership.members.to_string()
    }

    pub(crate) fn follows(&self, id: MemberId, leader: MemberId) -> bool {
        self.nodes[&id].status().leader == Some(leader)
    }
}
