//! The seeded world: network, disk, clock, processes, workload, checks.

mod disk;
mod heap;
mod network;
mod trace;

pub use disk::{
    ContentLoss, CrashPolicy, DiskCosts, DiskStats, NameLoss, SECTOR_SIZE_BYTES, SimDisk,
};
pub use heap::EventHeap;
pub use network::{Endpoint, EndpointError, Network, NetworkConfig, NetworkStats, Partition};
pub use trace::{Trace, TraceHash, TraceLine, digest};
