use std::collections::BTreeSet;

use kvraft_base::MembersDraft;

use super::*;

/// `"1 2 4 & 1 2 3"`: the new half, and the old one if there is one.
fn members(text: &str) -> Members {
    let half = |text: &str| -> BTreeSet<MemberId> {
        text.split_whitespace().map(|id| MemberId(id.parse().unwrap())).collect()
    };
    let (incoming, outgoing) = text.split_once('&').unwrap_or((text, ""));
    let draft = MembersDraft {
        voters: half(incoming),
        voters_outgoing: half(outgoing),
        id_max: MemberId(9),
        ..MembersDraft::default()
    };
    draft.finish().unwrap()
}

/// Commit indexes: what servers 1, 2, 3, … hold, and what is committed by that.
#[test]
fn commit_needs_a_majority_of_each_half() {
    let table: &[(&str, &[u64], u64)] = &[
        // One half.
        ("1", &[7], 7),
        ("1 2", &[7, 3], 3),
        ("1 2 3", &[7, 3, 5], 5),
        ("1 2 3", &[7, 0, 0], 0),
        ("1 2 3 4", &[9, 8, 3, 2], 3),
        ("1 2 3 4 5", &[9, 8, 3, 2, 1], 3),
        ("1 2 3 4 5 6 7", &[1, 2, 3, 4, 5, 6, 7], 4),
        // Whoever does not vote does not count, whatever it holds.
        ("2 3 4", &[99, 1, 2, 3], 2),
        // Both halves: the lesser of the two.
        ("1 & 1", &[7], 7),
        ("1 & 2", &[7, 3], 3),
        ("1 2 3 & 1 2 3", &[7, 3, 5], 5),
        ("1 2 4 & 1 2 3", &[9, 5, 1, 7], 5),
        ("1 2 4 & 1 2 3", &[9, 1, 1, 9], 1),
        ("4 5 6 & 1 2 3", &[9, 9, 9, 0, 0, 0], 0),
        ("4 5 6 & 1 2 3", &[0, 0, 9, 9, 9, 9], 0),
        ("4 5 6 & 1 2 3", &[0, 4, 9, 9, 6, 0], 4),
        ("1 & 1 2 3 4 5", &[9, 8, 7, 6, 5], 7),
        ("1 2 3 4 5 & 1", &[2, 8, 7, 6, 5], 2),
    ];
    for (text, held, expected) in table {
        let at = |id: MemberId| held[usize::try_from(id.0).unwrap() - 1];
        assert_eq!(reached(&members(text), at), *expected, "{text} with {held:?}");
    }
}

/// Elections: `+` for, `-` against, `?` no answer yet, of servers 1, 2, 3, …
#[test]
fn elections_are_won_in_both_halves_and_lost_in_either() {
    let table = [
        ("1", "+", Tally::Won),
        ("1", "?", Tally::Open),
        ("1", "-", Tally::Lost),
        ("1 2", "+?", Tally::Open),
        ("1 2", "+-", Tally::Lost),
        ("1 2 3", "+?+", Tally::Won),
        ("1 2 3", "+-?", Tally::Open),
        ("1 2 3", "+--", Tally::Lost),
        ("1 2 3 4", "++--", Tally::Lost),
        ("1 2 3 4", "++-?", Tally::Open),
        ("2 3", "+--", Tally::Lost),
        ("2 3", "+++", Tally::Won),
        ("1 2 4 & 1 2 3", "++??", Tally::Won),
        ("1 2 4 & 1 2 3", "+??+", Tally::Open),
        ("1 2 4 & 1 2 3", "+--+", Tally::Lost),
        ("4 5 6 & 1 2 3", "+++???", Tally::Open),
        ("4 5 6 & 1 2 3", "+++--?", Tally::Lost),
        ("4 5 6 & 1 2 3", "+-++-+", Tally::Won),
        ("1 & 2", "+?", Tally::Open),
        ("1 & 2", "?-", Tally::Lost),
    ];
    for (text, answers, expected) in table {
        let answer = |id: MemberId| match answers.as_bytes()[usize::try_from(id.0).unwrap() - 1] {
            b'+' => Some(true),
            b'-' => Some(false),
            _ => None,
        };
        assert_eq!(tally(&members(text), answer), expected, "{text} with {answers}");
    }
}

fn half(bits: u32) -> String {
    (0..5).filter(|at| bits >> at & 1 == 1).map(|at| format!("{} ", at + 1)).collect()
}

/// Every pair of halves of five servers, every set of holders: a value is reached exactly when the
/// definition says so, an election is won by exactly the same sets, and is lost exactly when those
/// who are left could not win it.
#[test]
fn every_small_configuration_keeps_to_the_definition() {
    for incoming in 1u32..32 {
        for outgoing in 0u32..32 {
            let members = members(&format!("{}&{}", half(incoming), half(outgoing)));
            for holders in 0u32..32 {
                let holds = |id: MemberId| holders >> (id.0 - 1) & 1 == 1;
                let agrees = |half: u32| half.count_ones() < 2 * (half & holders).count_ones();
                let expected = agrees(incoming) && (outgoing == 0 || agrees(outgoing));
                assert_eq!(reached(&members, holds), expected);
                assert_eq!(members.is_quorum(holds), expected);
                let won = tally(&members, |id| holds(id).then_some(true)) == Tally::Won;
                assert_eq!(won, expected);
                let lost = tally(&members, |id| (!holds(id)).then_some(false)) == Tally::Lost;
                assert_eq!(lost, !expected);
            }
        }
    }
}

/// Any quorum of a joint configuration overlaps with any quorum of either half (Raft §6): two
/// leaders of one term, or two entries at one index, cannot both have one.
#[test]
fn quorums_of_neighbouring_configurations_overlap() {
    for incoming in 1u32..32 {
        for outgoing in 1u32..32 {
            let joint = members(&format!("{}&{}", half(incoming), half(outgoing)));
            for alone in [incoming, outgoing] {
                let alone = members(&half(alone));
                for left in 0u32..32 {
                    let holds = |set: u32| move |id: MemberId| set >> (id.0 - 1) & 1 == 1;
                    let both = joint.is_quorum(holds(left)) && alone.is_quorum(holds(!left & 31));
                    assert!(!both, "{joint} by {left:b} and {alone} by the others");
                }
            }
        }
    }
}
