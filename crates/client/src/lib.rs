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
//! assert_eq!(client.get("no such key").await?, None);
//! # Ok(())
//! # }
//! ```
//!
//! Ways to ask:
//! - a method for each operation, which returns its result: [`Client::put`] and its like;
//! - [`Client::pipeline`], for many operations at a time: they are numbered, bounded in number, and
//!   their results come over a channel;
//! - [`Client::scan`], a stream of a range of any size.
//!
//! A change is sent again after a failure only if it cannot be done twice by that: with
//! [`Builder::exactly_once`] it keeps its number through deaths of leaders, and the servers do it
//! once. Without, [`Error::Unknown`] says that nobody knows.
//!
//! Invariants:
//! - what to do after a failure is decided by `kvraft-session` alone, the code that simulated
//!   clients run, too;
//! - [`Error::Unknown`] is returned whenever a change may have been done without our knowing;
//! - without [`Builder::exactly_once`] nothing is sent that a plain etcd server does not know.
//!
//! What it lacks: watches, leases; TLS and authentication. For the last two there is room: an
//! endpoint has a scheme, of which `http` is taken and others are refused by name; settings are
//! methods of a builder; errors and outcomes may grow.

mod builder;
mod call;
mod client;
mod coordinator;
mod error;
mod joined;
mod members;
mod pipeline;
mod scan;
mod traced;
mod transport;

pub use builder::{BuildError, Builder, ConnectError};
pub use client::{Client, prefix_end};
pub use coordinator::{LeaderWatch, ask_leader};
pub use error::Error;
/// The number of an operation, and who it belongs to.
pub use kvraft_base::{ClientId, OpId};
/// What a coordinator says of the leader.
pub use kvraft_coord::LeaderInfo;
/// The generated messages, as requests and responses are made of them.
pub use kvraft_proto as proto;
pub use kvraft_session::{EndpointId, RetryPolicy};
pub use members::NewMember;
pub use pipeline::{Closed, Completed, Outcome, Pipeline, Results};

#[cfg(test)]
mod members_tests;
#[cfg(test)]
mod pipeline_tests;
#[cfg(test)]
mod tests;
