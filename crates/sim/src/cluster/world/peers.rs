//! Frames between servers, as the network treats them, and the news that a connection came or went.
//!
//! Invariants, which are those of the real connections:
//! - what one process is told of one peer alternates, begins with "connected", and keeps its order;
//! - of two processes that reach each other, both are told in the end that they are connected.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use kvraft_base::{Instant, MemberId};
use kvraft_raft::{Body, Message};
use kvraft_replica::{Frame, NodeIn, PeerLane};

use super::{HOP, Happening, NOTICE_MAX, World};
use crate::{
    cluster::{recording::Sent, server::LaneIn, violation::Check},
    network::Endpoint,
};

/// What each running process was told last of each peer, and when that arrives.
#[derive(Debug, Default)]
pub(crate) struct Links {
    told: BTreeMap<(MemberId, MemberId), (bool, Instant)>,
}

impl Links {
    /// Notes that a process is told of a peer; returns when, or `None` if that is no news.
    fn on_news(
        &mut self,
        at: MemberId,
        peer: MemberId,
        is_up: bool,
        on: Instant,
    ) -> Option<Instant> {
        let (was_up, before) = self.told.get(&(at, peer)).copied().unwrap_or_default();
        if was_up == is_up {
            return None;
        }
        let on = on.max(before + Duration::from_nanos(1));
        self.told.insert((at, peer), (is_up, on));
        Some(on)
    }

    fn is_up(&self, at: MemberId, peer: MemberId) -> bool {
        self.told.get(&(at, peer)).is_some_and(|(is_up, _)| *is_up)
    }

    /// Whether the news that it is up came before `by`.
    fn is_up_since(&self, at: MemberId, peer: MemberId, by: Instant) -> bool {
        self.told.get(&(at, peer)).is_some_and(|(is_up, on)| *is_up && *on < by)
    }

    /// A process has ended, and what it was told with it.
    pub(super) fn forget(&mut self, at: MemberId) {
        self.told.retain(|(other, _), _| *other != at);
    }
}

