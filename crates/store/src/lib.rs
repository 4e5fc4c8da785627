//! Durable bytes over a disk: journal, table, snapshots, recovery.
