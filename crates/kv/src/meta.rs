//! The single values of the state, and their rows in [`TableId::Meta`].
//!
//! The row `state`: version of the row, revision, compacted, clock_ms, cluster version; fixed-width
//! little-endian. The first 29 bytes are the same in every row there will ever be, so that a build
//! which does not know the row can name the cluster version. The row of version 2, written from
//! cluster version 2 on, goes on with the leader's clock: term, time_ms.
//! Applied position and configuration have rows of their own, named by `base`.

use bytes::Bytes;
use kvraft_base::{
    DecodeError, META_APPLIED, Position, Reader, Records, TableId, TableOp, Term, Writer,
};
use serde::{Deserialize, Serialize};

use crate::{
    damage::{lost, undecodable},
    version::{StateError, Unsupported, VERSION_FIRST, VERSION_TERM_CLOCK, Versions},
};

/// The single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The last entry applied.
    pub(crate) applied: Position,
    /// The store's revision.
    pub(crate) revision: i64,
    /// The last compaction; -1 if there was none, as etcd has it.
    pub(crate) compacted: i64,
    /// The replicated clock, in milliseconds. Never goes back. It began as milliseconds since 1970,
    /// and nothing rests on that: sessions only look at differences.
    pub(crate) clock_ms: u64,
    /// Which rules apply follows. Raised only once every member knows the next one.
    pub(crate) cluster_version: u32,
    /// Whose time has moved the clock last; of nobody before [`VERSION_TERM_CLOCK`].
    pub(crate) leader_clock: LeaderClock,
}

/// The wall clock of one leader, as its commands have carried it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderClock {
    /// The leader's term.
    pub(crate) term: Term,
    /// The greatest time that a command of this term has carried, in milliseconds since 1970.
    pub(crate) time_ms: u64,
}

impl Meta {
    /// Before the first entry.
    pub(crate) const FRESH: Self = Self {
        applied: Position::ZERO,
        revision: 1,
        compacted: -1,
        clock_ms: 0,
        cluster_version: VERSION_FIRST,
        leader_clock: LeaderClock { term: Term::ZERO, time_ms: 0 },
    };

    /// A command of this term carries this time.
    pub(crate) fn advance_clock(&mut self, term: Term, time_ms: u64) {
        if self.cluster_version < VERSION_TERM_CLOCK {
            self.clock_ms = self.clock_ms.max(time_ms);
            return;
        }
        let before = self.leader_clock;
        // The wall clocks of two leaders have nothing to do with each other.
        let time_ms = if before.term == term { before.time_ms.max(time_ms) } else { time_ms };
        if before.term == term {
            self.clock_ms = self.clock_ms.saturating_add(time_ms - before.time_ms);
        }
        self.leader_clock = LeaderClock { term, time_ms };
    }

    /// From the next entry on the rules of this version hold, unless those of a newer one do.
    pub(crate) fn raise(&mut self, version: u32, term: Term, time_ms: u64) {
        if self.cluster_version < VERSION_TERM_CLOCK && VERSION_TERM_CLOCK <= version {
            self.leader_clock = LeaderClock { term, time_ms };
        }
        self.cluster_version = self.cluster_version.max(version);
    }

    /// The rows.
    pub(crate) fn ops(&self) -> [TableOp; 2] {
        let mut applied = Writer::new();
        self.applied.encode(&mut applied);
        let has_leader_clock = VERSION_TERM_CLOCK <= self.cluster_version;
        let mut state = Writer::new();
        state
            .u8(if has_leader_clock { ROW_TERM_CLOCK } else { ROW_FIRST })
            .i64(self.revision)
            .i64(self.compacted)
            .u64(self.clock_ms)
            .u32(self.cluster_version);
        if has_leader_clock {
            state.u64(self.leader_clock.term.0).u64(self.leader_clock.time_ms);
        }
        [(META_APPLIED, applied), (META_STATE, state)].map(|(key, writer)| TableOp::Put {
            table: TableId::Meta,
            key: Bytes::from_static(key),
            value: writer.finish(),
        })
    }

    /// Reads the rows back. `None`: there are none, and the table is a new one.
    ///
    /// # Errors
    /// [`StateError::Unsupported`] when the state is of a version that is not in `versions`.
    pub(crate) fn load(
        records: &dyn Records,
        versions: Versions,
    ) -> Result<Option<Self>, StateError> {
        let applied = records.read(TableId::Meta, META_APPLIED)?;
        let state = records.read(TableId::Meta, META_STATE)?;
        match (applied, state) {
            (Some(applied), Some(state)) => {
                let found =
                    cluster_version(&state).map_err(|error| undecodable("state", &error))?;
                versions.check(found)?;
                let meta = Self::decode(applied, state);
                Ok(Some(meta.map_err(|error| undecodable("state", &error))?))
            }
            (Some(_), None) | (None, Some(_)) => {
                Err(lost("state", "one of its two rows is missing").into())
            }
            (None, None) => Ok(None),
        }
    }

    fn decode(applied: Bytes, state: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(applied);
        let applied = Position::decode(&mut reader)?;
        reader.finish()?;
        let mut reader = Reader::new(state);
        let row = reader.u8("state version")?;
        let mut meta = Self {
            applied,
            revision: reader.i64("revision")?,
            compacted: reader.i64("compacted revision")?,
            clock_ms: reader.u64("replicated clock")?,
            cluster_version: reader.u32("cluster version")?,
            leader_clock: LeaderClock::default(),
        };
        let has_leader_clock = VERSION_TERM_CLOCK <= meta.cluster_version;
        if row != if has_leader_clock { ROW_TERM_CLOCK } else { ROW_FIRST } {
            return Err(DecodeError::Unknown { what: "state version", value: row.into() });
        }
        if has_leader_clock {
            meta.leader_clock = LeaderClock {
                term: Term(reader.u64("leader's term")?),
                time_ms: reader.u64("leader's clock")?,
            };
        }
        reader.finish()?;
        Ok(meta)
    }
}

/// The cluster version in a row of the state, of whatever version the row is.
fn cluster_version(state: &Bytes) -> Result<u32, DecodeError> {
    let mut reader = Reader::new(state.clone());
    reader.take("state", VERSION_OFFSET)?;
    reader.u32("cluster version")
}

/// Whether a build can take over the state whose row in [`TableId::Meta`] under [`META_STATE`] this
/// is. A row that cannot be read is for whoever loads the state to judge.
///
/// # Errors
/// [`Unsupported`], which names both versions.
pub fn check_state_row(row: &Bytes, versions: Versions) -> Result<(), Unsupported> {
    cluster_version(row).map_or(Ok(()), |version| versions.check(version))
}

/// Key of the row in [`TableId::Meta`] with the single values of the state.
pub const META_STATE: &[u8] = b"state";
const ROW_FIRST: u8 = 1;
const ROW_TERM_CLOCK: u8 = 2;
const VERSION_OFFSET: usize = 1 + 8 + 8 + 8;
