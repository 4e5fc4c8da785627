//! When a snapshot for a follower begins, begins again and ends.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{MemberId, Position, Term};
use kvraft_raft::{Body, Message};

use super::group::{A, B, C, Group};
use kvraft_replica::{Frame, NodeIn, NodeOptions, SnapshotChunk, TableIn};

/// A leads, and its journal begins after what C has missed.
fn c_needs_a_snapshot() -> Group {
    c_needs_a_snapshot_from(1)
}

/// The same, of a leader that keeps so many bytes of entries in memory.
fn c_needs_a_snapshot_from(window_bytes_max: usize) -> Group {
    let mut group =
        Group::led_by_a_with(NodeOptions { retain_count: 0, ..NodeOptions::default() }, |config| {
            config.window_bytes_max = window_bytes_max
        });
    group.pass = Box::new(|sent| sent.from != C && sent.to != C);
    let mut checkpoints: Vec<Position> = Vec::new();
    for _ in 0..20 {
        group.put(A);
        group.settle();
        checkpoints.push(group.nodes[&A].status().last);
    }
    for position in checkpoints {
        group.input(A, vec![NodeIn::Settled(position)]);
        group.settle();
    }
    assert!(0 < group.nodes[&A].status().released.index.0);
    group.pass = Box::new(|_| true);
    group.input(A, vec![NodeIn::Connected(C)]);
    group.settle();
    group.advance(Duration::from_millis(300));
    group
}

fn exports(group: &Group) -> Vec<(MemberId, Term)> {
    let export = |input: &TableIn| match input {
        TableIn::Export { to, term } => Some((*to, *term)),
        _ => None,
    };
    group.table.iter().filter_map(export).collect()
}

fn is_closed(group: &Group) -> bool {
    let last = group.table.iter().rev().find(|input| {
        matches!(input, TableIn::Export { to: C, .. } | TableIn::ExportClose { to: C })
    });
    matches!(last, Some(TableIn::ExportClose { .. }))
}

/// A leader that steps down ends its transfers: none goes on under an old term.
#[test]
fn a_transfer_ends_with_its_leadership() {
    let mut group = c_needs_a_snapshot();
    let term = group.nodes[&A].status().term;
    assert_eq!(exports(&group), [(C, term)]);
    assert!(!is_closed(&group));
    group.pass = Box::new(|sent| sent.from != A && sent.to != A);
    group.advance(Duration::from_secs(1));
    assert!(!group.follows(A, A));
    // At the latest in the next turn.
    group.input(A, Vec::new());
    assert!(is_closed(&group), "{:?}", group.table);
}

/// A follower that has restarted in the middle gets the snapshot again at its first word.
#[test]
fn a_restarted_follower_gets_the_snapshot_again() {
    let mut group = c_needs_a_snapshot();
    let position = group.nodes[&A].status().released;
    group.input(A, vec![NodeIn::ExportOpened { to: C, position }]);
    group.advance(Duration::from_millis(600));
    let unknown = Frame::SnapshotUnknown { position }.encode();
    let said = |from| NodeIn::Frame { from, frame: unknown.clone() };
    group.input(A, vec![said(B)]);
    assert_eq!(exports(&group).len(), 1, "B receives nothing");
    group.input(A, vec![said(C), said(C), said(C)]);
    assert_eq!(exports(&group).len(), 2, "{:?}", group.table);
    assert!(!is_closed(&group));
}

/// What a follower has received of a snapshot stays as long as its leader may go on with it, and is
/// thrown away when another leads: nobody will send the rest.
#[test]
fn a_snapshot_that_nobody_will_finish_is_thrown_away() {
    let mut group = c_needs_a_snapshot();
    let status = group.nodes[&A].status();
    let (term, position) = (status.term, status.released);
    let chunk = SnapshotChunk { term, position, seq: 0, bytes: Bytes::new() };
    let frame = Frame::SnapshotChunk(chunk).encode();
    group.input(C, vec![NodeIn::Frame { from: A, frame }]);
    assert!(matches!(group.table.last(), Some(TableIn::Import { from: A, .. })));
    // The leader is silent, and may be heard again.
    group.pass = Box::new(|sent| sent.from != C && sent.to != C);
    group.advance(Duration::from_secs(3));
    assert!(!group.follows(C, A));
    assert!(!group.table.iter().any(|input| matches!(input, TableIn::ImportDrop)));
    let term = Term(group.nodes[&C].status().term.0 + 1);
    let notice = Message { from: B, to: C, term, body: Body::SnapshotNotice { position } };
    let frame = Frame::Raft(vec![notice]).encode();
    group.input(C, vec![NodeIn::Frame { from: B, frame }]);
    assert!(group.follows(C, B));
    assert!(matches!(group.table.last(), Some(TableIn::ImportDrop)), "{:?}", group.table);
}

/// The beginning of an older snapshot that comes late does not take the place of what has arrived
/// of a newer one: the leader believes that the newer one's beginning is there.
#[test]
fn a_late_chunk_does_not_replace_a_newer_snapshot() {
    let mut group = c_needs_a_snapshot();
    let status = group.nodes[&A].status();
    let (term, older) = (status.term, status.released);
    let newer = Position { index: older.index.next(), ..older };
    let receive = |group: &mut Group, position| {
        let chunk = SnapshotChunk { term, position, seq: 0, bytes: Bytes::new() };
        let frame = Frame::SnapshotChunk(chunk).encode();
        group.input(C, vec![NodeIn::Frame { from: A, frame }]);
    };
    let imports = |group: &Group| {
        let imports = group.table.iter().filter(|input| matches!(input, TableIn::Import { .. }));
        imports.count()
    };
    receive(&mut group, older);
    receive(&mut group, newer);
    assert_eq!(imports(&group), 2, "{:?}", group.table);
    receive(&mut group, older);
    assert_eq!(imports(&group), 2, "{:?}", group.table);
}

/// The journal stays for one who has got its snapshot as long as what comes after that may still
/// get lost on the way, though it is sent from memory: of a released entry nobody knows the term.
#[test]
fn the_journal_stays_until_what_follows_a_snapshot_has_arrived() {
    let mut group = c_needs_a_snapshot_from(1 << 20);
    let status = group.nodes[&A].status();
    let (term, position) = (status.term, status.released);
    group.input(A, vec![NodeIn::ExportOpened { to: C, position }]);
    group.put(A);
    group.settle();
    group.pass = Box::new(|sent| sent.from != A || sent.to != C);
    let frame = Frame::SnapshotChunk(SnapshotChunk { term, position, seq: 0, bytes: Bytes::new() });
    group.input(C, vec![NodeIn::Frame { from: A, frame: frame.encode() }]);
    group.input(C, vec![NodeIn::ImportReady { from: A, term, position }]);
    group.input(C, vec![NodeIn::Reloaded { position, members: None }]);
    group.settle();
    let settled = |group: &mut Group| {
        let last = group.nodes[&A].status().last;
        group.input(A, vec![NodeIn::Settled(last)]);
        group.put(A);
        group.settle();
        group.nodes[&A].status().released
    };
    settled(&mut group);
    settled(&mut group);
    assert_eq!(settled(&mut group), position);
    group.pass = Box::new(|_| true);
    group.advance(Duration::from_millis(300));
    assert_eq!(group.nodes[&C].status().last, group.nodes[&A].status().last);
    assert!(position < settled(&mut group));
    assert_eq!(exports(&group).len(), 1, "{:?}", group.table);
}
