//! A recording that can be given away: without what clients have written.
//!
//! Commands and queries keep their kind, their numbers and their lengths
//! ([`kvraft_kv::Redaction`]); roles, terms, indexes, messages and times are what they were.
//! Lengths are all that consensus sees of a payload, so the copy runs to the recorded digests.
//!
//! What it lacks: the machine. It compares values, and its state holds checksums of each row, from
//! which a short value could be guessed: state, rows and hashes of it are left out.
//!
//! Invariant: every type is taken apart by name, so that a field or an input that is added cannot
//! be forgotten here.

use bytes::Bytes;
use kvraft_base::{Writer, thin};
use kvraft_kv::Redaction;

use super::{
    Header, Image, Segment, SegmentError, Step, Turn, end_block, header_bytes, image_block,
    records_block, seal_block,
    tape::{End, encode_end, encode_turn},
};
use crate::{
    frame::{Frame, SnapshotChunk},
    hop::{ClientRequest, NodeIn},
};

/// A block of turns is about as long, in bytes.
const BLOCK_SIZE_BYTES: usize = 1 << 20;

/// No frame begins with it.
const NO_FRAME: u8 = 0xff;

/// The bytes of a file like this one, without what is to be replaced. Turns that cannot be read are
/// not in it.
///
/// # Errors
/// [`SegmentError`] when the state that it begins with is of another version.
pub fn redacted(segment: &Segment, redaction: Redaction) -> Result<Vec<u8>, SegmentError> {
    let Image { mut node, machine: _ } = segment.image()?;
    node.redact(redaction);
    let header = Header { is_redacted: true, ..segment.header.clone() };
    let mut file = header_bytes(&header).to_vec();
    add(&mut file, &image_block(&Image { node, machine: None }));
    let mut turns = Writer::new();
    let mut is_whole = true;
    for step in segment.steps() {
        let Ok(step) = step else {
            is_whole = false;
            break;
        };
        encode_step(step, redaction, &mut turns);
        if BLOCK_SIZE_BYTES <= turns.len() {
            add(&mut file, &records_block(turns.as_slice()));
            turns.clear();
        }
    }
    if !turns.is_empty() {
        add(&mut file, &records_block(turns.as_slice()));
    }
    if let Some(cut) = segment.cut.filter(|_| is_whole) {
        add(&mut file, &end_block(cut));
    }
    Ok(file)
}

fn add(file: &mut Vec<u8>, block: &[u8]) {
    let head = seal_block(file.len() as u64, block);
    file.extend_from_slice(&head);
    file.extend_from_slice(block);
}

fn encode_step(step: Step, redaction: Redaction, writer: &mut Writer) {
    let Step { turn: Turn { now, node, machine }, end, offset: _ } = step;
    let node: Vec<NodeIn> = node.into_iter().map(|input| redact_input(input, redaction)).collect();
    encode_turn(now, &node, &machine, writer);
    if let Some(End { node, machine: _, state_hash: _, rows: _ }) = end {
        encode_end(&End { node, machine: 0, state_hash: None, rows: Vec::new() }, writer);
    }
}

fn redact_input(input: NodeIn, redaction: Redaction) -> NodeIn {
    match input {
        NodeIn::Client { ticket, request } => {
            NodeIn::Client { ticket, request: redact_request(request, redaction) }
        }
        NodeIn::Frame { from, frame } => {
            NodeIn::Frame { from, frame: redact_frame(&frame, redaction) }
        }
        NodeIn::Undelivered { to, frame, reason } => {
            NodeIn::Undelivered { to, frame: redact_frame(&frame, redaction), reason }
        }
        // A recording has the lengths alone of what was read back and of parts of snapshots.
        NodeIn::Fetched { .. } | NodeIn::SnapshotChunk { .. } => input,
        NodeIn::Cancel(_)
        | NodeIn::Connected(_)
        | NodeIn::Disconnected(_)
        | NodeIn::Durable(_)
        | NodeIn::Released(_)
        | NodeIn::ResetDone(_)
        | NodeIn::Applied { .. }
        | NodeIn::Reloaded { .. }
        | NodeIn::Settled(_)
        | NodeIn::ExportOpened { .. }
        | NodeIn::ImportTaken { .. }
        | NodeIn::ImportUnknown { .. }
        | NodeIn::ImportReady { .. }
        | NodeIn::InstallRefused(_)
        | NodeIn::LeaderSuspected
        | NodeIn::Version(_) => input,
        NodeIn::Installed { .. } => unreachable!("a recording holds no state but its first"),
    }
}

fn redact_request(request: ClientRequest, redaction: Redaction) -> ClientRequest {
    match request {
        ClientRequest::Propose(command) => ClientRequest::Propose(redaction.command(&command)),
        ClientRequest::Query { mut query, linearizable } => {
            redaction.query(&mut query);
            ClientRequest::Query { query, linearizable }
        }
        ClientRequest::ChangeMembers(_) | ClientRequest::Transfer { .. } => request,
    }
}

/// What is no frame may hold anything, and is none afterwards.
fn redact_frame(bytes: &Bytes, redaction: Redaction) -> Bytes {
    let Ok(frame) = Frame::decode(bytes.clone()) else {
        return without_content(bytes);
    };
    let redacted = match frame {
        Frame::Raft(mut messages) => {
            for message in &mut messages {
                message.replace_commands(&mut |payload| redaction.command(payload));
            }
            Frame::Raft(messages).encode()
        }
        Frame::Forward { attempt, command } => {
            Frame::Forward { attempt, command: redaction.command(&command) }.encode()
        }
        // Rows of the state: zeroes already where one has come, whole where one was not sent.
        Frame::SnapshotChunk(chunk) => {
            let zeroes = thin::zeroes(chunk.bytes.len());
            Frame::SnapshotChunk(SnapshotChunk { bytes: zeroes, ..chunk }).encode()
        }
        Frame::ForwardChange { .. }
        | Frame::ChangeDone { .. }
        | Frame::ForwardRefused { .. }
        | Frame::ForwardLost { .. }
        | Frame::SnapshotTaken { .. }
        | Frame::SnapshotUnknown { .. }
        | Frame::VersionsWanted { .. }
        | Frame::Versions { .. } => bytes.clone(),
    };
    // What a peer has encoded otherwise than this build would keeps its length and no more.
    if redacted.len() == bytes.len() { redacted } else { without_content(bytes) }
}

fn without_content(bytes: &Bytes) -> Bytes {
    vec![NO_FRAME; bytes.len()].into()
}
