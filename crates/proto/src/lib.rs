//! The etcd v3 protobuf definitions and what is generated from them, nothing else.
//!
//! Why: any etcd client must be able to talk to a kvraft server, and kvraft's client and load
//! generator to any etcd server; both sides are generated from the files under `proto/`, which keep
//! etcd's packages, names and field numbers.
//!
//! Invariants:
//! - a field number, once published, never changes its meaning;
//! - every `bytes` field is a [`bytes::Bytes`](https://docs.rs/bytes), so decoding copies nothing.
//!
//! What it lacks: the `Auth` service; HTTP annotations of etcd's gateway; descriptors for
//! reflection.

/// One module per protobuf package, nested as the packages are, because generated code refers to
/// its neighbours by relative path.
#[expect(missing_docs, unused_qualifications, reason = "generated code")]
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]
mod generated {
    /// Package `mvccpb`: key-value pairs and events.
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    /// Package `etcdserverpb`: services and messages of the client API.
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    /// Packages of kvraft's own.
    pub mod kvraft {
        /// Package `kvraft.v1`: sessions.
        pub mod v1 {
            tonic::include_proto!("kvraft.v1");
        }
    }
}

pub use generated::{etcdserverpb, kvraft, mvccpb};

/// Metadata key of a KV request: the client id of its session, in decimal.
pub const METADATA_CLIENT: &str = "kvraft-client";
/// Metadata key of a KV request: the number of the operation, in decimal, from 1.
pub const METADATA_OP: &str = "kvraft-op";
/// Metadata key of a KV request: every operation up to this number has been answered to the client
/// and may be forgotten by the server, in decimal.
pub const METADATA_ACKED: &str = "kvraft-acked";
/// Metadata key of a `MemberAdd` request for a learner: "true" makes it a voter by itself as
/// soon as it is in step with the leader.
pub const METADATA_PROMOTE: &str = "kvraft-promote";
/// Metadata key of a failed response that the state machine did not give: "failed" when the request
/// has had no effect and never will, "unknown" when it may have one.
pub const METADATA_OUTCOME: &str = "kvraft-outcome";

/// A client that traces puts the token of its trace here, in base64, and finds the server's in the
/// metadata of the answer.
pub const METADATA_TRACE: &str = "kvraft-trace";

#[cfg(test)]
mod tests;
