//! What clients ask: etcd's request messages, field by field, as plain structs.
//!
//! Invariants:
//! - a byte string that is empty means "absent", as in proto3;
//! - `range_end` empty is the single key, `"\0"` is "everything from `key` on", anything else is
//!   the exclusive end.
//!
//! What it lacks: requests of leases, watches and auth.

use bytes::Bytes;
use kvraft_base::{ClientId, Revision};

use crate::refused::Refused;

/// In which order a range is returned. Numbers are etcd's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortOrder {
    /// Natural order for keys, ascending for any other target.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Greatest first.
    Descend,
}

impl SortOrder {
    /// All, each at the place of its number.
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Ascend, Self::Descend];
}

impl TryFrom<i32> for SortOrder {
    type Error = Refused;

    /// Reads etcd's number.
    fn try_from(number: i32) -> Result<Self, Refused> {
        pick(&Self::ALL, number).ok_or(Refused::InvalidSortOption)
    }
}

/// By which field a range is sorted. Numbers are etcd's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// How often the key was written since it was created.
    Version,
    /// Revision of creation.
    Create,
    /// Revision of the last change.
    Mod,
    /// The value.
    Value,
}

impl SortTarget {
    /// All, each at the place of its number.
    pub(crate) const ALL: [Self; 5] =
        [Self::Key, Self::Version, Self::Create, Self::Mod, Self::Value];
}

impl TryFrom<i32> for SortTarget {
    type Error = Refused;

    /// Reads etcd's number.
    fn try_from(number: i32) -> Result<Self, Refused> {
        pick(&Self::ALL, number).ok_or(Refused::InvalidSortOption)
    }
}

fn pick<T: Copy>(all: &[T], number: i32) -> Option<T> {
    usize::try_from(number).ok().and_then(|number| all.get(number)).copied()
}

/// Reads keys at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeRequest {
    /// First key.
    pub key: Bytes,
    /// Exclusive end; see the module.
    pub range_end: Bytes,
    /// Most pairs to return; 0 or less is no limit.
    pub limit: i64,
    /// At which revision; 0 or less is the newest (but see [`RequestOp`] within a transaction).
    pub revision: Revision,
    /// Order of the pairs.
    pub sort_order: SortOrder,
    /// What the order is of.
    pub sort_target: SortTarget,
    /// Whether a member may answer from its own state without asking the leader. Carried for the
    /// caller; the state machine itself does not look at it.
    pub serializable: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return only the count.
    pub count_only: bool,
    /// Leave out pairs last changed before; 0 is no filter.
    pub min_mod_revision: Revision,
    /// Leave out pairs last changed after; 0 is no filter.
    pub max_mod_revision: Revision,
    /// Leave out pairs created before; 0 is no filter.
    pub min_create_revision: Revision,
    /// Leave out pairs created after; 0 is no filter.
    pub max_create_revision: Revision,
}

/// Writes one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PutRequest {
    /// Which key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
    /// The lease to attach; 0 is none.
    pub lease: i64,
    /// Return the pair as it was before.
    pub prev_kv: bool,
    /// Keep the value, change only the lease; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease, change only the value; the key must exist.
    pub ignore_lease: bool,
}

/// Deletes keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeleteRangeRequest {
    /// First key.
    pub key: Bytes,
    /// Exclusive end; see the module.
    pub range_end: Bytes,
    /// Return the pairs as they were before.
    pub prev_kv: bool,
}

/// How a comparison must come out. Numbers are etcd's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CompareResult {
    /// The stored field equals the given one.
    #[default]
    Equal,
    /// The stored field is greater.
    Greater,
    /// The stored field is less.
    Less,
    /// The stored field differs.
    NotEqual,
}

impl CompareResult {
    /// All, each at the place of its number.
    pub(crate) const ALL: [Self; 4] = [Self::Equal, Self::Greater, Self::Less, Self::NotEqual];
}

impl TryFrom<i32> for CompareResult {
    type Error = Refused;

    /// Reads etcd's number.
    fn try_from(number: i32) -> Result<Self, Refused> {
        pick(&Self::ALL, number).ok_or(Refused::InvalidCompare)
    }
}

/// What is compared, and with what. etcd numbers the fields in this order from 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The revision of creation.
    Create(Revision),
    /// The revision of the last change.
    Mod(Revision),
    /// The value; never holds for a missing key.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

impl Default for CompareTarget {
    fn default() -> Self {
        Self::Version(0)
    }
}

/// One condition of a transaction; with a `range_end`, it must hold for every key in the range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compare {
    /// How the comparison must come out.
    pub result: CompareResult,
    /// What is compared with what.
    pub target: CompareTarget,
    /// First key.
    pub key: Bytes,
    /// Exclusive end; see the module.
    pub range_end: Bytes,
}

/// One operation of a transaction.
///
/// Unlike in a plain range, a negative revision of a range in here is checked, and may be refused
/// as compacted. An operation that a client left empty has no place here; etcd refuses it with
/// [`Refused::KeyNotFound`], and so should who parses the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestOp {
    /// Read.
    Range(RangeRequest),
    /// Write.
    Put(PutRequest),
    /// Delete.
    DeleteRange(DeleteRangeRequest),
    /// A transaction within; its comparisons see the state before the outermost one.
    Txn(TxnRequest),
}

/// Comparisons, and what to do if all hold or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TxnRequest {
    /// All must hold for `success`.
    pub compare: Vec<Compare>,
    /// Done in order if all comparisons hold.
    pub success: Vec<RequestOp>,
    /// Done in order otherwise.
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// Whether both branches only read, so that it needs no log entry. A nested transaction counts
    /// as a write, as in etcd, even if it only reads.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.ops().all(|op| matches!(op, RequestOp::Range(_)))
    }

    /// Whether every operation is a serializable range, so that any member may answer alone.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        self.ops().all(|op| matches!(op, RequestOp::Range(range) if range.serializable))
    }

    fn ops(&self) -> impl Iterator<Item = &RequestOp> {
        self.success.iter().chain(&self.failure)
    }
}

/// Forgets history up to a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompactRequest {
    /// Everything older than this becomes unreadable.
    pub revision: Revision,
    /// Whether the client waits until the records are gone from the disk. Carried for the caller.
    pub physical: bool,
}

/// What a log entry asks the state machine to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Write one key.
    Put(PutRequest),
    /// Delete keys.
    DeleteRange(DeleteRangeRequest),
    /// A transaction.
    Txn(TxnRequest),
    /// Forget history.
    Compact(CompactRequest),
    /// Open a session: the client's id is the index of this entry.
    OpenSession {
        /// The session expires when the replicated clock has moved by this much without a command
        /// of it, in milliseconds. 0 takes the default; see [`crate::SESSION_TTL_MS_MAX`].
        ttl_ms: u64,
    },
    /// End a session and forget its results.
    CloseSession {
        /// Whose.
        client: ClientId,
    },
    /// Have apply follow the rules of a newer cluster version from the next entry on. Only a leader
    /// asks for that, and only when all members know the version. Nothing happens if the cluster
    /// has it already.
    RaiseVersion {
        /// Which.
        version: u32,
    },
}

/// What is asked of the state without a log entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// Read keys.
    Range(RangeRequest),
    /// A transaction that only reads: see [`TxnRequest::is_readonly`].
    Txn(TxnRequest),
    /// etcd's hash over the records up to a revision; 0 is the newest.
    HashKv {
        /// Up to and with.
        revision: Revision,
    },
    /// A hash over every record in the table.
    Hash,
}
