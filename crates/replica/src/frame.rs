//! What travels between two servers' nodes, inside the transport's own framing.
//!
//! Little-endian, versioned by the transport's handshake, bounded; garbage is an error, not a
//! panic.

use bytes::Bytes;
use kvraft_base::{
    DecodeError, Entry, MemberId, Position, Reader, Term, Ticket, Writer, limits,
};
use kvraft_raft::{Body, Message};

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Consensus messages of one turn, in order.
    Raft(Vec<Message>),
    /// A client's command, passed on to the leader. Each attempt leaves once.
    Forward {
        /// Names the attempt in the answer.
        attempt: Attempt,
        /// An encoded command.
        command: Bytes,
    },
    /// The command was not appended and never will be by this attempt.
    ForwardRefused {
        /// The attempt.
        attempt: Attempt,
        /// Why.
        reason: ForwardRefusal,
    },
    /// The command was appended, and its sender leads no more: nobody knows what becomes of it.
    ForwardLost {
        /// The attempt.
        attempt: Attempt,
    },
    /// Part of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// A part has arrived, and all before it: the acknowledgement.
    SnapshotTaken {
        /// The snapshot.
        position: Position,
        /// Chunk number.
        seq: u64,
    },
    /// A part has arrived of a snapshot whose beginning is not there: the receiver has restarted,
    /// or has thrown away what it had.
    SnapshotUnknown {
        /// The snapshot.
        position: Position,
    },
}

/// Names one passing on of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The life of the server that asks: an answer to an earlier one is for nobody.
    pub incarnation: u64,
    /// That server's ticket.
    pub ticket: Ticket,
    /// Never used twice in a life. A command that was refused may be passed on again, and a late
    /// answer to the first attempt says nothing of the second.
    pub number: u64,
}

/// Why a command that was passed on was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardRefusal {
    /// Too much is waiting there already.
    Busy,
    /// The asked server does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<MemberId>,
    },
    /// The command is over the size limit.
    TooLarge,
    /// The asked server is missing a part of its log and knows no leader.
    Muted,
    /// What arrived is no command.
    Malformed,
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
        // In one piece from the start: growing copies what is there again and again.
        let mut writer = Writer::with_capacity(self.size_bytes_max());
        match self {
            Self::Raft(messages) => {
                writer.u8(1).count(messages.len());
                for message in messages {
                    message.encode(&mut writer);
                }
            }
            Self::Forward { attempt, command } => {
                attempt.encode(writer.u8(KIND_FORWARD));
                writer.bytes(command);
            }
            Self::ForwardRefused { attempt, reason } => {
                attempt.encode(writer.u8(3));
                reason.encode(&mut writer);
            }
            Self::ForwardLost { attempt } => attempt.encode(writer.u8(6)),
            Self::SnapshotUnknown { position } => position.encode(writer.u8(7)),
            Self::SnapshotChunk(chunk) => {
                writer.u8(4).u64(chunk.term.0);
                chunk.position.encode(&mut writer);
                writer.u64(chunk.seq).bytes(&chunk.bytes);
            }
            Self::SnapshotTaken { position, seq } => {
                writer.u8(5);
                position.encode(&mut writer);
                writer.u64(*seq);
            }
        }
        writer.finish()
    }

    /// The encoding is not longer, and about as long when it is long.
    fn size_bytes_max(&self) -> usize {
        const FIXED_BYTES: usize = 64;
        FIXED_BYTES
            + match self {
                Self::Raft(messages) => messages.iter().map(message_size_bytes_max).sum(),
                Self::Forward { command, .. } => command.len(),
                Self::SnapshotChunk(chunk) => chunk.bytes.len(),
                Self::ForwardRefused { .. }
                | Self::ForwardLost { .. }
                | Self::SnapshotTaken { .. }
                | Self::SnapshotUnknown { .. } => 0,
            }
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
            KIND_FORWARD => Self::Forward {
                attempt: Attempt::decode(&mut reader)?,
                command: reader.bytes("command")?,
            },
            3 => Self::ForwardRefused {
                attempt: Attempt::decode(&mut reader)?,
                reason: ForwardRefusal::decode(&mut reader)?,
            },
            4 => Self::SnapshotChunk(SnapshotChunk {
                term: Term(reader.u64("snapshot term")?),
                position: Position::decode(&mut reader)?,
                seq: reader.u64("chunk number")?,
                bytes: reader.bytes("chunk")?,
            }),
            5 => Self::SnapshotTaken {
                position: Position::decode(&mut reader)?,
                seq: reader.u64("chunk number")?,
            },
            6 => Self::ForwardLost { attempt: Attempt::decode(&mut reader)? },
            7 => Self::SnapshotUnknown { position: Position::decode(&mut reader)? },
            other => {
                return Err(DecodeError::Unknown { what: "frame kind", value: u64::from(other) });
            }
        };
        reader.finish()?;
        Ok(frame)
    }

    /// Whether an encoded frame passes a client's command on: the one kind whose loss before it
    /// left must be told to the node ([`crate::NodeIn::Undelivered`]), since nothing repeats it.
    #[must_use]
    pub fn is_forward(encoded: &[u8]) -> bool {
        encoded.first() == Some(&KIND_FORWARD)
    }

    /// What to answer, encoded, to an encoded frame that arrived and finds no room. `None`: no
    /// answer is due, since its sender repeats what gets lost.
    #[must_use]
    pub fn answer_to_dropped(encoded: &Bytes) -> Option<Bytes> {
        if !Self::is_forward(encoded) {
            return None;
        }
        match Self::decode(encoded.clone()) {
            Ok(Self::Forward { attempt, .. }) => {
                let reason = ForwardRefusal::Busy;
                Some(Self::ForwardRefused { attempt, reason }.encode())
            }
            Ok(_) | Err(_) => None,
        }
    }
}

