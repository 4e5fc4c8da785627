//! Everything that can happen to a server of the group.
//!
//! Why one enum that encodes to bytes: a recorded list of inputs, with their times, replays a run
//! exactly.
//!
//! Invariant: only [`Input::Receive`] comes from outside. The others are this server's own parts
//! speaking, and their lies are bugs.

use bytes::Bytes;
use kvraft_base::{
    DecodeError, Entry, EntryKind, Index, MemberId, Members, Position, Reader, Ticket, WriteId,
    Writer,
};

use crate::{
    Change,
    message::{Message, decode_entries, encode_entries},
};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A peer's message arrived. Anything may be in it.
    Receive(Message),
    /// A local request wants an entry in the log. Answered in the same turn.
    Propose {
        /// Names the request in the answer.
        ticket: Ticket,
        /// Kind of the entry.
        kind: EntryKind,
        /// Payload of the entry.
        payload: Bytes,
    },
    /// A local request wants to read what is linearizable from now on.
    Read {
        /// Names the request in the answer.
        ticket: Ticket,
    },
    /// This write, and all before it, are durable.
    Durable {
        /// The write.
        write: WriteId,
    },
    /// The machine has applied everything handed to it up to here.
    Applied {
        /// The last applied entry.
        index: Index,
    },
    /// The journal no longer holds entries up to here.
    Released {
        /// The entry before the journal's first.
        position: Position,
    },
    /// The answer to a fetch.
    Fetched {
        /// Names the fetch.
        id: u64,
        /// What was read, at least one entry; `None` when it is gone or damaged.
        entries: Option<Vec<Entry>>,
    },
    /// The store starts to replace table and journal by a snapshot that [`Raft`](crate::Raft)
    /// expected. From here on until the end is told, nothing is appended to the log.
    SnapshotInstalling {
        /// What the snapshot contains.
        position: Position,
    },
    /// The store has durably replaced table and journal; the log restarts there.
    SnapshotInstalled {
        /// What the snapshot contains.
        position: Position,
        /// The configuration in force there.
        members: Members,
    },
    /// An installation that was begun has been given up; table and journal are as they were.
    SnapshotAbandoned,
    /// How a snapshot that this server sent has ended.
    SnapshotReport {
        /// The receiver.
        to: MemberId,
        /// What the receiver installed; `None` when it failed or was aborted.
        position: Option<Position>,
    },
    /// A connection to this peer is up.
    Connected {
        /// The peer.
        peer: MemberId,
    },
    /// The connection to this peer has closed.
    Disconnected {
        /// The peer.
        peer: MemberId,
    },
    /// A local request wants other members. Answered in the same turn, among the proposals; the
    /// change is over when a configuration at or after the answered position is committed and not
    /// joint.
    ChangeMembers {
        /// Names the request in the answer.
        ticket: Ticket,
        /// All or none of them are made.
        changes: Vec<Change>,
    },
    /// A local request wants another server to lead. Answered when that is so, or after at most an
    /// election timeout.
    Transfer {
        /// Names the request in the answer.
        ticket: Ticket,
        /// Who; the most up-to-date voter that is reachable if `None`.
        to: Option<MemberId>,
    },
    /// Somebody outside says that the leader is dead. Only a hint, and it may be a lie.
    LeaderSuspected,
}

impl Input {
    /// Appends the encoding.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Receive(message) => message.encode(writer.u8(1)),
            Self::Propose { ticket, kind, payload } => {
                writer.u8(2).u64(ticket.0).u8(kind.to_u8()).bytes(payload);
            }
            Self::Read { ticket } => {
                writer.u8(3).u64(ticket.0);
            }
            Self::Durable { write } => {
                writer.u8(4).u64(write.0);
            }
            Self::Applied { index } => {
                writer.u8(5).u64(index.0);
            }
            Self::Released { position } => position.encode(writer.u8(6)),
            Self::Fetched { id, entries } => {
                writer.u8(7).u64(*id).bool(entries.is_some());
                if let Some(entries) = entries {
                    encode_entries(writer, entries);
                }
            }
            Self::SnapshotInstalling { position } => position.encode(writer.u8(8)),
            Self::SnapshotInstalled { position, members } => {
                position.encode(writer.u8(9));
                writer.bytes(&members.encode());
            }
            Self::SnapshotAbandoned => {
                writer.u8(10);
            }
            Self::SnapshotReport { to, position } => {
                writer.u8(11).u64(to.0).bool(position.is_some());
                if let Some(position) = position {
                    position.encode(writer);
                }
            }
            Self::Connected { peer } => {
                writer.u8(12).u64(peer.0);
            }
            Self::Disconnected { peer } => {
                writer.u8(13).u64(peer.0);
            }
            Self::ChangeMembers { ticket, changes } => {
                writer.u8(14).u64(ticket.0).count(changes.len());
                for change in changes {
                    change.encode(writer);
                }
            }
            Self::Transfer { ticket, to } => {
                writer.u8(15).u64(ticket.0).bool(to.is_some());
                if let Some(to) = to {
                    writer.u64(to.0);
                }
            }
            Self::LeaderSuspected => {
                writer.u8(16);
            }
        }
    }

    /// Reads one input.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("input kind")? {
            1 => Self::Receive(Message::decode(reader)?),
            2 => Self::Propose {
                ticket: Ticket(reader.u64("ticket")?),
                kind: EntryKind::from_u8(reader.u8("entry kind")?)?,
                payload: reader.bytes("payload")?,
            },
            3 => Self::Read { ticket: Ticket(reader.u64("ticket")?) },
            4 => Self::Durable { write: WriteId(reader.u64("write")?) },
            5 => Self::Applied { index: Index(reader.u64("applied")?) },
            6 => Self::Released { position: Position::decode(reader)? },
            7 => Self::Fetched {
                id: reader.u64("fetch")?,
                entries: optional(reader, decode_entries)?,
            },
            8 => Self::SnapshotInstalling { position: Position::decode(reader)? },
            9 => Self::SnapshotInstalled {
                position: Position::decode(reader)?,
                members: Members::decode(reader.bytes("members")?)?,
            },
            10 => Self::SnapshotAbandoned,
            11 => Self::SnapshotReport {
                to: MemberId(reader.u64("peer")?),
                position: optional(reader, Position::decode)?,
            },
            12 => Self::Connected { peer: MemberId(reader.u64("peer")?) },
            13 => Self::Disconnected { peer: MemberId(reader.u64("peer")?) },
            14 => Self::ChangeMembers {
                ticket: Ticket(reader.u64("ticket")?),
                changes: decode_changes(reader)?,
            },
            15 => Self::Transfer {
                ticket: Ticket(reader.u64("ticket")?),
                to: optional(reader, |reader| reader.u64("successor").map(MemberId))?,
            },
            16 => Self::LeaderSuspected,
            other => {
                return Err(DecodeError::Unknown { what: "input kind", value: u64::from(other) });
            }
        })
    }
}

fn decode_changes(reader: &mut Reader) -> Result<Vec<Change>, DecodeError> {
    let count = reader.count("change count", 9)?;
    (0..count).map(|_| Change::decode(reader)).collect()
}

fn optional<T>(
    reader: &mut Reader,
    decode: fn(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    match reader.bool("present")? {
        true => decode(reader).map(Some),
        false => Ok(None),
    }
}
