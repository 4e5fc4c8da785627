//! The tokio edge: gRPC, peers, threads, disks, configuration, logs.
