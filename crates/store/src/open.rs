//! Recovery: from a data directory to a server's memory, the same for every world.
//!
//! In this order: what made the directory another cluster's is ended; whose it is; leftovers of
//! interrupted steps are removed; the table is opened; the journal is replayed; the two are brought
//! together.
//!
//! Invariants:
//! - what is returned is durable, even if a killed process had not synced it;
//! - the table ends within the journal, or before its beginning: then a snapshot must come first;
//! - recovery may itself be cut short anywhere and done again.

use kvraft_base::{
    ClusterId, Damage, Disk, DiskErrorKind, Entry, HardState, Index, MemberId, Members, Position,
};

use crate::{
    Identity, Journal, OpenError, Table, TableError,
    alone::is_alone,
    identity::{IDENTITY_PATH, IDENTITY_TEMP_PATH, read_identity},
    install::{MARK_PATH, MARK_TEMP_PATH, Mark, clear_mark, read_mark},
    journal, rebuild,
    refound::{self, REFOUND_TEMP_PATH},
    table::{TABLE_PATH, TABLE_TEMP_PATH},
};

/// How a data directory is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment of the journal is closed before it grows over this. At least 4 KiB.
    pub segment_size_bytes: u64,
    /// Memory for the table's pages, in bytes.
    pub cache_size_bytes: usize,
    /// From this size of the table on, in bytes, every checkpoint records which of its pages are
    /// free, so that a start after a crash need not walk the table to find out.
    pub quick_repair_from_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_size_bytes: 64 * 1024 * 1024,
            cache_size_bytes: 64 * 1024 * 1024,
            quick_repair_from_bytes: 16 * 1024 * 1024,
        }
    }
}

/// An open data directory.
#[derive(Debug)]
pub struct Opened {
    /// Whose it is.
    pub identity: Identity,
    /// The log and the hard state.
    pub journal: Journal,
    /// The settled state machine.
    pub table: Table,
    /// What consensus starts from.
    pub recovered: Recovered,
}

/// What consensus starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Term, vote and commit as of the last batch that is believed.
    pub hard_state: HardState,
    /// Just before the journal's first entry.
    pub released: Position,
    /// The last entry.
    pub last: Position,
    /// The entries after `applied`, or after `released` if that is later, up to `last`.
    pub tail: Vec<Entry>,
    /// The log was durable here up to this index once. `last.index < attested` means that some of
    /// it is damaged: no vote and no candidacy until peers have repaired it up to there.
    pub attested: Index,
    /// Where the table is. If before `released`, entries are missing in between, which a snapshot
    /// from a peer must bring.
    pub applied: Position,
    /// The configuration in force at `applied`.
    pub members: Members,
    /// The configuration in force at `released`, if the journal knows it.
    pub members_at_base: Option<Members>,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// Something that recovery found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The last batch was not written completely and nothing attests it: it does not count.
    TornTail {
        /// The segment.
        path: String,
        /// Where in it.
        offset: u64,
        /// What was found there.
        detail: String,
    },
    /// Something that had been durable cannot be believed any more.
    Damaged {
        /// The file.
        path: String,
        /// Where in it.
        offset: u64,
        /// What was found there.
        detail: String,
    },
    /// The log ends before what was durable once: this server waits for repair from its peers.
    Muted {
        /// Where the log ends.
        last: Position,
        /// Up to where it was durable.
        attested: Index,
    },
    /// A snapshot was in the table and the journal did not know: the journal was reset to it.
    InstallRolledForward {
        /// The snapshot's position.
        position: Position,
    },
    /// The table ends before the journal begins: this server has a log but not the state before it,
    /// and waits for a snapshot.
    Hollow {
        /// Where the table ends.
        applied: Position,
        /// Just before the journal's first entry.
        released: Position,
    },
    /// The table was damaged; an empty one has taken its place.
    TableSetAside {
        /// Where the damaged file is now.
        path: String,
        /// What was wrong with it.
        detail: String,
        /// Just before the journal's first entry: 0 when the journal alone can fill the table.
        released: Position,
    },
    /// The journal is damaged before the end of the table, or in all that it had after that: it
    /// begins anew after the table, and owes what came later.
    JournalCut {
        /// Where the table ends.
        applied: Position,
    },
    /// The directory had become that of another cluster, and the last steps of that were done now.
    Refounded {
        /// The cluster.
        cluster: ClusterId,
    },
    /// A file that an interrupted step had left was removed.
    LeftoverRemoved {
        /// The file.
        path: String,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TornTail { path, offset, detail } => {
                write!(f, "{path} at offset {offset}: torn tail cut: {detail}")
            }
            Self::Damaged { path, offset, detail } => {
                write!(f, "{path} at offset {offset}: damaged: {detail}")
            }
            Self::Muted { last, attested } => write!(
                f,
                "the log ends at {last} but was durable up to {attested}: no vote until repaired"
            ),
            Self::InstallRolledForward { position } => {
                write!(f, "snapshot install completed: the log begins after {position}")
            }
            Self::JournalCut { applied } => write!(
                f,
                "the journal is damaged about {applied}, where the table ends: it begins anew \
                 there, and peers must send what came later"
            ),
            Self::Hollow { applied, released } => write!(
                f,
                "the table ends at {applied} but the journal begins after {released}: nothing is \
                 applied or served before a peer has sent a snapshot"
            ),
            Self::TableSetAside { path, detail, released } => {
                let source = match released.index {
                    Index::ZERO => "the journal fills a new one",
                    _ => "a peer has to fill a new one",
                };
                write!(f, "the table is damaged ({detail}); it is kept as {path}, and {source}")
            }
            Self::Refounded { cluster } => {
                write!(f, "recovery completed: this is a server of cluster {cluster:x} now")
            }
            Self::LeftoverRemoved { path } => write!(f, "{path}: leftover removed"),
        }
    }
}

