//! A disk, as far as consensus can tell: what is on it survives a crash.

use kvraft_base::{Entry, HardState, Index, Position, Write};

/// What survives a crash.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) released: Position,
    pub(crate) entries: Vec<Entry>,
    pub(crate) attested: Index,
    /// Applied position of the table.
    pub(crate) table: Position,
    /// The journal says which configuration was in force at `released`.
    pub(crate) names_members: bool,
}

impl Disk {
    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.released, Entry::position)
    }

    pub(crate) fn contains(&self, position: Position) -> bool {
        position == self.released
            || position.index < self.released.index
            || self.entries.iter().any(|entry| entry.position() == position)
    }

    pub(crate) fn write(&mut self, write: &Write) {
        if let Some(first) = write.truncate_from {
            self.entries.retain(|entry| entry.index < first);
        }
        for entry in &write.entries {
            assert_eq!(entry.index, self.last().index.next(), "writes follow the journal");
            self.entries.push(entry.clone());
        }
        assert!(self.hard_state.term <= write.hard_state.term, "the written term never goes back");
        if self.hard_state.term == write.hard_state.term && self.hard_state.vote.is_some() {
            assert_eq!(self.hard_state.vote, write.hard_state.vote, "one vote per term");
        }
        self.hard_state = write.hard_state;
        self.attested = self.attested.max(self.last().index.min(write.hard_state.commit));
    }
}
