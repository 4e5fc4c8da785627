//! Consensus without IO: elections, replication, reads, snapshot decisions.
