//! Why a request was not done, with etcd's codes and texts where etcd has the case.
//!
//! A refusal is a value of the state machine: the same on every member, and kept in a session's
//! window like any other result.

use kvraft_base::{ClientId, DecodeError, OpId, Reader, Writer};

/// gRPC status codes, with their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The request is wrong whatever the state.
    InvalidArgument = 3,
    /// Something that the request names does not exist.
    NotFound = 5,
    /// A bound was reached.
    ResourceExhausted = 8,
    /// The state does not allow it.
    FailedPrecondition = 9,
    /// A revision outside of the history that is kept.
    OutOfRange = 11,
    /// The request is known but not served here.
    Unimplemented = 12,
    /// What arrived cannot be understood.
    Internal = 13,
}

/// Why a request was not done. `Display` is the exact text that clients see.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// A key is empty.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// A put that keeps value or lease names a key that is not there; or an empty operation.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A put both keeps the value and gives one.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A put both keeps the lease and gives one.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// More than [`kvraft_base::limits::TXN_OPS_MAX`] comparisons or operations.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A transaction writes one key twice, or writes what it also deletes.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// Sort order or target is not a known number.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The request is over [`kvraft_base::limits::REQUEST_SIZE_BYTES_MAX`].
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// Comparison result or target is not a known number. etcd lets such a comparison hold.
    #[error("kvraft: invalid compare option")]
    InvalidCompare,
    /// The revision was compacted away.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision has not happened yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The lease does not exist.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A command names a session that does not exist (any more).
    #[error("kvraft: session unknown or expired")]
    SessionUnknown,
    /// A command repeats an operation whose result the client had already acknowledged.
    #[error("kvraft: operation {op} of session {client} was already acknowledged")]
    OpAcknowledged {
        /// Whose.
        client: ClientId,
        /// Which.
        op: OpId,
    },
    /// The session holds as many unacknowledged results as it may; the operation was not done.
    #[error("kvraft: session {client} has too many unacknowledged results")]
    WindowFull {
        /// Whose.
        client: ClientId,
    },
    /// All sessions together hold as many results as they may; the operation was not done.
    #[error("kvraft: too many unacknowledged results in all sessions")]
    ResultsFull,
    /// There are as many sessions as there may be.
    #[error("kvraft: too many sessions")]
    TooManySessions,
    /// The operation was done before, but its result was too large to keep.
    #[error(
        "kvraft: operation {op} of session {client} was done, its result was too large to keep"
    )]
    ResultDropped {
        /// Whose.
        client: ClientId,
        /// Which.
        op: OpId,
    },
    /// A transaction that writes was asked as a query.
    #[error("kvraft: transaction writes and needs a log entry")]
    NotReadonly,
    /// What an answer gathers is over [`crate::ANSWER_SIZE_BYTES_MAX`].
    #[error("kvraft: the answer is too large; read it in parts, with a limit")]
    AnswerTooLarge,
    /// The command in the log cannot be decoded by this version.
    #[error("kvraft: command cannot be decoded")]
    Undecodable,
}

impl Refused {
    /// The gRPC code that goes with it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::TooManyOps
            | Self::DuplicateKey
            | Self::InvalidSortOption
            | Self::TooLarge
            | Self::InvalidCompare => Code::InvalidArgument,
            Self::Compacted | Self::FutureRevision => Code::OutOfRange,
            Self::LeaseNotFound => Code::NotFound,
            Self::SessionUnknown | Self::OpAcknowledged { .. } | Self::ResultDropped { .. } => {
                Code::FailedPrecondition
            }
            Self::WindowFull { .. }
            | Self::ResultsFull
            | Self::TooManySessions
            | Self::AnswerTooLarge => Code::ResourceExhausted,
            Self::NotReadonly => Code::Unimplemented,
            Self::Undecodable => Code::Internal,
        }
    }

    /// Those without fields, each at the place of its number in the encoding.
    const PLAIN: [Self; 18] = [
        Self::EmptyKey,
        Self::KeyNotFound,
        Self::ValueProvided,
        Self::LeaseProvided,
        Self::TooManyOps,
        Self::DuplicateKey,
        Self::InvalidSortOption,
        Self::TooLarge,
        Self::InvalidCompare,
        Self::Compacted,
        Self::FutureRevision,
        Self::LeaseNotFound,
        Self::SessionUnknown,
        Self::ResultsFull,
        Self::TooManySessions,
        Self::NotReadonly,
        Self::Undecodable,
        Self::AnswerTooLarge,
    ];

    /// Appends the encoding: a number, then the fields if there are any.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::OpAcknowledged { client, op } => {
                writer.u8(TAG_OP_ACKNOWLEDGED).u64(client.0).u64(op.0);
            }
            Self::WindowFull { client } => {
                writer.u8(TAG_WINDOW_FULL).u64(client.0);
            }
            Self::ResultDropped { client, op } => {
                writer.u8(TAG_RESULT_DROPPED).u64(client.0).u64(op.0);
            }
            plain => {
                let tag = Self::PLAIN.iter().position(|other| other == plain);
                let tag = tag.expect("every refusal without fields is in PLAIN: tested");
                writer.u8(u8::try_from(tag).expect("PLAIN has 18 places"));
            }
        }
    }

    /// Reads an encoding back.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let tag = reader.u8("refusal")?;
        match tag {
            TAG_OP_ACKNOWLEDGED => Ok(Self::OpAcknowledged {
                client: ClientId(reader.u64("client")?),
                op: OpId(reader.u64("op")?),
            }),
            TAG_WINDOW_FULL => Ok(Self::WindowFull { client: ClientId(reader.u64("client")?) }),
            TAG_RESULT_DROPPED => Ok(Self::ResultDropped {
                client: ClientId(reader.u64("client")?),
                op: OpId(reader.u64("op")?),
            }),
            plain => Self::PLAIN
                .get(usize::from(plain))
                .cloned()
                .ok_or_else(|| DecodeError::Unknown { what: "refusal", value: u64::from(plain) }),
        }
    }
}

const TAG_OP_ACKNOWLEDGED: u8 = 128;
const TAG_WINDOW_FULL: u8 = 129;
const TAG_RESULT_DROPPED: u8 = 130;
