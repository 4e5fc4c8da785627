//! Who receives a snapshot, how often, and what is left of one that never ends.

use std::{collections::BTreeSet, time::Duration};

use kvraft_base::{Disk, MemberId, MemberInfo, Members, Position};
use kvraft_raft::{Change, PeerState};
use kvraft_replica::{Frame, NodeIn};

use super::group::{A, B, C, D, Group, Sent};

/// C is cut off while so much is written that its next entry leaves the journal.
fn c_falls_behind(group: &mut Group) {
    group.pass = Box::new(|sent| sent.from != C && sent.to != C);
    let last = group.status(C).last.index;
    for _ in 0..100 {
        if group.status(A).released.index <= last {
            load(group, 50);
        }
    }
    assert!(last < group.status(A).released.index);
    group.pass = Box::new(|_| true);
    group.said.clear();
}

/// Puts without a pause, about a megabyte per second.
fn load(group: &mut Group, count: usize) {
    for _ in 0..count {
        group.put(A, 100);
        group.rounds(2);
    }
}

/// How often a snapshot began to leave for this server.
fn beginnings(group: &Group, to: MemberId) -> usize {
    group.chunks(to).iter().filter(|seq| **seq == 0).count()
}

/// While the log goes on as fast as it can be checkpointed, a follower behind the journal gets one
/// snapshot, reads on where that ends, and is in step.
#[test]
fn one_snapshot_is_enough_under_steady_load() {
    let mut group = Group::led_by_a();
    c_falls_behind(&mut group);
    for _ in 0..100 {
        load(&mut group, 50);
    }
    assert_eq!(beginnings(&group, C), 1, "{:?}", group.chunks(C));
    assert_eq!(group.progress(C), PeerState::Replicate);
    let behind = group.status(A).last.index.0 - group.status(C).last.index.0;
    assert!(behind < 50, "{behind}");
    // The journal has not stayed behind for good.
    let held = group.status(A).last.index.0 - group.status(A).released.index.0;
    assert!(held < 1000, "{held}");
    // It stays for C no longer, now that C is in step.
    group.advance(Duration::from_secs(1));
    c_falls_behind(&mut group);
}

/// A snapshot begins again only for who lacks its beginning: not for a word on another one.
#[test]
fn a_word_on_another_snapshot_begins_none_again() {
    let mut group = Group::led_by_a();
    c_falls_behind(&mut group);
    let begun = |sent: &Sent| match &sent.frame {
        Frame::SnapshotChunk(chunk) if sent.to == C => Some(chunk.position),
        _ => None,
    };
    for _ in 0..10_000 {
        if !group.said.iter().any(|sent| begun(sent).is_some()) {
            load(&mut group, 1);
        }
    }
    let position = group.said.iter().find_map(begun).expect("C is sent a snapshot");
    let position = Position::new(position.term, position.index.prev());
    let frame = Frame::SnapshotUnknown { position }.encode();
    group.input(A, NodeIn::Frame { from: C, frame });
    for _ in 0..40 {
        load(&mut group, 50);
    }
    assert_eq!(beginnings(&group, C), 1, "{:?}", group.chunks(C));
    assert_eq!(group.progress(C), PeerState::Replicate);
}

/// Who has missed more than the leader keeps in memory, and less than its journal has, is sent that.
#[test]
fn who_is_not_far_behind_is_sent_the_journal() {
    let mut group = Group::led_by_a();
    group.pass = Box::new(|sent| sent.from != C && sent.to != C);
    let mut size = 0;
    while size < 8 << 10 {
        group.put(A, 500);
        group.rounds(2);
        size += 500;
    }
    assert!(group.status(A).released.index <= group.status(C).last.index);
    group.pass = Box::new(|_| true);
    group.said.clear();
    group.advance(Duration::from_secs(1));
    assert_eq!(group.status(C).applied, group.status(A).commit);
    assert_eq!(beginnings(&group, C), 0);
}

/// While a snapshot is on its way the journal goes up to there, and not beyond.
#[test]
fn the_journal_before_a_snapshot_goes() {
    let mut group = c_has_half_a_snapshot();
    let position = |sent: &Sent| match &sent.frame {
        Frame::SnapshotChunk(chunk) if sent.to == C => Some(chunk.position),
        _ => None,
    };
    let position = group.said.iter().rev().find_map(position).expect("C is sent a snapshot");
    let before = group.status(A).released.index.0;
    let begun = group.chunks(C).len();
    group.pass = Box::new(|sent| sent.from != C);
    load(&mut group, 1000);
    assert!(begun < group.chunks(C).len(), "it goes on");
    // Segments go whole: one holds a few of these entries.
    let (released, end) = (group.status(A).released.index.0, position.index.0);
    assert!(before < end - 20 && end - 5 < released && released <= end, "{before} {released}");
}

