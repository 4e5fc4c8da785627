//! From one configuration to the next, as pure functions.
//!
//! Why alone: which configuration may follow which decides safety (Raft §6), so it can be read and
//! tested without the rest.
//!
//! Invariants:
//! - a change of more than one voter goes through a joint configuration, in which both the old and
//!   the new voters must agree;
//! - a change of at most one voter does not: any majority before it and any majority after it have
//!   a server in common (Ongaro 2014, §4.1), which is all that the joint step is for;
//! - an id that was used once is never added again.

use bytes::Bytes;
use kvraft_base::{
    DecodeError, MemberId, MemberInfo, Members, MembersDraft, MembersError, Reader, Writer, limits,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use update::InfoUpdate;

mod update;

/// One wish about one member. Any number of them, about different members, make one change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new member that votes at once. Until it has the log, it counts as a failed one.
    AddVoter {
        /// A new id.
        id: MemberId,
        /// How it is called and reached.
        info: MemberInfo,
    },
    /// A new member that receives the log and does not vote.
    AddLearner {
        /// A new id.
        id: MemberId,
        /// How it is called and reached.
        info: MemberInfo,
        /// Make it a voter as soon as it is in step.
        promote: bool,
    },
    /// A member leaves for ever.
    Remove {
        /// Who.
        id: MemberId,
    },
    /// A learner that is in step becomes a voter.
    Promote {
        /// Who.
        id: MemberId,
    },
    /// A voter becomes a learner.
    Demote {
        /// Who.
        id: MemberId,
    },
    /// A member is called or reached differently.
    Update {
        /// Who.
        id: MemberId,
        /// What of how it is called and reached is different from now on.
        info: InfoUpdate,
    },
}

/// Most wishes in one change: for every member that can be one to leave or become another, and as
/// many to come. More are refused before anybody looks at them.
pub const CHANGES_MAX: usize = 2 * (limits::VOTERS_MAX + limits::LEARNERS_MAX);

/// Why a change of the configuration cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChangeError {
    /// Nothing is to be changed.
    #[error("nothing is to be changed")]
    Empty,
    /// More than [`CHANGES_MAX`].
    #[error("{0} changes at once are too many")]
    TooMany(usize),
    /// Two wishes about one member.
    #[error("member {0:x} is named twice")]
    Repeated(MemberId),
    /// It is a member already.
    #[error("member {0:x} is a member already")]
    AlreadyMember(MemberId),
    /// The id was used before, or may have been: new ids are above all earlier ones.
    #[error("member id {id:x} was used before; the next is above {id_max:x}")]
    IdReused {
        /// The wanted id.
        id: MemberId,
        /// The greatest id ever used.
        id_max: MemberId,
    },
    /// It is no member.
    #[error("member {0:x} is unknown")]
    UnknownMember(MemberId),
    /// Only a learner can be promoted.
    #[error("member {0:x} is no learner")]
    NotALearner(MemberId),
    /// Only a voter can be demoted.
    #[error("member {0:x} is no voter")]
    NotAVoter(MemberId),
    /// The learner is too far behind the leader to vote.
    #[error("learner {0:x} is not in step: it is behind the leader, or not connected")]
    NotInStep(MemberId),
    /// What would result cannot be a configuration.
    #[error(transparent)]
    Impossible(#[from] MembersError),
}

/// As its own encoding.
impl Serialize for Change {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        writer.finish().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Change {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut reader = Reader::new(Bytes::deserialize(from)?);
        let change = Self::decode(&mut reader).map_err(D::Error::custom)?;
        reader.finish().map_err(D::Error::custom)?;
        Ok(change)
    }
}

impl Change {
    /// Whom it is about.
    #[must_use]
    pub fn id(&self) -> MemberId {
        match self {
            Self::AddVoter { id, .. }
            | Self::AddLearner { id, .. }
            | Self::Remove { id }
            | Self::Promote { id }
            | Self::Demote { id }
            | Self::Update { id, .. } => *id,
        }
    }

    /// Appends the encoding.
    pub fn encode(&self, writer: &mut Writer) {
        let kind = match self {
            Self::AddVoter { .. } => 1,
            Self::AddLearner { .. } => 2,
            Self::Remove { .. } => 3,
            Self::Promote { .. } => 4,
            Self::Demote { .. } => 5,
            Self::Update { .. } => 6,
        };
        writer.u8(kind).u64(self.id().0);
        match self {
            Self::AddVoter { info, .. } => info.encode(writer),
            Self::Update { info, .. } => info.encode(writer),
            Self::AddLearner { info, promote, .. } => info.encode(writer.bool(*promote)),
            Self::Remove { .. } | Self::Promote { .. } | Self::Demote { .. } => {}
        }
    }

