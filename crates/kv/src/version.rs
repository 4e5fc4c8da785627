//! Cluster versions: which rules apply follows.
//!
//! Servers of different builds replay one log, so what an entry does is chosen by a number in the
//! replicated state and never by the build that applies it. The number begins at 1 and is raised by
//! an entry, [`crate::Request::RaiseVersion`], once all members know the rules of the next one.
//!
//! | version | what it changes |
//! |--:|---|
//! | 1 | the replicated clock is the greatest wall clock that any leader has stamped |
//! | 2 | it goes on from where the last leader left it: only the time within a term moves it |
//!
//! In version 1 a leader whose wall clock is ahead expires all sessions, and one whose clock is
//! behind keeps them alive.
//!
//! Invariants: the version never goes down; a server in whose state or log there is a version that
//! its build does not know stops, with everything as it was.
//!
//! What it lacks: a way back. A cluster that was raised cannot be served by older builds any more.

use kvraft_base::Damage;
use serde::{Deserialize, Serialize};

/// Which cluster versions a build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest whose state and entries it can still read.
    pub oldest: u32,
    /// The newest whose rules it knows.
    pub newest: u32,
}

impl Versions {
    /// Those of this build.
    pub const OF_BUILD: Self = Self { oldest: 1, newest: VERSION_TERM_CLOCK };

    /// The version is one of them.
    #[must_use]
    pub fn supports(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    /// # Errors
    /// [`Unsupported`] when it is not.
    pub fn check(self, version: u32) -> Result<(), Unsupported> {
        if self.supports(version) { Ok(()) } else { Err(Unsupported { version, known: self }) }
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self::OF_BUILD
    }
}

/// The cluster is of a version that this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster has version {version}, and this build knows versions {} to {}: install a build \
     that knows it",
    known.oldest,
    known.newest
)]
pub struct Unsupported {
    /// The cluster's.
    pub version: u32,
    /// The build's.
    pub known: Versions,
}

/// Why a state cannot be loaded or taken further.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The table cannot be believed.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// It is sound, and for newer builds, or for older ones.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// Every cluster begins here, whatever its servers know.
pub(crate) const VERSION_FIRST: u32 = 1;

/// From here on the replicated clock goes on from where the last leader left it.
pub(crate) const VERSION_TERM_CLOCK: u32 = 2;
