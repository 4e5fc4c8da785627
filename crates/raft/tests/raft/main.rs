//! Consensus seen from outside: scenarios as text, and random runs with every rule checked.

mod random;

mod world;
