//! When a leader raises the cluster version, and what does not count as an answer.

use std::time::Duration;

use kvraft_base::{EntryKind, Index, MemberId, MemberInfo};
use kvraft_kv::{Command, Request, Versions};
use kvraft_raft::Change;

use super::group::{A, B, C, Group, incarnation};
use kvraft_replica::{Frame, NodeIn, NodeOptions, Round};

const OLD: Versions = Versions { oldest: 1, newest: 1 };
const NEW: Versions = Versions { oldest: 1, newest: 2 };
const INTERVAL: Duration = Duration::from_secs(2);

/// A leads; the state of all has version 1.
fn group(known: impl Fn(MemberId) -> Versions) -> Group {
    Group::led_by_a_of(NodeOptions::default(), |_| {}, |id| (known(id), 1))
}

/// The versions that A's log raises the cluster to.
fn raises(group: &Group) -> Vec<u32> {
    let of_a = group.written.range((A, Index::ZERO)..(B, Index::ZERO));
    let commands = of_a.filter(|(_, entry)| entry.kind == EntryKind::Command);
    let decoded = commands.filter_map(|(_, entry)| Command::decode(entry.payload.clone()).ok());
    decoded
        .filter_map(|command| match command.request {
            Request::RaiseVersion { version } => Some(version),
            _ => None,
        })
        .collect()
}

/// All know the next version: it is raised once, and nobody is asked any more.
#[test]
fn version_that_all_know_is_raised_once() {
    let mut group = group(|_| NEW);
    group.advance(INTERVAL);
    assert_eq!(raises(&group), [2]);
    group.said.clear();
    group.advance(INTERVAL * 3);
    assert_eq!(raises(&group), [2]);
    let asks = |frame: &Frame| matches!(frame, Frame::VersionsWanted { .. });
    assert!(!group.said.iter().any(|sent| asks(&sent.frame)), "nothing is left to raise");
}

/// One member that does not know it, or does not answer, is enough to leave it.
#[test]
fn version_that_one_does_not_know_is_not_raised() {
    let mut mixed = group(|id| if id == C { OLD } else { NEW });
    mixed.advance(INTERVAL * 3);
    assert_eq!(raises(&mixed), [0; 0]);
    let mut silent = group(|_| NEW);
    silent.pass =
        Box::new(|sent| !(sent.from == C && matches!(sent.frame, Frame::Versions { .. })));
    silent.advance(INTERVAL * 3);
    assert_eq!(raises(&silent), [0; 0]);
    silent.pass = Box::new(|_| true);
    silent.advance(INTERVAL);
    assert_eq!(raises(&silent), [2]);
}

/// An answer that got lost is asked for again in the same round, and nobody else is.
#[test]
fn who_has_not_answered_is_asked_again() {
    let mut group = group(|_| NEW);
    group.pass = Box::new(|sent| !(sent.from == C && matches!(sent.frame, Frame::Versions { .. })));
    group.advance(INTERVAL);
    group.said.clear();
    group.pass = Box::new(|_| true);
    group.advance(INTERVAL / 5);
    assert_eq!(raises(&group), [2]);
    let asked = group.said.iter().filter_map(|sent| match sent.frame {
        Frame::VersionsWanted { round } => Some((sent.to, round.number)),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [(C, 1)]);
}

/// A learner counts as well.
#[test]
fn learner_that_does_not_know_it_holds_the_version() {
    let mut group = group(|_| NEW);
    let (id, info, promote) = (MemberId(4), MemberInfo::default(), false);
    group.change(A, vec![Change::AddLearner { id, info, promote }]);
    group.advance(INTERVAL * 3);
    assert_eq!(raises(&group), [0; 0], "nobody has heard of it");
}

/// What was said in another round, in another life, or before the connection closed says nothing of
/// the process that runs now.
#[test]
fn answer_counts_in_its_round_and_on_its_connection() {
    let mut group = group(|_| NEW);
    group.pass = Box::new(|sent| !matches!(sent.frame, Frame::Versions { .. }));
    group.advance(INTERVAL);
    let answer = |from: MemberId, incarnation: u64, number: u64| {
        let round = Round { incarnation, number };
        let frame = Frame::Versions { round, versions: NEW }.encode();
        NodeIn::Frame { from, frame }
    };
    let (life, round) = (incarnation(A), 1);
    let lost = [answer(B, life, round), answer(C, life, round), NodeIn::Disconnected(C)];
    for inbox in [
        vec![answer(B, life, round), answer(C, life, round + 1)],
        vec![answer(C, life, round - 1), answer(C, life - 1, round)],
        lost.into(),
    ] {
        group.input(A, inbox);
        assert_eq!(raises(&group), [0; 0]);
    }
    group.input(A, vec![answer(C, life, round)]);
    assert_eq!(raises(&group), [2]);
}

/// The two frames read back as they were written.
#[test]
fn frames_round_trip() {
    let round = Round { incarnation: 7, number: 9 };
    let frames = [Frame::VersionsWanted { round }, Frame::Versions { round, versions: NEW }];
    for frame in frames {
        assert_eq!(Frame::decode(frame.encode()), Ok(frame));
    }
}
