//! What leaves for peers: messages gathered into frames.

use std::collections::BTreeMap;

use kvraft_base::{MemberId, limits};
use kvraft_raft::{Body, Message, Raft};

use crate::{
    frame::{Frame, message_size_bytes_max},
    hop::{Hop, PeerLane},
};

pub(crate) fn send(to: MemberId, lane: PeerLane, frame: &Frame, out: &mut Vec<Hop>) {
    out.push(Hop::Peer { to, lane, frame: frame.encode() });
}

/// One frame per peer, lane and turn, unless it would be too large. What a follower catches up on
/// takes the bulk lane, so that neither heartbeats nor fresh entries wait behind it.
pub(crate) fn send_messages(messages: Vec<Message>, raft: &Raft, out: &mut Vec<Hop>) {
    let mut by_peer: BTreeMap<(MemberId, PeerLane), (usize, Vec<Message>)> = BTreeMap::new();
    for message in messages {
        let (to, lane) = (message.to, lane_of(&message, raft));
        let size = message_size_bytes_max(&message);
        let (batch_size, batch) = by_peer.entry((to, lane)).or_default();
        if limits::FRAME_SIZE_BYTES_MAX / 2 < *batch_size + size && !batch.is_empty() {
            send(to, lane, &Frame::Raft(std::mem::take(batch)), out);
            *batch_size = 0;
        }
        *batch_size += size;
        batch.push(message);
    }
    for ((to, lane), (_, batch)) in by_peer {
        send(to, lane, &Frame::Raft(batch), out);
    }
}

fn lane_of(message: &Message, raft: &Raft) -> PeerLane {
    match &message.body {
        Body::Append { entries, .. } if !entries.is_empty() && raft.is_catching_up(message.to) => {
            PeerLane::Bulk
        }
        _ => PeerLane::Control,
    }
}
