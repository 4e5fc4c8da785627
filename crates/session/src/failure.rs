//! What a failed attempt says about the operation.
//!
//! Invariant: "not done" is concluded only from what is known to be said before the log is
//! touched; whatever is not recognised is [`Failure::Unknown`].

/// The fate of one attempt that brought no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Certainly not done, and another attempt may succeed: the request never left (connection
    /// refused), or the server turned it away before the log (no leader, too busy).
    NotSent,
    /// Nobody knows: the connection broke, the answer did not come, the leader changed midway.
    Unknown,
    /// The server considered this operation and refused it; asking again brings the same.
    Refused,
    /// The server does not know the session: expired, closed, or never opened.
    SessionLost,
    /// The server knows the operation but has no result to give any more; asking again is useless.
    ResultLost,
}

/// Refusals that precede the log and pass with time, with the gRPC code Unavailable,
/// ResourceExhausted, FailedPrecondition or Unknown.
const NOT_SENT: [&str; 6] = [
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: too many requests",
    "etcdserver: unhealthy cluster",
    "etcdserver: rpc not supported for learner",
    "raft proposal dropped",
];

impl Failure {
    /// Reads the answer of a server: its gRPC code as a number, and its text.
    ///
    /// Not for errors that the client's own transport made up; those are [`Failure::Unknown`]
    /// unless the connection could not even be made.
    #[must_use]
    pub fn of_answer(code: u32, message: &str) -> Self {
        if NOT_SENT.contains(&message) {
            return Self::NotSent;
        }
        if let Some(text) = message.strip_prefix("kvraft: ") {
            if text.starts_with("session unknown or expired") {
                return Self::SessionLost;
            }
            if text.ends_with("was already acknowledged") || text.contains(" was done, ") {
                return Self::ResultLost;
            }
            if text.contains("too many unacknowledged results") || text == "too many sessions" {
                return Self::NotSent;
            }
        }
        match code {
            // InvalidArgument, NotFound, AlreadyExists, PermissionDenied, FailedPrecondition,
            // OutOfRange, Unimplemented, Unauthenticated: the request was understood and refused.
            3 | 5 | 6 | 7 | 9 | 11 | 12 | 16 => Self::Refused,
            // The store is full; etcd says so both before the log and after it, never having done
            // it.
            8 if message == "etcdserver: mvcc: database space exceeded" => Self::Refused,
            _ => Self::Unknown,
        }
    }
}
