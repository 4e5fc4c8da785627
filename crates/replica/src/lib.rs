//! One server as a value: four lanes and the messages between them.
//!
//! Why: the server that ships and the server that is simulated are this same code. A lane is a
//! plain value with one way in (`step` over an inbox) and one way out (a list of [`Hop`]s). Whoever
//! owns the lanes carries hops from one to the next: the real edge with threads and channels, the
//! simulator with an event heap in which each hop takes virtual time.
//!
//! ```text
//!  clients ─► Node (raft + tickets) ─► peers
//!              │ ▲            │  ▲
//!        Write │ │ Durable    │  │ Applied
//!              ▼ │  Committed ▼  │
//!            Journal          Machine (kv: index + overlay) ─► replies
//!                ▲                │ checkpoints
//!        Release │                ▼
//!                └─── Settled ── Table (redb)
//! ```
//!
//! Invariants:
//! - a lane never blocks another and has no clock, socket or thread: time is the [`Now`] argument;
//! - a promise to a peer leaves only when what it promises is durable (held inside `raft`);
//! - the machine receives only what is committed and durable here, in order;
//! - the journal is released only behind the checkpoint before the newest;
//! - everything that waits is bounded, and what cannot wait is refused with a reason;
//! - a failed disk or damaged state is a [`Hop::Fatal`]: the owner ends the process, nobody
//!   retries.
//!
//! What it lacks: watches and leases have no hops yet; a server that finds its
//! table damaged while it runs ends, and rebuilds the table at its next start, not before.

mod client_io;
pub mod flight;
mod forwards;
mod frame;
mod hop;
mod journal_lane;
mod machine;
mod node;
mod open;
mod outgoing;
mod recover;
mod settled;
mod snapshots;
mod table_lane;

pub use frame::{Attempt, ForwardRefusal, Frame, Round, SnapshotChunk};
pub use hop::{
    ClientRequest, Failure, Fatal, Hop, JournalIn, MachineIn, NodeIn, NotSent, Now, Outcome,
    PeerLane, Reply, TableIn,
};
pub use journal_lane::JournalLane;
pub use machine::{MachineLane, MachineOptions};
pub use node::{Node, NodeOptions};
pub use open::{OpenOptions, Replica, ReplicaError, open};
pub use recover::{RecoverError, Survey, force_new_cluster, survey};
pub use table_lane::{SNAPSHOT_CHUNK_BYTES, TableLane};
