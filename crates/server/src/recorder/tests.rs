//! Buffers that are full, clocks that are not known yet, and frames with tokens.

use kvraft_base::{Entry, EntryKind, Index, Position, Term};
use kvraft_kv::{Command, Origin, PutRequest, Request};
use kvraft_raft::{Body, Message};
use kvraft_recorder::BUFFER_SIZE_BYTES_MAX;
use kvraft_trace::{clock::VectorClock, record::Record};

use super::*;

fn recorder() -> Arc<Recorder> {
    Recorder::new("server1", MemberId(1), 7)
}

fn append() -> Bytes {
    let body = Body::Append { prev: Position::ZERO, commit: Index(0), entries: Vec::new() };
    let (from, to) = (MemberId(1), MemberId(2));
    Frame::Raft(vec![Message { from, to, term: Term(1), body }]).encode()
}

/// Before the clock is known frames go out as they are; then with a token, which comes off again.
#[test]
fn frames_carry_tokens_once_the_clock_is_known() {
    let recorder = recorder();
    let frame = append();
    assert_eq!(recorder.on_frame_sent(MemberId(2), frame.clone()), frame);
    let last = VectorClock::from_iter([("server1".into(), 40)]);
    recorder.outbox.buffer().start(&last);
    let sent = recorder.on_frame_sent(MemberId(2), frame.clone());
    let (token, inner) = unwrap(sent);
    assert_eq!(inner, frame);
    let token = Token::decode(&token.unwrap()).unwrap();
    // CreateTrace, ServerStart, the first Append, the second one, and the token.
    assert_eq!(token.clock.get("server1"), 45);
    let own: Vec<_> = recorder.outbox.buffer().waiting().map(Record::own).collect();
    assert_eq!(own, [41, 42, 43, 44, 45]);
}

/// What others know of an earlier life is never used again.
#[test]
fn numbers_of_an_earlier_life_are_not_used_again() {
    let recorder = recorder();
    let clock = VectorClock::from_iter([("server1".into(), 50), ("server2".into(), 3)]);
    let token = Token { sender: "server2".into(), trace_id: 9, clock };
    let bytes = Bytes::from(token.encode());
    recorder.on_frame_received(MemberId(2), Some(bytes.clone()), &append());
    // Offered again, since there was no room: recorded once.
    recorder.on_frame_received(MemberId(2), Some(bytes), &append());
    recorder.outbox.buffer().start(&VectorClock::from_iter([("server1".into(), 45)]));
    let state = recorder.outbox.buffer();
    let own: Vec<_> = state.waiting().map(Record::own).collect();
    assert_eq!(own, [51, 52, 53, 54]);
    assert_eq!(state.waiting().nth(3).unwrap().clock.get("server2"), 3);
}

/// Records that learn where the clock stands take more room than before, and give as much back.
#[test]
fn room_is_given_back_whatever_was_learned_meanwhile() {
    let recorder = recorder();
    let clock = (1..=40).map(|number| (format!("server{number}").into(), 50));
    recorder.outbox.buffer().start(&clock.collect());
    let mut state = recorder.outbox.buffer();
    state.taken(u64::MAX);
    assert_eq!((state.waiting().count(), state.waiting_size_bytes()), (0, 0));
}

/// A full buffer counts what it does not take, and its trace has no hole.
#[test]
fn a_full_buffer_leaves_no_hole() {
    let recorder = recorder();
    recorder.outbox.buffer().start(&VectorClock::new());
    let long = "x".repeat(1 << 16);
    let action = Action::LeaderSelectionFailed { msg: long };
    while recorder.outbox.buffer().lost_count() == 0 {
        recorder.with(|state| state.record(1, &action));
    }
    assert_eq!(recorder.on_frame_sent(MemberId(2), append()), append(), "no room for a token");
    assert_eq!(recorder.outbox.buffer().lost_count(), 3);
    let last = recorder.outbox.buffer().waiting().next_back().unwrap().own();
    recorder.outbox.buffer().taken(last - 1);
    recorder.with(|state| state.record(1, &Action::NoOpRequest {}));
    let state = recorder.outbox.buffer();
    let own: Vec<_> = state.waiting().map(Record::own).collect();
    assert_eq!(own, [last, last + 1]);
    assert!(state.waiting_size_bytes() < BUFFER_SIZE_BYTES_MAX / 2);
}

