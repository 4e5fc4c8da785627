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

use kvraft_base::{MemberId, Term};

use super::{
    violation::{Check, Violation},
    world::World,
};

/// A steady time lasts so many election timeouts.
const LENGTH_ELECTION_TIMEOUTS: u32 = 30;

/// So many terms may begin meanwhile when some servers are broken: one that comes and goes may lead
/// each time it is cut off, and a candidate may fail a few times.
const TERM_COUNT_MAX_BROKEN: u64 = 12;

/// And when everybody is well: one leader may give way to another that was asked for before.
const TERM_COUNT_MAX_WELL: u64 = 3;

impl World {
    /// Lets a while pass in which some servers are broken, if this run is one of those.
    pub(crate) fn stay_broken(&mut self, may_go_on: &dyn Fn() -> bool) -> Result<(), Violation> {
        self.stay(may_go_on, TERM_COUNT_MAX_BROKEN)
    }

    /// Lets a while pass in which everybody is well, if this run is one of those, and looks at what
    /// is left.
    pub(crate) fn stay_well(&mut self, may_go_on: &dyn Fn() -> bool) -> Result<(), Violation> {
        self.stay(may_go_on, TERM_COUNT_MAX_WELL)?;
        if !self.config.is_steady {
            return Ok(());
        }
        // What nobody waits for any more is given up by then.
        let until = self.now + self.config.request_time_max();
        self.run_until(may_go_on, |world| until <= world.now)?;
        let ids = self.members_in_use();
        let found = ids.into_iter().find_map(|id| self.leak_of(id));
        found.map_or(Ok(()), |detail| Err(Violation::new(Check::NothingLeaks, detail)))
    }

    fn stay(&mut self, may_go_on: &dyn Fn() -> bool, most: u64) -> Result<(), Violation> {
        if !self.config.is_steady {
            return Ok(());
        }
        let before = self.term_max();
        let until = self.now + self.config.election_timeout * LENGTH_ELECTION_TIMEOUTS;
        self.run_until(may_go_on, |world| until <= world.now)?;
        self.sometimes.steady += 1;
        check_terms(before, self.term_max(), most)
    }

    fn term_max(&self) -> Term {
        let running = self.servers.values().filter_map(|server| server.lanes.as_ref());
        running.map(|lanes| lanes.node.raft().hard_state().term).max().unwrap_or_default()
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
