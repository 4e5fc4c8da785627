//! What happened in a run, and the forms in which people look at it.
//!
//! `run` is a recorded run as a value: who took part, what happened where and when, how each
//! server's state changed, what went wrong and which rule was broken. The simulator fills it, logs
//! of other programs are converted to it, and the viewer shows it.
//!
//! Invariant: nothing here has a clock, a socket or a thread; a run is data.

pub mod run;
