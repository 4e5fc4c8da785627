//! What an operator may want of a cluster's members, as items of a plan.
//!
//! Who is a member when the time has come is not known when a plan is drawn, so that most wishes
//! name their member by a number that is counted round.

use std::{fmt, str::FromStr};

use kvraft_base::{MemberId, Prng};

/// A member, named when the time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// This one.
    Member(MemberId),
    /// Whoever leads then.
    Leader,
    /// The n-th of those it can be about, counted round.
    Nth(u64),
}

/// One wish about one member; several that are made together become one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new server with a vote.
    AddVoter,
    /// A new server without one.
    AddLearner {
        /// It is to become a voter as soon as it is in step.
        promote: bool,
    },
    /// A member leaves for ever.
    Remove(Whom),
    /// A learner becomes a voter.
    Promote(Whom),
    /// A voter becomes a learner.
    Demote(Whom),
}

impl Whom {
    /// The leader often, since that is the hard case.
    pub(super) fn draw(prng: &mut Prng) -> Self {
        if prng.chance(1, 3) { Self::Leader } else { Self::Nth(prng.below(NTH_COUNT)) }
    }

    /// Whom of `candidates`, in order of id, it means; `None` if nobody.
    #[must_use]
    pub fn choose(self, candidates: &[MemberId], leader: Option<MemberId>) -> Option<MemberId> {
        let able = |id: &MemberId| candidates.contains(id);
        match self {
            Self::Member(id) => Some(id).filter(able),
            Self::Leader => leader.filter(able),
            Self::Nth(number) => {
                let count = candidates.len() as u64;
                let at = number.checked_rem(count)?;
                candidates.get(usize::try_from(at).ok()?).copied()
            }
        }
    }
}

impl Wish {
    /// Growing and shrinking about as often as each other.
    pub(super) fn draw(prng: &mut Prng) -> Self {
        match prng.below(12) {
            0..=1 => Self::AddVoter,
            2..=3 => Self::AddLearner { promote: true },
            4 => Self::AddLearner { promote: false },
            5..=8 => Self::Remove(Whom::draw(prng)),
            9 => Self::Demote(Whom::draw(prng)),
            _ => Self::Promote(Whom::draw(prng)),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id) => id.fmt(f),
            Self::Leader => f.write_str("leader"),
            Self::Nth(number) => write!(f, "nth-{number}"),
        }
    }
}

impl FromStr for Whom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("not a member, leader or nth-number: {text}");
        match text.strip_prefix("nth-") {
            Some(number) => number.parse().map(Self::Nth).map_err(wrong),
            None if text == "leader" => Ok(Self::Leader),
            None => text.parse().map(|id| Self::Member(MemberId(id))).map_err(wrong),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVoter => f.write_str("add-voter"),
            Self::AddLearner { promote: false } => f.write_str("add-learner"),
            Self::AddLearner { promote: true } => f.write_str("add-learner+"),
            Self::Remove(whom) => write!(f, "remove:{whom}"),
            Self::Promote(whom) => write!(f, "promote:{whom}"),
            Self::Demote(whom) => write!(f, "demote:{whom}"),
        }
    }
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.split_once(':') {
            None if text == "add-voter" => Self::AddVoter,
            None if text == "add-learner" => Self::AddLearner { promote: false },
            None if text == "add-learner+" => Self::AddLearner { promote: true },
            Some(("remove", whom)) => Self::Remove(whom.parse()?),
            Some(("promote", whom)) => Self::Promote(whom.parse()?),
            Some(("demote", whom)) => Self::Demote(whom.parse()?),
            Some(_) | None => return Err(format!("not a wish about a member: {text}")),
        })
    }
}

/// More than there are members, so that every one of them is as likely.
const NTH_COUNT: u64 = 1_000;
