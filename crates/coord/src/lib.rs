//! A coordinator: it gathers the first servers of a cluster, watches their health, and says who
//! leads.
//!
//! Why without input and output: what it decides is then the same in the simulator, under a clock
//! that is an input, as in the process that people run.
//!
//! Invariants:
//! - it decides nothing that consensus rests on but one thing, once: the first members, which a
//!   server without data takes as it would take them from its configuration. Whoever was told of
//!   other members is in another cluster, since the cluster's id is made of them;
//! - a hint that somebody should campaign is only a hint: a server that hears its leader ignores
//!   it, and so does one whose peers do;
//! - whatever servers and clients send, it neither panics nor grows beyond its bounds.
//!
//! What it lacks: durable state. A coordinator that starts again learns from the servers, which
//! come back by themselves; it never gathers a second cluster out of servers that have data.

mod coordinator;
mod message;

pub use coordinator::{Coordinator, Event, Input, LinkId, Output, Settings};
pub use message::{
    Candidate, Hello, LINE_SIZE_BYTES_MAX, LeaderInfo, MemberEntry, Membership, Report, ToClient,
    ToCoordinator, ToServer, decode, encode,
};
