//! A Raft cluster of the shipped lanes in the seeded world.

mod asks;
mod checks;
mod clients;
mod config;
mod core;
mod faults;
mod membership;
mod mirror;
mod operator;
mod recording;
mod rot;
mod run;
mod server;
mod sometimes;
mod syncing;
mod verdict;
mod violation;
mod workload;
mod world;

pub use config::{Choices, ClusterConfig};
pub use run::{Report, first_difference, record, record_plan, run, run_bounded, run_plan};
pub use sometimes::Sometimes;
pub use violation::{Check, Violation};
pub use workload::Workload;
