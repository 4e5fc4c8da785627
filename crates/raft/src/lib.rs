//! Consensus without IO: elections, replication, reads, snapshot decisions.
//!
//! A [`Raft`] is one server of a group as a value. It is told what happened ([`Input`], any number
//! in a turn), and at the end of the turn ([`Raft::finish`]) it says what is to be done
//! ([`Output`]). It has no clock, no thread, no file and no socket; the same inputs at the same
//! times give the same outputs, so a run can be recorded, replayed and simulated.
//!
//! # The protocol, in order of a server's life
//!
//! - **Follower.** Appends what the leader of its term sends, if its log contains the entry before
//!   (Raft §5.3). It answers once that is durable. If it hears nothing for one to two election
//!   timeouts, or for a few milliseconds after its connection to the leader has closed, it asks for
//!   pre-votes.
//! - **Pre-candidate.** Asks whether it would be voted for; nobody's term changes. A voter refuses
//!   while it hears from a leader itself.
//! - **Candidate.** Enters a new term, votes for itself, and asks for votes once that is durable.
//! - **Leader.** Appends an empty entry, finds out where each follower's log parts from its own,
//!   and sends what is missing ahead of the answers. What a majority holds durably is committed, if
//!   it is of the leader's own term (§5.4.2). A leader that hears from no majority for an election
//!   timeout stops.
//!
//! # What may leave when
//!
//! Votes, vote requests, pre-vote answers and append answers are promises: they wait until the disk
//! has what they say, keep the term they were made in, and are dropped when that term ends or the
//! log they speak of is truncated. Everything else leaves at once: a leader sends entries beside
//! its own write and counts itself when that is durable.
//!
//! # Far behind
//!
//! Recent entries are in memory, older ones are read back from the journal ([`Fetch`]), and what
//! the journal no longer has is replaced by a snapshot ([`SnapshotRequest`]). Heartbeats carry what
//! a follower may commit, their answers what it holds, so whatever was lost on the way is noticed
//! and sent again even when nothing new is written.
//!
//! # Caveats
//!
//! - After a restart, terms between the journal's start and the machine's applied position are not
//!   known; a follower whose log parts there is sent entries from the journal's start again.
//! - A peer that lies can win an election or stop the group; it cannot break this server's own
//!   invariants. Crash faults only (Raft §2).

mod raft;

mod core;

mod candidate;
mod follower;
mod leader;

mod change;
mod membership;
mod transfer;

mod lease;
mod progress;
mod quorum;
mod reads;

mod log;
mod promises;

#[cfg(test)]
mod tables;

mod config;
mod input;
mod message;
mod output;
mod status;

pub use change::{CHANGES_MAX, Change, ChangeError, InfoUpdate};
pub use config::{Config, ConfigError, Start, StartError};
pub use input::Input;
pub use lease::LeaseReads;
pub use membership::Membership;
pub use message::{AppendOutcome, Body, Message};
pub use output::{Event, Fetch, IgnoreReason, Output, Refusal, SnapshotRequest};
pub use raft::Raft;
pub use status::{PeerState, PeerStatus, RoleName, Status};
pub use transfer::TransferError;
