//! The nouns and tools that every kvraft crate shares.
//!
//! Why: the three cores, `raft`, `store` and `kv`, never meet; what they must agree on (an entry, a
//! position in the log, the bytes of a record, what a disk is) is defined here once.
//!
//! Invariants:
//! - nothing here reads a clock, draws ambient randomness, starts a thread or touches a file;
//! - every encoding is fixed-width little-endian, bounded, and decoding never panics.
//!
//! What it deliberately lacks: anything that knows a protocol or a file format.

mod checksum;
mod codec;
mod disk;
mod entry;
mod ids;
pub mod limits;
mod members;
mod prng;
mod table;
pub mod thin;
mod time;

pub use checksum::{checksum, checksum_append, checksum_seeded};
pub use codec::{DecodeError, Reader, Writer};
pub use disk::{Disk, DiskError, DiskErrorKind, DiskFile};
pub use entry::{Entry, EntryKind, HardState, Position, Write};
pub use ids::{
    ClientId, ClusterId, GroupId, Index, MemberId, OpId, Revision, Term, Ticket, WriteId,
};
pub use members::{Learner, MemberInfo, MemberRole, Members, MembersDraft, MembersError, majority};
pub use prng::Prng;
pub use table::{
    Checkpoint, Damage, META_APPLIED, META_MEMBERS, Records, RowVisitor, TableId, TableOp,
};
pub use time::Instant;