/// Opens a data directory after whatever has happened to it. `expected` is whose it must be.
///
/// # Errors
/// [`OpenError`]; each names the file and what to do. After one with [`OpenError::table_damage`],
/// [`crate::rebuild`] makes it possible to open the directory again.
///
/// # Panics
/// When the options are out of their bounds.
pub fn open(
    disk: &dyn Disk,
    options: &Options,
    expected: Option<(ClusterId, MemberId)>,
) -> Result<Opened, OpenError> {
    assert!(4096 <= options.segment_size_bytes, "a segment has at least 4 KiB");
    // Before anything else is read: what the directory is may not all be in its place yet.
    let refounded = refound::finish(disk)?;
    let identity = read_identity(disk)?;
    check_expected(&identity, expected)?;
    if let Some(damage) = rebuild::condemned(disk)? {
        return Err(TableError::from(damage).into());
    }
    let mut notes = Vec::new();
    if refounded {
        notes.push(Note::Refounded { cluster: identity.cluster });
    }
    for path in [TABLE_TEMP_PATH, IDENTITY_TEMP_PATH, MARK_TEMP_PATH, REFOUND_TEMP_PATH] {
        remove_leftover(disk, path, &mut notes)?;
    }
    // A killed process may have renamed a table that is not yet durable under its name; the journal
    // must not follow it before it is.
    disk.sync_dir("")?;
    disk.open(TABLE_PATH).map_err(|error| table_missing(error.kind, error))?.sync()?;
    let table = Table::open(disk, options)?;
    match recover(disk, options, &identity, &table, notes) {
        Ok((journal, recovered)) => Ok(Opened { identity, journal, table, recovered }),
        Err(error) => {
            table.close()?;
            Err(error)
        }
    }
}

/// The journal, and what it and the table make together.
fn recover(
    disk: &dyn Disk,
    options: &Options,
    identity: &Identity,
    table: &Table,
    mut notes: Vec<Note>,
) -> Result<(Journal, Recovered), OpenError> {
    let mut journal = journal::recover(disk, identity, options, &mut notes)?;
    join(disk, &mut journal, table, identity, &mut notes)?;
    let applied = table.applied();
    if let Some(members) = certain_members(table, identity)? {
        journal.learn_members(applied.index, &members);
    }
    let members = table.members()?.unwrap_or_else(|| identity.members.clone());
    let recovered = Recovered {
        hard_state: journal.hard_state(),
        released: journal.released(),
        last: journal.last(),
        tail: read_tail(&journal, applied)?,
        attested: journal.attested(),
        applied,
        members,
        members_at_base: members_at_base(&journal, identity),
        notes,
    };
    Ok((journal, recovered))
}

/// What the journal knows of its base. Names and addresses that had no room there are taken from
/// the identity, which may have older ones.
fn members_at_base(journal: &Journal, identity: &Identity) -> Option<Members> {
    let known = journal.base_members()?;
    let mut draft = known.draft();
    for id in known.ids() {
        if let Some(info) = identity.members.info(id) {
            draft.infos.entry(id).or_insert_with(|| info.clone());
        }
    }
    draft.finish().ok()
}

