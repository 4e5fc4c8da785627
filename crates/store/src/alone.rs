//! Whether nobody else could send the state that this server has lost.
//!
//! Why not by the identity: it says who the members were when the directory was made. Since then
//! they may have come and gone, and the log may have released the entries that say so.
//!
//! Invariant: it is alone only if that is certain. Else the server opens hollow and waits: if there
//! is a peer, it is filled again, and if not, nothing is lost by that.

use kvraft_base::{Damage, Entry, EntryKind, Members};

use crate::{Identity, Journal, Table};

/// As much of the journal is looked at at a time.
const READ_SIZE_BYTES: usize = 1024 * 1024;

/// Whether the directory's member is certainly the only voter. `table`, if it can be opened, helps
/// where the journal names no configuration.
pub(crate) fn is_alone(identity: &Identity, journal: &Journal, table: Option<&Table>) -> bool {
    if journal.last().index < journal.attested() {
        return false; // What is missing may be a configuration.
    }
    let members = match last_config(journal) {
        Ok(Some(entry)) if journal.hard_state().commit < entry.index => return false,
        Ok(Some(entry)) => Members::decode(entry.payload).ok(),
        // No later one than the table's can have been released.
        Ok(None) => table
            .filter(|table| journal.released().index <= table.applied().index)
            .and_then(|table| table.members().ok())
            .map(|members| members.unwrap_or_else(|| identity.members.clone())),
        Err(_) => return false,
    };
    members.is_some_and(|members| members.is_quorum(|voter| voter == identity.member))
}

/// The newest configuration in the journal.
fn last_config(journal: &Journal) -> Result<Option<Entry>, Damage> {
    let (mut prev, last) = (journal.released(), journal.last().index);
    let mut newest = None;
    while prev.index < last {
        let entries = journal.read(prev, prev.index.next(), last, READ_SIZE_BYTES)?;
        let entries = entries.expect("what follows the last entry read is in the journal");
        prev = entries.last().expect("at least one entry is read").position();
        newest = entries.into_iter().rfind(|entry| entry.kind == EntryKind::Config).or(newest);
    }
    Ok(newest)
}
