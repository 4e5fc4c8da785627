//! Servers that take turns. A hop to or from a disk takes until the server's next turn, a frame as
//! long. Each process is recorded, and run again when it ends.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use kvraft_base::{ClusterId, Disk, Instant, MemberId, Members, Ticket};
use kvraft_kv::{Command, Origin, PutRequest, Request};
use kvraft_raft::{Change, Config, PeerState, RoleName};
use kvraft_replica::{
    ClientRequest, Fatal, Frame, Hop, JournalIn, MachineIn, MachineOptions, NodeIn, NodeOptions,
    Now, OpenOptions, Outcome, PeerLane, Replica, SNAPSHOT_CHUNK_BYTES, TableIn,
};
use kvraft_sim::{DiskCosts, SimDisk};
use kvraft_store::{Identity, Options};

use super::recorder::Recorder;

pub(crate) const A: MemberId = MemberId(1);
pub(crate) const B: MemberId = MemberId(2);
pub(crate) const C: MemberId = MemberId(3);
pub(crate) const D: MemberId = MemberId(4);
const CLUSTER: ClusterId = ClusterId(1);

/// What leaves a server for another.
pub(crate) struct Sent {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) frame: Frame,
}

/// One process.
struct Server {
    replica: Replica,
    incarnation: u64,
    node: Vec<NodeIn>,
    journal: Vec<JournalIn>,
    machine: Vec<MachineIn>,
    table: Vec<TableIn>,
    recorder: Recorder,
}

impl Server {
    /// Node and machine, once, as in a server's core: what is committed is applied at once.
    fn decide(&mut self, now: Now) -> Vec<Hop> {
        let (mut sent, mut answered) = (Vec::new(), Vec::new());
        self.recorder.begin(now, &mut self.replica, (&self.node, &self.machine));
        self.replica.node.step(now, &mut self.node, &mut sent);
        self.recorder.node_done(&self.replica, &sent);
        let mut left = Vec::new();
        for hop in sent {
            match hop {
                Hop::Machine(input) => self.machine.push(input),
                other => left.push(other),
            }
        }
        self.replica.machine.step(now, &mut self.machine, &mut answered);
        self.recorder.end(now, &mut self.replica, &answered);
        left.extend(answered);
        left
    }
}

/// See the module.
pub(crate) struct Group {
    servers: BTreeMap<MemberId, Server>,
    pub(crate) disks: BTreeMap<MemberId, SimDisk>,
    pub(crate) now: Instant,
    /// Frames that it refuses are lost.
    pub(crate) pass: Box<dyn Fn(&Sent) -> bool>,
    /// Every frame that was sent.
    pub(crate) said: Vec<Sent>,
    pub(crate) replies: Vec<(MemberId, Ticket, Outcome)>,
    pub(crate) fatals: Vec<(MemberId, Fatal)>,
    /// The configurations that the transport of each server was told.
    pub(crate) told: Vec<(MemberId, Members)>,
    /// Whose queue is full: its transport drops frames, and answers those that are owed it.
    pub(crate) full: Option<MemberId>,
    /// Who installs no snapshot before which time: its disk is slow.
    pub(crate) slow: Option<(MemberId, Instant)>,
    wire: Vec<(MemberId, MemberId, Bytes)>,
    node_options: NodeOptions,
    ticket: u64,
}

impl Group {
    /// Three servers, of which A leads.
    pub(crate) fn led_by_a() -> Self {
        Self::led_by_a_with(NodeOptions::default())
    }

    /// The same, with so many bytes of snapshots per second.
    pub(crate) fn led_by_a_at(snapshot_rate: u64) -> Self {
        Self::led_by_a_with(NodeOptions { snapshot_rate, ..NodeOptions::default() })
    }

