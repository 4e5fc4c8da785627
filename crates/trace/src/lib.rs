//! What happened in a run, and the forms in which people look at it.
//!
//! Two forms of the same thing:
//! - `run` is a recorded run as a value: who took part, what happened where and when, how each
//!   server's state changed, what went wrong and which rule was broken. The simulator fills it,
//!   logs of other programs are converted to it, and the viewer shows it;
//! - `record` is a trace: actions of nodes, each under the node's vector clock, as the tracing
//!   server collects them and as KVRaft (Go) and ShiViz write them. `tracer` makes them, `verify`
//!   looks at the clocks, `rules` at what Raft promises.
//!
//! Invariant: nothing here has a clock that tells time, a socket or a thread; a run is data.

pub mod action;
pub mod clock;
pub mod convert;
pub mod history;
pub mod perfetto;
pub mod record;
pub mod rules;
pub mod run;
pub mod shiviz;
pub mod text;
pub mod token;
pub mod tracer;
pub mod verify;
