//! One surviving server goes on alone: its data directory becomes that of a new cluster.
//!
//! Why: where a majority is lost for good, nobody can elect, and no rule of consensus leads on. A
//! person who accepts the loss cuts the knot, offline, in one directory.
//!
//! What the directory holds, its keys, revisions and sessions, stays. Its log gets one more entry,
//! a configuration of this server alone, in a term above all that it has seen; a server that starts
//! from it commits everything before. The cluster's id changes, so that servers of the old cluster
//! are refused by the greeting and cannot take part.
//!
//! Invariants:
//! - the directory is the old one or the new one, at every moment; doing it again ends it;
//! - the greatest member id ever used stays known, so that none is used again.
//!
//! What it lacks: any look at the other servers. Whoever calls makes sure that they are gone.

use kvraft_base::{
    ClusterId, DecodeError, Disk, Entry, EntryKind, HardState, Index, MemberId, MemberInfo,
    Members, MembersDraft, MembersError, Position, Term,
};
use kvraft_store::{Identity, Note, OpenError, Opened, Options};

/// What a data directory holds, as far as it matters for going on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The cluster it is of.
    pub cluster: ClusterId,
    /// Whose it is.
    pub member: MemberId,
    /// The configuration in force: the last in the log, committed or not.
    pub members: Members,
    /// Newest term it has seen.
    pub term: Term,
    /// Up to where it knows the log to be committed.
    pub commit: Index,
    /// Its last entry.
    pub last: Position,
    /// Up to where it once held the log; over `last` when a part is damaged, and so lost.
    pub attested: Index,
    /// What recovery found.
    pub notes: Vec<Note>,
}

impl Survey {
    /// Whether it is a cluster of this server alone already.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        let alone = self.members.ids().iter().eq([&self.member]);
        alone && self.members.is_voter(self.member)
    }

    /// Whether this server could take part in an election as it is: what it attested is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.attested <= self.last.index
    }
}

/// Why a directory cannot go on alone. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The state before the log is not here.
    #[error(
        "the table ends at {applied}, but the journal begins after {released}: what is between is \
         not in this directory; take another server's"
    )]
    Hollow {
        /// Where the table ends.
        applied: Position,
        /// Just before the journal's first entry.
        released: Position,
    },
    /// A configuration in the log cannot be read.
    #[error("the configuration at {at} cannot be read: {error}")]
    Configuration {
        /// Its entry.
        at: Position,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// There is no configuration of this server alone.
    #[error("a configuration of member {member:x} alone: {error}")]
    Members {
        /// This server.
        member: MemberId,
        /// What is wrong with it.
        error: MembersError,
    },
    /// Terms or indices are absurdly great: more than any cluster ever uses.
    #[error("the log ends at {last} in term {term}: nothing can follow")]
    NoRoom {
        /// Newest term.
        term: Term,
        /// Last entry.
        last: Position,
    },
}

/// Looks at a data directory. Recovers it as a start of the server would, and changes nothing else.
///
/// # Errors
/// [`RecoverError`].
pub fn survey(disk: &dyn Disk, options: &Options) -> Result<Survey, RecoverError> {
    look(&open(disk, options)?)
}

/// Makes the directory that of a new cluster, `cluster`, of its own server alone.
///
/// # Errors
/// [`RecoverError`].
pub fn force_new_cluster(
    disk: &dyn Disk,
    options: &Options,
    cluster: ClusterId,
) -> Result<Survey, RecoverError> {
    let opened = open(disk, options)?;
    let found = look(&opened)?;
    let (hard_state, entries) = alone_from(&opened, &found)?;
    let members = members_alone(&found)?;
    let identity = Identity { cluster, member: found.member, members: members.clone() };
    let last = entries.last().map_or(found.last, Entry::position);
    kvraft_store::refound(disk, opened, &identity, hard_state, &entries)?;
    let attested = last.index;
    Ok(Survey { cluster, members, term: hard_state.term, last, attested, ..found })
}

fn open(disk: &dyn Disk, options: &Options) -> Result<Opened, RecoverError> {
    let opened = kvraft_store::open(disk, options, None)?;
    let (applied, released) = (opened.recovered.applied, opened.recovered.released);
    if applied.index < released.index {
        return Err(RecoverError::Hollow { applied, released });
    }
    Ok(opened)
}

fn look(opened: &Opened) -> Result<Survey, RecoverError> {
    let recovered = &opened.recovered;
    let mut members = recovered.members.clone();
    for entry in recovered.tail.iter().filter(|entry| entry.kind == EntryKind::Config) {
        members = Members::decode(entry.payload.clone())
            .map_err(|error| RecoverError::Configuration { at: entry.position(), error })?;
    }
    Ok(Survey {
        cluster: opened.identity.cluster,
        member: opened.identity.member,
        members,
        term: recovered.hard_state.term,
        commit: recovered.hard_state.commit,
        last: recovered.last,
        attested: recovered.attested,
        notes: recovered.notes.clone(),
    })
}

/// The hard state and the log after the table, with the configuration at its end.
fn alone_from(opened: &Opened, found: &Survey) -> Result<(HardState, Vec<Entry>), RecoverError> {
    let last = found.last;
    if NUMBER_MAX <= found.term.0 || NUMBER_MAX <= last.index.0 {
        return Err(RecoverError::NoRoom { term: found.term, last });
    }
    let term = found.term.next();
    let payload = members_alone(found)?.encode();
    let mut entries = opened.recovered.tail.clone();
    entries.push(Entry::new(term, last.index.next(), EntryKind::Config, payload));
    // What was known to be committed and is gone cannot be demanded from anybody any more.
    let commit = found.commit.min(last.index);
    Ok((HardState { term, vote: Some(found.member), commit }, entries))
}

fn members_alone(found: &Survey) -> Result<Members, RecoverError> {
    let info = found.members.info(found.member).cloned();
    let infos = info.map(|info: MemberInfo| (found.member, info)).into_iter().collect();
    let draft = MembersDraft {
        voters: [found.member].into(),
        id_max: found.members.id_max().max(found.member),
        infos,
        ..MembersDraft::default()
    };
    draft.finish().map_err(|error| RecoverError::Members { member: found.member, error })
}

/// Consensus hears of no greater term or index.
const NUMBER_MAX: u64 = 1 << 62;