    /// The same, with these options of all nodes.
    pub(crate) fn led_by_a_with(node_options: NodeOptions) -> Self {
        let mut group = Self {
            servers: BTreeMap::new(),
            disks: BTreeMap::new(),
            now: Instant(1_000_000_000),
            pass: Box::new(|_| true),
            said: Vec::new(),
            replies: Vec::new(),
            fatals: Vec::new(),
            full: None,
            slow: None,
            wire: Vec::new(),
            node_options,
            told: Vec::new(),
            ticket: 0,
        };
        let members = Members::new([A, B, C]).expect("three members are a cluster");
        for id in [A, B, C] {
            group.format(id, &members);
            group.start(id);
        }
        // The others wait for a second at least.
        while !group.leads(A) {
            let deadline = group.server(A).replica.node.deadline();
            group.now = group.now.max(deadline);
            group.turn_of(A);
            group.rounds(20);
        }
        group
    }

    pub(crate) fn format(&mut self, member: MemberId, members: &Members) {
        let disk = SimDisk::new("disk", DiskCosts::FREE);
        let identity = Identity { cluster: CLUSTER, member, members: members.clone() };
        kvraft_store::format(&disk, &identity).expect("the disk is new");
        self.disks.insert(member, disk);
    }

    /// A process begins on what the disk holds.
    pub(crate) fn start(&mut self, id: MemberId) {
        let disk = self.disks[&id].reboot();
        let replica = kvraft_replica::open(&disk, self.options(id), self.clock());
        let replica = replica.expect("the disk is sound");
        self.disks.insert(id, disk);
        let server = Server {
            replica,
            incarnation: self.now.0,
            node: Vec::new(),
            journal: Vec::new(),
            machine: Vec::new(),
            table: Vec::new(),
            recorder: Recorder::new(id),
        };
        self.servers.insert(id, server);
    }

    /// A process ends; what was not synced is not lost.
    pub(crate) fn stop(&mut self, id: MemberId) {
        self.disks[&id].sever();
        let server = self.servers.remove(&id).expect("it runs");
        server.recorder.finish(&server.replica);
    }

    /// Small bounds, so that little makes a server fall behind the journal.
    fn options(&self, id: MemberId) -> OpenOptions {
        let mut raft = Config::new(id);
        raft.window_bytes_max = 4 << 10;
        raft.append_size_bytes_max = 4 << 10;
        raft.catch_up_bytes_min = 8 << 10;
        raft.inflight_count_max = 2;
        let machine = MachineOptions { checkpoint_size_bytes: 8 << 10, ..Default::default() };
        OpenOptions {
            raft,
            store: Options { segment_size_bytes: 4 << 10, ..Options::default() },
            node: NodeOptions { retain_count: 0, ..self.node_options },
            machine,
            snapshot_chunk_bytes: SNAPSHOT_CHUNK_BYTES,
            versions: kvraft_kv::Versions::OF_BUILD,
            cluster: CLUSTER,
            incarnation: self.now.0,
            seed: id.0,
        }
    }

    fn clock(&self) -> Now {
        Now { instant: self.now, wall_ms: 1 }
    }

    fn server(&self, id: MemberId) -> &Server {
        &self.servers[&id]
    }

    pub(crate) fn status(&self, id: MemberId) -> kvraft_raft::Status {
        self.server(id).replica.node.status()
    }

    pub(crate) fn leads(&self, id: MemberId) -> bool {
        self.status(id).role == RoleName::Leader
    }

    /// How A sends to this follower.
    pub(crate) fn progress(&self, of: MemberId) -> PeerState {
        let status = self.status(A);
        status.peers.iter().find(|peer| peer.id == of).expect("A follows its progress").state
    }

    /// Each lane of one server, once.
    fn turn_of(&mut self, id: MemberId) {
        let now = self.clock();
        let Some(server) = self.servers.get_mut(&id) else { return };
        let mut hops = server.decide(now);
        server.replica.journal.step(now, &mut server.journal, &mut hops);
        let installs = server.table.iter().any(|input| matches!(input, TableIn::Install { .. }));
        if !installs || self.slow.is_none_or(|(slow, until)| slow != id || until <= now.instant) {
            server.replica.table.step(now, &mut server.table, &mut hops);
        }
        for hop in hops {
            self.on_hop(id, hop);
        }
    }

