//! What servers of a group say to each other.
//!
//! Why one struct with a body: every message is judged by sender and term before its contents are
//! looked at (Raft §5.1).
//!
//! Invariants:
//! - decoding never panics, and allocates no more than the input holds;
//! - [`Message::term`] is the sender's own term, in every message.
//!
//! Layout: `u64` from, `u64` to, `u64` term, `u8` kind, then the body's fields in declared order,
//! little-endian; positions are term then index; options are a byte 0 or 1 and the value.

use bytes::Bytes;
use kvraft_base::{DecodeError, Entry, Index, MemberId, Position, Reader, Term, Writer};
use serde::{Deserialize, Serialize};

/// One message between two servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Sender.
    pub from: MemberId,
    /// Receiver.
    pub to: MemberId,
    /// The sender's term when it made the message.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Would you vote for me? Changes nothing at the receiver (Ongaro 2014, §9.6).
    PreVoteRequest {
        /// The term the sender would campaign in: its own and one.
        campaign: Term,
        /// End of the sender's log.
        last: Position,
    },
    /// Answer to a [`Body::PreVoteRequest`].
    PreVoteAnswer {
        /// The asked campaign.
        campaign: Term,
        /// Whether the sender would vote.
        granted: bool,
    },
    /// Vote for me in the message's term.
    VoteRequest {
        /// End of the candidate's log.
        last: Position,
        /// The leader has asked the sender to take over: loyalty to it is waived.
        transfer: bool,
    },
    /// Answer to a [`Body::VoteRequest`] in the message's term.
    VoteAnswer {
        /// Whether the sender's one vote of this term is the receiver's.
        granted: bool,
    },
    /// Entries to append after `prev`; none when only the match is probed.
    Append {
        /// What the receiver's log must contain.
        prev: Position,
        /// The leader's commit index.
        commit: Index,
        /// Contiguous, the first follows `prev`.
        entries: Vec<Entry>,
    },
    /// Answer to an [`Body::Append`].
    AppendAnswer {
        /// Whether it matched.
        outcome: AppendOutcome,
    },
    /// The leader lives. Carries the round that linearizable reads wait for.
    Heartbeat {
        /// Number of this broadcast, never used twice by one leader. With the message's term, which
        /// has one leader, it is unique for ever.
        round: u64,
        /// The leader's commit index, no higher than what it knows the receiver to hold.
        commit: Index,
    },
    /// Answer to a [`Body::Heartbeat`]. Not a promise: it says only what is so already.
    HeartbeatAnswer {
        /// The answered round.
        round: u64,
        /// Highest index that the sender has seen to match this leader's log, durable or not.
        received: Index,
        /// End of the sender's log.
        last: Index,
        /// Highest position that matches this leader's log and is durable at the sender; 0 if none
        /// is known.
        matched: Position,
    },
    /// The commit index has moved and no Append was due. No answer.
    CommitNotice {
        /// As in a heartbeat.
        commit: Index,
    },
    /// The sender's table is gone and its log no longer reaches back to the beginning: it appends
    /// and votes, but cannot apply before it has a snapshot. Said with every heartbeat's answer.
    SnapshotWanted,
    /// A follower asks up to which index its waiting reads must be applied.
    ReadRequest {
        /// Never used twice by the sender.
        context: u64,
    },
    /// Answer to a [`Body::ReadRequest`].
    ReadAnswer {
        /// The asked context.
        context: u64,
        /// The read index; `None` when the sender does not lead.
        index: Option<Index>,
    },
    /// The leader hands over: campaign at once. No answer.
    TimeoutNow,
    /// A part of a snapshot is on its way beside this message: the leader lives.
    SnapshotNotice {
        /// What the snapshot contains.
        position: Position,
    },
}

/// How an Append was received.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// The log matches the leader's up to here and is durable.
    Accepted {
        /// Greatest position that is known to match.
        matched: Position,
    },
    /// The log does not contain `rejected`.
    Conflict {
        /// The `prev` of the Append.
        rejected: Position,
        /// Greatest position before `rejected` whose term is not above that of `rejected`: no
        /// match is possible between the two.
        hint: Position,
        /// The sender's commit index: every leader's log matches up to there.
        commit: Index,
        /// End of the sender's log.
        last: Index,
    },
}

impl Message {
    /// Appends the encoding.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.from.0).u64(self.to.0).u64(self.term.0);
        self.body.encode(writer);
    }

    /// Replaces the payloads of commands in it by others of the same length.
    pub fn replace_commands(&mut self, replace: &mut dyn FnMut(&Bytes) -> Bytes) {
        match &mut self.body {
            Body::Append { prev: _, commit: _, entries } => {
                entries.iter_mut().for_each(|entry| entry.replace_command(replace));
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
            | Body::SnapshotNotice { .. } => {}
        }
    }

    /// Reads one message.
    ///
    /// # Errors
    /// Any [`DecodeError`], of damaged entries too.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            from: MemberId(reader.u64("message sender")?),
            to: MemberId(reader.u64("message receiver")?),
            term: Term(reader.u64("message term")?),
            body: Body::decode(reader)?,
        })
    }
}

