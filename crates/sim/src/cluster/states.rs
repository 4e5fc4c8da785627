//! What every server's state is at every index it has applied: what the log makes of an empty
//! store.
//!
//! The log that was agreed on is applied a second time, by one store that never settles, never
//! starts again and takes no snapshot. Whoever has applied up to an index must be in the state that
//! this store was in there, however it got it: by applying, from its table, or by a snapshot.
//!
//! Why not a model: the answers are judged by models, `verdict` does that. This finds what is lost
//! between two lives or two servers: sessions, members, clocks, revisions, records.
//!
//! Invariant: the hash of an index is computed once, and compared with everybody who comes by.

use bytes::Bytes;
use kvraft_base::{Damage, Entry, Index, MemberId, Records, RowVisitor, TableId};
use kvraft_kv::Kv;

use super::{
    checks::Agreed,
    violation::{Check, Violation},
};

/// A table in which nothing ever was: the store that replays the log keeps all in memory.
#[derive(Debug)]
struct NoTable;

impl Records for NoTable {
    fn read(&self, _table: TableId, _key: &[u8]) -> Result<Option<Bytes>, Damage> {
        Ok(None)
    }

    fn scan(
        &self,
        _table: TableId,
        _first: &[u8],
        _end: Option<&[u8]>,
        _visit: &mut RowVisitor<'_>,
    ) -> Result<(), Damage> {
        Ok(())
    }
}

/// The log, replayed as far as anybody has applied it.
#[derive(Debug, Default)]
pub(crate) struct States {
    replayed: Kv,
    /// The state's hash after each entry; index 1 is at slot 0.
    hashes: Vec<u64>,
    /// The cluster version after each entry.
    versions: Vec<u32>,
}

impl States {
    /// A server has applied everything up to `kv.applied()`.
    ///
    /// # Errors
    /// When its state is not what the log makes it.
    pub(crate) fn check(
        &mut self,
        server: MemberId,
        kv: &Kv,
        agreed: &[Agreed],
    ) -> Result<(), Violation> {
        let wrong = |detail: &str| {
            Err(Violation::new(Check::StateIsReplayed, format!("server {server}: {detail}")))
        };
        let applied = kv.applied();
        let Some(slot) = applied.index.0.checked_sub(1) else { return Ok(()) };
        if let Err(detail) = self.replay(applied.index, agreed) {
            return wrong(&detail);
        }
        let slot = usize::try_from(slot).expect("an index of a log in memory");
        let (version, found) = (self.versions[slot], kv.cluster_version());
        if version != found {
            let detail = format!("server {server}: at {applied} it has {found}, not {version}");
            return Err(Violation::new(Check::VersionsAreSupported, detail));
        }
        let expected = self.hashes[slot];
        let found = kv.state_hash();
        if expected == found {
            return Ok(());
        }
        wrong(&format!(
            "at {applied} its state is {found:016x}, the log makes it {expected:016x}; {:?}",
            kv.stats()
        ))
    }

    fn replay(&mut self, upto: Index, agreed: &[Agreed]) -> Result<(), String> {
        while self.replayed.applied().index < upto {
            let index = self.replayed.applied().index.next();
            let Some(agreed) = agreed.get(self.hashes.len()) else {
                return Err(format!("it has applied {upto}, nobody has committed {index}"));
            };
            let entry = Entry::new(agreed.term, index, agreed.kind, agreed.payload.clone());
            let applied = self.replayed.apply(&NoTable, &entry);
            applied.map_err(|error| format!("entry {index} cannot be applied: {error}"))?;
            self.hashes.push(self.replayed.state_hash());
            self.versions.push(self.replayed.cluster_version());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kvraft_base::{EntryKind, Term};
    use kvraft_kv::{Command, Origin, PutRequest, Request};

    use super::*;

    fn put(index: u64, value: &'static [u8]) -> Entry {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(value));
        let put = PutRequest { key, value, ..PutRequest::default() };
        let command = Command::new(Origin::default(), 1, Request::Put(put));
        Entry::new(Term(1), Index(index), EntryKind::Command, command.encode())
    }

    /// A server applies these; the log is that.
    fn check(states: &mut States, applied: &[Entry], log: &[Entry]) -> Result<(), Violation> {
        let log: Vec<Agreed> = log.iter().map(|entry| Agreed::new(entry, Term(1))).collect();
        let mut kv = Kv::new();
        applied.iter().try_for_each(|entry| {
            kv.apply(&NoTable, entry).unwrap();
            states.check(MemberId(1), &kv, &log)
        })
    }

    /// Equal states pass, however many come by; one that has applied something else is found.
    #[test]
    fn state_that_the_log_does_not_make_is_found() {
        let (log, other) = ([put(1, b"a"), put(2, b"b")], [put(1, b"a"), put(2, b"c")]);
        let mut states = States::default();
        assert_eq!(check(&mut states, &log, &log), Ok(()));
        assert_eq!(check(&mut states, &log[..1], &log), Ok(()));
        let violation = check(&mut states, &other, &log).unwrap_err();
        assert_eq!(violation.check, Check::StateIsReplayed);
    }

    /// Who has applied what nobody committed is found.
    #[test]
    fn state_beyond_the_log_is_found() {
        let log = [put(1, b"a"), put(2, b"b")];
        let violation = check(&mut States::default(), &log, &log[..1]).unwrap_err();
        assert!(violation.detail.contains("nobody has committed 2"), "{violation}");
    }
}
