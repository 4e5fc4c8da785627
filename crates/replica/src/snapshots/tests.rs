//! When transfers repeat and end, how long the journal stays, and how chunks are paced.

use super::*;
use kvraft_base::Term;

const C: MemberId = MemberId(3);

fn position(index: u64) -> Position {
    Position::new(Term(1), Index(index))
}

fn opened(now: Instant) -> OutgoingSnapshots {
    let mut transfers = OutgoingSnapshots::default();
    assert!(transfers.begin(C, false, now));
    transfers.on_opened(C, position(9));
    transfers
}

/// Time passes until the transfer is due; what the follower says meanwhile is `say`'s.
fn ends_after(
    mut transfers: OutgoingSnapshots,
    say: impl Fn(&mut OutgoingSnapshots, Instant),
) -> Option<u32> {
    for count in 1..100 {
        let now = transfers.deadline();
        let due = transfers.due(now, |_| false);
        if due == [Due::GiveUp(C)] {
            return Some(count);
        }
        say(&mut transfers, now);
    }
    None
}

/// A follower that says the same again and again has not taken anything; one that moves is
/// waited for.
#[test]
fn only_progress_keeps_a_transfer() {
    let begun = Instant(1);
    let give_up = Some(RESEND_COUNT_MAX + 1);
    assert_eq!(ends_after(opened(begun), |_, _| {}), give_up);
    let mut stuck = opened(begun);
    stuck.on_taken(C, position(9), 4, begun);
    assert_eq!(ends_after(stuck, |t, now| t.on_taken(C, position(9), 4, now)), give_up);
    let moving = ends_after(opened(begun), |t, now| t.on_taken(C, position(9), now.0, now));
    assert_eq!(moving, None);
}

/// A follower that has taken all and says so again installs it, for as long as it says so; until
/// then, and when it says nothing, it is waited for as long as any.
#[test]
fn who_installs_is_waited_for() {
    let begun = Instant(1);
    let all_taken = || {
        let mut transfers = opened(begun);
        transfers.on_sent(C, &chunk(0, 1), begun);
        transfers.on_sent(C, &chunk(1, 1), begun);
        transfers.on_taken(C, position(9), 1, begun);
        transfers
    };
    assert_eq!(ends_after(all_taken(), |t, now| t.on_taken(C, position(9), 1, now)), None);
    let give_up = Some(RESEND_COUNT_MAX + 1);
    assert_eq!(ends_after(all_taken(), |t, now| t.on_taken(C, position(9), 0, now)), give_up);
    assert_eq!(ends_after(all_taken(), |_, _| {}), give_up);
}

/// A follower that has forgotten the beginning gets the snapshot again, once for all the parts
/// that it does not know.
#[test]
fn a_forgotten_beginning_is_sent_again_once() {
    let mut transfers = opened(Instant(1));
    let later = Instant(1) + RESEND_INTERVAL;
    assert!(!transfers.restart(C, position(9), Instant(2)), "its first part is on its way");
    assert!(!transfers.restart(C, position(8), later), "that was another snapshot");
    assert!(transfers.restart(C, position(9), later));
    assert!(!transfers.restart(C, position(9), later), "not opened yet");
    transfers.on_opened(C, position(9));
    assert!(!transfers.restart(C, position(9), later + RESEND_INTERVAL / 2));
    assert!(!transfers.restart(MemberId(2), position(9), later));
}

fn chunk(seq: u64, size_bytes: usize) -> SnapshotChunk {
    let bytes = bytes::Bytes::from(vec![0; size_bytes]);
    SnapshotChunk { term: Term(1), position: position(9), seq, bytes }
}

/// The journal stays after the snapshot while it travels, then after what its receiver matches,
/// until that needs it no more.
#[test]
fn the_journal_stays_for_who_reads_it() {
    let mut transfers = opened(Instant(1));
    assert_eq!(transfers.pin(), Some(Index(9)));
    transfers.end(C, Some(position(9)), Instant(2));
    assert_eq!(transfers.pin(), Some(Index(9)));
    transfers.tend_tails(Instant(3), |_| Some(Index(30)));
    assert_eq!(transfers.pin(), Some(Index(30)));
    transfers.tend_tails(Instant(4), |_| None);
    assert_eq!(transfers.pin(), None);
    assert!(transfers.peers().is_empty() && !transfers.has_tails());
}

/// A transfer that fails holds nothing any more.
#[test]
fn the_journal_does_not_stay_for_a_failure() {
    let mut transfers = opened(Instant(1));
    transfers.end(C, None, Instant(2));
    assert_eq!(transfers.pin(), None);
}

/// Who has the log and lacks the state takes no more of the log than memory holds until it has the
/// state; the rest must still be there then, or the next snapshot would end like this one.
#[test]
fn the_journal_stays_for_who_lacks_the_state_alone() {
    let mut transfers = OutgoingSnapshots::default();
    assert!(transfers.begin(C, true, Instant(3)));
    transfers.on_opened(C, position(9));
    assert_eq!(transfers.pin(), Some(Index(9)));
    transfers.on_installed(C, position(9));
    transfers.end(C, Some(position(9)), Instant(4));
    assert_eq!(transfers.pin(), Some(Index(9)));
}

