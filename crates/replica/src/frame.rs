//! What travels between two servers' nodes, inside the transport's own framing.
//!
//! Little-endian, versioned by the transport's handshake, bounded; garbage is an error, not a
//! panic.

use bytes::Bytes;
use kvraft_base::{
    DecodeError, Entry, Index, MemberId, Members, Position, Reader, Term, Ticket, Writer, limits,
};
use kvraft_kv::Versions;
use kvraft_raft::{Body, CHANGES_MAX, Change, ChangeError, Message};
use serde::{Deserialize, Serialize};

mod refusal;

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
    /// A client's wish for other members, passed on to the leader. Each attempt leaves once.
    ForwardChange {
        /// Names the attempt in the answer.
        attempt: Attempt,
        /// All or none of them are to be made.
        changes: Vec<Change>,
    },
    /// The change that was passed on is over: committed, and not joint any more.
    ChangeDone {
        /// The attempt.
        attempt: Attempt,
        /// The entry of `members`: that of the change, or a later one.
        index: Index,
        /// The configuration in force.
        members: Members,
    },
    /// What was passed on was not appended and never will be by this attempt.
    ForwardRefused {
        /// The attempt.
        attempt: Attempt,
        /// Why.
        reason: ForwardRefusal,
    },
    /// What was passed on was appended, and its sender leads no more: nobody knows what becomes of
    /// it.
    ForwardLost {
        /// The attempt.
        attempt: Attempt,
    },
    /// A leader asks which cluster versions the receiver knows.
    VersionsWanted {
        /// Named in the answer.
        round: Round,
    },
    /// The answer.
    Versions {
        /// The leader's.
        round: Round,
        /// What the sender knows.
        versions: Versions,
    },
    /// Part of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// A part has arrived, and all before it: the acknowledgement.
    SnapshotTaken {
        /// The snapshot.
        position: Position,
        /// Chunk number; the greatest there is once nothing is missing any more.
        seq: u64,
    },
    /// A part has arrived of a snapshot whose beginning is not there: the receiver has restarted,
    /// or has thrown away what it had.
    SnapshotUnknown {
        /// The snapshot.
        position: Position,
    },
}

/// Names one passing on of one command or change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The life of the server that asks: an answer to an earlier one is for nobody.
    pub incarnation: u64,
    /// That server's ticket.
    pub ticket: Ticket,
    /// Never used twice in a life. What was refused may be passed on again, and a late
    /// answer to the first attempt says nothing of the second.
    pub number: u64,
}

/// Names one round of a leader's questions: an answer to an earlier one says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Round {
    /// The life of the server that asks.
    pub incarnation: u64,
    /// Never used twice in a life.
    pub number: u64,
}

/// Why what was passed on was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardRefusal {
    /// Too much is waiting there already.
    Busy,
    /// The asked server does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<MemberId>,
    },
    /// It is over the size limit.
    TooLarge,
    /// The asked server is missing a part of its log and knows no leader.
    Muted,
    /// What arrived is no command.
    Malformed,
    /// Another change of members is under way.
    ChangePending {
        /// Its entry.
        index: Index,
    },
    /// The leader has only just been elected, and changes no members yet.
    TermNotCommitted,
    /// The wanted configuration cannot be.
    Change(ChangeError),
}

/// In [`Frame::SnapshotTaken`]: the receiver's state is durable and holds the snapshot, or more.
pub(crate) const SEQ_INSTALLED: u64 = u64::MAX;

/// Part of a snapshot, as the store exported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Term of the sending leader.
    pub term: Term,
    /// What the whole snapshot contains.
    pub position: Position,
    /// Number of this chunk, from 0.
    pub seq: u64,
    /// Checksummed by the store.
    #[serde(with = "kvraft_base::thin::field")]
    pub bytes: Bytes,
}

