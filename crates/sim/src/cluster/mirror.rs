//! The log of a server, kept by the simulator: one from what was really synced, and one from what
//! was asked to be written.
//!
//! Why: a check that asked the server what it believes to be durable would believe its mistakes.

use kvraft_base::{HardState, Index, Position, Term, Write};

use super::server::Found;

/// A log and a hard state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    /// Everything up to here is in a durable snapshot or checkpoint.
    base: Position,
    /// Terms of the entries after `base`.
    terms: Vec<Term>,
    hard_state: HardState,
}

impl Mirror {
    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(crate) fn last(&self) -> Position {
        let index = Index(self.base.index.0 + self.terms.len() as u64);
        Position::new(self.terms.last().copied().unwrap_or(self.base.term), index)
    }

    /// What a snapshot or checkpoint holds, as far as the log begins behind it.
    pub(crate) fn base(&self) -> Position {
        self.base
    }

    /// Whether the log has this very entry, behind its base.
    pub(crate) fn has_entry(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// Whether the entry at this position is durable here.
    pub(crate) fn holds(&self, position: Position) -> bool {
        position.index <= self.base.index || self.has_entry(position)
    }

    fn slot(&self, index: Index) -> Option<usize> {
        let after = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        usize::try_from(after).ok()
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        self.terms.get(self.slot(index)?).copied()
    }

    /// A write was synced.
    pub(crate) fn on_synced(&mut self, write: &Write) {
        self.hard_state = write.hard_state;
        if let Some(slot) = write.truncate_from.and_then(|first| self.slot(first)) {
            self.terms.truncate(slot);
        }
        for entry in &write.entries {
            let Some(slot) = self.slot(entry.index) else {
                continue;
            };
            self.terms.truncate(slot);
            self.terms.push(entry.term);
        }
    }

    /// A snapshot was installed.
    pub(crate) fn on_reset(&mut self, position: Position) {
        self.base = position;
        self.terms.clear();
    }

    /// After recovery; see [`Mirror::on_recovered`].
    pub(crate) fn on_found(&mut self, found: &Found, may_miss: bool) -> Result<(), String> {
        let Found { hard_state, applied, released, tail, last, .. } = found;
        self.on_recovered(*hard_state, (*applied).max(*released), tail, *last, may_miss)
    }

    /// After recovery: what was written and not synced may have been kept, and what was synced must
    /// have been, unless the server knows what it misses. `begin` is the end of the table or, if it
    /// is later, what the journal begins behind: they differ when the table of a snapshot that was
    /// being installed is damaged. Returns what is missing.
    pub(crate) fn on_recovered(
        &mut self,
        hard_state: HardState,
        begin: Position,
        tail: &[(Index, Term)],
        last: Position,
        muted: bool,
    ) -> Result<(), String> {
        let known = self.last();
        if last < known && !muted {
            return Err(format!("the log ended at {known} when it was synced and ends at {last}"));
        }
        let before = self.hard_state;
        let vote_lost = hard_state.term == before.term
            && before.vote.is_some()
            && hard_state.vote != before.vote;
        if hard_state.term < before.term || vote_lost {
            return Err(format!("hard state {before:?} was synced, {hard_state:?} was recovered"));
        }
        self.hard_state = hard_state;
        if self.base.index < begin.index && self.last().index < begin.index {
            self.on_reset(begin);
        }
        for (index, term) in tail {
            if let Some(slot) = self.slot(*index) {
                self.terms.truncate(slot);
                self.terms.push(*term);
            }
        }
        if let Some(slot) = self.slot(last.index.next()) {
            self.terms.truncate(slot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kvraft_base::{Entry, EntryKind, WriteId};

    use super::*;

    fn write(truncate_from: Option<u64>, entries: &[(u64, u64)]) -> Write {
        let entry = |(index, term): &(u64, u64)| {
            Entry::new(Term(*term), Index(*index), EntryKind::Noop, Bytes::new())
        };
        Write {
            id: WriteId(1),
            hard_state: HardState::default(),
            truncate_from: truncate_from.map(Index),
            entries: entries.iter().map(entry).collect(),
        }
    }

    /// A journal that begins behind a snapshot which nobody saw to its end is not taken for the
    /// beginning of the log.
    #[test]
    fn mirror_follows_a_journal_that_begins_later() {
        let mut mirror = Mirror::default();
        let at = |index| Position::new(Term(2), Index(index));
        let tail = [(Index(26), Term(2))];
        assert_eq!(mirror.on_recovered(HardState::default(), at(25), &tail, at(26), false), Ok(()));
        assert_eq!(mirror.last(), at(26));
        assert!(mirror.holds(at(25)));
    }

    /// A truncation forgets what was durable behind it.
    #[test]
    fn mirror_follows_truncation() {
        let mut mirror = Mirror::default();
        mirror.on_synced(&write(None, &[(1, 1), (2, 1), (3, 1)]));
        mirror.on_synced(&write(Some(2), &[(2, 2)]));
        assert_eq!(mirror.last(), Position::new(Term(2), Index(2)));
        assert!(!mirror.holds(Position::new(Term(1), Index(2))));
        assert!(mirror.holds(Position::new(Term(1), Index(1))));
    }

    /// A log that comes back shorter than what was synced is noticed; a longer one is adopted.
    #[test]
    fn lost_sync_is_noticed() {
        let mut mirror = Mirror::default();
        mirror.on_synced(&write(None, &[(1, 1), (2, 1)]));
        let hard_state = HardState::default();
        let shorter = Position::new(Term(1), Index(1));
        assert!(mirror.on_recovered(hard_state, Position::ZERO, &[], shorter, false).is_err());
        let tail = [(Index(1), Term(1)), (Index(2), Term(1)), (Index(3), Term(2))];
        let longer = Position::new(Term(2), Index(3));
        assert_eq!(mirror.on_recovered(hard_state, Position::ZERO, &tail, longer, false), Ok(()));
        assert!(mirror.holds(longer));
    }
}
