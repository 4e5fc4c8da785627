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