/// For a follower that cannot be reached no snapshot is opened: when it is back it gets one of what
/// there is then, and not of what there was when it fell behind.
#[test]
fn who_cannot_be_reached_gets_a_new_snapshot_later() {
    let mut group = Group::led_by_a();
    group.input(A, NodeIn::Disconnected(C));
    c_falls_behind(&mut group);
    assert!(group.said.is_empty());
    group.pass = Box::new(|sent| sent.from != C && sent.to != C);
    for _ in 0..40 {
        load(&mut group, 50);
    }
    assert!(group.chunks(C).is_empty(), "nothing is sent to nobody");
    let back_at = group.status(A).released.index;
    group.pass = Box::new(|_| true);
    group.input(A, NodeIn::Connected(C));
    for _ in 0..40 {
        load(&mut group, 50);
    }
    assert_eq!(beginnings(&group, C), 1, "{:?}", group.chunks(C));
    assert_eq!(group.progress(C), PeerState::Replicate);
    let is_new = |sent: &Sent| match &sent.frame {
        Frame::SnapshotChunk(chunk) => back_at <= chunk.position.index,
        _ => true,
    };
    assert!(group.said.iter().all(is_new), "a snapshot is of what there was when it began");
}

/// A follower that takes a minute to install what it has received gets nothing else meanwhile, and
/// reads on from the journal, which has been kept for it.
#[test]
fn a_long_install_is_waited_for() {
    let mut group = Group::led_by_a();
    c_falls_behind(&mut group);
    let until = group.now + Duration::from_secs(60);
    group.slow = Some((C, until));
    while group.now < until {
        group.put(A, 100);
        group.rounds(5);
        // Often enough for heartbeats.
        group.now = group.now + Duration::from_millis(50);
    }
    load(&mut group, 100);
    let position = |sent: &Sent| match &sent.frame {
        Frame::SnapshotChunk(chunk) if sent.to == C => Some(chunk.position),
        _ => None,
    };
    let positions: BTreeSet<Position> = group.said.iter().filter_map(position).collect();
    assert_eq!(positions.len(), 1, "{positions:?}");
    assert_eq!(group.progress(C), PeerState::Replicate);
    let behind = group.status(A).last.index.0 - group.status(C).last.index.0;
    assert!(behind < 50, "{behind}");
}

/// What the directory of a joining server is formatted with.
fn joining(members: &Members, id: MemberId) -> Members {
    let mut draft = members.draft();
    draft.learners.insert(id, false);
    draft.finish().expect("a configuration with one more learner")
}

/// A joiner for which the journal begins too late gets a snapshot, whose configuration is one of
/// before it was added, then the log; it does not take itself for removed, and becomes a voter.
#[test]
fn a_joiner_begins_with_a_snapshot() {
    let mut group = Group::led_by_a();
    for _ in 0..20 {
        load(&mut group, 50);
    }
    assert!(100 < group.status(A).released.index.0);
    let update = Change::Update { id: B, info: MemberInfo::default().into() };
    group.change(A, vec![update]);
    load(&mut group, 200);
    let add = Change::AddLearner { id: D, info: MemberInfo::default(), promote: true };
    let members = group.change(B, vec![add]);
    group.format(D, &joining(&members, D));
    group.start(D);
    group.advance(Duration::from_secs(1));
    assert_eq!(beginnings(&group, D), 1);
    assert_eq!(group.status(D).membership.members.to_string(), "(1 2 3 4)");
    assert_eq!(group.status(D).applied, group.status(A).commit);
    assert!(group.fatals.is_empty(), "{:?}", group.fatals);
    // Before its own addition it was told what its disk was formatted with.
    let told: Vec<&Members> =
        group.told.iter().filter(|(id, _)| *id == D).map(|(_, members)| members).collect();
    assert_eq!(told.first(), Some(&&joining(&members, D)));
    assert!(told.iter().all(|members| members.contains(D)), "{told:?}");
    // It goes on from its own disk.
    group.stop(D);
    load(&mut group, 10);
    group.start(D);
    group.advance(Duration::from_millis(500));
    assert_eq!(group.status(D).applied, group.status(A).commit);
}

fn is_chunk(sent: &Sent) -> bool {
    matches!(sent.frame, Frame::SnapshotChunk(_))
}

/// C is behind, and some of a snapshot of a few megabytes has arrived there.
fn c_has_half_a_snapshot() -> Group {
    let mut group = Group::led_by_a_at(2 << 20);
    for _ in 0..64 {
        group.put(A, 50_000);
        group.rounds(10);
    }
    c_falls_behind(&mut group);
    for _ in 0..20_000 {
        if 10 <= group.chunks(C).len() {
            return group;
        }
        group.rounds(1);
    }
    panic!("no more than {:?}", group.chunks(C));
}

