//! How the reasons of a refusal travel. One byte each, and what belongs to it.

use kvraft_base::{DecodeError, Index, MemberId, MembersError, Reader, Writer};
use kvraft_raft::ChangeError;

use super::ForwardRefusal;

impl ForwardRefusal {
    pub(super) fn encode(self, writer: &mut Writer) {
        match self {
            Self::Busy => writer.u8(1),
            // Member ids start at 1.
            Self::NotLeader { leader } => writer.u8(2).u64(leader.unwrap_or_default().0),
            Self::TooLarge => writer.u8(3),
            Self::Muted => writer.u8(4),
            Self::Malformed => writer.u8(5),
            Self::ChangePending { index } => writer.u8(6).u64(index.0),
            Self::TermNotCommitted => writer.u8(7),
            Self::Change(error) => encode_change_error(writer.u8(8), error),
        };
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8("reason")? {
            1 => Ok(Self::Busy),
            2 => {
                let leader = MemberId(reader.u64("leader")?);
                Ok(Self::NotLeader { leader: (leader != MemberId::ZERO).then_some(leader) })
            }
            3 => Ok(Self::TooLarge),
            4 => Ok(Self::Muted),
            5 => Ok(Self::Malformed),
            6 => Ok(Self::ChangePending { index: Index(reader.u64("pending change")?) }),
            7 => Ok(Self::TermNotCommitted),
            8 => decode_change_error(reader).map(Self::Change),
            other => Err(DecodeError::Unknown { what: "reason", value: u64::from(other) }),
        }
    }
}

fn encode_change_error(writer: &mut Writer, error: ChangeError) -> &mut Writer {
    match error {
        ChangeError::Empty => writer.u8(1),
        ChangeError::Repeated(id) => writer.u8(2).u64(id.0),
        ChangeError::AlreadyMember(id) => writer.u8(3).u64(id.0),
        ChangeError::IdReused { id, id_max } => writer.u8(4).u64(id.0).u64(id_max.0),
        ChangeError::UnknownMember(id) => writer.u8(5).u64(id.0),
        ChangeError::NotALearner(id) => writer.u8(6).u64(id.0),
        ChangeError::NotAVoter(id) => writer.u8(7).u64(id.0),
        ChangeError::NotInStep(id) => writer.u8(8).u64(id.0),
        ChangeError::TooMany(count) => writer.u8(10).u64(count as u64),
        ChangeError::Impossible(error) => encode_members_error(writer.u8(9), error),
    }
}

fn decode_change_error(reader: &mut Reader) -> Result<ChangeError, DecodeError> {
    Ok(match reader.u8("refused change")? {
        1 => ChangeError::Empty,
        2 => ChangeError::Repeated(decode_id(reader)?),
        3 => ChangeError::AlreadyMember(decode_id(reader)?),
        4 => ChangeError::IdReused { id: decode_id(reader)?, id_max: decode_id(reader)? },
        5 => ChangeError::UnknownMember(decode_id(reader)?),
        6 => ChangeError::NotALearner(decode_id(reader)?),
        7 => ChangeError::NotAVoter(decode_id(reader)?),
        8 => ChangeError::NotInStep(decode_id(reader)?),
        10 => ChangeError::TooMany(decode_count(reader)?),
        9 => ChangeError::Impossible(decode_members_error(reader)?),
        other => {
            return Err(DecodeError::Unknown { what: "refused change", value: u64::from(other) });
        }
    })
}

fn encode_members_error(writer: &mut Writer, error: MembersError) -> &mut Writer {
    match error {
        MembersError::NoVoters => writer.u8(1),
        MembersError::TooManyVoters(count) => writer.u8(2).u64(count as u64),
        MembersError::TooManyLearners(count) => writer.u8(3).u64(count as u64),
        MembersError::NoId => writer.u8(4),
        MembersError::VoterAndLearner(id) => writer.u8(5).u64(id.0),
        MembersError::NoIdLeft => writer.u8(6),
        MembersError::IdAboveMax(id) => writer.u8(7).u64(id.0),
        MembersError::InfoOfNobody(id) => writer.u8(8).u64(id.0),
        MembersError::InfoTooLarge(id) => writer.u8(9).u64(id.0),
    }
}

fn decode_members_error(reader: &mut Reader) -> Result<MembersError, DecodeError> {
    Ok(match reader.u8("impossible configuration")? {
        1 => MembersError::NoVoters,
        2 => MembersError::TooManyVoters(decode_count(reader)?),
        3 => MembersError::TooManyLearners(decode_count(reader)?),
        4 => MembersError::NoId,
        5 => MembersError::VoterAndLearner(decode_id(reader)?),
        6 => MembersError::NoIdLeft,
        7 => MembersError::IdAboveMax(decode_id(reader)?),
        8 => MembersError::InfoOfNobody(decode_id(reader)?),
        9 => MembersError::InfoTooLarge(decode_id(reader)?),
        other => {
            let value = u64::from(other);
            return Err(DecodeError::Unknown { what: "impossible configuration", value });
        }
    })
}

fn decode_id(reader: &mut Reader) -> Result<MemberId, DecodeError> {
    reader.u64("refused member").map(MemberId)
}

fn decode_count(reader: &mut Reader) -> Result<usize, DecodeError> {
    // Only shown to people.
    reader.u64("count").map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}
