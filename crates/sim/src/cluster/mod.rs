//! A Raft cluster of the shipped lanes in the seeded world.

mod checks;
mod clients;
mod config;
mod faults;
mod mirror;
mod model;
mod run;
mod server;
mod sometimes;
mod syncing;
mod verdict;
mod violation;
mod world;

pub use config::{Choices, ClusterConfig};
pub use run::{Report, run, run_plan};
pub use sometimes::Sometimes;
pub use violation::{Check, Violation};