    fn on_hop(&mut self, id: MemberId, hop: Hop) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        match hop {
            Hop::Node(input) => server.node.push(input),
            Hop::Journal(input) => server.journal.push(input),
            Hop::Machine(input) => server.machine.push(input),
            Hop::Table(input) => server.table.push(input),
            Hop::Peer { to, frame, lane: PeerLane::Control | PeerLane::Bulk } => {
                let decoded = Frame::decode(frame.clone()).expect("servers speak well");
                let sent = Sent { from: id, to, frame: decoded };
                if (self.pass)(&sent) {
                    self.wire.push((id, to, frame));
                }
                self.said.push(sent);
            }
            Hop::Reply(reply) => self.replies.push((id, reply.ticket, reply.outcome)),
            Hop::Fatal(fatal) => {
                self.fatals.push((id, fatal));
                self.stop(id);
            }
            Hop::Members(membership) => self.told.push((id, (*membership.members).clone())),
            Hop::Event(_) => {}
        }
    }

    /// Everyone takes so many turns; each takes a tenth of a millisecond.
    pub(crate) fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            for (from, to, frame) in std::mem::take(&mut self.wire) {
                if self.full == Some(to) {
                    let answer = Frame::answer_to_dropped(&frame);
                    self.wire.extend(answer.map(|frame| (to, from, frame)));
                    continue;
                }
                if let Some(server) = self.servers.get_mut(&to) {
                    server.node.push(NodeIn::Frame { from, frame });
                }
            }
            let ids: Vec<MemberId> = self.servers.keys().copied().collect();
            for id in ids {
                self.turn_of(id);
            }
            self.now = self.now + Duration::from_micros(100);
        }
    }

    /// Turns until that much time has passed.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.rounds(1);
        }
    }

    /// A client of this server wants something.
    pub(crate) fn request(&mut self, id: MemberId, request: ClientRequest) -> Ticket {
        self.ticket += 1;
        let ticket = Ticket(self.ticket);
        let server = self.servers.get_mut(&id).expect("it runs");
        server.node.push(NodeIn::Client { ticket, request });
        ticket
    }

    pub(crate) fn input(&mut self, id: MemberId, input: NodeIn) {
        self.servers.get_mut(&id).expect("it runs").node.push(input);
    }

    /// A put under one of a few keys, others for other sizes.
    pub(crate) fn put(&mut self, id: MemberId, value_size: usize) -> Ticket {
        let ticket = Ticket(self.ticket + 1);
        let incarnation = self.server(id).incarnation;
        let origin = Origin { member: id, incarnation, ticket };
        let key = Bytes::from(format!("key {value_size} {}", self.ticket % 64));
        let value = Bytes::from(vec![7; value_size]);
        let put = PutRequest { key, value, ..PutRequest::default() };
        let command = Command::new(origin, 0, Request::Put(put)).encode();
        self.request(id, ClientRequest::Propose(command))
    }

    /// What this client was answered, if it was.
    pub(crate) fn reply_to(&self, ticket: Ticket) -> Option<&Outcome> {
        let reply = self.replies.iter().find(|(_, of, _)| *of == ticket);
        reply.map(|(_, _, outcome)| outcome)
    }

    /// A client of this server wants other members, and hears that it is so.
    pub(crate) fn change(&mut self, id: MemberId, changes: Vec<Change>) -> Members {
        let ticket = self.request(id, ClientRequest::ChangeMembers(changes));
        for _ in 0..100 {
            self.rounds(10);
            let told = self.replies.iter().find(|(at, of, _)| *at == id && *of == ticket);
            match told {
                Some((_, _, Outcome::Changed(Ok(membership)))) => {
                    return (*membership.members).clone();
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        panic!("the change is never over");
    }

    /// The frames with chunks for this server: their numbers.
    pub(crate) fn chunks(&self, to: MemberId) -> Vec<u64> {
        let seq = |sent: &Sent| match &sent.frame {
            Frame::SnapshotChunk(chunk) if sent.to == to => Some(chunk.seq),
            _ => None,
        };
        self.said.iter().filter_map(seq).collect()
    }

    pub(crate) fn files(&self, id: MemberId) -> Vec<String> {
        self.disks[&id].list("").expect("the directory is there")
    }
}

impl Drop for Group {
    /// What the last processes did is run again, too.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for server in std::mem::take(&mut self.servers).into_values() {
                server.recorder.finish(&server.replica);
            }
        }
    }
}
