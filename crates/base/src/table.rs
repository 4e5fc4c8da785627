//! The vocabulary between the deciding state machine and the table that keeps its state.

use std::ops::ControlFlow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Position, disk::DiskError};

/// The tables of a store. Numbers are part of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TableId {
    /// 17-byte revision key → protobuf `KeyValue`, as etcd's backend has it.
    Records,
    /// Client id → session with its window of results.
    Sessions,
    /// Single values: applied position, configuration, compaction, cluster version.
    Meta,
    /// Lease id → lease. Its place in the format; leases are not granted yet.
    Leases,
}

/// Key in [`TableId::Meta`] of the applied position: term then index, `u64` little-endian each.
pub const META_APPLIED: &[u8] = b"applied";
/// Key in [`TableId::Meta`] of the configuration in force at the applied position, encoded by
/// [`crate::Members::encode`]; absent as long as the bootstrap configuration is.
pub const META_MEMBERS: &[u8] = b"members";

impl TableId {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Records, Self::Sessions, Self::Meta, Self::Leases];
}

/// One change to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableOp {
    /// Set `key` to `value`.
    Put {
        /// Where.
        table: TableId,
        /// Key within the table.
        key: Bytes,
        /// New value.
        value: Bytes,
    },
    /// Remove `key`; nothing happens if it is not there.
    Delete {
        /// Where.
        table: TableId,
        /// Key within the table.
        key: Bytes,
    },
}

impl TableOp {
    /// Bytes of key and value.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
        }
    }
}

/// A batch of changes that becomes durable atomically: the state as of `applied`.
///
/// Invariant: the ops include the one that records `applied` itself in [`TableId::Meta`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last entry whose effects are in the table once this is durable.
    pub applied: Position,
    /// What to change, in order.
    pub ops: Vec<TableOp>,
}

/// Something that was once durable is missing or unreadable. Never "not found": the server must be
/// rebuilt from a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The index names a record that the table does not have, or bytes failed their checksum.
    #[error("{what}: {detail}")]
    Lost {
        /// Which file, table or record.
        what: String,
        /// What was found instead.
        detail: String,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Called with each row; breaks to stop a scan early.
pub type RowVisitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Read access to what has been settled in the tables.
pub trait Records {
    /// The value of `key`, if it is there.
    ///
    /// # Errors
    /// [`Damage`] when the bytes cannot be believed or read.
    fn read(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Damage>;

    /// Visits the rows with `first <= key`, and `key < end` if there is an end, in key order.
    ///
    /// # Errors
    /// [`Damage`] when the bytes cannot be believed or read.
    fn scan(
        &self,
        table: TableId,
        first: &[u8],
        end: Option<&[u8]>,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), Damage>;
}
