//! The node among its peers: nodes that are stepped by hand, without journals and machines.

mod forwards;
mod group;
mod lanes;
mod members;
mod transfers;
mod versions;
