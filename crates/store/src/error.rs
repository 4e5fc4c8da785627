//! Errors, one enum per operation; each names the culprit.

use kvraft_base::{ClusterId, Damage, DecodeError, DiskError, MemberId, Position};

/// Why a data directory could not be made or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no identity file: never formatted, or not ours.
    #[error("{path}: no such file, so this is not a kvraft data directory")]
    NotFormatted {
        /// The identity file.
        path: String,
    },
    /// The directory already belongs to a member.
    #[error("{path}: the data directory is already in use")]
    InUse {
        /// The file that shows it.
        path: String,
    },
    /// The directory belongs to another cluster or member than was expected.
    #[error(
        "{path}: belongs to member {member:x} of cluster {cluster:x}, not to member \
         {expected_member:x} of cluster {expected_cluster:x}"
    )]
    Foreign {
        /// The file that says so.
        path: String,
        /// Cluster it belongs to.
        cluster: ClusterId,
        /// Member it belongs to.
        member: MemberId,
        /// Cluster that was expected.
        expected_cluster: ClusterId,
        /// Member that was expected.
        expected_member: MemberId,
    },
    /// Written by a newer version that says this one cannot read it.
    #[error("{path}: needs a reader of format {needed} or newer; this one reads up to {supported}")]
    Newer {
        /// The file that says so.
        path: String,
        /// Least format version a reader must know.
        needed: u32,
        /// Newest format version known here.
        supported: u32,
    },
    /// A file outside the log cannot be believed.
    #[error("{path}: {detail}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Term and vote cannot be believed, so this member might vote twice in a term.
    #[error(
        "{path}: {detail}: term and vote are lost; remove this member and join again under a new \
         member id"
    )]
    HardStateLost {
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The table ends before the journal begins, and no other voter has what is between.
    #[error(
        "the table ends at {applied} but the journal begins after {released}, and this is the only \
         voter: restore the data directory from a backup"
    )]
    Gap {
        /// Where the table ends.
        applied: Position,
        /// Just before the journal's first entry.
        released: Position,
    },
    /// The table could not be opened. If it is damaged, [`crate::rebuild`] may help.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The table is damaged and cannot be rebuilt: the journal has released its first entries, and
    /// there is no other voter.
    #[error(
        "{path}: {detail}; the journal begins after {released}, and this is the only voter: restore \
         the data directory from a backup"
    )]
    TableLost {
        /// The table's file.
        path: String,
        /// What is wrong with it.
        detail: String,
        /// Just before the journal's first entry.
        released: Position,
    },
}

impl OpenError {
    /// What is wrong with the table, if that is damaged and nothing else stands in the way.
    #[must_use]
    pub fn table_damage(&self) -> Option<&Damage> {
        match self {
            Self::Table(TableError::Damage(damage @ Damage::Lost { .. })) => Some(damage),
            _ => None,
        }
    }

    /// The journal cannot be read where it could a moment ago.
    pub(crate) fn of_journal(damage: Damage) -> Self {
        match damage {
            Damage::Disk(error) => error.into(),
            Damage::Lost { what, detail } => Self::Damaged { path: what, detail },
        }
    }
}

/// Why the table could not be opened, read or written. After it the table is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The disk failed, or bytes cannot be believed.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// Another build has written it. Nothing is wrong with it, so nothing is done to it.
    #[error(
        "{path}: has format {format}, and this build reads {supported}; go back to the build that \
         wrote it, or move the file away on one server at a time and let the others fill it again"
    )]
    Format {
        /// The table's file.
        path: String,
        /// What it has.
        format: u32,
        /// What is known here.
        supported: u32,
    },
    /// An earlier operation failed.
    #[error("{path}: refused after an earlier failure: {detail}")]
    Poisoned {
        /// The table's file.
        path: String,
        /// What failed earlier.
        detail: String,
    },
}

impl From<DiskError> for TableError {
    fn from(error: DiskError) -> Self {
        Self::Damage(Damage::Disk(error))
    }
}

/// Why a snapshot could not be received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The table being written failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A chunk cannot be decoded.
    #[error("snapshot chunk {number}: {error}")]
    Chunk {
        /// Number of the chunk that was expected.
        number: u32,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A chunk is not the one that must follow.
    #[error("snapshot chunk {number}: {detail}")]
    Order {
        /// Number of the chunk that was expected.
        number: u32,
        /// What came instead.
        detail: String,
    },
    /// The snapshot is not whole, or not of the expected position.
    #[error("snapshot: {detail}")]
    Incomplete {
        /// What is missing.
        detail: String,
    },
}

impl From<DiskError> for ImportError {
    fn from(error: DiskError) -> Self {
        Self::Table(error.into())
    }
}
