//! The etcd v3 key-value state machine, deterministic.