    /// Reads an encoding back. Whether the wish can be fulfilled is not looked at.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let kind = reader.u8("change kind")?;
        let id = MemberId(reader.u64("changed member")?);
        Ok(match kind {
            1 => Self::AddVoter { id, info: MemberInfo::decode(reader)? },
            2 => {
                let promote = reader.bool("promote")?;
                Self::AddLearner { id, promote, info: MemberInfo::decode(reader)? }
            }
            3 => Self::Remove { id },
            4 => Self::Promote { id },
            5 => Self::Demote { id },
            6 => Self::Update { id, info: InfoUpdate::decode(reader)? },
            other => {
                return Err(DecodeError::Unknown { what: "change kind", value: u64::from(other) });
            }
        })
    }

    /// Makes a draft what this wishes. `before` is the configuration that is changed.
    fn apply(
        &self,
        before: &Members,
        draft: &mut MembersDraft,
        in_step: impl Fn(MemberId) -> bool,
    ) -> Result<(), ChangeError> {
        let id = self.id();
        match self {
            Self::AddVoter { .. } | Self::AddLearner { .. } if before.contains(id) => {
                return Err(ChangeError::AlreadyMember(id));
            }
            Self::AddVoter { .. } | Self::AddLearner { .. } if id <= before.id_max() => {
                return Err(ChangeError::IdReused { id, id_max: before.id_max() });
            }
            Self::AddVoter { .. } | Self::AddLearner { .. } => {}
            Self::Remove { .. } | Self::Update { .. } if before.contains(id) => {}
            Self::Promote { .. } if before.learner(id).is_some() => {}
            Self::Demote { .. } if before.is_voter(id) => {}
            Self::Promote { .. } if before.contains(id) => {
                return Err(ChangeError::NotALearner(id));
            }
            Self::Demote { .. } if before.contains(id) => return Err(ChangeError::NotAVoter(id)),
            Self::Remove { .. }
            | Self::Update { .. }
            | Self::Promote { .. }
            | Self::Demote { .. } => return Err(ChangeError::UnknownMember(id)),
        }
        match self {
            Self::AddVoter { info, .. } => {
                draft.voters.insert(id);
                draft.infos.insert(id, info.clone());
            }
            Self::AddLearner { info, promote, .. } => {
                draft.learners.insert(id, *promote);
                draft.infos.insert(id, info.clone());
            }
            Self::Remove { .. } => {
                draft.voters.remove(&id);
                draft.learners.remove(&id);
            }
            Self::Promote { .. } if !in_step(id) => return Err(ChangeError::NotInStep(id)),
            Self::Promote { .. } => {
                draft.learners.remove(&id);
                draft.voters.insert(id);
            }
            Self::Demote { .. } => {
                draft.voters.remove(&id);
                draft.learners.insert(id, false);
            }
            Self::Update { info, .. } => info.apply(draft.infos.entry(id).or_default()),
        }
        draft.id_max = draft.id_max.max(id);
        Ok(())
    }
}

/// The configuration that follows `before` when all of `changes` are made: joint if more than one
/// voter comes or goes. `in_step` tells who has nearly all of the log.
pub(crate) fn change(
    before: &Members,
    changes: &[Change],
    in_step: impl Fn(MemberId) -> bool,
) -> Result<Members, ChangeError> {
    assert!(!before.is_joint(), "one change at a time");
    if changes.is_empty() {
        return Err(ChangeError::Empty);
    }
    if CHANGES_MAX < changes.len() {
        return Err(ChangeError::TooMany(changes.len()));
    }
    let mut draft = before.draft();
    for (at, change) in changes.iter().enumerate() {
        let id = change.id();
        if changes[..at].iter().any(|earlier| earlier.id() == id) {
            return Err(ChangeError::Repeated(id));
        }
        change.apply(before, &mut draft, &in_step)?;
    }
    let voters = before.draft().voters;
    if 1 < draft.voters.symmetric_difference(&voters).count() {
        draft.voters_outgoing = voters;
    }
    Ok(forget_infos(draft).finish()?)
}

/// The configuration that follows a joint one.
pub(crate) fn leave(joint: &Members) -> Members {
    assert!(joint.is_joint(), "only a joint configuration is left");
    let mut draft = joint.draft();
    draft.voters_outgoing.clear();
    let members = forget_infos(draft).finish();
    members.expect("the new half of a joint configuration can stand alone")
}

/// Who leaves takes its name and addresses along.
fn forget_infos(mut draft: MembersDraft) -> MembersDraft {
    let MembersDraft { voters, voters_outgoing, learners, .. } = &draft;
    let gone = |id: &MemberId| {
        !voters.contains(id) && !voters_outgoing.contains(id) && !learners.contains_key(id)
    };
    let gone: Vec<MemberId> = draft.infos.keys().copied().filter(gone).collect();
    for id in gone {
        draft.infos.remove(&id);
    }
    draft
}

#[cfg(test)]
pub(crate) mod tests;
