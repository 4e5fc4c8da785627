//! The tokio edge: gRPC, peers, threads, disks, configuration, logs.

mod disk;
mod volatile;

pub use disk::{LOCK_FILE, RealDisk};
pub use volatile::VolatileDisk;
