//! The tokio edge: gRPC, peers, threads, disks, configuration, logs.

mod disk;

pub use disk::{LOCK_FILE, RealDisk};