impl Frame {
    /// Bytes to hand to the transport.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        // In one piece from the start: growing copies what is there again and again.
        let mut writer = Writer::with_capacity(self.size_bytes_about());
        match self {
            Self::Raft(messages) => {
                writer.u8(KIND_RAFT).count(messages.len());
                for message in messages {
                    message.encode(&mut writer);
                }
            }
            Self::Forward { attempt, command } => {
                attempt.encode(writer.u8(KIND_FORWARD));
                writer.bytes(command);
            }
            Self::ForwardChange { attempt, changes } => {
                attempt.encode(writer.u8(KIND_FORWARD_CHANGE));
                encode_changes(&mut writer, changes);
            }
            Self::ChangeDone { attempt, index, members } => {
                attempt.encode(writer.u8(9));
                writer.u64(index.0).bytes(&members.encode());
            }
            Self::ForwardRefused { attempt, reason } => {
                attempt.encode(writer.u8(3));
                reason.encode(&mut writer);
            }
            Self::ForwardLost { attempt } => attempt.encode(writer.u8(6)),
            Self::SnapshotUnknown { position } => position.encode(writer.u8(7)),
            Self::VersionsWanted { round } => round.encode(writer.u8(10)),
            Self::Versions { round, versions } => {
                round.encode(writer.u8(11));
                writer.u32(versions.oldest).u32(versions.newest);
            }
            Self::SnapshotChunk(chunk) => {
                writer.u8(KIND_SNAPSHOT_CHUNK).u64(chunk.term.0);
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

    /// The encoding is about as long when it is long.
    fn size_bytes_about(&self) -> usize {
        const FIXED_BYTES: usize = 64;
        FIXED_BYTES
            + match self {
                Self::Raft(messages) => messages.iter().map(message_size_bytes_max).sum(),
                Self::Forward { command, .. } => command.len(),
                Self::SnapshotChunk(chunk) => chunk.bytes.len(),
                // Rare, and of a few kilobytes at most.
                Self::ForwardChange { .. }
                | Self::ChangeDone { .. }
                | Self::ForwardRefused { .. }
                | Self::ForwardLost { .. }
                | Self::VersionsWanted { .. }
                | Self::Versions { .. }
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
            KIND_RAFT => Self::Raft(decode_messages(&mut reader)?),
            KIND_FORWARD => Self::Forward {
                attempt: Attempt::decode(&mut reader)?,
                command: reader.bytes("command")?,
            },
            3 => Self::ForwardRefused {
                attempt: Attempt::decode(&mut reader)?,
                reason: ForwardRefusal::decode(&mut reader)?,
            },
            KIND_SNAPSHOT_CHUNK => Self::SnapshotChunk(SnapshotChunk {
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
            KIND_FORWARD_CHANGE => Self::ForwardChange {
                attempt: Attempt::decode(&mut reader)?,
                changes: decode_changes(&mut reader)?,
            },
            9 => Self::ChangeDone {
                attempt: Attempt::decode(&mut reader)?,
                index: Index(reader.u64("index of the change")?),
                members: Members::decode(reader.bytes("members")?)?,
            },
            10 => Self::VersionsWanted { round: Round::decode(&mut reader)? },
            11 => Self::Versions {
                round: Round::decode(&mut reader)?,
                versions: Versions {
                    oldest: reader.u32("oldest version")?,
                    newest: reader.u32("newest version")?,
                },
            },
            other => {
                return Err(DecodeError::Unknown { what: "frame kind", value: u64::from(other) });
            }
        };
        reader.finish()?;
        Ok(frame)
    }

    /// Whether an encoded frame passes on what a client wants: the kinds whose loss before they
    /// left must be told to the node ([`crate::NodeIn::Undelivered`]), since nothing repeats them.
    #[must_use]
    pub fn is_forward(encoded: &[u8]) -> bool {
        matches!(encoded.first(), Some(&(KIND_FORWARD | KIND_FORWARD_CHANGE)))
    }

    /// The beginning of an encoded frame, before the first payload that it can hold: what is the
    /// same where payloads were left out or replaced.
    #[must_use]
    pub fn head(encoded: &[u8]) -> &[u8] {
        let is_raft = encoded.first() == Some(&KIND_RAFT);
        let size = if is_raft { RAFT_HEAD_BYTES } else { OTHER_HEAD_BYTES };
        &encoded[..encoded.len().min(size)]
    }

    /// What stands before the bytes of a part of a snapshot, if an encoded frame is one.
    pub(crate) fn chunk_head(encoded: &[u8]) -> Option<&[u8]> {
        let (head, bytes) = encoded.split_at_checked(CHUNK_HEAD_BYTES)?;
        let size = u32::try_from(bytes.len()).ok()?.to_le_bytes();
        (head[0] == KIND_SNAPSHOT_CHUNK && head.ends_with(&size)).then_some(head)
    }

    /// The attempt that this frame makes, if it passes on what a client wants.
    #[must_use]
    pub fn attempt(&self) -> Option<Attempt> {
        match self {
            Self::Forward { attempt, .. } | Self::ForwardChange { attempt, .. } => Some(*attempt),
            Self::Raft(_)
            | Self::ChangeDone { .. }
            | Self::ForwardRefused { .. }
            | Self::ForwardLost { .. }
            | Self::VersionsWanted { .. }
            | Self::Versions { .. }
            | Self::SnapshotChunk(_)
            | Self::SnapshotTaken { .. }
            | Self::SnapshotUnknown { .. } => None,
        }
    }

    /// What to answer, encoded, to an encoded frame that arrived and finds no room. `None`: no
    /// answer is due, since its sender repeats what gets lost.
    #[must_use]
    pub fn answer_to_dropped(encoded: &Bytes) -> Option<Bytes> {
        if !Self::is_forward(encoded) {
            return None;
        }
        let attempt = Self::decode(encoded.clone()).ok()?.attempt()?;
        Some(Self::ForwardRefused { attempt, reason: ForwardRefusal::Busy }.encode())
    }
}

/// Kind, count; sender, receiver, term, kind, previous position, commit and count of an Append.
const RAFT_HEAD_BYTES: usize = 1 + 4 + 8 + 8 + 8 + 1 + 16 + 8 + 4;
/// Kind, attempt and length of a forwarded command.
const OTHER_HEAD_BYTES: usize = 1 + 24 + 4;
const KIND_RAFT: u8 = 1;
const KIND_SNAPSHOT_CHUNK: u8 = 4;
/// Kind, term, position, number and length.
pub(crate) const CHUNK_HEAD_BYTES: usize = 1 + 8 + 16 + 8 + 4;
const KIND_FORWARD: u8 = 2;
const KIND_FORWARD_CHANGE: u8 = 8;

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

impl Round {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.incarnation).u64(self.number);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { incarnation: reader.u64("incarnation")?, number: reader.u64("round")? })
    }
}

pub(crate) fn encode_changes(writer: &mut Writer, changes: &[Change]) {
    writer.count(changes.len());
    for change in changes {
        change.encode(writer);
    }
}

/// No change is shorter: kind and member.
const CHANGE_SIZE_BYTES_MIN: usize = 1 + 8;

pub(crate) fn decode_changes(reader: &mut Reader) -> Result<Vec<Change>, DecodeError> {
    let what = "change count";
    let count = reader.count(what, CHANGE_SIZE_BYTES_MIN)?;
    if CHANGES_MAX < count {
        let (value, limit) = (count as u64, CHANGES_MAX as u64);
        return Err(DecodeError::TooLarge { what, value, limit });
    }
    (0..count).map(|_| Change::decode(reader)).collect()
}

/// How long a wish for other members is, encoded.
pub(crate) fn changes_size_bytes(changes: &[Change]) -> usize {
    let mut writer = Writer::new();
    encode_changes(&mut writer, changes);
    writer.finish().len()
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
