//! Consensus seen from outside: scenarios as text, and random runs with every rule checked.

mod hostile;
mod random;
mod scripts;
mod world;
