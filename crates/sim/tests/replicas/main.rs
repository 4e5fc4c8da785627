//! Whole servers, each with its four lanes and a simulated disk, that are stepped by hand: who
//! joins, who falls behind the journal, and who has lost its table.

mod group;
mod snapshots;
