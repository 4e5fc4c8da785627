//! Where the lanes' outputs go in the real world: the transport, the logs, the board.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use kvraft_base::{Index, MemberId};
use kvraft_raft::{Event, Membership};
use kvraft_replica::{Fatal, NotSent, PeerLane};

use crate::{
    board::{Board, KnownMembers},
    config::ServerConfig,
    driver::{Edge, Snapshot},
    flight::flush_flight_recorders,
    peers::{Lane, PeerNet, Peers, SendError},
    recorder::Recorder,
};

/// Called once with what has made it impossible to go on; ends the process, or tells a test.
pub type FatalHandler = Arc<dyn Fn(&Fatal) + Send + Sync>;

/// The edge of one server.
pub(crate) struct ServerEdge {
    pub(crate) board: Arc<Board>,
    /// Set once the transport runs. The transport needs the driver, which needs this: frames of the
    /// moments between are lost, like any other frame may be.
    pub(crate) peers: OnceLock<PeerNet>,
    pub(crate) on_fatal: FatalHandler,
    /// There when this server traces.
    pub(crate) recorder: Option<Arc<Recorder>>,
    me: MemberId,
    /// Where the configuration says that members listen for peers, this one included.
    configured: BTreeMap<MemberId, String>,
    /// Held while the peers are told of a configuration, so that the newest is told last.
    telling: Mutex<()>,
}

impl ServerEdge {
    pub(crate) fn new(
        config: &ServerConfig,
        recorder: Option<Arc<Recorder>>,
        on_fatal: FatalHandler,
    ) -> Self {
        let mut configured = config.peer_addresses();
        if let Some(own) = config.own_info().peer_addresses.into_iter().next() {
            configured.insert(config.member, own);
        }
        Self {
            board: Arc::new(Board::new()),
            peers: OnceLock::new(),
            on_fatal,
            recorder,
            me: config.member,
            configured,
            telling: Mutex::default(),
        }
    }

    /// Whom to dial, and where: as the cluster says, then as the configuration does. While a change
    /// is not settled, that is everyone in it and everyone before it: which of them go on without
    /// the others is not known, and whoever leads the cluster then must find this server.
    pub(crate) fn peers_of(&self, known: &KnownMembers) -> Peers {
        let settled = known.settled();
        let memberships = [Some(known.in_force()), settled];
        let mut addresses = BTreeMap::<MemberId, Vec<String>>::from([(self.me, Vec::new())]);
        for members in memberships.into_iter().flatten().map(|membership| &membership.members) {
            for id in members.ids() {
                let known = addresses.entry(id).or_default();
                let told = members.info(id).map_or(&[][..], |info| &info.peer_addresses);
                let new: Vec<_> = told.iter().filter(|it| !known.contains(it)).cloned().collect();
                known.extend(new);
            }
        }
        for (id, known) in &mut addresses {
            let configured = self.configured.get(id);
            known.extend(configured.filter(|it| !known.contains(it)).cloned());
        }
        Peers {
            addresses,
            settled: settled.map(|membership| membership.index),
            id_max: settled.map_or(MemberId::ZERO, |membership| membership.members.id_max()),
        }
    }

    /// Tells the transport of the newest configuration.
    pub(crate) fn tell_peers(&self) {
        let telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peers) = self.peers.get() {
            let known = self.board.members().borrow().clone();
            peers.set_peers(self.peers_of(&known));
        }
        drop(telling);
    }

    /// A peer says that the configuration at `index` is without this server. It may be of another
    /// cluster that has the same name and was given one of our addresses.
    pub(crate) fn on_told_removed(&self, peer: MemberId, index: Index) {
        let led = self.board.snapshot().raft.leader.is_some();
        if led || is_member(self.board.members().borrow().settled(), self.me, index) {
            tracing::error!(%peer, %index, "says wrongly that this server was removed: ignored");
        } else {
            self.on_fatal(Fatal::Removed { index });
        }
    }

    /// Whether this server has a connection to a member, or is it.
    pub(crate) fn reaches(&self, id: MemberId) -> bool {
        let connected = |peers: &PeerNet| peers.counts().get(&id).is_some_and(|it| it.connected);
        id == self.me || self.peers.get().is_some_and(connected)
    }
}

