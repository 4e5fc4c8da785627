//! Snapshots on their way between the tables of two servers, on simulated disks.

use bytes::Bytes;
use kvraft_base::{
    Checkpoint, ClusterId, Disk, Index, META_APPLIED, MemberId, Members, Position, TableId,
    TableOp, Term, Writer,
};
use kvraft_kv::Versions;
use kvraft_replica::{Hop, NodeIn, Now, SNAPSHOT_CHUNK_BYTES, SnapshotChunk, TableIn, TableLane};
use kvraft_sim::{DiskCosts, SimDisk};
use kvraft_store::{Identity, Options};

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const C: MemberId = MemberId(3);
const CLUSTER: ClusterId = ClusterId(1);
/// No chunk is sent.
const NONE: [u64; 0] = [];

fn position(index: u64) -> Position {
    Position::new(Term(1), Index(index))
}

fn lane(member: MemberId) -> TableLane {
    lane_on(&SimDisk::new("disk", DiskCosts::FREE), member)
}

fn lane_on(disk: &SimDisk, member: MemberId) -> TableLane {
    let members = Members::new([A, B, C]).expect("three members are a cluster");
    let identity = Identity { cluster: CLUSTER, member, members };
    kvraft_store::format(disk, &identity).expect("the disk is new");
    let options = Options::default();
    let opened = kvraft_store::open(disk, &options, Some((CLUSTER, member)));
    let table = opened.expect("the disk is formatted").table;
    TableLane::new(disk.handle(), options, SNAPSHOT_CHUNK_BYTES, Versions::OF_BUILD, table)
}

fn step(lane: &mut TableLane, input: TableIn) -> Vec<NodeIn> {
    let mut hops = Vec::new();
    lane.step(Now::default(), &mut vec![input], &mut hops);
    let node = |hop| match hop {
        Hop::Node(input) => Some(input),
        Hop::Fatal(fatal) => panic!("{fatal}"),
        _ => None,
    };
    hops.into_iter().filter_map(node).collect()
}

/// The first parts of a snapshot of a megabyte that contains the log up to `index`.
fn parts(from: MemberId, index: u64) -> Vec<SnapshotChunk> {
    export(&mut lane(from), from, index)
}

fn export(lane: &mut TableLane, from: MemberId, index: u64) -> Vec<SnapshotChunk> {
    let mut applied = Writer::new();
    applied.u64(1).u64(index);
    let row = |at: u8| TableOp::Put {
        table: TableId::Records,
        key: Bytes::from(vec![at; 8]),
        value: Bytes::from(vec![at; 100_000]),
    };
    let mut ops: Vec<TableOp> = (0..10).map(row).collect();
    ops.push(TableOp::Put {
        table: TableId::Meta,
        key: Bytes::from_static(META_APPLIED),
        value: applied.finish(),
    });
    step(lane, TableIn::Commit(Checkpoint { applied: position(index), ops }));
    chunks(step(lane, TableIn::Export { to: C, term: Term(from.0) }))
}

/// All parts of such a snapshot, and so more than may be in flight.
fn all_parts(from: MemberId, index: u64) -> Vec<SnapshotChunk> {
    let mut sender = lane(from);
    let mut parts = export(&mut sender, from, index);
    let mut taken = 0;
    while taken < parts.len() {
        let seq = parts[taken].seq;
        parts.extend(chunks(say_taken(&mut sender, index, seq)));
        taken += 1;
    }
    parts
}

fn say_taken(sender: &mut TableLane, index: u64, seq: u64) -> Vec<NodeIn> {
    step(sender, TableIn::ExportTaken { to: C, position: position(index), seq })
}

fn numbers(said: Vec<NodeIn>) -> Vec<u64> {
    chunks(said).iter().map(|chunk| chunk.seq).collect()
}

fn chunks(said: Vec<NodeIn>) -> Vec<SnapshotChunk> {
    let chunk = |input| match input {
        NodeIn::SnapshotChunk { chunk, .. } => Some(chunk),
        _ => None,
    };
    said.into_iter().filter_map(chunk).collect()
}

fn import(lane: &mut TableLane, from: MemberId, chunk: &SnapshotChunk) -> Vec<NodeIn> {
    step(lane, TableIn::Import { from, chunk: chunk.clone() })
}

