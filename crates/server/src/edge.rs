//! Where the lanes' outputs go in the real world: the transport, the logs, the board.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kvraft_base::MemberId;
use kvraft_raft::Event;
use kvraft_replica::{Fatal, NotSent, PeerLane};

use crate::{
    board::Board,
    driver::{Edge, Snapshot},
    peers::{Lane, PeerNet, SendError},
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
}

impl Edge for ServerEdge {
    fn send_to_peer(&self, to: MemberId, lane: PeerLane, frame: Bytes) -> Result<(), NotSent> {
        let lane = match lane {
            PeerLane::Control => Lane::Control,
            PeerLane::Bulk => Lane::Bulk,
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
    }

    fn on_fatal(&self, fatal: Fatal) {
        tracing::error!("this server cannot go on: {fatal}");
        (self.on_fatal)(&fatal);
    }

    fn on_status(&self, status: &Snapshot) {
        self.board.publish(status);
    }
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
        Event::ConflictFound { .. }
        | Event::MembersChanged { .. }
        | Event::MembersCommitted { .. }
        | Event::LearnerPromoted { .. }
        | Event::Dismissed { .. }
        | Event::TransferBegun { .. }
        | Event::TransferDone { .. }
        | Event::TransferFailed { .. }
        | Event::AppendLost { .. }
        | Event::Ignored { .. } => tracing::debug!("{event:?}"),
    }
}
