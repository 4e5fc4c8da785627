//! The servers that make up a cluster, as a configuration entry carries them.
//!
//! Why here: consensus decides by them, the store keeps them, and the edge dials them.
//!
//! Invariants, held by [`MembersDraft::finish`] alone:
//! - there is a voter; nobody has id 0; no list holds an id twice; every list is bounded;
//! - no voter is a learner, except one that a joint configuration is about to demote: it stands
//!   among the outgoing voters and among the learners;
//! - `id_max` is at least every id, and never goes back from one configuration to the next, so that
//!   an id that a committed configuration has named is never given again;
//! - only members have an info.
//!
//! What it lacks: any rule about which configuration may follow which; that is consensus.
//!
//! Layout of version 2, little-endian: `u8` 2; voters, then outgoing voters, each a `u32` count and
//! `u64` ids; learners, a count and for each `u64` id and `u8` promote; `u64` id_max; infos, a
//! count and for each `u64` id, name, peer addresses, client addresses (lists are a count, then
//! strings with a `u32` length). Version 1 had three lists of ids, of which the last two were
//! empty.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    MemberId,
    codec::{DecodeError, Reader, Writer},
    limits,
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Members {
    /// Voters; while joint, those of the new half, who vote already. Sorted.
    voters: Vec<MemberId>,
    /// While joint, those of the old half; else empty. Sorted.
    voters_outgoing: Vec<MemberId>,
    /// Sorted by id.
    learners: Vec<Learner>,
    id_max: MemberId,
    infos: BTreeMap<MemberId, MemberInfo>,
}

/// A member without a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Learner {
    /// Who.
    pub id: MemberId,
    /// It is to become a voter as soon as it is in step.
    pub promote: bool,
}

/// How a member is called and reached. Consensus carries it and never looks inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemberInfo {
    /// For people; at most [`limits::MEMBER_TEXT_SIZE_BYTES_MAX`] bytes, as each address.
    pub name: String,
    /// Where other servers reach it; at most [`limits::MEMBER_ADDRESSES_MAX`], as client addresses.
    pub peer_addresses: Vec<String>,
    /// Where clients reach it.
    pub client_addresses: Vec<String>,
}

/// What a member is in one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberRole {
    /// Votes.
    Voter,
    /// Votes, and is only in the new half of a joint configuration.
    VoterIncoming,
    /// Votes, and is only in the old half of a joint configuration.
    VoterOutgoing,
    /// Receives the log and does not vote.
    Learner,
}

/// Why a configuration cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MembersError {
    /// Nobody could ever decide anything.
    #[error("no voter is left")]
    NoVoters,
    /// More than [`limits::VOTERS_MAX`].
    #[error("{0} voters are too many")]
    TooManyVoters(usize),
    /// More than [`limits::LEARNERS_MAX`].
    #[error("{0} learners are too many")]
    TooManyLearners(usize),
    /// Id 0 names nobody.
    #[error("member id 0 names nobody")]
    NoId,
    /// Nobody both votes and learns.
    #[error("member {0:x} is voter and learner")]
    VoterAndLearner(MemberId),
    /// There is no id for another member.
    #[error("no member id is left")]
    NoIdLeft,
    /// An id is above the greatest that is said to be used.
    #[error("member {0:x} is above the greatest id in use")]
    IdAboveMax(MemberId),
    /// Only members have an info.
    #[error("member {0:x} has an info and is no member")]
    InfoOfNobody(MemberId),
    /// A name or an address is too long, or there are too many addresses.
    #[error("the info of member {0:x} is too large")]
    InfoTooLarge(MemberId),
}

/// A configuration in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersDraft {
    /// Voters; while joint, those to come.
    pub voters: BTreeSet<MemberId>,
    /// While joint, the voters so far.
    pub voters_outgoing: BTreeSet<MemberId>,
    /// Learners, and whether each is to be promoted when in step.
    pub learners: BTreeMap<MemberId, bool>,
    /// The greatest id ever used.
    pub id_max: MemberId,
    /// Names and addresses.
    pub infos: BTreeMap<MemberId, MemberInfo>,
}

