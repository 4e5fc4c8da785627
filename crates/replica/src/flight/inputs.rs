//! The bytes of what a lane is given.

use bytes::{Buf as _, Bytes};
use kvraft_base::{
    DecodeError, Entry, EntryKind, Index, MemberId, Members, Position, Reader, Term, Ticket,
    WriteId, Writer, thin,
};
use kvraft_kv::Query;

use crate::{
    frame::{CHUNK_HEAD_BYTES, Frame, SnapshotChunk, decode_changes, encode_changes},
    hop::{ClientRequest, MachineIn, NodeIn, NotSent},
};

/// Appends an input of the node. False: it holds a state that is not in the recording.
pub(super) fn encode_node(input: &NodeIn, writer: &mut Writer) -> bool {
    match input {
        NodeIn::Client { ticket, request } => encode_request(*ticket, request, writer),
        NodeIn::Cancel(ticket) => _ = writer.u8(5).u64(ticket.0),
        NodeIn::Frame { from, frame } => encode_frame(*from, frame, writer),
        NodeIn::Undelivered { to, frame, reason } => {
            writer.u8(8).u64(to.0).bytes(frame).bool(*reason == NotSent::Full);
        }
        NodeIn::Connected(peer) => _ = writer.u8(9).u64(peer.0),
        NodeIn::Disconnected(peer) => _ = writer.u8(10).u64(peer.0),
        NodeIn::Durable(write) => _ = writer.u8(11).u64(write.0),
        NodeIn::Fetched { id, entries } => {
            writer.u8(12).u64(*id).bool(entries.is_some());
            if let Some(entries) = entries {
                writer.count(entries.len());
                entries.iter().for_each(|entry| encode_fetched(entry, writer));
            }
        }
        NodeIn::Released(position) => position.encode(writer.u8(13)),
        NodeIn::ResetDone(position) => position.encode(writer.u8(14)),
        NodeIn::Applied { index, answered } => {
            writer.u8(15).u64(index.0).count(answered.len());
            answered.iter().for_each(|ticket| _ = writer.u64(ticket.0));
        }
        NodeIn::Reloaded { position, members } => {
            position.encode(writer.u8(16));
            writer.bool(members.is_some());
            if let Some(members) = members {
                writer.bytes(&members.encode());
            }
        }
        NodeIn::Settled(position) => position.encode(writer.u8(17)),
        NodeIn::SnapshotChunk { to, chunk } => {
            writer.u8(18).u64(to.0).u64(chunk.term.0);
            chunk.position.encode(writer);
            // The bytes pass through, and nothing looks into them.
            writer.u64(chunk.seq).count(chunk.bytes.len());
        }
        NodeIn::ExportOpened { to, position } => position.encode(writer.u8(19).u64(to.0)),
        NodeIn::ImportTaken { from, position, seq } => {
            position.encode(writer.u8(20).u64(from.0));
            writer.u64(*seq);
        }
        NodeIn::ImportUnknown { from, position } => position.encode(writer.u8(21).u64(from.0)),
        NodeIn::ImportReady { from, term, position } => {
            position.encode(writer.u8(22).u64(from.0).u64(term.0));
        }
        NodeIn::InstallRefused(position) => position.encode(writer.u8(23)),
        NodeIn::LeaderSuspected => _ = writer.u8(24),
        NodeIn::Version(version) => _ = writer.u8(25).u32(*version),
        NodeIn::Installed { .. } => return false,
    }
    true
}

fn encode_request(ticket: Ticket, request: &ClientRequest, writer: &mut Writer) {
    match request {
        ClientRequest::Propose(command) => _ = writer.u8(1).u64(ticket.0).bytes(command),
        ClientRequest::Query { query, linearizable } => {
            query.encode(writer.u8(2).u64(ticket.0).bool(*linearizable));
        }
        ClientRequest::ChangeMembers(changes) => {
            encode_changes(writer.u8(3).u64(ticket.0), changes);
        }
        ClientRequest::Transfer { to } => {
            writer.u8(4).u64(ticket.0).bool(to.is_some()).u64(to.map_or(0, |to| to.0));
        }
    }
}