impl Edge for ServerEdge {
    fn send_to_peer(&self, to: MemberId, lane: PeerLane, frame: Bytes) -> Result<(), NotSent> {
        let lane = match lane {
            PeerLane::Control => Lane::Control,
            PeerLane::Bulk => Lane::Bulk,
        };
        let frame = match &self.recorder {
            Some(recorder) => recorder.on_frame_sent(to, frame),
            None => frame,
        };
        // Dropped and counted there if there is no way; the lanes expect losses.
        let peers = self.peers.get().ok_or(NotSent::Closed)?;
        peers.send(to, lane, frame).map_err(|error| match error {
            SendError::Closed | SendError::Stranger => NotSent::Closed,
            SendError::Full | SendError::TooLarge => NotSent::Full,
        })
    }

    fn on_event(&self, event: &Event) {
        log_event(event);
        if let Some(recorder) = &self.recorder {
            recorder.on_event(event);
        }
    }

    fn on_members(&self, membership: &Membership) {
        let Membership { index, members, committed } = membership;
        tracing::info!(%index, committed, "members are {members}");
        let removed = !membership.is_pending() && members.has_removed(self.me);
        if let Some(recorder) = &self.recorder {
            recorder.on_members(membership);
        }
        self.board.set_members(membership, removed);
        self.tell_peers();
    }

    fn on_fatal(&self, fatal: Fatal) {
        match &fatal {
            Fatal::Removed { .. } => tracing::warn!(
                "{fatal}, and ends; its data directory is of no use any more, and may be deleted"
            ),
            _ => tracing::error!("this server cannot go on: {fatal}"),
        }
        flush_flight_recorders();
        (self.on_fatal)(&fatal);
    }

    fn on_status(&self, status: &Snapshot) {
        self.board.publish(status);
    }
}

/// Whether `me` is known to be a member at `index`, or at a later index: an id is never given
/// again, so that it was not removed before.
fn is_member(settled: Option<&Membership>, me: MemberId, index: Index) -> bool {
    settled.is_some_and(|known| index <= known.index && known.members.contains(me))
}

/// Who leads is for everyone, what hints at damage a warning, the rest for those who look closely.
fn log_event(event: &Event) {
    match event {
        Event::BecameLeader { term } => tracing::info!(%term, "became leader"),
        Event::BecameFollower { term, leader: Some(leader) } => {
            tracing::info!(%term, %leader, "follows");
        }
        Event::BecameFollower { term, leader: None } => {
            tracing::info!(%term, "follows nobody yet");
        }
        Event::BecameCandidate { term } => tracing::info!(%term, "campaigns"),
        Event::QuorumLost { term } => tracing::warn!(%term, "lost touch with the majority"),
        Event::SnapshotNeeded { peer, next } => {
            tracing::info!(%peer, %next, "a follower needs a snapshot");
        }
        Event::SnapshotInstalled { position } => {
            tracing::info!(%position, "installed a snapshot");
        }
        Event::LogTruncated { first, .. } => {
            tracing::info!(%first, "the end of the log was overwritten by the leader");
        }
        Event::FollowerRegressed { peer, matched, last } => {
            tracing::warn!(%peer, %matched, %last, "a follower has lost what it had confirmed");
        }
        Event::Unmuted { durable } => {
            tracing::info!(%durable, "the log is repaired: votes again");
        }
        Event::BecamePreCandidate { term } => {
            tracing::debug!(%term, "asks whether it would be elected");
        }
        Event::VoteGranted { term, candidate } => tracing::debug!(%term, %candidate, "votes"),
        Event::CommitAdvanced { commit } => tracing::debug!(%commit, "committed"),
        Event::LearnerPromoted { id } => {
            tracing::info!(member = %id, "a learner is in step: makes it a voter");
        }
        Event::Dismissed { term } => tracing::info!(%term, "has no vote, and leads no more"),
        Event::TransferBegun { to } => tracing::info!(%to, "hands leadership over"),
        Event::TransferDone { to } => tracing::info!(%to, "has handed leadership over"),
        Event::TransferFailed { to } => tracing::warn!(%to, "could not hand leadership over"),
        // The configuration is told by itself.
        Event::ConflictFound { .. }
        | Event::MembersChanged { .. }
        | Event::MembersCommitted { .. }
        | Event::AppendLost { .. }
        | Event::Ignored { .. } => tracing::debug!("{event:?}"),
    }
}

#[cfg(test)]
#[path = "edge_tests.rs"]
mod tests;