fn is_taken(said: &[NodeIn], number: u64) -> bool {
    matches!(said, [NodeIn::ImportTaken { seq, .. }] if *seq == number)
}

/// A server that has restarted says at once that it lacks the beginning of what goes on arriving.
#[test]
fn a_lost_beginning_is_said() {
    let parts = parts(A, 9);
    assert!(2 < parts.len());
    let mut receiver = lane(C);
    assert!(is_taken(&import(&mut receiver, A, &parts[0]), 0));
    assert!(is_taken(&import(&mut receiver, A, &parts[1]), 1));
    let mut restarted = lane(C);
    let said = import(&mut restarted, A, &parts[2]);
    assert!(
        matches!(&said[..], [NodeIn::ImportUnknown { from: A, position: p }] if *p == position(9)),
        "{said:?}"
    );
}

/// What was thrown away is off the disk and begins anew, and so does what had superseded another.
#[test]
fn what_was_dropped_begins_anew() {
    let (old, new) = (parts(A, 9), parts(B, 12));
    let disk = SimDisk::new("disk", DiskCosts::FREE);
    let mut receiver = lane_on(&disk, C);
    assert!(is_taken(&import(&mut receiver, A, &old[0]), 0));
    assert!(is_taken(&import(&mut receiver, B, &new[0]), 0));
    assert!(is_taken(&import(&mut receiver, B, &new[1]), 1));
    assert!(disk.open("table.new").is_ok());
    assert!(step(&mut receiver, TableIn::ImportDrop).is_empty());
    assert!(disk.open("table.new").is_err());
    let said = import(&mut receiver, B, &new[2]);
    assert!(matches!(said[..], [NodeIn::ImportUnknown { .. }]), "{said:?}");
    assert!(is_taken(&import(&mut receiver, B, &new[0]), 0));
}

/// A follower that has taken everything may have lost it again, or its last word may have been
/// lost: it is sent the end once more, so that it says which.
#[test]
fn who_has_taken_everything_is_asked_all_the_same() {
    let mut sender = lane(A);
    let mut last = export(&mut sender, A, 9).pop().expect("a snapshot has parts");
    loop {
        let taken = TableIn::ExportTaken { to: C, position: position(9), seq: last.seq };
        let Some(next) = chunks(step(&mut sender, taken)).pop() else { break };
        last = next;
    }
    let again = chunks(step(&mut sender, TableIn::ExportResend { to: C }));
    assert_eq!(again.iter().map(|chunk| chunk.seq).collect::<Vec<_>>(), [last.seq]);
    let said = import(&mut lane(C), A, &again[0]);
    assert!(matches!(said[..], [NodeIn::ImportUnknown { .. }]), "{said:?}");
}

/// Chunks that overtake each other are all taken, as soon as those before them are there.
#[test]
fn chunks_in_reversed_order_are_all_taken() {
    let parts = all_parts(A, 9);
    let mut receiver = lane(C);
    assert!(is_taken(&import(&mut receiver, A, &parts[0]), 0));
    let mut said = Vec::new();
    for window in parts[1..].chunks(4) {
        let (first, early) = window.split_first().expect("a window has chunks");
        for chunk in early.iter().rev() {
            assert!(is_taken(&import(&mut receiver, A, chunk), first.seq - 1));
        }
        said = import(&mut receiver, A, first);
        let last = window.last().expect("a window has chunks").seq;
        assert!(is_taken(&said[..1], last), "{said:?}");
    }
    assert!(matches!(said[..], [_, NodeIn::ImportReady { from: A, .. }]), "{said:?}");
}

/// What was taken last is said again when something after it is missing, and only then.
#[test]
fn a_gap_is_told_by_saying_again_what_was_taken_last() {
    let parts = parts(A, 9);
    let mut receiver = lane(C);
    assert!(is_taken(&import(&mut receiver, A, &parts[0]), 0));
    assert!(is_taken(&import(&mut receiver, A, &parts[2]), 0));
    assert!(is_taken(&import(&mut receiver, A, &parts[2]), 0));
    assert!(is_taken(&import(&mut receiver, A, &parts[1]), 2));
    assert!(is_taken(&import(&mut receiver, A, &parts[1]), 1));
}

