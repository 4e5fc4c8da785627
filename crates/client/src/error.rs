//! How an operation can end without a result.

use thiserror::Error;
use tonic::Code;

/// Why an operation brought no result.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused it. It was not done and will not be.
    #[error("{message}")]
    Refused {
        /// gRPC's class of the refusal.
        code: Code,
        /// The server's words, for example `etcdserver: key is not provided`.
        message: String,
    },
    /// Nobody could be asked in time, or nobody could answer. A change was certainly not done.
    #[error("no server could serve the request: {endpoint}: {cause}")]
    Unavailable {
        /// The server asked last.
        endpoint: String,
        /// What went wrong there.
        cause: String,
    },
    /// The change may have been done, or not, or may yet be.
    #[error("outcome unknown, the change may have been made: {endpoint}: {cause}")]
    Unknown {
        /// The server asked last.
        endpoint: String,
        /// What went wrong there.
        cause: String,
    },
    /// Sessions are lost as fast as they are opened. The change was certainly not done.
    #[error("the session was lost {count} times in a row")]
    SessionLost {
        /// How often.
        count: u32,
    },
    /// The configured servers are not of one cluster. Nothing was done.
    #[error("{one} and {other} belong to different clusters")]
    Mixed {
        /// A server.
        one: String,
        /// One of another cluster.
        other: String,
    },
}

impl Error {
    /// True unless the change may have been made.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }
}
