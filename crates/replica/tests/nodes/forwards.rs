//! What clients of a follower are told when the leader refuses, steps down, changes or is gone.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{MemberId, Ticket, limits::ENTRY_SIZE_BYTES_MAX};
use kvraft_replica::{
    Attempt, Failure, ForwardRefusal, Frame, NodeIn, NodeOptions, NotSent, Outcome,
};

use super::group::{A, B, C, Group, Sent, incarnation};

const ELECTION: Duration = Duration::from_secs(1);

fn is_raft(sent: &Sent) -> bool {
    matches!(sent.frame, Frame::Raft(_))
}

fn group() -> Group {
    Group::led_by_a(NodeOptions::default())
}

/// The attempts that B has passed on.
fn attempts(group: &Group) -> Vec<(MemberId, Attempt)> {
    let attempt = |sent: &Sent| match (sent.from, &sent.frame) {
        (B, Frame::Forward { attempt, .. }) => Some((sent.to, *attempt)),
        _ => None,
    };
    group.said.iter().filter_map(attempt).collect()
}

fn is_unknown(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Unknown(Failure::LeaderChanged)))
}

fn failure(outcome: Option<&Outcome>) -> Option<Failure> {
    match outcome {
        Some(Outcome::Failed(failure)) => Some(*failure),
        _ => None,
    }
}

/// Good weather: passed on once, done once.
#[test]
fn a_command_is_passed_on_and_done() {
    let mut group = group();
    let ticket = group.put(B);
    group.settle();
    assert!(group.is_done(B, ticket));
    assert!(group.reply(B, ticket).is_none(), "the machine answers");
    assert_eq!(attempts(&group).len(), 1);
    assert_eq!(group.nodes[&B].waiting_count(), 0);
}

/// A leader that has too much to do reads as busy at the server that asked, not as a change of
/// leaders.
#[test]
fn an_overloaded_leader_reads_as_busy() {
    let mut group = Group::led_by_a(NodeOptions { unapplied_count_max: 2, ..Default::default() });
    group.lazy = vec![A];
    let early: Vec<Ticket> = (0..3)
        .map(|_| {
            let ticket = group.put(B);
            group.settle();
            ticket
        })
        .collect();
    assert!(early.iter().all(|ticket| group.is_done(B, *ticket)));
    let late = group.put(B);
    group.settle();
    assert_eq!(failure(group.reply(B, late)), Some(Failure::Busy));
}

/// A leader that steps down, with every connection in place, says so at once to those whose
/// commands it had appended: their fate is open.
#[test]
fn a_deposed_leader_tells_who_relied_on_it() {
    let mut group = group();
    group.pass = Box::new(|sent| !is_raft(sent));
    let ticket = group.put(B);
    group.settle();
    assert!(group.reply(B, ticket).is_none());
    group.advance(ELECTION);
    assert!(!group.follows(A, A), "A has heard from no majority");
    assert!(group.follows(B, A), "B has not noticed anything itself");
    assert!(is_unknown(group.reply(B, ticket)), "{:?}", group.reply(B, ticket));
}

/// A server that sees another term begin gives up what it had passed on, though the old leader is
/// still connected and says nothing.
#[test]
fn a_change_of_leader_ends_the_wait() {
    let mut group = group();
    group.pass = Box::new(|sent| sent.from != A);
    let ticket = group.put(B);
    group.settle();
    group.advance(ELECTION * 3);
    assert!(group.follows(B, B) || group.follows(B, C), "{:?}", group.nodes[&B].status());
    assert!(is_unknown(group.reply(B, ticket)), "{:?}", group.reply(B, ticket));
}

