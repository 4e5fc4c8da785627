//! What travels between two servers' nodes, inside the transport's own framing.
//!
//! Little-endian, versioned by the transport's handshake, bounded; garbage is an error, not a
//! panic.

use bytes::Bytes;
use kvraft_base::{DecodeError, Position, Reader, Term, Ticket, Writer};
use kvraft_base::{Index, limits};
use kvraft_raft::Message;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Consensus messages of one turn, in order.
    Raft(Vec<Message>),
    /// A client's command, passed on to the leader. At most once per attempt.
    Forward {
        /// The sender's ticket.
        ticket: Ticket,
        /// An encoded command.
        command: Bytes,
    },
    /// The command was not appended and never will be by this attempt.
    ForwardRefused {
        /// The ticket of the one that forwarded.
        ticket: Ticket,
    },
    /// Part of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// A part has arrived.
    SnapshotTaken {
        /// The snapshot.
        position: Position,
        /// Chunk number.
        seq: u64,
    },
}

/// Part of a snapshot, as the store exported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Term of the sending leader.
    pub term: Term,
    /// What the whole snapshot contains.
    pub position: Position,
    /// Number of this chunk, from 0.
    pub seq: u64,
    /// Checksummed by the store.
    pub bytes: Bytes,
}

impl Frame {
    /// Bytes to hand to the transport.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        match self {
            Self::Raft(messages) => {
                writer.u8(1).count(messages.len());
                for message in messages {
                    message.encode(&mut writer);
                }
            }
            Self::Forward { ticket, command } => {
                writer.u8(2).u64(ticket.0).bytes(command);
            }
            Self::ForwardRefused { ticket } => {
                writer.u8(3).u64(ticket.0);
            }
            Self::SnapshotChunk(chunk) => {
                writer.u8(4).u64(chunk.term.0);
                encode_position(&mut writer, chunk.position);
                writer.u64(chunk.seq).bytes(&chunk.bytes);
            }
            Self::SnapshotTaken { position, seq } => {
                writer.u8(5);
                encode_position(&mut writer, *position);
                writer.u64(*seq);
            }
        }
        writer.finish()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// Any [`DecodeError`]: the frame is dropped and the peer named in a warning.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let size = bytes.len();
        if limits::FRAME_SIZE_BYTES_MAX < size {
            return Err(DecodeError::TooLarge {
                what: "frame",
                value: size as u64,
                limit: limits::FRAME_SIZE_BYTES_MAX as u64,
            });
        }
        let mut reader = Reader::new(bytes);
        let frame = match reader.u8("frame kind")? {
            1 => Self::Raft(decode_messages(&mut reader)?),
            2 => Self::Forward {
                ticket: Ticket(reader.u64("ticket")?),
                command: reader.bytes("command")?,
            },
            3 => Self::ForwardRefused { ticket: Ticket(reader.u64("ticket")?) },
            4 => Self::SnapshotChunk(SnapshotChunk {
                term: Term(reader.u64("snapshot term")?),
                position: decode_position(&mut reader)?,
                seq: reader.u64("chunk number")?,
                bytes: reader.bytes("chunk")?,
            }),
            5 => Self::SnapshotTaken {
                position: decode_position(&mut reader)?,
                seq: reader.u64("chunk number")?,
            },
            other => {
                return Err(DecodeError::Unknown { what: "frame kind", value: u64::from(other) });
            }
        };
        reader.finish()?;
        Ok(frame)
    }
}

/// No message is shorter: sender, receiver, term and kind.
const MESSAGE_SIZE_BYTES_MIN: usize = 8 + 8 + 8 + 1;

fn decode_messages(reader: &mut Reader) -> Result<Vec<Message>, DecodeError> {
    let count = reader.count("message count", MESSAGE_SIZE_BYTES_MIN)?;
    (0..count).map(|_| Message::decode(reader)).collect()
}

fn encode_position(writer: &mut Writer, position: Position) {
    writer.u64(position.term.0).u64(position.index.0);
}

fn decode_position(reader: &mut Reader) -> Result<Position, DecodeError> {
    let term = Term(reader.u64("position term")?);
    let index = Index(reader.u64("position index")?);
    Ok(Position::new(term, index))
}