const KIND_FORWARD: u8 = 2;

impl Attempt {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.incarnation).u64(self.ticket.0).u64(self.number);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            incarnation: reader.u64("incarnation")?,
            ticket: Ticket(reader.u64("ticket")?),
            number: reader.u64("attempt")?,
        })
    }
}

impl ForwardRefusal {
    fn encode(self, writer: &mut Writer) {
        match self {
            Self::Busy => writer.u8(1),
            // Member ids start at 1.
            Self::NotLeader { leader } => writer.u8(2).u64(leader.unwrap_or_default().0),
            Self::TooLarge => writer.u8(3),
            Self::Muted => writer.u8(4),
            Self::Malformed => writer.u8(5),
        };
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8("reason")? {
            1 => Ok(Self::Busy),
            2 => {
                let leader = MemberId(reader.u64("leader")?);
                Ok(Self::NotLeader { leader: (leader != MemberId::ZERO).then_some(leader) })
            }
            3 => Ok(Self::TooLarge),
            4 => Ok(Self::Muted),
            5 => Ok(Self::Malformed),
            other => Err(DecodeError::Unknown { what: "reason", value: u64::from(other) }),
        }
    }
}

/// No message is shorter: sender, receiver, term and kind.
const MESSAGE_SIZE_BYTES_MIN: usize = 8 + 8 + 8 + 1;

fn decode_messages(reader: &mut Reader) -> Result<Vec<Message>, DecodeError> {
    let count = reader.count("message count", MESSAGE_SIZE_BYTES_MIN)?;
    (0..count).map(|_| Message::decode(reader)).collect()
}

/// No less than the encoded size of a message, and near to it for what can be large.
pub(crate) fn message_size_bytes_max(message: &Message) -> usize {
    const FIXED_BYTES: usize = 96;
    match &message.body {
        Body::Append { entries, .. } => {
            FIXED_BYTES + entries.iter().map(Entry::size_bytes).sum::<usize>()
        }
        Body::PreVoteRequest { .. }
        | Body::PreVoteAnswer { .. }
        | Body::VoteRequest { .. }
        | Body::VoteAnswer { .. }
        | Body::AppendAnswer { .. }
        | Body::Heartbeat { .. }
        | Body::HeartbeatAnswer { .. }
        | Body::SnapshotWanted
        | Body::CommitNotice { .. }
        | Body::ReadRequest { .. }
        | Body::ReadAnswer { .. }
        | Body::TimeoutNow
        | Body::SnapshotNotice { .. } => FIXED_BYTES,
    }
}
