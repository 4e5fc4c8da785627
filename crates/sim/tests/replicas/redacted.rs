//! Nothing that clients have written is in a redacted copy, wherever it may stand, and the copy
//! runs to the digests that were recorded.

use bytes::Bytes;
use kvraft_base::{Entry, EntryKind, Index, MemberId, Position, Term, Ticket};
use kvraft_kv::{
    Command, Compare, CompareTarget, Origin, PutRequest, Query, Redaction, Request, TxnRequest,
};
use kvraft_raft::{Body, Message};
use kvraft_replica::{
    Attempt, ClientRequest, Frame, NodeIn, NotSent, SnapshotChunk,
    flight::{Segment, redacted},
};

use super::recordings::{ME, Recorded, member_of, recorded, run};

const VALUE: &str = "a value that nobody is to see";
const KEY: &str = "a key that not everybody is to see";
const LEADER: MemberId = MemberId(2);

fn copies(files: &[Vec<u8>], redaction: Redaction) -> Vec<Vec<u8>> {
    let read = |file: &Vec<u8>| Segment::read(&file.clone().into()).expect("it is a segment");
    files.iter().map(|file| redacted(&read(file), redaction).expect("of this version")).collect()
}

fn count(files: &[Vec<u8>], what: &[u8]) -> usize {
    let count = |file: &Vec<u8>| file.windows(what.len()).filter(|part| *part == what).count();
    files.iter().map(count).sum()
}

fn command(ticket: u64) -> Bytes {
    let put = PutRequest { key: KEY.into(), value: VALUE.into(), ..PutRequest::default() };
    let origin = Origin { member: LEADER, incarnation: 1, ticket: Ticket(ticket) };
    Command::new(origin, 1, Request::Put(put)).encode()
}

fn propose(ticket: u64) -> NodeIn {
    let request = ClientRequest::Propose(command(ticket));
    NodeIn::Client { ticket: Ticket(ticket), request }
}

fn query(ticket: u64, linearizable: bool) -> NodeIn {
    let target = CompareTarget::Value(VALUE.into());
    let compare = vec![Compare { target, key: KEY.into(), ..Compare::default() }];
    let query = Query::Txn(TxnRequest { compare, ..TxnRequest::default() });
    let request = ClientRequest::Query { query, linearizable };
    NodeIn::Client { ticket: Ticket(ticket), request }
}

fn entries() -> Vec<Entry> {
    let entry = |index, kind, payload| Entry::new(Term(1), Index(index), kind, payload);
    vec![
        entry(1, EntryKind::Noop, Bytes::new()),
        entry(2, EntryKind::Command, command(1)),
        // Damaged, as only somebody with another program can have sent it.
        entry(3, EntryKind::Command, VALUE.into()),
        entry(4, EntryKind::Command, command(2)),
    ]
}

fn from_leader(body: Body) -> NodeIn {
    let frame = Frame::Raft(vec![Message { from: LEADER, to: ME, term: Term(1), body }]);
    NodeIn::Frame { from: LEADER, frame: frame.encode() }
}

/// Everything that can carry a value, at a server that waits for a leader, hears of one, and has
/// entries that are not committed when another segment begins.
fn follower() -> Vec<Vec<u8>> {
    let mut recorded = Recorded::new(member_of([ME, LEADER, MemberId(3)]));
    recorded.turn(vec![propose(1), query(2, true), query(3, false)]);
    recorded.cut();
    let append = Body::Append { prev: Position::ZERO, commit: Index(0), entries: entries() };
    recorded.turn(vec![from_leader(append), propose(4), query(5, true)]);
    recorded.turn(Vec::new());
    recorded.cut();
    let attempt = Attempt { incarnation: 9, ticket: Ticket(9), number: 9 };
    let forward = Frame::Forward { attempt, command: command(9) }.encode();
    let position = Position::new(Term(1), Index(90));
    let bytes = Bytes::from(VALUE);
    let chunk = SnapshotChunk { term: Term(1), position, seq: 0, bytes };
    recorded.turn(vec![
        NodeIn::Frame { from: LEADER, frame: VALUE.into() },
        NodeIn::Frame { from: LEADER, frame: forward.clone() },
        NodeIn::Undelivered { to: LEADER, frame: forward, reason: NotSent::Closed },
        NodeIn::Frame { from: LEADER, frame: Frame::SnapshotChunk(chunk).encode() },
        NodeIn::Fetched { id: 1, entries: Some(entries()) },
        from_leader(Body::Heartbeat { round: 1, commit: Index(3) }),
    ]);
    recorded.turn(Vec::new());
    recorded.turn(Vec::new());
    assert_eq!(recorded.replica.machine.kv().applied().index, Index(3));
    recorded.cut();
    recorded.turn(vec![from_leader(Body::Heartbeat { round: 2, commit: Index(4) })]);
    recorded.turn(Vec::new());
    recorded.finish()
}

#[test]
fn a_redacted_copy_holds_no_value_and_runs_to_the_same_digests() {
    let files = follower();
    assert!(16 < count(&files, VALUE.as_bytes()), "the recording holds values everywhere");
    let checksums = entries().into_iter().skip(1).map(|entry| entry.checksum.to_le_bytes());
    let checksums: Vec<_> = checksums.collect();
    assert!(checksums.iter().all(|checksum| 0 < count(&files, checksum)));
    let kept = count(&files, KEY.as_bytes());
    for redaction in [Redaction::Values, Redaction::KeysAndValues] {
        let copies = copies(&files, redaction);
        assert_eq!(count(&copies, VALUE.as_bytes()), 0);
        assert!(checksums.iter().all(|checksum| count(&copies, checksum) == 0));
        let keys = count(&copies, KEY.as_bytes());
        assert_eq!(0 < keys && 0 < kept, redaction == Redaction::Values, "{keys}");
        let outcome = run(copies);
        assert_eq!(outcome.divergence, None);
        assert_eq!((outcome.turns, outcome.borders, outcome.compared), (8, 3, 8));
        assert_eq!(outcome.state, None);
        assert!(outcome.notes.iter().all(|note| note.contains("redacted")), "{:?}", outcome.notes);
    }
}

/// Of a leader, too; and each segment of the copy can be run without those before it.
#[test]
fn a_redacted_copy_begins_anywhere() {
    let mut copies = copies(&recorded(), Redaction::Values);
    assert_eq!(count(&copies, b"value "), 0);
    let whole = run(copies.clone());
    assert_eq!((whole.divergence, whole.turns, whole.borders), (None, 120, 1));
    let last = run(copies.split_off(1));
    assert_eq!((last.divergence, last.turns), (None, 60));
}

/// A copy of a copy is the copy.
#[test]
fn a_copy_is_not_redacted_further() {
    let copied = copies(&follower(), Redaction::KeysAndValues);
    assert_eq!(copies(&copied, Redaction::KeysAndValues), copied);
}
