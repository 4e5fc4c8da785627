//! What must hold while nothing happens: leaders stay, nothing waits for ever, nothing is left
//! over.
//!
//! A run that ends with its last answer never looks at the time after it. Some runs therefore go on
//! for a while, once with the servers that stay broken and once with everybody well: terms may
//! hardly grow, requests that were made must be gone, and what interrupted steps leave on disks
//! must be removed.
//!
//! Why terms are counted and not elections: every campaign takes one, won or not, and a livelock is
//! made of those that nobody wins.

use kvraft_base::{Instant, MemberId, Term};

use super::{
    violation::{Check, Violation},
    world::World,
};

/// A steady time lasts so many election timeouts.
const LENGTH_ELECTION_TIMEOUTS: u32 = 30;

/// So many terms may begin meanwhile when some servers are broken: one that comes and goes may lead
/// each time it is cut off, and a candidate may fail a few times. So may one that needs the vote of
/// everybody whose disk is not lost, where frames get lost: each such campaign takes a term.
pub(crate) const TERM_COUNT_MAX_BROKEN: u64 = 12;

/// And when everybody is well, and lost disks make nobody's vote indispensable: one leader may give
/// way to another that was asked for before.
pub(crate) const TERM_COUNT_MAX_WELL: u64 = 3;

/// A while in which nothing happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    until: Instant,
    /// The greatest term when it began.
    term: Term,
}

impl Steady {
    /// It begins, if this run is one of those that have one.
    pub(crate) fn begin(world: &World) -> Option<Self> {
        let until = world.now + world.config.election_timeout * LENGTH_ELECTION_TIMEOUTS;
        world.config.is_steady.then(|| Self { until, term: world.term_max() })
    }

    pub(crate) fn until(self) -> Instant {
        self.until
    }

    /// It is over.
    ///
    /// # Errors
    /// When more terms than `most` have begun.
    pub(crate) fn end(self, world: &mut World, most: u64) -> Result<(), Violation> {
        world.sometimes.steady += 1;
        check_terms(self.term, world.term_max(), most)
    }
}

impl World {
    /// Looks at what is left when everybody is well and nobody waits for anything.
    ///
    /// # Errors
    /// When a server has anything left over.
    pub(crate) fn check_left_over(&self) -> Result<(), Violation> {
        let ids = self.members_in_use();
        let found = ids.into_iter().find_map(|id| self.leak_of(id));
        found.map_or(Ok(()), |detail| Err(Violation::new(Check::NothingLeaks, detail)))
    }

    fn term_max(&self) -> Term {
        let running = self.servers.values().filter_map(|server| server.lanes.as_ref());
        running.map(|lanes| lanes.node.raft().hard_state().term).max().unwrap_or_default()
    }

    /// How many entries the longest log has, of servers that run.
    pub(crate) fn log_length_max(&self) -> u64 {
        let running = self.servers.values().filter_map(|server| server.lanes.as_ref());
        running.map(|lanes| lanes.node.status().last.index.0).max().unwrap_or_default()
    }

    /// What a server still has though nobody waits for anything.
    fn leak_of(&self, id: MemberId) -> Option<String> {
        let server = &self.servers[&id];
        let lanes = server.lanes.as_ref()?;
        let waiting = lanes.node.waiting_count();
        if 0 < waiting {
            return Some(format!("server {id} still has {waiting} requests that wait"));
        }
        let left = server.disk.left_over();
        (!left.is_empty()).then(|| format!("server {id} still has {}", left.join(", ")))
    }
}

/// # Errors
/// When too many terms have begun.
fn check_terms(before: Term, after: Term, most: u64) -> Result<(), Violation> {
    let begun = after.0.saturating_sub(before.0);
    if begun <= most {
        return Ok(());
    }
    let detail = format!(
        "{begun} terms in {LENGTH_ELECTION_TIMEOUTS} election timeouts, up to term {after}; {most} \
         would be understandable"
    );
    Err(Violation::new(Check::ElectionsAreRare, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few campaigns are forgiven, a livelock is not.
    #[test]
    fn too_many_terms_are_noticed() {
        assert_eq!(check_terms(Term(7), Term(10), TERM_COUNT_MAX_WELL), Ok(()));
        let violation = check_terms(Term(7), Term(11), TERM_COUNT_MAX_WELL).unwrap_err();
        assert_eq!(violation.check, Check::ElectionsAreRare);
    }
}
