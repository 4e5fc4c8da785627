//! What clients hear when a server has too much to do, or when the leader they relied on is gone.

use std::time::Duration;

use bytes::Bytes;
use kvraft_kv::{Query, RangeRequest};
use kvraft_replica::{ClientRequest, Failure, NodeIn, NodeOptions, Outcome};

use super::group::{A, B, C, Group};

/// Of what comes in one turn, a server takes on what it may have unapplied, and refuses the rest.
#[test]
fn who_lags_behind_its_log_refuses() {
    let options = NodeOptions { unapplied_count_max: 3, ..NodeOptions::default() };
    let mut group = Group::led_by_a_with(options);
    let tickets: Vec<_> = (0..10).map(|_| group.put(A, 100)).collect();
    group.rounds(50);
    let is_refused = |ticket| match group.reply_to(ticket) {
        Some(Outcome::Failed(Failure::Busy)) => true,
        Some(Outcome::Done(Ok(_))) => false,
        other => panic!("{other:?}"),
    };
    let refused: Vec<bool> = tickets.into_iter().map(is_refused).collect();
    assert_eq!(refused, [vec![false; 4], vec![true; 6]].concat(), "the bound is passed by one");
    // What was taken on is applied by now.
    let ticket = group.put(A, 100);
    group.rounds(50);
    assert!(matches!(group.reply_to(ticket), Some(Outcome::Done(Ok(_)))));
}

/// A client whose put was passed on to a leader is told when that leader is heard no more.
#[test]
fn who_relied_on_an_earlier_leader_is_told() {
    let mut group = Group::led_by_a();
    group.pass = Box::new(|sent| sent.from != A);
    let ticket = group.put(B, 100);
    while group.status(B).leader == Some(A) {
        assert!(group.reply_to(ticket).is_none(), "nobody knows yet");
        group.rounds(1);
    }
    let told = group.reply_to(ticket);
    assert!(matches!(told, Some(Outcome::Unknown(Failure::LeaderChanged))), "{told:?}");
}

/// A client whose put was passed on hears at once when the connection to the leader is gone: nobody
/// is left who would say what became of it.
#[test]
fn who_relied_on_a_server_that_is_cut_off_is_told() {
    let mut group = Group::led_by_a();
    group.pass = Box::new(|sent| sent.from != A);
    let ticket = group.put(B, 100);
    group.rounds(5);
    assert!(group.reply_to(ticket).is_none(), "nobody knows yet");
    group.input(B, NodeIn::Disconnected(A));
    group.rounds(1);
    let told = group.reply_to(ticket);
    assert!(matches!(told, Some(Outcome::Unknown(_))), "{told:?}");
}

/// A put that comes while nobody leads waits, and is made when somebody does.
#[test]
fn a_put_waits_for_a_leader() {
    let mut group = Group::led_by_a();
    group.stop(A);
    let is_led = |group: &Group| group.leads(B) || group.leads(C);
    while group.status(B).leader.is_some() || group.status(C).leader.is_some() {
        group.rounds(1);
    }
    let ticket = group.put(B, 100);
    while !is_led(&group) {
        group.rounds(1);
    }
    group.advance(Duration::from_millis(200));
    assert!(matches!(group.reply_to(ticket), Some(Outcome::Done(Ok(_)))));
}

/// A put that is passed on to a leader whose queue is full had no effect, and its client hears so at
/// once: the transport answers for the leader.
#[test]
fn who_is_passed_on_to_a_full_server_is_told() {
    let mut group = Group::led_by_a();
    group.full = Some(A);
    let ticket = group.put(B, 100);
    group.rounds(5);
    let told = group.reply_to(ticket);
    assert!(matches!(told, Some(Outcome::Failed(Failure::Busy))), "{told:?}");
    group.full = None;
    let ticket = group.put(B, 100);
    group.rounds(50);
    assert!(matches!(group.reply_to(ticket), Some(Outcome::Done(Ok(_)))));
}

/// Whoever is asked, reads are answered, by each of the two ways; and leadership is handed over
/// when a client wants that.
#[test]
fn every_server_answers_every_kind_of_request() {
    let mut group = Group::led_by_a();
    group.put(A, 100);
    group.rounds(50);
    let all = || RangeRequest {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        ..RangeRequest::default()
    };
    let mut asked = Vec::new();
    for id in [A, B, C] {
        for linearizable in [true, false] {
            for query in [Query::Range(all()), Query::HashKv { revision: Default::default() }] {
                asked.push(group.request(id, ClientRequest::Query { query, linearizable }));
            }
        }
    }
    group.rounds(50);
    for ticket in asked {
        let told = group.reply_to(ticket);
        assert!(matches!(told, Some(Outcome::Answered(Ok(_)))), "{told:?}");
    }
    for (by, to) in [(A, Some(B)), (B, None)] {
        let ticket = group.request(by, ClientRequest::Transfer { to });
        group.rounds(200);
        let told = group.reply_to(ticket);
        assert!(matches!(told, Some(Outcome::Transferred(Ok(_)))), "{told:?}");
        let leading: Vec<_> = [A, B, C].into_iter().filter(|id| group.leads(*id)).collect();
        assert!(leading.len() == 1 && leading[0] != by, "{by} has handed over: {leading:?}");
        assert!(to.is_none_or(|to| to == leading[0]), "{leading:?}");
    }
}
