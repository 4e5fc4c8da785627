//! A client as a value: whom to ask, when to try again, and under which number.
//!
//! Why: as a value it can be tested without a network and driven by any world. Nothing here does IO
//! or reads a clock.
//!
//! How it is used, for each operation:
//! 1. [`Session::begin`] makes an [`Operation`], numbered if it is a mutation and a session is
//!    open;
//! 2. [`Session::attempt`] says whom to ask, until when, and with which [`Stamp`];
//! 3. the embedding world asks and reports: [`Session::succeed`] ends it, [`Session::fail`] says
//!    whether and when to try again, or how it ended.
//!
//! Invariants:
//! - a mutation without a number is never sent again after an attempt whose fate is unknown;
//! - an operation keeps its number through all its attempts, and no number is used twice;
//! - an operation of which one attempt's fate is unknown never ends as "certainly not done";
//! - every number up to the `acked` of a stamp belongs to an operation that has ended.
//!
//! What it lacks: opening the session itself (the world asks the server and calls
//! [`Session::attach`]); hedged requests; measuring which server is nearest.

mod failure;
mod numbering;
mod retry;
mod route;
mod session;

pub use failure::Failure;
pub use numbering::Stamp;
pub use retry::{RetryPolicy, RetryPolicyError};
pub use route::{EndpointId, Mode};
pub use session::{Attempt, Config, ConfigError, Ending, Kind, Next, Operation, Session};

#[cfg(test)]
mod tests;
