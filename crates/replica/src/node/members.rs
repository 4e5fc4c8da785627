//! Who asks for other members or another leader, and this server's own removal.
//!
//! Invariants:
//! - a change is answered as done only when a configuration is committed, and not joint, at or
//!   after the change's own entry, and that entry is still in the log;
//! - no configuration from before this server became a member is told to the transport;
//! - a removed server lingers for a moment before it stops, so that what it knows gets out.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kvraft_base::{Index, Instant, MemberId, Position, Ticket};
use kvraft_raft::{Input, Membership, Refusal};
use serde::{Deserialize, Serialize};

use super::Node;
use crate::{
    client_io::reply,
    hop::{Fatal, Hop, Outcome, PeerLane},
    outgoing::send,
};

/// A removed server stops so long after it has learnt of that: its answers, and what it has to say
/// to others, are still on their way.
const REMOVED_LINGER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct MemberIo {
    /// Who waits for the end of a transfer.
    transfers: BTreeSet<Ticket>,
    /// This server's removal, and when it may stop because of it.
    removed: Option<(Index, Instant)>,
    /// The transport has been told of a configuration.
    told: bool,
    /// The owner has been told to stop.
    stopping: bool,
}

impl MemberIo {
    /// How many requests wait for something.
    pub(super) fn count(&self) -> usize {
        self.transfers.len()
    }

    pub(super) fn on_transfer(&mut self, ticket: Ticket) {
        self.transfers.insert(ticket);
    }

    pub(super) fn on_transferred(
        &mut self,
        ticket: Ticket,
        result: Result<MemberId, Refusal>,
        out: &mut Vec<Hop>,
    ) {
        if self.transfers.remove(&ticket) {
            reply(ticket, Outcome::Transferred(result), out);
        }
    }

    /// The client has stopped waiting; whether it waited here.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> bool {
        self.transfers.remove(&ticket)
    }

    /// When to step again because of a removal. A leader hands over first, and is stepped by what
    /// ends that.
    pub(super) fn removal_deadline(&self, leads: bool) -> Instant {
        match self.removed {
            Some((_, at)) if !leads && !self.stopping => at,
            Some(_) | None => Instant::NEVER,
        }
    }
}

impl Node {
    pub(super) fn on_disconnected(&mut self, now: Instant, peer: MemberId, out: &mut Vec<Hop>) {
        if self.raft.knows(peer) {
            self.unreachable.insert(peer);
        }
        self.waiting.on_disconnected(peer, out);
        self.version_io.on_disconnected(peer);
        self.raft.step(now, Input::Disconnected { peer });
    }

    pub(super) fn on_members(&mut self, now: Instant, membership: Membership, out: &mut Vec<Hop>) {
        if !membership.is_pending() {
            let is_kept =
                |position: Position| self.raft.term_at(position.index) == Some(position.term);
            self.waiting.on_members(&membership, is_kept, out);
            for (to, frame) in self.forwards.take_over(&membership, is_kept) {
                send(to, PeerLane::Control, &frame, out);
            }
        }
        if self.member_io.removed.is_none() && is_removed(self.me, &membership) {
            self.member_io.removed = Some((membership.index, now + REMOVED_LINGER));
        }
        let raft = &self.raft;
        self.unreachable.retain(|peer| raft.knows(*peer));
        self.tell_members(membership, out);
    }

    /// A joining server receives the log from a time when it was no member yet. Whom it was told
    /// to speak to when its disk was formatted is newer than that, and stays in force for the
    /// transport, or it might lose touch with the leader half-way.
    fn tell_members(&mut self, membership: Membership, out: &mut Vec<Hop>) {
        let first = !std::mem::replace(&mut self.member_io.told, true);
        let members = &membership.members;
        if members.contains(self.me) || self.me <= members.id_max() {
            out.push(Hop::Members(membership));
        } else if first {
            let members = Arc::new(self.bootstrap.clone());
            out.push(Hop::Members(Membership { index: Index::ZERO, members, committed: true }));
        }
    }

    /// Said once: whoever hears it stops this server.
    pub(super) fn stop_if_removed(&mut self, now: Instant, out: &mut Vec<Hop>) {
        if self.member_io.removal_deadline(self.is_leading()) <= now
            && let Some((index, _)) = self.member_io.removed
        {
            self.member_io.stopping = true;
            out.push(Hop::Fatal(Fatal::Removed { index }));
        }
    }
}

/// Whether `me` is no member for good. An id is taken when its member is added and never again, so
/// a configuration from before this server was added, which it comes across as it receives the log,
/// has a lower greatest id.
fn is_removed(me: MemberId, membership: &Membership) -> bool {
    let members = &membership.members;
    !membership.is_pending() && !members.contains(me) && me <= members.id_max()
}
