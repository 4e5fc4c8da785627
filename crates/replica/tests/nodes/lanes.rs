//! Which connection Appends take, and that the two do not get into each other's way.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{
    Ticket,
    limits::{FRAME_SIZE_BYTES_MAX, REQUEST_SIZE_BYTES_MAX},
};
use kvraft_raft::{Body, Event, PeerState};

use super::group::{A, B, C, Group, Sent};
use kvraft_replica::{ClientRequest, Frame, NodeIn, NodeOptions, PeerLane};

const HEARTBEAT: Duration = Duration::from_millis(100);

/// A leads B; C has missed about 64 KiB of the log, which is far behind in these tests.
fn c_has_missed_much() -> Group {
    let mut group = Group::led_by_a_with(NodeOptions::default(), |config| {
        config.catch_up_bytes_min = 16 << 10;
        config.append_size_bytes_max = 4 << 10;
    });
    cut_c_off(&mut group);
    group.pass = Box::new(|_| true);
    group.said.clear();
    group.events.clear();
    group
}

fn cut_c_off(group: &mut Group) {
    group.pass = Box::new(|sent| sent.from != C && sent.to != C);
    for _ in 0..64 {
        group.put_value(A, Bytes::from(vec![7; 1024]));
        group.settle();
    }
}

/// The connection of C is back.
fn reconnect(group: &mut Group) {
    group.input(A, vec![NodeIn::Connected(C)]);
    group.settle();
}

/// The lane of every Append that brings entries to C.
fn lanes(group: &Group) -> Vec<PeerLane> {
    let brings = |body: &Body| matches!(body, Body::Append { entries, .. } if !entries.is_empty());
    let lanes = |sent: &Sent| match &sent.frame {
        Frame::Raft(messages) if sent.to == C => {
            let count = messages.iter().filter(|message| brings(&message.body)).count();
            vec![sent.lane; count]
        }
        _ => Vec::new(),
    };
    group.said.iter().flat_map(lanes).collect()
}

fn is_told_of_trouble(group: &Group) -> bool {
    let trouble =
        |event: &Event| matches!(event, Event::ConflictFound { .. } | Event::AppendLost { .. });
    group.events.iter().any(|(_, event)| trouble(event))
}

fn matched(group: &Group) -> (u64, PeerState) {
    let status = group.nodes[&A].status();
    let progress = status.peers.iter().find(|peer| peer.id == C).expect("A follows C");
    (progress.matched.0, progress.state)
}

/// What was missed takes the bulk connection, what is new the other; nothing is refused.
#[test]
fn a_follower_catches_up_beside_the_fresh_traffic() {
    let mut group = c_has_missed_much();
    reconnect(&mut group);
    group.advance(HEARTBEAT * 3);
    let caught_up = lanes(&group);
    let bulk = caught_up.iter().filter(|lane| **lane == PeerLane::Bulk).count();
    assert!(10 < bulk, "{caught_up:?}");
    assert_eq!(matched(&group), (group.nodes[&A].status().last.index.0, PeerState::Replicate));
    assert!(!is_told_of_trouble(&group), "{:?}", group.events);
    group.said.clear();
    group.put(A);
    group.settle();
    assert_eq!(lanes(&group), [PeerLane::Control]);
    let to_b = group.said.iter().all(|sent| sent.to != B || sent.lane == PeerLane::Control);
    assert!(to_b, "B has missed nothing");
}

/// Bulk that is slower than many heartbeats is not taken for lost, and nothing is sent twice.
#[test]
fn heartbeats_that_overtake_prove_no_loss() {
    let mut group = c_has_missed_much();
    group.hold = Box::new(|sent| sent.lane == PeerLane::Bulk);
    reconnect(&mut group);
    group.advance(HEARTBEAT * 3);
    let sent = lanes(&group);
    assert!(sent.contains(&PeerLane::Bulk));
    for _ in 0..4 {
        group.put(A);
        group.advance(HEARTBEAT);
    }
    let bulk = lanes(&group).iter().filter(|lane| **lane == PeerLane::Bulk).count();
    assert!(bulk <= 20, "each part leaves once: {bulk}");
    assert!(!is_told_of_trouble(&group), "{:?}", group.events);
    assert_eq!(lanes(&group).last(), Some(&PeerLane::Bulk), "fresh entries wait their turn");
    group.hold = Box::new(|_| false);
    group.release();
    group.advance(HEARTBEAT);
    assert_eq!(matched(&group).0, group.nodes[&A].status().last.index.0);
    assert!(!is_told_of_trouble(&group), "{:?}", group.events);
    assert_eq!(lanes(&group).last(), Some(&PeerLane::Control));
}

/// Bulk that really is lost, with its connection or without, is sent again.
#[test]
fn lost_bulk_is_sent_again() {
    let mut group = c_has_missed_much();
    group.pass = Box::new(|sent| sent.lane == PeerLane::Control);
    reconnect(&mut group);
    group.advance(HEARTBEAT * 5);
    assert!(matched(&group).0 < group.nodes[&A].status().last.index.0);
    group.pass = Box::new(|_| true);
    group.advance(HEARTBEAT * 12);
    assert_eq!(matched(&group).0, group.nodes[&A].status().last.index.0);
}

/// What is said to one peer in one turn is one frame, as far as a frame may be so long.
#[test]
fn what_is_too_long_for_one_frame_takes_several() {
    let mut group = Group::led_by_a(NodeOptions::default());
    let value = vec![7; REQUEST_SIZE_BYTES_MAX / 2];
    let put = |ticket| ClientRequest::Propose(Group::command(A, ticket, value.clone().into()));
    let inputs = (1..=8).map(Ticket).map(|ticket| {
        let request = put(ticket);
        NodeIn::Client { ticket, request }
    });
    group.input(A, inputs.collect());
    group.settle();
    assert!((1..=8).all(|ticket| group.is_done(A, Ticket(ticket))));
    let sizes: Vec<usize> = group.said.iter().map(|sent| sent.frame.encode().len()).collect();
    assert!(sizes.iter().all(|size| *size <= FRAME_SIZE_BYTES_MAX), "{sizes:?}");
    let is_full = |size: &&usize| FRAME_SIZE_BYTES_MAX / 4 < **size;
    assert!(3 < sizes.iter().filter(is_full).count(), "{sizes:?}");
}
