//! Between traces and recorded runs.
//!
//! A trace knows clocks and actions; a run knows causes, states and operations. From a trace,
//! causes follow from tokens, or from the growth of clocks where there are none, and states from
//! what the actions say: for other programs, what is shown is what they have written down. From a
//! run, clocks follow from causes.

mod from_log;
mod named;
mod states;
mod to_log;

pub use from_log::run_of_log;
pub use to_log::log_of_run;

#[cfg(test)]
mod tests;
