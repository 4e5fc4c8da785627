//! The node among its peers.

mod forwards;
mod lanes;
mod members;
mod nodes;
mod transfers;
mod versions;
