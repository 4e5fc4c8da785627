//! The tokio edge: gRPC, peers, threads, disks, configuration, logs.

mod board;
mod disk;
mod driver;
mod grpc;
mod volatile;

pub use disk::{LOCK_FILE, RealDisk};
pub use volatile::VolatileDisk;