impl World {
    /// Whether a process has known for longer than `span` that it is connected with a peer.
    pub(crate) fn is_settled_link(&self, at: MemberId, peer: MemberId, span: Duration) -> bool {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.links.is_up_since(at, peer, Instant(self.now.0.saturating_sub(span)))
    }

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
                | Frame::VersionsWanted { .. }
                | Frame::Versions { .. }
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
        let sent = match (&mut self.recording, &decoded) {
            (Some(recording), Ok(frame)) => {
                recording.on_frame_sent(self.now, (from, to), frame, arrivals.is_empty())
            }
            (None, _) | (_, Err(_)) => Sent::default(),
        };
        for at in arrivals {
            let bytes = bytes.clone();
            if self.network.draw_damage(&mut self.net_prng) {
                self.heap.push(at, Happening::Damaged { from, to, bytes, sent });
            } else {
                self.heap.push(at, Happening::Frame { from, to, bytes, sent });
            }
        }
    }

    /// A frame arrives with flipped bits or cut short. The connection's checksum catches it, and
    /// the connection is made anew: what else was on it may be lost, which is drawn apart. What the
    /// checksum would not catch must still not bring a server down.
    pub(super) fn on_damaged(&mut self, from: MemberId, to: MemberId, bytes: &Bytes, sent: Sent) {
        if let Some(recording) = &mut self.recording {
            recording.on_frame_arrived(self.now, to, sent, true);
        }
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
            self.tell_link(at, peer, false, HOP);
        }
        let delay = self.net_prng.duration(HOP * 2, NOTICE_MAX * 10);
        for (at, peer) in [(from, to), (to, from)] {
            self.tell_link(at, peer, true, delay);
        }
    }

    fn note_message(&mut self, from: MemberId, message: &Message) {
        self.checks.on_message(message);
        if matches!(message.body, Body::PreVoteRequest { .. } | Body::VoteRequest { .. }) {
            let (_, members) = self.checks.agreed_members();
            let is_removed = members.has_removed(from);
            self.sometimes.removed_disturbed += u64::from(is_removed);
        }
        let node = Some(Endpoint::Server(from));
        let digest = message.term.0 ^ (message.to.0 << 48);
        let name = message.body.name();
        self.trace.record(self.now, node, name, digest, || {
            format!("to s{} term {} {:?}", message.to, message.term, message.body)
        });
    }

    pub(super) fn on_frame(&mut self, from: MemberId, to: MemberId, frame: Bytes, sent: Sent) {
        let is_open = self.network.is_open(Endpoint::Server(from), Endpoint::Server(to));
        if let Some(recording) = &mut self.recording {
            let is_lost = !is_open || !self.servers[&to].is_up();
            recording.on_frame_arrived(self.now, to, sent, is_lost);
        }
        if !is_open {
            return;
        }
        self.note_leader_frame(to, &frame);
        let boot = self.servers[&to].boot;
        self.on_deliver(to, boot, LaneIn::Node(NodeIn::Frame { from, frame }));
    }

    /// Tells a process that its connection to a peer came up or went down.
    fn tell_link(&mut self, at: MemberId, peer: MemberId, is_up: bool, delay: Duration) {
        if !self.servers[&at].is_up() {
            return;
        }
        if let Some(on) = self.links.on_news(at, peer, is_up, self.now + delay) {
            let notice = if is_up { NodeIn::Connected(peer) } else { NodeIn::Disconnected(peer) };
            self.deliver_to(at, on.since(self.now), LaneIn::Node(notice));
        }
    }

    /// A process has ended, or its machine was cut off: those whom that reaches notice at once.
    pub(crate) fn on_links_broken(&mut self, id: MemberId) {
        for peer in self.server_ids() {
            if peer != id && self.network.is_open(Endpoint::Server(id), Endpoint::Server(peer)) {
                let delay = self.net_prng.duration(Duration::ZERO, NOTICE_MAX);
                self.tell_link(peer, id, false, delay);
            }
        }
    }

    /// Links have stopped: who hears nothing from a peer and cannot reach it notices at times, when
    /// it has been silent for long.
    pub(crate) fn on_links_stopped(&mut self) {
        if self.net_prng.chance(1, 2) {
            self.after(self.config.election_timeout, Happening::Silence);
        }
    }

    pub(super) fn on_silence(&mut self) {
        for (one, other) in self.pairs() {
            let ends = (Endpoint::Server(one), Endpoint::Server(other));
            if !self.network.is_open(ends.0, ends.1) && !self.network.is_open(ends.1, ends.0) {
                for (at, peer) in [(one, other), (other, one)] {
                    self.sometimes.silences += u64::from(self.links.is_up(at, peer));
                    self.tell_link(at, peer, false, HOP);
                }
            }
        }
    }

    /// Links may work again, or a process has started: whoever can be connected will be. A
    /// connection that one end has given up is made anew at the other one, too.
    pub(crate) fn connect_all(&mut self) {
        for (one, other) in self.pairs() {
            let ends = (Endpoint::Server(one), Endpoint::Server(other));
            let is_open =
                self.network.is_open(ends.0, ends.1) && self.network.is_open(ends.1, ends.0);
            let are_up = self.servers[&one].is_up() && self.servers[&other].is_up();
            let are_told = self.links.is_up(one, other) && self.links.is_up(other, one);
            if !is_open || !are_up || are_told {
                continue;
            }
            let delay = self.net_prng.duration(Duration::ZERO, NOTICE_MAX);
            for (at, peer) in [(one, other), (other, one)] {
                self.tell_link(at, peer, false, delay);
                self.tell_link(at, peer, true, delay);
            }
        }
    }

    /// Every two servers, once.
    fn pairs(&self) -> Vec<(MemberId, MemberId)> {
        let ids = self.server_ids();
        let after = |at: usize| ids[at + 1..].iter();
        let pairs = ids.iter().enumerate();
        pairs.flat_map(|(at, one)| after(at).map(|other| (*one, *other))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that comes back before the news of its end has arrived: the news keep their
    /// order, however long each takes.
    #[test]
    fn news_of_a_connection_keep_their_order() {
        let (one, other) = (MemberId(1), MemberId(2));
        let mut links = Links::default();
        assert_eq!(links.on_news(one, other, false, Instant(5)), None, "it begins with up");
        assert_eq!(links.on_news(one, other, true, Instant(5)), Some(Instant(5)));
        assert_eq!(links.on_news(one, other, true, Instant(6)), None, "it alternates");
        assert_eq!(links.on_news(one, other, false, Instant(900)), Some(Instant(900)));
        assert_eq!(links.on_news(one, other, true, Instant(100)), Some(Instant(901)));
        assert!(links.is_up(one, other) && !links.is_up(other, one));
        links.forget(one);
        assert_eq!(links.on_news(one, other, true, Instant(7)), Some(Instant(7)));
    }
}