impl MembersDraft {
    /// The configuration, if it can be one.
    ///
    /// # Errors
    /// The first invariant of [`Members`] that does not hold.
    pub fn finish(self) -> Result<Members, MembersError> {
        self.check()?;
        let learner = |(id, promote)| Learner { id, promote };
        Ok(Members {
            voters: self.voters.into_iter().collect(),
            voters_outgoing: self.voters_outgoing.into_iter().collect(),
            learners: self.learners.into_iter().map(learner).collect(),
            id_max: self.id_max,
            infos: self.infos,
        })
    }

    fn check(&self) -> Result<(), MembersError> {
        if self.voters.is_empty() {
            return Err(MembersError::NoVoters);
        }
        let count = self.voters.len().max(self.voters_outgoing.len());
        if limits::VOTERS_MAX < count {
            return Err(MembersError::TooManyVoters(count));
        }
        if limits::LEARNERS_MAX < self.learners.len() {
            return Err(MembersError::TooManyLearners(self.learners.len()));
        }
        if let Some(both) = self.learners.keys().find(|id| self.voters.contains(id)) {
            return Err(MembersError::VoterAndLearner(*both));
        }
        let ids = || self.voters.iter().chain(&self.voters_outgoing).chain(self.learners.keys());
        if ids().any(|id| *id == MemberId::ZERO) {
            return Err(MembersError::NoId);
        }
        if self.id_max == MemberId(u64::MAX) {
            return Err(MembersError::NoIdLeft);
        }
        if let Some(above) = ids().find(|id| self.id_max < **id) {
            return Err(MembersError::IdAboveMax(*above));
        }
        for (id, info) in &self.infos {
            if !ids().any(|member| member == id) {
                return Err(MembersError::InfoOfNobody(*id));
            }
            if !info.fits() {
                return Err(MembersError::InfoTooLarge(*id));
            }
        }
        Ok(())
    }
}

impl MemberInfo {
    /// Whether it is within the bounds.
    #[must_use]
    pub fn fits(&self) -> bool {
        let addresses = || self.peer_addresses.iter().chain(&self.client_addresses);
        let fits = |text: &String| text.len() <= limits::MEMBER_TEXT_SIZE_BYTES_MAX;
        let count = self.peer_addresses.len().max(self.client_addresses.len());
        count <= limits::MEMBER_ADDRESSES_MAX && fits(&self.name) && addresses().all(fits)
    }

    /// Appends the encoding.
    pub fn encode(&self, writer: &mut Writer) {
        writer.bytes(self.name.as_bytes());
        for addresses in [&self.peer_addresses, &self.client_addresses] {
            writer.count(addresses.len());
            for address in addresses {
                writer.bytes(address.as_bytes());
            }
        }
    }

    /// Reads an encoding back. Its bounds are checked with the configuration.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            name: decode_text(reader)?,
            peer_addresses: decode_list(reader, 4, decode_text)?,
            client_addresses: decode_list(reader, 4, decode_text)?,
        })
    }
}

impl Members {
    /// A configuration of voters only; `None` when there are none, a duplicate, id 0, or too many.
    #[must_use]
    pub fn new(voters: impl IntoIterator<Item = MemberId>) -> Option<Self> {
        let voters: Vec<MemberId> = voters.into_iter().collect();
        let count = voters.len();
        let voters: BTreeSet<MemberId> = voters.into_iter().collect();
        let id_max = voters.last().copied()?;
        if voters.len() < count {
            return None;
        }
        MembersDraft { voters, id_max, ..MembersDraft::default() }.finish().ok()
    }

    /// A copy to make another configuration of.
    #[must_use]
    pub fn draft(&self) -> MembersDraft {
        MembersDraft {
            voters: self.voters.iter().copied().collect(),
            voters_outgoing: self.voters_outgoing.iter().copied().collect(),
            learners: self.learners.iter().map(|learner| (learner.id, learner.promote)).collect(),
            id_max: self.id_max,
            infos: self.infos.clone(),
        }
    }

