//! The seeded world: network, disk, clock, processes, workload, checks.

mod disk;

pub use disk::{
    ContentLoss, CrashPolicy, DiskCosts, DiskStats, NameLoss, SECTOR_SIZE_BYTES, SimDisk,
};
