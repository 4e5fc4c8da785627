//! Whole servers, each with its four lanes and a simulated disk, that are stepped by hand: who
//! joins, who falls behind the journal, who has lost its table, and what clients hear.

mod group;
mod recorder;
mod requests;
mod snapshots;
