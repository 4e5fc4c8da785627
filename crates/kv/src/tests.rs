//! What the state machine is held to: scenarios in text, a naive model, and damaged input.

mod codec;
mod harness;
mod model;
mod random;
mod scenarios;
mod script;
mod sessions;
mod slices;
mod table;
mod versions;
