//! Frames between servers, as the network treats them, and the news that a connection came or went.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::MemberId;
use kvraft_raft::{Body, Message};
use kvraft_replica::{Frame, NodeIn, PeerLane};

use super::{HOP, Happening, NOTICE_MAX, World};
use crate::{
    cluster::{server::LaneIn, violation::Check},
    network::Endpoint,
};

impl World {
    pub(super) fn send_frame(
        &mut self,
        from: MemberId,
        to: MemberId,
        lane: PeerLane,
        bytes: Bytes,
    ) {
        let decoded = Frame::decode(bytes.clone());
        let single = match &decoded {
            Ok(Frame::Raft(messages)) => {
                for message in messages {
                    self.note_message(from, message);
                }
                false
            }
            // One connection delivers a frame once, and these are the kinds that rely on it; the
            // others are repeated all the same, since their rules must hold even then.
            Ok(Frame::Forward { .. } | Frame::ForwardChange { .. }) => true,
            Ok(
                Frame::ForwardRefused { .. }
                | Frame::ChangeDone { .. }
                | Frame::ForwardLost { .. }
                | Frame::SnapshotChunk(_)
                | Frame::SnapshotTaken { .. }
                | Frame::SnapshotUnknown { .. },
            ) => false,
            Err(error) => {
                self.checks.fail(
                    Check::NoPanic,
                    format!("server {from} sent what cannot be decoded: {error}"),
                );
                return;
            }
        };
        if !self.servers.contains_key(&to) {
            return; // It is a member, and nobody has set it up yet.
        }
        let ends = (Endpoint::Server(from), Endpoint::Server(to));
        let prng = &mut self.net_prng;
        let connection = match lane {
            PeerLane::Control => 0,
            PeerLane::Bulk => 1,
        };
        let mut arrivals =
            self.network.send_on(connection, self.now, ends.0, ends.1, bytes.len(), prng);
        if single {
            arrivals.truncate(1);
        }
        for at in arrivals {
            if self.network.draw_damage(&mut self.net_prng) {
                self.heap.push(at, Happening::Damaged { from, to, bytes: bytes.clone() });
            } else {
                self.heap.push(at, Happening::Frame { from, to, bytes: bytes.clone() });
            }
        }
    }

    /// A frame arrives with flipped bits or cut short. The connection's checksum catches it, and
    /// the connection is made anew: what else was on it may be lost, which is drawn apart. What the
    /// checksum would not catch must still not bring a server down.
    pub(super) fn on_damaged(&mut self, from: MemberId, to: MemberId, bytes: &Bytes) {
        if !self.network.is_open(Endpoint::Server(from), Endpoint::Server(to)) {
            return;
        }
        self.sometimes.damaged_frames += 1;
        let sealed = kvraft_base::checksum_seeded(self.event_count, bytes);
        let mut damaged = bytes.to_vec();
        if self.net_prng.chance(1, 4) {
            let left = self.net_prng.below(damaged.len() as u64);
            damaged.truncate(usize::try_from(left).expect("below a length"));
        } else {
            for _ in 0..self.net_prng.between(1, 3) {
                let bit = usize::try_from(self.net_prng.below(damaged.len() as u64 * 8));
                let bit = bit.expect("below a length");
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let _whatever_it_says = Frame::decode(Bytes::from(damaged.clone()));
        let is_whole = damaged == *bytes;
        let is_caught = kvraft_base::checksum_seeded(self.event_count, &damaged) != sealed;
        if !is_whole && !is_caught {
            let detail = format!("a frame from {from} to {to} was damaged, its checksum fits");
            self.checks.fail(Check::DamageIsCaught, detail);
        }
        for (at, peer) in [(from, to), (to, from)] {
            if self.servers[&at].is_up() {
                self.deliver_to(at, HOP, LaneIn::Node(NodeIn::Disconnected(peer)));
                let delay = self.net_prng.duration(HOP * 2, NOTICE_MAX * 10);
                self.deliver_to(at, delay, LaneIn::Node(NodeIn::Connected(peer)));
            }
        }
    }

    fn note_message(&mut self, from: MemberId, message: &Message) {
        self.checks.on_message(message);
        if matches!(message.body, Body::PreVoteRequest { .. } | Body::VoteRequest { .. }) {
            let (_, members) = self.checks.agreed_members();
            let is_removed = !members.contains(from) && from <= members.id_max();
            self.sometimes.removed_disturbed += u64::from(is_removed);
        }
        let node = Some(Endpoint::Server(from));
        let digest = message.term.0 ^ (message.to.0 << 48);
        let name = message.body.name();
        self.trace.record(self.now, node, name, digest, || {
            format!("to s{} term {} {:?}", message.to, message.term, message.body)
        });
    }

    pub(super) fn on_frame(&mut self, from: MemberId, to: MemberId, frame: Bytes) {
        if !self.network.is_open(Endpoint::Server(from), Endpoint::Server(to)) {
            return;
        }
        let boot = self.servers[&to].boot;
        self.on_deliver(to, boot, LaneIn::Node(NodeIn::Frame { from, frame }));
    }

    /// Tells the peers of a server that its connections came up or went down.
    pub(crate) fn notify_peers(&mut self, id: MemberId, up: bool) {
        let peers: Vec<MemberId> = self.servers.keys().copied().filter(|p| *p != id).collect();
        for peer in peers {
            let open = self.network.is_open(Endpoint::Server(id), Endpoint::Server(peer));
            if !open || !self.servers[&peer].is_up() {
                continue;
            }
            let delay = self.net_prng.duration(Duration::ZERO, NOTICE_MAX);
            let notice = if up { NodeIn::Connected(id) } else { NodeIn::Disconnected(id) };
            self.deliver_to(peer, delay, LaneIn::Node(notice));
            if up {
                self.deliver_to(id, delay, LaneIn::Node(NodeIn::Connected(peer)));
            }
        }
    }
}
