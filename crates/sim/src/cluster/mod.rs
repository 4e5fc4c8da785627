//! A Raft cluster of the shipped lanes in the seeded world.

mod asks;
mod authors;
mod checks;
mod clients;
mod config;
mod core;
mod course;
mod faults;
mod live;
mod membership;
mod mirror;
mod office;
mod operator;
mod recording;
mod rehearsal;
mod rot;
mod run;
mod scenario;
mod server;
mod settings;
mod smaller;
mod sometimes;
mod states;
mod steady;
mod syncing;
mod upgrade;
mod verdict;
mod violation;
mod workload;
mod world;

pub(crate) use recording::{Recording, Sent as RecordingSent};

pub use config::{Choices, ClusterConfig};
pub use live::{Ending, Live};
pub use run::{Report, first_difference, record_scenario, run, run_bounded, run_scenario};
pub use scenario::Scenario;
pub use smaller::Trial;
pub use sometimes::Sometimes;
pub use violation::{Check, Violation};
