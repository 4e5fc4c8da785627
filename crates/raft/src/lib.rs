//! Consensus without IO: elections, replication, reads, snapshot decisions.

mod config;
mod input;
mod message;
mod output;
mod raft;
mod status;

pub use config::{Config, ConfigError, Start, StartError};
pub use input::Input;
pub use message::{AppendOutcome, Body, Message};
pub use output::{Event, Fetch, IgnoreReason, Output, Refusal, SnapshotRequest};
pub use raft::Raft;
pub use status::{PeerState, PeerStatus, RoleName, Status};