fn check_expected(
    identity: &Identity,
    expected: Option<(ClusterId, MemberId)>,
) -> Result<(), OpenError> {
    match expected {
        Some((expected_cluster, expected_member))
            if (expected_cluster, expected_member) != (identity.cluster, identity.member) =>
        {
            Err(OpenError::Foreign {
                path: IDENTITY_PATH.into(),
                cluster: identity.cluster,
                member: identity.member,
                expected_cluster,
                expected_member,
            })
        }
        Some(_) | None => Ok(()),
    }
}

fn remove_leftover(disk: &dyn Disk, path: &str, notes: &mut Vec<Note>) -> Result<(), OpenError> {
    match disk.remove(path) {
        Ok(()) => notes.push(Note::LeftoverRemoved { path: path.into() }),
        Err(error) if error.kind == DiskErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn table_missing(kind: DiskErrorKind, error: kvraft_base::DiskError) -> OpenError {
    if kind == DiskErrorKind::NotFound {
        let detail = "the file is missing".into();
        return TableError::from(Damage::Lost { what: error.path, detail }).into();
    }
    error.into()
}

/// Brings journal and table together. What the table holds was durable in the journal before; if it
/// is not there, an install is completed, or a damaged journal begins anew, or else the journal has
/// lost its end and with it perhaps a vote: then there is no going on.
fn join(
    disk: &dyn Disk,
    journal: &mut Journal,
    table: &Table,
    identity: &Identity,
    notes: &mut Vec<Note>,
) -> Result<(), OpenError> {
    let (applied, released) = (table.applied(), journal.released());
    if applied.index < released.index {
        if is_alone(identity, journal, Some(table)) {
            return Err(OpenError::Gap { applied, released });
        }
        if journal.is_base_committed() {
            notes.push(Note::Hollow { applied, released });
            return Ok(clear_mark(disk)?);
        }
        // To begin after `released` would be to say that all before it is committed.
        reset_to_table(journal, table, identity)?;
        notes.push(Note::JournalCut { applied });
        return Ok(());
    }
    let mark = read_mark(disk)?;
    if journal.holds(applied).map_err(OpenError::of_journal)? {
        return Ok(clear_mark(disk)?);
    }
    let note = match mark {
        Mark::At(position) if position == applied => Note::InstallRolledForward { position },
        Mark::At(_) | Mark::Absent if journal.misses(applied.index) => Note::JournalCut { applied },
        Mark::At(_) | Mark::Absent => return Err(end_lost(journal, applied)),
        Mark::Damaged => {
            let detail = "the mark of a snapshot install cannot be read".into();
            return Err(OpenError::Damaged { path: MARK_PATH.into(), detail });
        }
    };
    reset_to_table(journal, table, identity)?;
    notes.push(note);
    Ok(())
}

fn reset_to_table(
    journal: &mut Journal,
    table: &Table,
    identity: &Identity,
) -> Result<(), OpenError> {
    let applied = table.applied();
    let hard_state = hard_state_after(journal.hard_state(), applied);
    Ok(journal.reset(applied, hard_state, certain_members(table, identity)?)?)
}

/// In force where the table ends, if that is certain.
fn certain_members(table: &Table, identity: &Identity) -> Result<Option<Members>, TableError> {
    Ok(table.members()?.or_else(|| identity.founding_members().cloned()))
}

fn end_lost(journal: &Journal, applied: Position) -> OpenError {
    let last = journal.last();
    OpenError::HardStateLost {
        path: journal.path(),
        detail: format!("the log ends at {last}, but the table holds {applied}"),
    }
}

/// The hard state is kept; but what is in the table is committed, and its term has been seen.
fn hard_state_after(kept: HardState, applied: Position) -> HardState {
    let commit = kept.commit.max(applied.index);
    if kept.term < applied.term {
        return HardState { term: applied.term, vote: None, commit };
    }
    HardState { commit, ..kept }
}

fn read_tail(journal: &Journal, applied: Position) -> Result<Vec<Entry>, OpenError> {
    let (last, released) = (journal.last().index, journal.released());
    let base = if applied.index < released.index { released } else { applied };
    if base.index == last {
        return Ok(Vec::new());
    }
    let tail = journal.read(base, base.index.next(), last, usize::MAX);
    let tail = tail.map_err(OpenError::of_journal)?;
    Ok(tail.expect("the table ends within the journal or before it: just checked"))
}
