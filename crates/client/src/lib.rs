//! Async client library for kvraft and any etcd v3 endpoint.
//!
//! Why: programs, the `kvraft` command and its prompt need one honest client: it moves on to
//! another server when one fails, and it never sends a change twice unless the server can tell.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = kvraft_client::Client::builder()
//!     .endpoints(["127.0.0.1:2379", "127.0.0.1:2381"])
//!     .exactly_once()
//!     .build()?;
//! client.put("color", "blue").await?;
//! let found = client.get("color").await?;
//! assert!(found.is_some_and(|record| record.value == "blue"));
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//! - what to do after a failure is decided by `kvraft-session` alone, the code that simulated
//!   clients run, too;
//! - [`Error::Unknown`] is returned whenever a change may have been done without our knowing;
//! - without [`Builder::exactly_once`] nothing is sent that a plain etcd server does not know.
//!
//! What it lacks: TLS, watches, leases, authentication.

mod builder;
mod call;
mod client;
mod error;
mod members;
mod transport;

pub use builder::{BuildError, Builder};
pub use client::{Client, prefix_end};
pub use error::Error;
/// The generated messages, as requests and responses are made of them.
pub use kvraft_proto as proto;
pub use kvraft_session::{EndpointId, RetryPolicy};
pub use members::NewMember;

#[cfg(test)]
mod members_tests;
#[cfg(test)]
mod tests;