    /// Who votes, in order of id; while joint, who will.
    #[must_use]
    pub fn voters(&self) -> &[MemberId] {
        &self.voters
    }

    /// While joint, who has voted so far and still does, in order of id; else nobody.
    #[must_use]
    pub fn voters_outgoing(&self) -> &[MemberId] {
        &self.voters_outgoing
    }

    /// Who receives the log without a vote, in order of id. While joint, also voters that are about
    /// to be demoted.
    #[must_use]
    pub fn learners(&self) -> &[Learner] {
        &self.learners
    }

    /// Whether two sets of voters must agree (Raft §6).
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether `id` has a vote, in either half.
    #[must_use]
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.voters.binary_search(&id).is_ok() || self.voters_outgoing.binary_search(&id).is_ok()
    }

    /// Whether `id` is a member of any kind.
    #[must_use]
    pub fn contains(&self, id: MemberId) -> bool {
        self.is_voter(id) || self.learner(id).is_some()
    }

    /// Whether `id` was given to a member and nobody has it now. If this configuration is
    /// committed, that member was removed for good.
    #[must_use]
    pub fn has_removed(&self, id: MemberId) -> bool {
        !self.contains(id) && id <= self.id_max
    }

    /// Everyone, in order of id.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<MemberId> {
        let learners = self.learners.iter().map(|learner| learner.id);
        self.voters.iter().chain(&self.voters_outgoing).copied().chain(learners).collect()
    }

    /// What `id` is; `None` when it is no member.
    #[must_use]
    pub fn role(&self, id: MemberId) -> Option<MemberRole> {
        let incoming = self.voters.binary_search(&id).is_ok();
        let outgoing = self.voters_outgoing.binary_search(&id).is_ok();
        match (incoming, outgoing) {
            (true, true) => Some(MemberRole::Voter),
            (true, false) if !self.is_joint() => Some(MemberRole::Voter),
            (true, false) => Some(MemberRole::VoterIncoming),
            (false, true) => Some(MemberRole::VoterOutgoing),
            (false, false) => self.learner(id).map(|_| MemberRole::Learner),
        }
    }

    /// The entry of `id` among the learners.
    #[must_use]
    pub fn learner(&self, id: MemberId) -> Option<Learner> {
        let at = self.learners.binary_search_by_key(&id, |learner| learner.id).ok()?;
        Some(self.learners[at])
    }

    /// Name and addresses of `id`, where they were given.
    #[must_use]
    pub fn info(&self, id: MemberId) -> Option<&MemberInfo> {
        self.infos.get(&id)
    }

    /// The greatest id ever used.
    #[must_use]
    pub fn id_max(&self) -> MemberId {
        self.id_max
    }

    /// The id for the next new member.
    #[must_use]
    pub fn next_id(&self) -> MemberId {
        self.id_max.next()
    }

    /// Whether those for whom `holds` is true are a quorum: a strict majority of the voters, while
    /// joint of both halves.
    #[must_use]
    pub fn is_quorum(&self, holds: impl Fn(MemberId) -> bool) -> bool {
        let has_majority = |half: &[MemberId]| {
            half.is_empty() || majority(half.len()) <= half.iter().filter(|id| holds(**id)).count()
        };
        has_majority(&self.voters) && has_majority(&self.voters_outgoing)
    }

    /// The encoding, with a format version in front.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(2);
        for half in [&self.voters, &self.voters_outgoing] {
            writer.count(half.len());
            for id in half {
                writer.u64(id.0);
            }
        }
        writer.count(self.learners.len());
        for learner in &self.learners {
            writer.u64(learner.id.0).bool(learner.promote);
        }
        writer.u64(self.id_max.0).count(self.infos.len());
        for (id, info) in &self.infos {
            writer.u64(id.0);
            info.encode(&mut writer);
        }
        writer.finish()
    }

    /// Reads an encoding back, of this version or the one before.
    ///
    /// # Errors
    /// Any [`DecodeError`]; "unknown" of a configuration that cannot be.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let draft = match reader.u8("configuration version")? {
            1 => Self::decode_version_1(&mut reader)?,
            2 => Self::decode_version_2(&mut reader)?,
            other => return Err(unknown("configuration version", u64::from(other))),
        };
        reader.finish()?;
        draft.finish().map_err(|_| unknown("configuration", 0))
    }

    fn decode_version_1(reader: &mut Reader) -> Result<MembersDraft, DecodeError> {
        let voters = decode_set(reader)?;
        let others = decode_set(reader)?.len() + decode_set(reader)?.len();
        if 0 < others {
            return Err(unknown("outgoing voters or learners", others as u64));
        }
        let id_max = voters.last().copied().unwrap_or_default();
        Ok(MembersDraft { voters, id_max, ..MembersDraft::default() })
    }

    fn decode_version_2(reader: &mut Reader) -> Result<MembersDraft, DecodeError> {
        let voters = decode_set(reader)?;
        let voters_outgoing = decode_set(reader)?;
        let learner =
            |reader: &mut Reader| Ok((MemberId(reader.u64("learner")?), reader.bool("promote")?));
        let learners = distinct(decode_list(reader, 9, learner)?, |learner| learner.0)?;
        let id_max = MemberId(reader.u64("greatest id")?);
        let info = |reader: &mut Reader| {
            Ok((MemberId(reader.u64("member id")?), MemberInfo::decode(reader)?))
        };
        let infos = distinct(decode_list(reader, 20, info)?, |info| info.0)?;
        Ok(MembersDraft {
            voters,
            voters_outgoing,
            learners: learners.into_iter().collect(),
            id_max,
            infos: infos.into_iter().collect(),
        })
    }
}

