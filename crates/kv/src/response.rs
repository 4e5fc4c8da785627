//! What the state machine answers: etcd's response messages, field by field.
//!
//! `revision` is what goes into the response's header.

use kvraft_base::{ClientId, Revision};

use crate::key_value::KeyValue;

/// Pairs of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeResponse {
    /// The store's revision when this was read, not the one asked for.
    pub revision: Revision,
    /// The pairs, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the pairs.
    pub more: bool,
    /// How many keys the range holds at that revision, whatever the limit and the filters.
    pub count: i64,
}

/// One key was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PutResponse {
    /// The revision of the write.
    pub revision: Revision,
    /// The pair as it was before, if asked for and there.
    pub prev_kv: Option<KeyValue>,
}

/// Keys were deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeleteRangeResponse {
    /// The revision of the deletion; the current one if nothing was there.
    pub revision: Revision,
    /// How many keys.
    pub deleted: i64,
    /// The pairs as they were before, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResponseOp {
    /// Read.
    Range(RangeResponse),
    /// Written.
    Put(PutResponse),
    /// Deleted.
    DeleteRange(DeleteRangeResponse),
    /// A transaction within. Its revision is 0, as in etcd: only the outermost has a header.
    Txn(TxnResponse),
}

/// A transaction was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TxnResponse {
    /// The store's revision afterwards.
    pub revision: Revision,
    /// Whether all comparisons held.
    pub succeeded: bool,
    /// One for each operation of the branch that was taken.
    pub responses: Vec<ResponseOp>,
}

/// History was forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompactResponse {
    /// The store's revision.
    pub revision: Revision,
}

/// etcd's hash over the records up to a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HashKvResponse {
    /// The store's revision.
    pub revision: Revision,
    /// CRC-32C.
    pub hash: u32,
    /// The compaction that the hash assumes; -1 if there was none.
    pub compact_revision: Revision,
    /// Up to and with which revision it covers.
    pub hash_revision: Revision,
}

/// What came of a [`crate::Request`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Response {
    /// Written.
    Put(PutResponse),
    /// Deleted.
    DeleteRange(DeleteRangeResponse),
    /// Done.
    Txn(TxnResponse),
    /// Forgotten.
    Compact(CompactResponse),
    /// The session exists from now on.
    SessionOpened {
        /// The store's revision.
        revision: Revision,
        /// Its id.
        client: ClientId,
    },
    /// The session exists no more.
    SessionClosed {
        /// The store's revision.
        revision: Revision,
    },
    /// The cluster has a version that is as new as the wanted one.
    VersionRaised {
        /// The store's revision.
        revision: Revision,
        /// The cluster's version.
        version: u32,
    },
}

impl Response {
    /// The revision for the header.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(response) => response.revision,
            Self::DeleteRange(response) => response.revision,
            Self::Txn(response) => response.revision,
            Self::Compact(response) => response.revision,
            Self::SessionOpened { revision, .. }
            | Self::SessionClosed { revision }
            | Self::VersionRaised { revision, .. } => *revision,
        }
    }
}

/// What came of a [`crate::Query`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Pairs.
    Range(RangeResponse),
    /// A read-only transaction.
    Txn(TxnResponse),
    /// etcd's hash.
    HashKv(HashKvResponse),
    /// A hash over every record.
    Hash {
        /// The store's revision.
        revision: Revision,
        /// CRC-32C.
        hash: u32,
    },
}