/// Who has got a snapshot and asks again may have asked before it came, so the journal after the
/// first stays while another is sent; and longer, if that other one does not arrive.
#[test]
fn the_journal_stays_for_who_asks_again() {
    let mut transfers = opened(Instant(1));
    transfers.end(C, Some(position(9)), Instant(2));
    assert!(transfers.begin(C, true, Instant(3)));
    assert_eq!(transfers.pin(), Some(Index(9)), "the second is not open yet");
    transfers.on_opened(C, position(20));
    assert_eq!(transfers.pin(), Some(Index(9)));
    transfers.end(C, None, Instant(4));
    assert_eq!(transfers.pin(), Some(Index(9)));
    assert!(transfers.begin(C, true, Instant(5)));
    transfers.on_opened(C, position(20));
    transfers.end(C, Some(position(20)), Instant(6));
    assert_eq!(transfers.pin(), Some(Index(20)));
    transfers.tend_tails(Instant(7), |_| None);
    assert_eq!(transfers.pin(), None);
}

/// A follower that stands still holds the journal for a while only.
#[test]
fn a_dead_follower_lets_the_journal_go() {
    let mut transfers = opened(Instant(1));
    transfers.end(C, Some(position(9)), Instant(2));
    let late = Instant(2) + TAIL_PATIENCE;
    transfers.tend_tails(late, |_| Some(Index(10)));
    assert_eq!(transfers.pin(), Some(Index(10)), "it has moved");
    transfers.tend_tails(late + TAIL_PATIENCE / 2, |_| Some(Index(10)));
    assert_eq!(transfers.pin(), Some(Index(10)));
    transfers.tend_tails(late + TAIL_PATIENCE, |_| Some(Index(10)));
    assert_eq!(transfers.pin(), None);
}

/// A journal that has grown by more than another snapshot would cost does not stay, whether the
/// snapshot has arrived or not.
#[test]
fn the_journal_does_not_grow_for_ever() {
    let size_bytes = 1 << 20;
    let bound = HELD_GROWTH_BYTES_BASE + 2 * size_bytes as u64;
    for arrived in [false, true] {
        let mut transfers = opened(Instant(1));
        transfers.on_sent(C, &chunk(0, size_bytes), Instant(1));
        transfers.on_sent(C, &chunk(0, size_bytes), Instant(1)); // Once more.
        transfers.on_written(bound);
        if arrived {
            transfers.end(C, Some(position(9)), Instant(2));
        }
        transfers.tend_tails(Instant(3), |_| Some(Index(10)));
        assert!(transfers.pin().is_some());
        transfers.on_written(1);
        transfers.tend_tails(Instant(3), |_| Some(Index(10)));
        assert_eq!(transfers.pin(), None);
    }
}

/// What waits for its turn on this side is not repeated.
#[test]
fn nothing_is_overdue_that_has_not_left() {
    let mut transfers = opened(Instant(1));
    for _ in 0..200 {
        let now = transfers.deadline();
        assert!(transfers.due(now, |_| true).is_empty());
    }
    let left = transfers.deadline();
    transfers.on_sent(C, &chunk(0, 1), left);
    assert_eq!(transfers.deadline(), left + RESEND_INTERVAL);
    transfers.on_connected(C, left + RESEND_INTERVAL / 2);
    let back = transfers.deadline();
    assert_eq!(back, left + RESEND_INTERVAL / 2);
    assert_eq!(transfers.due(back, |_| false), [Due::Resend(C)]);
}

/// Over a second no more leaves than the rate and one chunk, for all followers together and in
/// order; a late turn loses nothing.
#[test]
fn chunks_are_paced() {
    let size_bytes = 10_000;
    for turn in [Duration::from_micros(100), Duration::from_millis(5)] {
        let mut pace = Pace::new(1_000_000);
        let peers = [MemberId(2), C];
        for seq in 0..400 {
            pace.push(peers[seq % 2], chunk(seq as u64, size_bytes));
        }
        let (begun, mut now) = (Instant(5_000_000_000), Instant(5_000_000_000));
        let mut left = Vec::new();
        while now <= begun + Duration::from_secs(1) {
            while let Some((to, chunk)) = pace.pop(now) {
                assert_eq!(to, peers[left.len() % 2]);
                left.push(chunk.seq);
            }
            now = pace.deadline().max(now + turn);
        }
        assert!(left.is_sorted());
        assert!((100..=102).contains(&left.len()), "{turn:?} {}", left.len());
        assert!(pace.is_waiting(C));
        pace.forget(C);
        assert!(!pace.is_waiting(C) && pace.is_waiting(MemberId(2)));
        pace.forget(MemberId(2));
        assert_eq!(pace.deadline(), Instant::NEVER);
    }
}