/// Heartbeats are not worth a record, and leave as they are.
#[test]
fn heartbeats_are_left_alone() {
    let recorder = recorder();
    recorder.outbox.buffer().start(&VectorClock::new());
    let body = Body::Heartbeat { round: 1, commit: Index(0) };
    let (from, to) = (MemberId(1), MemberId(2));
    let frame = Frame::Raft(vec![Message { from, to, term: Term(1), body }]).encode();
    assert_eq!(recorder.on_frame_sent(MemberId(2), frame.clone()), frame);
    assert_eq!(recorder.outbox.buffer().waiting().count(), 2);
}

/// But an answer to one by which a leader may commit is recorded, once.
#[test]
fn a_heartbeats_answer_that_says_more_is_recorded() {
    let recorder = recorder();
    recorder.outbox.buffer().start(&VectorClock::new());
    let answer = |index| {
        let matched = Position::new(Term(1), Index(index));
        let (round, last) = (1, matched.index);
        let body = Body::HeartbeatAnswer { round, received: last, last, matched };
        let (from, to) = (MemberId(1), MemberId(2));
        Frame::Raft(vec![Message { from, to, term: Term(1), body }]).encode()
    };
    assert_eq!(recorder.on_frame_sent(MemberId(2), answer(0)), answer(0), "it says nothing");
    assert_ne!(recorder.on_frame_sent(MemberId(2), answer(3)), answer(3));
    assert_eq!(recorder.on_frame_sent(MemberId(2), answer(3)), answer(3), "it was said before");
    let last = recorder.outbox.buffer().waiting().rev().nth(1).unwrap().body.clone();
    assert!(last.contains('3'), "{last}");
}

/// Whatever clients have written, a record of it fits into a frame for the tracing server.
#[test]
fn the_largest_append_fits_into_a_frame() {
    let recorder = recorder();
    recorder.outbox.buffer().start(&VectorClock::new());
    let text = Bytes::from(vec![0; 300]);
    let put = PutRequest { key: text.clone(), value: text, ..PutRequest::default() };
    let command = Command::new(Origin::default(), 0, Request::Put(put)).encode();
    let entry = |index| Entry::new(Term(1), Index(index), EntryKind::Command, command.clone());
    let entries = (1..=2_000).map(entry).collect();
    let body = Body::Append { prev: Position::ZERO, commit: Index(0), entries };
    let (from, to) = (MemberId(1), MemberId(2));
    let frame = Frame::Raft(vec![Message { from, to, term: Term(1), body }]).encode();
    assert_ne!(recorder.on_frame_sent(MemberId(2), frame.clone()), frame);
    let state = recorder.outbox.buffer();
    assert!(state.waiting().all(|it| it.to_json().len() < wire::PAYLOAD_SIZE_BYTES_MAX / 2));
}

/// Whatever a peer writes where a token stands, nothing panics.
#[test]
fn bad_tokens_are_none() {
    let recorder = recorder();
    for bytes in [&[KIND_TRACED][..], &[KIND_TRACED, 9], &[KIND_TRACED, 9, 0, 1], &[]] {
        let (token, frame) = unwrap(Bytes::copy_from_slice(bytes));
        assert_eq!((token, frame.len()), (None, 0));
    }
    let (token, frame) = unwrap(Bytes::from_static(&[KIND_TRACED, 1, 0, 0xff, 1, 2]));
    recorder.on_frame_received(MemberId(2), token, &frame);
    assert_eq!(recorder.outbox.buffer().waiting().count(), 2);
    assert_eq!(frame, [1, 2].as_slice());
}
