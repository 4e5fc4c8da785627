//! What clients see when something was not done: etcd's codes and texts.
//!
//! Beside the status, a response says in the metadata [`METADATA_OUTCOME`] whether a request that
//! was not answered by the state machine had no effect ("failed") or may have had one ("unknown").
//! A client that knows of it retries the first kind without a doubt; others ignore it.

use kvraft_kv::{Code, Refused};
use kvraft_proto::METADATA_OUTCOME;
use kvraft_raft::Refusal;
use kvraft_replica::Failure;
use tonic::{Status, metadata::MetadataValue};

/// Whether a request without an answer can have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// It had none and never will.
    Failed,
    /// It may or may not.
    Unknown,
}

/// The state machine's refusal.
pub(crate) fn refused(refused: &Refused) -> Status {
    let code = match refused.code() {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Internal => tonic::Code::Internal,
    };
    Status::new(code, refused.to_string())
}

/// The request never reached the state machine.
pub(crate) fn failed(failure: Failure) -> Status {
    let status = match failure {
        Failure::NoLeader => Status::unavailable("etcdserver: no leader"),
        Failure::LeaderChanged => Status::unavailable("etcdserver: leader changed"),
        Failure::Busy => Status::resource_exhausted("etcdserver: too many requests"),
        Failure::TooLarge => refused(&Refused::TooLarge),
        Failure::Hollow => Status::unavailable(
            "kvraft: this member has lost its state and waits for a peer to send it",
        ),
    };
    with_certainty(status, Certainty::Failed)
}

/// The leader went away while the request was with it.
pub(crate) fn lost() -> Status {
    let text = "etcdserver: request timed out, possibly due to previous leader failure";
    with_certainty(Status::unavailable(text), Certainty::Unknown)
}

/// Nobody answered in time.
pub(crate) fn timed_out(certainty: Certainty) -> Status {
    with_certainty(Status::unavailable("etcdserver: request timed out"), certainty)
}

/// This server is going away.
pub(crate) fn stopped(certainty: Certainty) -> Status {
    with_certainty(Status::unavailable("etcdserver: server stopped"), certainty)
}

/// What was asked for could not begin in all the time there was.
pub(crate) fn not_yet(refusal: Refusal) -> Status {
    with_certainty(Status::unavailable(format!("kvraft: {refusal}")), Certainty::Failed)
}

/// A method of etcd's API that does not exist here.
pub(crate) fn not_here(what: &str) -> Status {
    Status::unimplemented(format!("kvraft: {what} is not implemented"))
}

/// Metadata of a session that cannot be read.
pub(crate) fn bad_metadata(key: &str) -> Status {
    Status::invalid_argument(format!("kvraft: metadata {key} is not a decimal number"))
}

fn with_certainty(mut status: Status, certainty: Certainty) -> Status {
    let value = match certainty {
        Certainty::Failed => MetadataValue::from_static("failed"),
        Certainty::Unknown => MetadataValue::from_static("unknown"),
    };
    status.metadata_mut().insert(METADATA_OUTCOME, value);
    status
}