impl Body {
    /// The message's name, as in scripts and traces.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PreVoteRequest { .. } => "PreVoteRequest",
            Self::PreVoteAnswer { .. } => "PreVoteAnswer",
            Self::VoteRequest { .. } => "VoteRequest",
            Self::VoteAnswer { .. } => "VoteAnswer",
            Self::Append { .. } => "Append",
            Self::AppendAnswer { .. } => "AppendAnswer",
            Self::Heartbeat { .. } => "Heartbeat",
            Self::HeartbeatAnswer { .. } => "HeartbeatAnswer",
            Self::CommitNotice { .. } => "CommitNotice",
            Self::SnapshotWanted => "SnapshotWanted",
            Self::ReadRequest { .. } => "ReadRequest",
            Self::ReadAnswer { .. } => "ReadAnswer",
            Self::SnapshotNotice { .. } => "SnapshotNotice",
            Self::TimeoutNow => "TimeoutNow",
        }
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::PreVoteRequest { campaign, last } => {
                last.encode(writer.u8(1).u64(campaign.0));
            }
            Self::PreVoteAnswer { campaign, granted } => {
                writer.u8(2).u64(campaign.0).bool(*granted);
            }
            Self::VoteRequest { last, transfer } => {
                last.encode(writer.u8(3).bool(*transfer));
            }
            Self::VoteAnswer { granted } => {
                writer.u8(4).bool(*granted);
            }
            Self::Append { prev, commit, entries } => {
                prev.encode(writer.u8(5));
                writer.u64(commit.0);
                encode_entries(writer, entries);
            }
            Self::AppendAnswer { outcome } => outcome.encode(writer.u8(6)),
            Self::Heartbeat { round, commit } => {
                writer.u8(7).u64(*round).u64(commit.0);
            }
            Self::HeartbeatAnswer { round, received, last, matched } => {
                writer.u8(8).u64(*round).u64(received.0).u64(last.0);
                matched.encode(writer);
            }
            Self::CommitNotice { commit } => {
                writer.u8(9).u64(commit.0);
            }
            Self::SnapshotWanted => {
                writer.u8(14);
            }
            Self::ReadRequest { context } => {
                writer.u8(10).u64(*context);
            }
            Self::ReadAnswer { context, index } => {
                writer.u8(11).u64(*context).bool(index.is_some());
                if let Some(index) = index {
                    writer.u64(index.0);
                }
            }
            Self::SnapshotNotice { position } => position.encode(writer.u8(12)),
            Self::TimeoutNow => {
                writer.u8(13);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("message kind")? {
            1 => Self::PreVoteRequest {
                campaign: Term(reader.u64("campaign term")?),
                last: Position::decode(reader)?,
            },
            2 => Self::PreVoteAnswer {
                campaign: Term(reader.u64("campaign term")?),
                granted: reader.bool("granted")?,
            },
            3 => {
                let transfer = reader.bool("transfer")?;
                Self::VoteRequest { transfer, last: Position::decode(reader)? }
            }
            4 => Self::VoteAnswer { granted: reader.bool("granted")? },
            5 => Self::Append {
                prev: Position::decode(reader)?,
                commit: Index(reader.u64("commit")?),
                entries: decode_entries(reader)?,
            },
            6 => Self::AppendAnswer { outcome: AppendOutcome::decode(reader)? },
            7 => Self::Heartbeat {
                round: reader.u64("round")?,
                commit: Index(reader.u64("commit")?),
            },
            8 => Self::HeartbeatAnswer {
                round: reader.u64("round")?,
                received: Index(reader.u64("received")?),
                last: Index(reader.u64("last")?),
                matched: Position::decode(reader)?,
            },
            9 => Self::CommitNotice { commit: Index(reader.u64("commit")?) },
            14 => Self::SnapshotWanted,
            10 => Self::ReadRequest { context: reader.u64("context")? },
            11 => Self::decode_read_answer(reader)?,
            12 => Self::SnapshotNotice { position: Position::decode(reader)? },
            13 => Self::TimeoutNow,
            other => {
                return Err(DecodeError::Unknown { what: "message kind", value: u64::from(other) });
            }
        })
    }

    fn decode_read_answer(reader: &mut Reader) -> Result<Self, DecodeError> {
        let context = reader.u64("context")?;
        let index = match reader.bool("read index present")? {
            true => Some(Index(reader.u64("read index")?)),
            false => None,
        };
        Ok(Self::ReadAnswer { context, index })
    }
}

impl AppendOutcome {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Accepted { matched } => matched.encode(writer.u8(1)),
            Self::Conflict { rejected, hint, commit, last } => {
                rejected.encode(writer.u8(2));
                hint.encode(writer);
                writer.u64(commit.0).u64(last.0);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8("append outcome")? {
            1 => Ok(Self::Accepted { matched: Position::decode(reader)? }),
            2 => Ok(Self::Conflict {
                rejected: Position::decode(reader)?,
                hint: Position::decode(reader)?,
                commit: Index(reader.u64("commit")?),
                last: Index(reader.u64("last")?),
            }),
            other => Err(DecodeError::Unknown { what: "append outcome", value: u64::from(other) }),
        }
    }
}

pub(crate) fn encode_entries(writer: &mut Writer, entries: &[Entry]) {
    writer.count(entries.len());
    for entry in entries {
        entry.encode(writer);
    }
}

pub(crate) fn decode_entries(reader: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    let count = reader.count("entry count", Entry::OVERHEAD_BYTES)?;
    (0..count).map(|_| Entry::decode(reader)).collect()
}
