//! Servers whose leases do not fit together do not work together.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use kvraft_base::ClusterId;
use tokio_tungstenite::tungstenite::Message;

use super::{
    A, B, CLUSTER, PeerConfig, PeerEvent, config, listener,
    refusals::{assert_closed, greet, hello},
    start,
};
use crate::peers::{
    LeaseTerms,
    frame::{Answer, Hello, HelloError, seal},
    probe_peer,
};

const TERMS: LeaseTerms =
    LeaseTerms { election_timeout: Duration::from_secs(1), drift_ppm_max: 10_000 };

fn says(lease: Option<LeaseTerms>) -> Hello {
    Hello { protocol_max: 3, lease, ..hello() }
}

/// Other terms, none, and none that are known are refused, and both sides' are named.
#[tokio::test]
async fn other_terms_are_refused() {
    let ((a, at), (_b, b_at)) = (listener(), listener());
    let _a = start(a, PeerConfig { lease: Some(TERMS), ..config(A, &[(B, b_at)]) });
    let slower = LeaseTerms { election_timeout: Duration::from_secs(2), ..TERMS };
    let wilder = LeaseTerms { drift_ppm_max: 7, ..TERMS };
    let cases = [
        (says(Some(slower)), "election-timeout = 2s and clock-drift-max = 10000;"),
        (says(Some(wilder)), "election-timeout = 1s and clock-drift-max = 7;"),
        (says(None), "has lease-reads = false;"),
        (Hello { protocol_max: 2, ..hello() }, "has protocol 2, which says nothing of lease-reads"),
    ];
    for (hello, theirs) in cases {
        let (mut socket, answer) = greet(at, seal(0, &hello.encode())).await;
        let reason = match answer {
            Some(Answer::OtherTerms { reason }) if hello.protocol_max == 3 => reason,
            Some(Answer::Refused { reason }) if hello.protocol_max < 3 => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason.contains(theirs), "{reason}");
        let own =
            "this server has lease-reads = true, election-timeout = 1s and clock-drift-max = 10000";
        assert!(reason.contains(own), "{reason}");
        assert_closed(&mut socket).await;
    }
    let (_, answer) = greet(at, seal(0, &says(Some(TERMS)).encode())).await;
    assert!(matches!(answer, Some(Answer::Welcome { protocol: 3, .. })), "{answer:?}");
}

/// Without leases nothing has to fit: who has them is refused, who says nothing of them is not.
#[tokio::test]
async fn without_leases_who_has_them_is_refused() {
    let ((a, at), (_b, b_at)) = (listener(), listener());
    let _a = start(a, config(A, &[(B, b_at)]));
    let (_, answer) = greet(at, seal(0, &says(Some(TERMS)).encode())).await;
    let Some(Answer::OtherTerms { reason }) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("this server has lease-reads = false"), "{reason}");
    for hello in [says(None), hello()] {
        let (_, answer) = greet(at, seal(0, &hello.encode())).await;
        assert!(matches!(answer, Some(Answer::Welcome { .. })), "{answer:?}");
    }
}

/// A peer of an earlier protocol does not look at the terms; the dialer sees that it does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_look_at_the_terms_is_no_peer() {
    let ((a, _), (b, b_at)) = (listener(), listener());
    b.set_nonblocking(true).unwrap();
    let b = tokio::net::TcpListener::from_std(b).unwrap();
    let mut a = start(a, PeerConfig { lease: Some(TERMS), ..config(A, &[(B, b_at)]) });
    let (stream, _) = b.accept().await.unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
    let welcome = Answer::Welcome { protocol: 2, incarnation: 9, features: 0 };
    socket.send(Message::Binary(seal(0, &welcome.encode()))).await.unwrap();
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(super::SOON, ended).await.expect("the dialer hangs up");
    let connected = PeerEvent::Connected { peer: B };
    assert!(a.events.try_recv().map_or(true, |event| event != connected));
}

/// Whoever looks for a server knows nothing of its terms, and finds it; nobody else is found there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_for_a_server_with_leases_finds_it() {
    let (a, at) = listener();
    let _a = start(a, PeerConfig { lease: Some(TERMS), ..config(A, &[(A, at)]) });
    let at = at.to_string();
    assert!(probe_peer(&at, CLUSTER, B, A, super::SOON).await);
    assert!(!probe_peer(&at, CLUSTER, A, B, super::SOON).await);
    assert!(!probe_peer(&at, ClusterId(0xbad), B, A, super::SOON).await);
}

/// The terms survive their encoding, with what later versions may append; a cut greeting does not.
#[test]
fn terms_round_trip() {
    for hello in [says(None), says(Some(TERMS))] {
        let mut bytes = hello.encode().to_vec();
        for size in 0..bytes.len() {
            let cut = Hello::decode(Bytes::copy_from_slice(&bytes[..size]));
            assert!(matches!(cut, Err(HelloError::Malformed(_))), "{size}");
        }
        bytes.extend_from_slice(b"later");
        assert_eq!(Hello::decode(Bytes::from(bytes)).unwrap(), hello);
    }
    let answer = Answer::OtherTerms { reason: "why".to_owned() };
    assert_eq!(Answer::decode(answer.encode()).unwrap(), answer);
}