fn encode_frame(from: MemberId, frame: &Bytes, writer: &mut Writer) {
    match Frame::chunk_head(frame) {
        // What is in the chunk goes on to the table, and nothing here looks into it.
        Some(head) => _ = writer.u8(7).u64(from.0).raw(head),
        None => _ = writer.u8(6).u64(from.0).bytes(frame),
    }
}

/// What is read back for a follower goes out again. Nothing here looks into commands, but raft
/// checks that they are intact: their checksums are made anew, of what stands in for them, and are
/// wrong for those that were not.
fn encode_fetched(entry: &Entry, writer: &mut Writer) {
    writer.u64(entry.term.0).u64(entry.index.0).u8(entry.kind.to_u8()).bool(entry.is_intact());
    if entry.kind == EntryKind::Command {
        writer.bool(true).count(entry.payload.len());
    } else {
        thin::encode(&entry.payload, writer);
    }
}

const FETCHED_SIZE_BYTES_MIN: usize = 8 + 8 + 1 + 1 + 1 + 4;

fn decode_fetched(reader: &mut Reader) -> Result<Entry, DecodeError> {
    let term = Term(reader.u64("entry term")?);
    let index = Index(reader.u64("entry index")?);
    let kind = EntryKind::from_u8(reader.u8("entry kind")?)?;
    let is_intact = reader.bool("entry intact")?;
    let mut entry = Entry::new(term, index, kind, thin::decode("entry payload", reader)?);
    if !is_intact {
        entry.checksum = !entry.checksum;
    }
    Ok(entry)
}

/// Reads an input of the node.
pub(super) fn decode_node(reader: &mut Reader) -> Result<NodeIn, DecodeError> {
    let id = |reader: &mut Reader| reader.u64("member").map(MemberId);
    Ok(match reader.u8("input")? {
        kind @ 1..=4 => {
            let ticket = Ticket(reader.u64("ticket")?);
            NodeIn::Client { ticket, request: decode_request(kind, reader)? }
        }
        5 => NodeIn::Cancel(Ticket(reader.u64("ticket")?)),
        6 => NodeIn::Frame { from: id(reader)?, frame: reader.bytes("frame")? },
        7 => NodeIn::Frame { from: id(reader)?, frame: decode_chunk_frame(reader)? },
        8 => NodeIn::Undelivered {
            to: id(reader)?,
            frame: reader.bytes("frame")?,
            reason: if reader.bool("reason")? { NotSent::Full } else { NotSent::Closed },
        },
        9 => NodeIn::Connected(id(reader)?),
        10 => NodeIn::Disconnected(id(reader)?),
        11 => NodeIn::Durable(WriteId(reader.u64("write")?)),
        12 => NodeIn::Fetched {
            id: reader.u64("fetch")?,
            entries: match reader.bool("found")? {
                true => Some(decode_list(reader, FETCHED_SIZE_BYTES_MIN, decode_fetched)?),
                false => None,
            },
        },
        13 => NodeIn::Released(Position::decode(reader)?),
        14 => NodeIn::ResetDone(Position::decode(reader)?),
        15 => NodeIn::Applied {
            index: Index(reader.u64("applied")?),
            answered: decode_list(reader, 8, |reader| reader.u64("ticket").map(Ticket))?,
        },
        16 => NodeIn::Reloaded {
            position: Position::decode(reader)?,
            members: match reader.bool("members")? {
                true => Some(Members::decode(reader.bytes("members")?)?),
                false => None,
            },
        },
        17 => NodeIn::Settled(Position::decode(reader)?),
        18 => NodeIn::SnapshotChunk { to: id(reader)?, chunk: decode_chunk(reader)? },
        19 => NodeIn::ExportOpened { to: id(reader)?, position: Position::decode(reader)? },
        20 => NodeIn::ImportTaken {
            from: id(reader)?,
            position: Position::decode(reader)?,
            seq: reader.u64("chunk number")?,
        },
        21 => NodeIn::ImportUnknown { from: id(reader)?, position: Position::decode(reader)? },
        22 => NodeIn::ImportReady {
            from: id(reader)?,
            term: Term(reader.u64("term")?),
            position: Position::decode(reader)?,
        },
        23 => NodeIn::InstallRefused(Position::decode(reader)?),
        24 => NodeIn::LeaderSuspected,
        25 => NodeIn::Version(reader.u32("cluster version")?),
        other => return Err(DecodeError::Unknown { what: "input", value: u64::from(other) }),
    })
}

