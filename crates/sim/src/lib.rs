//! The seeded world: network, disk, clock, processes, workload, checks.
