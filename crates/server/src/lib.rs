//! The tokio edge: gRPC, peers, threads, disks, configuration, logs.
//!
//! Why: below this crate there is no clock, no socket, no thread and no file; here the lanes of a
//! server get all of them. A server is started by a library call, [`Server::start`].
//!
//! Invariants:
//! - what a lane decides does not depend on anything here but its inputs;
//! - a server that cannot believe its disk or its state any more ends its process.
//!
//! What it lacks: TLS, metrics, watches, leases.

mod authority;
mod board;
mod collector;
mod config;
mod coord;
mod disk;
mod driver;
mod edge;
mod flight;
mod grpc;
mod logs;
mod peers;
mod publish;
mod recorder;
mod server;
mod volatile;

pub use collector::{Collector, CollectorConfig, CollectorError};
pub use config::{
    ConfigError, ConfigFile, JoinInfo, Limits, LogFormat, MemberConfig, MemberEntry, ServerConfig,
    UnitError, derived_id, parse_size, parse_size_or_off, parse_time,
};
pub use coord::{CoordConfig, CoordError, CoordServer, Joined, join_coordinator};
pub use disk::{LOCK_FILE, RealDisk};
pub use edge::FatalHandler;
pub use flight::{FLIGHT_DIRECTORY, flight_file_name, flight_files, flush_flight_recorders};
pub use logs::{LOG_COLOUR_VARIABLE, LogError, start_logs};
pub use peers::{
    Lane, LeaseTerms, PeerConfig, PeerCounts, PeerError, PeerEvent, PeerNet, Peers, SendError,
    probe_peer,
};
pub use server::{CLIENT_STREAMS_MAX, Server, StartError, read_identity};
pub use volatile::VolatileDisk;
