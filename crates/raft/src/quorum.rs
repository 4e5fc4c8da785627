//! What a majority has agreed on, as pure functions.
//!
//! Why alone: these few lines decide safety, so they can be read and tested without the rest.
//!
//! Invariant: a quorum is a strict majority of the voters, and each voter counts once. Joint
//! configurations will be decided here too: both majorities.

use kvraft_base::{MemberId, Members};

/// The greatest value that a quorum of `members` has reached, where `reached` tells each voter's.
pub(crate) fn reached<T: Ord>(members: &Members, reached: impl Fn(MemberId) -> T) -> T {
    let mut values: Vec<T> = members.voters().iter().map(|id| reached(*id)).collect();
    values.sort_unstable();
    values.swap_remove(members.voters().len() - members.quorum())
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    Won,
    Lost,
    Open,
}

/// Counts answers: `Some(true)` for, `Some(false)` against, `None` not yet given.
pub(crate) fn tally(members: &Members, answer: impl Fn(MemberId) -> Option<bool>) -> Tally {
    let count = |wanted| members.voters().iter().filter(|id| answer(**id) == wanted).count();
    let (granted, open) = (count(Some(true)), count(None));
    if members.quorum() <= granted {
        Tally::Won
    } else if granted + open < members.quorum() {
        Tally::Lost
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u64) -> Members {
        Members::new((1..=count).map(MemberId)).unwrap()
    }

    /// For every size, exactly the values that a strict majority holds are reached.
    #[test]
    fn a_value_is_reached_when_a_strict_majority_has_it() {
        for size in 1..=7 {
            for holders in 0..=size {
                let value = reached(&members(size), |id| u64::from(id.0 <= holders));
                assert_eq!(value == 1, size < 2 * holders, "{holders} of {size}");
            }
        }
    }

    /// A tally is won, lost or open, for every split of every size.
    #[test]
    fn a_tally_is_won_only_by_a_strict_majority() {
        for size in 1..=7 {
            for granted in 0..=size {
                for refused in 0..=size - granted {
                    let answer =
                        |id: MemberId| (id.0 <= granted + refused).then_some(id.0 <= granted);
                    let expected = if size < 2 * granted {
                        Tally::Won
                    } else if 2 * (size - refused) <= size {
                        Tally::Lost
                    } else {
                        Tally::Open
                    };
                    assert_eq!(tally(&members(size), answer), expected);
                }
            }
        }
    }
}