/// The rate holds for whoever reads on as fast as it can.
#[test]
fn snapshots_are_paced() {
    let mut group = c_has_half_a_snapshot();
    let before = group.chunks(C).len();
    group.advance(Duration::from_millis(500));
    let left = group.chunks(C).len() - before;
    // A megabyte in half a second, two or three values of 50 kB in a chunk.
    assert!((7..=11).contains(&left), "{left}");
}

/// A transfer whose connection is lost for a while goes on with what was not taken.
#[test]
fn a_transfer_goes_on_when_the_connection_is_back() {
    let mut group = c_has_half_a_snapshot();
    for id in [A, C] {
        let peer = if id == A { C } else { A };
        group.input(id, NodeIn::Disconnected(peer));
    }
    group.pass = Box::new(|sent| sent.from != C && sent.to != C);
    group.advance(Duration::from_secs(20));
    group.pass = Box::new(|_| true);
    for id in [A, C] {
        let peer = if id == A { C } else { A };
        group.input(id, NodeIn::Connected(peer));
    }
    group.advance(Duration::from_secs(4));
    assert_eq!(group.progress(C), PeerState::Replicate);
    assert_eq!(beginnings(&group, C), 1, "{:?}", group.chunks(C));
    assert_eq!(group.status(C).applied, group.status(A).commit);
}

/// A receiver that restarts in the middle has nothing of it on its disk, and begins anew.
#[test]
fn an_interrupted_import_leaves_nothing() {
    let mut group = c_has_half_a_snapshot();
    assert!(group.files(C).iter().any(|name| name == "table.new"), "{:?}", group.files(C));
    group.stop(C);
    group.pass = Box::new(|sent| !is_chunk(sent));
    group.start(C);
    assert!(!group.files(C).iter().any(|name| name == "table.new"), "{:?}", group.files(C));
    group.pass = Box::new(|_| true);
    group.advance(Duration::from_secs(5));
    assert_eq!(group.status(C).applied, group.status(A).commit);
    assert!(!group.files(C).iter().any(|name| name == "table.new"), "{:?}", group.files(C));
}

/// When another server leads, its snapshot takes the place of the half-received one, and nothing of
/// that is left.
#[test]
fn a_newer_snapshot_takes_its_place() {
    let mut group = c_has_half_a_snapshot();
    group.pass = Box::new(|sent| sent.from != A && sent.to != A);
    group.advance(Duration::from_secs(6));
    assert!(group.leads(B), "C lacks too much");
    assert_eq!(group.status(C).applied, group.status(B).commit);
    let from_b = |sent: &&Sent| is_chunk(sent) && sent.from == B;
    assert!(group.said.iter().any(|sent| from_b(&sent)));
    assert!(!group.files(C).iter().any(|name| name == "table.new"), "{:?}", group.files(C));
}

/// A server that has lost its table, and with it the configuration, does not decide by the one that
/// its disk was formatted with: its journal names the present one, though the entries that did are
/// gone. It changes no term, and has the state as soon as the leader has sent it.
#[test]
fn a_hollow_server_knows_who_takes_part() {
    let mut group = Group::led_by_a();
    group.change(A, vec![Change::Remove { id: B }]);
    let add = Change::AddLearner { id: D, info: MemberInfo::default(), promote: true };
    let members = group.change(A, vec![add]);
    group.format(D, &joining(&members, D));
    group.start(D);
    for _ in 0..60 {
        load(&mut group, 50);
    }
    group.stop(C);
    group.disks[&C].reboot().remove("table").expect("there is a table");
    group.pass = Box::new(|sent| sent.from != C && sent.to != C);
    group.start(C);
    let term = group.status(C).term;
    assert!(group.status(C).hollow && 100 < group.status(C).released.index.0);
    assert_eq!(group.status(C).membership.members.to_string(), "(1 3 4)");
    group.said.clear();
    group.advance(Duration::from_secs(6));
    assert!(group.said.iter().all(|sent| sent.from != C || sent.to != B), "B takes no part");
    assert_eq!(group.status(C).term, term);
    group.pass = Box::new(|_| true);
    group.advance(Duration::from_secs(2));
    assert!(!group.status(C).hollow);
    assert_eq!(group.status(C).membership.members.to_string(), "(1 3 4)");
    assert_eq!(group.status(C).applied, group.status(A).commit);
    assert_eq!(group.progress(C), PeerState::Replicate, "what comes now is sent to it at once");
    let ended: Vec<MemberId> = group.fatals.iter().map(|(id, _)| *id).collect();
    assert_eq!(ended, [B], "and nobody else");
}