impl fmt::Display for Members {
    /// `(1 2 4)&(1 2 3) learners (5 6+)`: the halves, and learners, a plus for "to be promoted".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ids: &[MemberId]| {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            ids.join(" ")
        };
        write!(f, "({})", list(&self.voters))?;
        if self.is_joint() {
            write!(f, "&({})", list(&self.voters_outgoing))?;
        }
        if self.learners.is_empty() {
            return Ok(());
        }
        let text =
            |learner: &Learner| format!("{}{}", learner.id, if learner.promote { "+" } else { "" });
        let learners: Vec<String> = self.learners.iter().map(text).collect();
        write!(f, " learners ({})", learners.join(" "))
    }
}

/// As its own encoding, which no list that breaks an invariant gets through.
impl Serialize for Members {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.encode().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::decode(Bytes::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// How many of `count` make a strict majority: 2 of 3, 3 of 4, 3 of 5.
#[must_use]
pub fn majority(count: usize) -> usize {
    count / 2 + 1
}

fn decode_set(reader: &mut Reader) -> Result<BTreeSet<MemberId>, DecodeError> {
    let ids = decode_list(reader, 8, |reader| reader.u64("member id").map(MemberId))?;
    Ok(distinct(ids, |id| *id)?.into_iter().collect())
}

fn decode_list<T>(
    reader: &mut Reader,
    size_min: usize,
    decode: impl Fn(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count("member count", size_min)?;
    (0..count).map(|_| decode(reader)).collect()
}

/// Lists are written in order of id, each id once; what is not was not written by us.
fn distinct<T>(list: Vec<T>, id: impl Fn(&T) -> MemberId) -> Result<Vec<T>, DecodeError> {
    match list.windows(2).find(|pair| id(&pair[1]) <= id(&pair[0])) {
        Some(pair) => Err(unknown("order of members", id(&pair[1]).0)),
        None => Ok(list),
    }
}

fn decode_text(reader: &mut Reader) -> Result<String, DecodeError> {
    let bytes = reader.bytes("member text")?;
    let size = bytes.len() as u64;
    String::from_utf8(bytes.to_vec()).map_err(|_| unknown("member text", size))
}

fn unknown(what: &'static str, value: u64) -> DecodeError {
    DecodeError::Unknown { what, value }
}

#[cfg(test)]
mod tests;
