//! Consensus without IO: elections, replication, reads, snapshot decisions.

mod raft;

mod core;

mod candidate;
mod follower;
mod leader;

mod progress;
mod quorum;
mod reads;

mod log;
mod promises;

mod config;
mod input;
mod message;
mod output;
mod status;

pub use config::{Config, ConfigError, Start, StartError};
pub use input::Input;
pub use message::{AppendOutcome, Body, Message};
pub use output::{Event, Fetch, IgnoreReason, Output, Refusal, SnapshotRequest};
pub use raft::Raft;
pub use status::{PeerState, PeerStatus, RoleName, Status};
