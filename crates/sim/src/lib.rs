//! The seeded world: network, disk, clock, processes, workload, checks.

mod disk;
mod heap;
mod network;
mod plan;
mod trace;

pub use disk::{
    ContentLoss, CrashPolicy, DiskCosts, DiskStats, NameLoss, SECTOR_SIZE_BYTES, SimDisk,
};
pub use heap::EventHeap;
pub use network::{Endpoint, EndpointError, Network, NetworkConfig, NetworkStats, Partition};
pub use plan::{Fault, FaultKinds, Plan, PlanError, RunConfig, Target, TimedFault};
pub use trace::{Trace, TraceHash, TraceLine, digest};
