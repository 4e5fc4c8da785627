//! The node among its peers.

mod forwards;
mod nodes;
