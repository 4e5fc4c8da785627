//! The store on a disk that loses, tears, refuses and damages: everything through the public API.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

mod crash;
mod damage;
mod directory;
mod disk;
mod install;
mod journal;
mod members;
mod rebuild;
mod refound;
mod table;
mod world;
