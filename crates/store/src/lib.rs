//! Durable bytes over a disk: what a server must still know after its power was cut.
//!
//! Why: consensus promises things ("I voted for 3", "I have entry 17") that must survive a crash,
//! and a disk loses, tears and damages bytes. Everything here runs over [`kvraft_base::Disk`], so
//! the server and the simulator execute the same code, [`open`] (recovery) included.
//!
//! A data directory holds
//! - `identity`: which member of which cluster this is, and the format version;
//! - `journal/`: the log and the hard state, in checksummed segments ([`Journal`]);
//! - `table`: the settled state machine, a redb database behind per-block checksums ([`Table`]);
//! - `install`, while a received snapshot replaces table and journal: of which position;
//! - `refound`, while the directory becomes that of another cluster: of which ([`refound()`]);
//! - `table.rebuild`, once damage was met in the table, and `table.damaged`, a table given up.
//!
//! Invariants:
//! - every byte that is believed has a checksum seeded with its place;
//! - a torn tail may be cut, a damaged acknowledged entry may not: the recovered log then ends
//!   before the damage and [`Recovered::attested`] says up to where it once reached;
//! - a new file is written beside, synced, renamed, and its directory synced;
//! - after a failed write or sync a value refuses all further use, and the process must end.
//!
//! What it deliberately lacks: threads, a clock, and any idea of what entries and rows mean.

mod alone;
mod dump;
mod error;
mod identity;
mod install;
mod journal;
mod open;
mod rebuild;
mod refound;
mod table;

pub use dump::{DumpItem, dump};
pub use error::{ImportError, OpenError, TableError};
pub use identity::{FORMAT_VERSION, Identity, format, is_formatted, read_identity};
pub use journal::Journal;
pub use open::{Note, Opened, Options, Recovered, open};
pub use rebuild::rebuild;
pub use refound::refound;
pub use table::{Export, Import, Table, TableReader, TableView};
