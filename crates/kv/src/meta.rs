//! The single values of the state, and their rows in [`TableId::Meta`].
//!
//! The row `state`: version (1), revision, compacted, clock_ms, cluster version; fixed-width
//! little-endian. Applied position and configuration have rows of their own, named by `base`.

use bytes::Bytes;
use kvraft_base::{DecodeError, META_APPLIED, Position, Reader, TableId, TableOp, Writer};
use serde::{Deserialize, Serialize};

/// The single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The last entry applied.
    pub(crate) applied: Position,
    /// The store's revision.
    pub(crate) revision: i64,
    /// The last compaction; -1 if there was none, as etcd has it.
    pub(crate) compacted: i64,
    /// The replicated clock: the greatest time any command carried, in milliseconds since 1970.
    pub(crate) clock_ms: u64,
    /// Which rules apply follows. Raised only once every member knows the next one.
    pub(crate) cluster_version: u32,
}

impl Meta {
    /// Before the first entry.
    pub(crate) const FRESH: Self = Self {
        applied: Position::ZERO,
        revision: 1,
        compacted: -1,
        clock_ms: 0,
        cluster_version: CLUSTER_VERSION,
    };

    /// The rows.
    pub(crate) fn ops(&self) -> [TableOp; 2] {
        let mut applied = Writer::new();
        self.applied.encode(&mut applied);
        let mut state = Writer::new();
        state
            .u8(VERSION)
            .i64(self.revision)
            .i64(self.compacted)
            .u64(self.clock_ms)
            .u32(self.cluster_version);
        [(META_APPLIED, applied), (META_STATE, state)].map(|(key, writer)| TableOp::Put {
            table: TableId::Meta,
            key: Bytes::from_static(key),
            value: writer.finish(),
        })
    }

    /// Reads the rows back.
    pub(crate) fn decode(applied: Bytes, state: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(applied);
        let applied = Position::decode(&mut reader)?;
        reader.finish()?;
        let mut reader = Reader::new(state);
        let version = reader.u8("state version")?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "state version", value: version.into() });
        }
        let meta = Self {
            applied,
            revision: reader.i64("revision")?,
            compacted: reader.i64("compacted revision")?,
            clock_ms: reader.u64("replicated clock")?,
            cluster_version: reader.u32("cluster version")?,
        };
        reader.finish()?;
        if CLUSTER_VERSION < meta.cluster_version {
            let value = u64::from(meta.cluster_version);
            return Err(DecodeError::Unknown { what: "cluster version", value });
        }
        Ok(meta)
    }
}

/// Key of the row.
pub(crate) const META_STATE: &[u8] = b"state";
const VERSION: u8 = 1;
const CLUSTER_VERSION: u32 = 1;
