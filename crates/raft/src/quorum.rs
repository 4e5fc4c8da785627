//! What a majority has agreed on, as pure functions.
//!
//! Why alone: these few lines decide safety, so they can be read and tested without the rest.
//!
//! Invariants:
//! - a quorum is a strict majority of the voters, while joint of each half (Raft §6);
//! - each voter counts once in each half, and nobody else counts.
//!
//! These run in every turn, so they allocate nothing.

use kvraft_base::{MemberId, Members, limits, majority};

/// The greatest value that a quorum of `members` has reached, where `reached` tells each voter's.
pub(crate) fn reached<T: Copy + Default + Ord>(
    members: &Members,
    reached: impl Fn(MemberId) -> T,
) -> T {
    let incoming = reached_by_half(members.voters(), &reached);
    if !members.is_joint() {
        return incoming;
    }
    incoming.min(reached_by_half(members.voters_outgoing(), &reached))
}

fn reached_by_half<T: Copy + Default + Ord>(
    voters: &[MemberId],
    reached: impl Fn(MemberId) -> T,
) -> T {
    let mut values = [T::default(); limits::VOTERS_MAX];
    let values = &mut values[..voters.len()];
    for (value, voter) in values.iter_mut().zip(voters) {
        *value = reached(*voter);
    }
    values.sort_unstable();
    values[voters.len() - majority(voters.len())]
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    Won,
    Lost,
    Open,
}

/// Counts answers: `Some(true)` for, `Some(false)` against, `None` not yet given. While joint, an
/// election is won in both halves, and lost in either.
pub(crate) fn tally(members: &Members, answer: impl Fn(MemberId) -> Option<bool>) -> Tally {
    let incoming = tally_half(members.voters(), &answer);
    if !members.is_joint() {
        return incoming;
    }
    match (incoming, tally_half(members.voters_outgoing(), &answer)) {
        (Tally::Won, Tally::Won) => Tally::Won,
        (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
        (Tally::Open, Tally::Won | Tally::Open) | (Tally::Won, Tally::Open) => Tally::Open,
    }
}

fn tally_half(voters: &[MemberId], answer: impl Fn(MemberId) -> Option<bool>) -> Tally {
    let count = |wanted| voters.iter().filter(|id| answer(**id) == wanted).count();
    let (granted, open) = (count(Some(true)), count(None));
    let needed = majority(voters.len());
    if needed <= granted {
        Tally::Won
    } else if granted + open < needed {
        Tally::Lost
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests;