fn decode_request(kind: u8, reader: &mut Reader) -> Result<ClientRequest, DecodeError> {
    Ok(match kind {
        1 => ClientRequest::Propose(reader.bytes("command")?),
        2 => {
            let linearizable = reader.bool("linearizable")?;
            ClientRequest::Query { query: Query::decode(reader)?, linearizable }
        }
        3 => ClientRequest::ChangeMembers(decode_changes(reader)?),
        _ => {
            let is_named = reader.bool("successor")?;
            let to = MemberId(reader.u64("successor")?);
            ClientRequest::Transfer { to: is_named.then_some(to) }
        }
    })
}

fn decode_chunk_frame(reader: &mut Reader) -> Result<Bytes, DecodeError> {
    let head = reader.take("head of a chunk", CHUNK_HEAD_BYTES)?;
    let size = (&head[CHUNK_HEAD_BYTES - 4..]).get_u32_le();
    let size = chunk_size(size)?;
    let mut frame = head.to_vec();
    frame.resize(CHUNK_HEAD_BYTES + size, 0);
    Ok(frame.into())
}

fn decode_chunk(reader: &mut Reader) -> Result<SnapshotChunk, DecodeError> {
    let term = Term(reader.u64("snapshot term")?);
    let position = Position::decode(reader)?;
    let seq = reader.u64("chunk number")?;
    let size = chunk_size(reader.u32("chunk size")?)?;
    Ok(SnapshotChunk { term, position, seq, bytes: thin::zeroes(size) })
}

fn chunk_size(size: u32) -> Result<usize, DecodeError> {
    let limit = kvraft_base::limits::FRAME_SIZE_BYTES_MAX;
    match usize::try_from(size) {
        Ok(size) if size <= limit => Ok(size),
        _ => {
            let (what, value, limit) = ("chunk size", u64::from(size), limit as u64);
            Err(DecodeError::TooLarge { what, value, limit })
        }
    }
}

/// Appends an input of the machine that does not come from the node. False: it holds a state that
/// is not in the recording.
pub(super) fn encode_machine(input: &MachineIn, writer: &mut Writer) -> bool {
    match input {
        MachineIn::Settled(position) => position.encode(writer.u8(1)),
        // Queries and who stops waiting for them: they change nothing.
        MachineIn::Query { .. } | MachineIn::Cancel(_) => _ = writer.u8(2),
        MachineIn::Committed(_) => unreachable!("the node alone says what is committed"),
        MachineIn::Reload { .. } => return false,
    }
    true
}

/// Reads an input of the machine; `None` of one that changes nothing.
pub(super) fn decode_machine(reader: &mut Reader) -> Result<Option<MachineIn>, DecodeError> {
    match reader.u8("input of the machine")? {
        1 => Ok(Some(MachineIn::Settled(Position::decode(reader)?))),
        2 => Ok(None),
        other => Err(DecodeError::Unknown { what: "input of the machine", value: other.into() }),
    }
}

/// A count, and so many of them.
pub(super) fn decode_list<T>(
    reader: &mut Reader,
    size_min: usize,
    decode: impl Fn(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count("count", size_min)?;
    (0..count).map(|_| decode(reader)).collect()
}
