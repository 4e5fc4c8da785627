//! What a simulated disk takes time for, and what it counts.

use kvraft_base::Prng;

/// What operations cost in virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCosts {
    /// Nanoseconds for any operation.
    pub operation_ns: u64,
    /// Nanoseconds for each KiB read or written.
    pub kib_ns: u64,
    /// Nanoseconds for a sync of a file or a directory, on top of the operation.
    pub sync_ns: u64,
}

impl DiskCosts {
    /// Everything takes no time.
    pub const FREE: Self = Self { operation_ns: 0, kib_ns: 0, sync_ns: 0 };

    /// The costs of one world: from a fast solid-state drive to a slow rotating one.
    #[must_use]
    pub fn draw(prng: &mut Prng) -> Self {
        let (sync_low, sync_high) = match prng.below(3) {
            0 => (10_000, 100_000),
            1 => (200_000, 2_000_000),
            _ => (2_000_000, 30_000_000),
        };
        Self {
            operation_ns: prng.between(500, 20_000),
            kib_ns: prng.between(200, 20_000),
            sync_ns: prng.between(sync_low, sync_high),
        }
    }
}

/// What was done with a disk since it was made; crashes do not reset it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Reads of file content.
    pub read_count: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes of file content.
    pub write_count: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Syncs of files and directories.
    pub sync_count: u64,
    /// Sectors that syncs made durable.
    pub synced_sectors: u64,
    /// Operations that change something: what a fuse counts.
    pub change_count: u64,
    /// Losses of power.
    pub crash_count: u64,
}