/// What a server that does not lead any more has refused was never appended: it is passed on again
/// once somebody leads, under another number, and done once.
#[test]
fn a_refused_command_waits_for_the_next_leader() {
    let mut group = group();
    group.pass = Box::new(|sent| !is_raft(sent));
    group.advance(ELECTION);
    assert!(!group.follows(A, A) && group.follows(B, A));
    let ticket = group.put(B);
    group.settle();
    assert!(group.reply(B, ticket).is_none(), "{:?}", group.reply(B, ticket));
    group.pass = Box::new(|_| true);
    group.advance(ELECTION * 3);
    assert!(group.is_done(B, ticket));
    assert!(group.reply(B, ticket).is_none());
    let attempts = attempts(&group);
    let numbers: Vec<u64> = attempts.iter().map(|(_, attempt)| attempt.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{attempts:?}");
}

/// A command may be as long as an entry, and not longer: then it is refused at once, wherever it is
/// wanted.
#[test]
fn a_command_is_as_long_as_an_entry_at_most() {
    let mut group = group();
    let empty = Group::command(A, Ticket(1), Bytes::new()).len();
    let longest = vec![7; ENTRY_SIZE_BYTES_MAX - empty];
    for id in [A, B] {
        let ticket = group.put_value(id, longest.clone().into());
        group.settle();
        assert!(group.is_done(id, ticket), "{:?}", group.reply(id, ticket));
        let longer = [longest.as_slice(), &[7]].concat();
        let ticket = group.put_value(id, longer.into());
        assert_eq!(failure(group.reply(id, ticket)), Some(Failure::TooLarge));
    }
}

/// What was refused is not passed on again with every turn, but when its time has come.
#[test]
fn a_refused_command_is_not_repeated_at_once() {
    let mut group = group();
    group.pass = Box::new(|sent| !is_raft(sent));
    group.advance(ELECTION);
    assert!(!group.follows(A, A) && group.follows(B, A));
    group.put(B);
    group.settle();
    for _ in 0..10 {
        group.input(B, Vec::new());
        group.settle();
    }
    assert_eq!(attempts(&group).len(), 1);
    group.advance(Duration::from_millis(100));
    assert_eq!(attempts(&group).len(), 2);
}

/// A client that waits no longer is forgotten by whoever it waited at: here, or at the machine.
#[test]
fn a_cancelled_request_is_forgotten() {
    let mut group = group();
    group.pass = Box::new(|sent| !is_raft(sent));
    let ticket = group.put(B);
    group.input(B, vec![NodeIn::Cancel(ticket)]);
    assert_eq!((group.nodes[&B].waiting_count(), group.cancelled.len()), (0, 0));
    let answered = Ticket(ticket.0 + 1);
    group.input(B, vec![NodeIn::Cancel(answered)]);
    assert_eq!(group.cancelled, [(B, answered)], "the machine may have it");
}

/// Answers to another life, or to an earlier attempt, are for nobody.
#[test]
fn a_restarted_server_takes_no_old_answer() {
    let mut group = group();
    group.pass = Box::new(|sent| sent.from != A);
    let ticket = group.put(B);
    group.settle();
    let (_, attempt) = attempts(&group)[0];
    assert_eq!((attempt.incarnation, attempt.ticket), (incarnation(B), ticket));
    let reason = ForwardRefusal::Busy;
    let strange = [
        Attempt { incarnation: attempt.incarnation + 1, ..attempt },
        Attempt { number: attempt.number + 1, ..attempt },
        Attempt { ticket: ticket.next(), ..attempt },
    ];
    for attempt in strange {
        for frame in [Frame::ForwardRefused { attempt, reason }, Frame::ForwardLost { attempt }] {
            group.input(B, vec![NodeIn::Frame { from: A, frame: frame.encode() }]);
        }
    }
    let frame = Frame::ForwardRefused { attempt, reason }.encode();
    group.input(B, vec![NodeIn::Frame { from: C, frame: frame.clone() }]);
    assert!(group.reply(B, ticket).is_none(), "nobody else can refuse it");
    group.input(B, vec![NodeIn::Frame { from: A, frame }]);
    assert_eq!(failure(group.reply(B, ticket)), Some(Failure::Busy));
}

/// A command that found no room on the connection, or no connection, has not left.
#[test]
fn an_undelivered_command_has_had_no_effect() {
    let mut group = group();
    group.pass = Box::new(|sent| !matches!(sent.frame, Frame::Forward { .. }));
    let tickets = [group.put(B), group.put(B)];
    group.settle();
    let frames: Vec<_> = group.said.iter().filter(|sent| sent.from == B).collect();
    let forwards = frames.iter().filter(|sent| matches!(sent.frame, Frame::Forward { .. }));
    let forwards: Vec<_> = forwards.map(|sent| sent.frame.encode()).collect();
    let undelivered =
        |at: usize, reason| NodeIn::Undelivered { to: A, frame: forwards[at].clone(), reason };
    group.pass = Box::new(|_| true);
    group.input(B, vec![undelivered(0, NotSent::Full), undelivered(1, NotSent::Closed)]);
    assert_eq!(failure(group.reply(B, tickets[0])), Some(Failure::Busy));
    assert!(group.reply(B, tickets[1]).is_none());
    group.settle();
    group.advance(Duration::from_millis(50));
    assert!(group.is_done(B, tickets[1]) && !group.is_done(B, tickets[0]));
}

/// Without a leader a request waits only so long, and then it is known to have had no effect.
#[test]
fn a_parked_request_ends_as_failed() {
    let parked_time_max = Duration::from_secs(4);
    let mut group = Group::led_by_a(NodeOptions { parked_time_max, ..Default::default() });
    group.pass = Box::new(|_| false);
    group.input(B, vec![NodeIn::Disconnected(A), NodeIn::Disconnected(C)]);
    group.advance(ELECTION);
    let ticket = group.put(B);
    group.advance(parked_time_max - Duration::from_millis(1));
    assert!(group.reply(B, ticket).is_none());
    group.advance(Duration::from_millis(40));
    assert_eq!(failure(group.reply(B, ticket)), Some(Failure::NoLeader));
    assert_eq!(group.nodes[&B].waiting_count(), 0);
}

/// A leader with no room for the frame itself answers all the same.
#[test]
fn a_dropped_forward_is_refused_and_nothing_else_is() {
    let attempt = Attempt { incarnation: 1, ticket: Ticket(2), number: 3 };
    let forward = Frame::Forward { attempt, command: Bytes::from_static(b"c") }.encode();
    let answer = Frame::answer_to_dropped(&forward).unwrap();
    let reason = ForwardRefusal::Busy;
    assert_eq!(Frame::decode(answer).unwrap(), Frame::ForwardRefused { attempt, reason });
    let lost = Frame::ForwardLost { attempt }.encode();
    assert_eq!(Frame::answer_to_dropped(&lost), None);
    assert_eq!(Frame::answer_to_dropped(&forward.slice(..4)), None);
}

/// Every frame about a passed-on command survives its encoding; a cut one is an error.
#[test]
fn frames_round_trip() {
    let attempt = Attempt { incarnation: 1, ticket: Ticket(2), number: 3 };
    let reasons = [
        ForwardRefusal::Busy,
        ForwardRefusal::NotLeader { leader: None },
        ForwardRefusal::NotLeader { leader: Some(C) },
        ForwardRefusal::TooLarge,
        ForwardRefusal::Muted,
        ForwardRefusal::Malformed,
    ];
    let refused = reasons.map(|reason| Frame::ForwardRefused { attempt, reason });
    for frame in refused.into_iter().chain([Frame::ForwardLost { attempt }]) {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(bytes.clone()), Ok(frame));
        for size in 0..bytes.len() {
            assert!(Frame::decode(bytes.slice(..size)).is_err(), "{size}");
        }
    }
}