/// What a receiver keeps is bounded, whatever it is sent.
#[test]
fn a_chunk_far_ahead_is_not_kept() {
    let parts = all_parts(A, 9);
    let mut receiver = lane(C);
    assert!(is_taken(&import(&mut receiver, A, &parts[0]), 0));
    assert!(is_taken(&import(&mut receiver, A, &parts[5]), 0));
    let endless = SnapshotChunk { seq: u64::MAX, ..parts[5].clone() };
    assert!(is_taken(&import(&mut receiver, A, &endless), 0));
    for chunk in &parts[1..=5] {
        assert!(is_taken(&import(&mut receiver, A, chunk), chunk.seq));
    }
}

/// A damaged chunk that came early is found when its turn comes: all begins anew.
#[test]
fn a_damaged_early_chunk_is_thrown_away_with_the_rest() {
    let parts = parts(A, 9);
    let mut receiver = lane(C);
    assert!(is_taken(&import(&mut receiver, A, &parts[0]), 0));
    let damaged = SnapshotChunk { seq: 2, ..parts[3].clone() };
    assert!(is_taken(&import(&mut receiver, A, &damaged), 0));
    assert!(import(&mut receiver, A, &parts[1]).is_empty());
    assert!(is_taken(&import(&mut receiver, A, &parts[0]), 0));
    assert!(is_taken(&import(&mut receiver, A, &parts[1]), 1));
}

/// The first missing chunk is sent again at once, but answers that come twice cause no storm.
#[test]
fn what_is_missing_is_repeated_once() {
    let mut sender = lane(A);
    assert_eq!(export(&mut sender, A, 9).len(), 4);
    assert_eq!(numbers(say_taken(&mut sender, 9, 0)), [4]);
    assert_eq!(numbers(say_taken(&mut sender, 9, 0)), [1]);
    assert_eq!(numbers(say_taken(&mut sender, 9, 0)), NONE);
    assert_eq!(numbers(say_taken(&mut sender, 9, 2)), [5, 6]);
    assert_eq!(numbers(say_taken(&mut sender, 9, 1)), NONE, "it is old");
    assert_eq!(numbers(say_taken(&mut sender, 9, 2)), [3]);
    assert_eq!(numbers(step(&mut sender, TableIn::ExportResend { to: C })), [3, 4, 5, 6]);
}

/// The last chunk is never missed on account of answers: nothing that follows it has come.
#[test]
fn the_last_chunk_is_repeated_only_when_it_is_overdue() {
    let mut sender = lane(A);
    let mut last = export(&mut sender, A, 9).len() as u64 - 1;
    while let Some(seq) = numbers(say_taken(&mut sender, 9, last - 1)).pop() {
        last = seq;
    }
    assert_eq!(numbers(say_taken(&mut sender, 9, last - 1)), NONE);
    assert_eq!(numbers(step(&mut sender, TableIn::ExportResend { to: C })), [last]);
    for seq in [last, last, u64::MAX, u64::MAX] {
        assert_eq!(numbers(say_taken(&mut sender, 9, seq)), NONE);
    }
}

/// One answer that comes twice has one chunk repeated, and not one in every window from then on.
#[test]
fn a_needless_repeat_brings_no_other() {
    let (mut sender, mut receiver) = (lane(A), lane(C));
    let mut under_way = export(&mut sender, A, 9);
    let mut sent: Vec<u64> = under_way.iter().map(|chunk| chunk.seq).collect();
    let mut doubled = false;
    while !under_way.is_empty() {
        let mut answers = Vec::new();
        for chunk in under_way.drain(..) {
            for said in import(&mut receiver, A, &chunk) {
                answers.extend(match said {
                    NodeIn::ImportTaken { seq, .. } => Some(seq),
                    _ => None,
                });
            }
        }
        if !doubled {
            answers.extend(answers.last().copied());
            doubled = true;
        }
        for seq in answers {
            under_way.extend(chunks(say_taken(&mut sender, 9, seq)));
        }
        sent.extend(under_way.iter().map(|chunk| chunk.seq));
    }
    let count = sent.len();
    sent.sort_unstable();
    sent.dedup();
    assert!(8 < sent.len(), "there is time for another");
    assert_eq!(count - sent.len(), 1);
}
