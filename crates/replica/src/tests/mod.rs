//! The node among its peers.

mod forwards;
mod lanes;
mod nodes;
mod transfers;
