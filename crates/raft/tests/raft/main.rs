//! Consensus seen from outside: scenarios as text, random runs with every rule checked, and peers
//! that lie.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod coordinated;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod hints;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod inject;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod liveness;
#[cfg(test)]
mod members;
#[cfg(test)]
mod random;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod text;
#[cfg(test)]
mod world;
