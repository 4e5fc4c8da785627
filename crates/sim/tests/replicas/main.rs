//! Whole servers, each with its four lanes and a simulated disk, that are stepped by hand: who
//! joins, who falls behind the journal, who has lost its table, what clients hear, and what is
//! recorded of all that.

mod group;
mod recorder;
mod recordings;
mod redacted;
mod requests;
mod snapshots;
