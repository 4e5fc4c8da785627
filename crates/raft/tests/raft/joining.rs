//! A server that joins: what it was started with is no configuration of the log.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{
    Entry, EntryKind, Index, Instant, MemberId, Members, MembersDraft, Position, Term,
};
use kvraft_raft::{Body, Config, Input, Message, Output, Raft, RoleName, Start};

const ME: MemberId = MemberId(1);

/// Longer than any wait for a leader.
const LONG: Duration = Duration::from_secs(10);

fn members() -> Members {
    let mut draft = MembersDraft { id_max: MemberId(9), ..MembersDraft::default() };
    draft.voters = [MemberId(2), MemberId(3)].into();
    draft.learners = [(ME, true)].into();
    draft.finish().unwrap()
}

/// The role of a server whose log is one entry, long after a voter without a log asked for its
/// vote.
fn role_when_needed(kind: EntryKind, payload: Bytes) -> RoleName {
    let mut start = Start::fresh(members());
    start.hard_state.term = Term(1);
    start.tail = vec![Entry::new(Term(1), Index(1), kind, payload)];
    start.last = Position::new(Term(1), Index(1));
    let mut raft = Raft::new(Config::new(ME), start, 7, Instant::ZERO).unwrap();
    let mut out = Output::default();
    let body = Body::PreVoteRequest { campaign: Term(2), last: Position::ZERO };
    let asked = Message { from: MemberId(2), to: ME, term: Term(1), body };
    raft.step(Instant::ZERO, Input::Receive(asked));
    raft.finish(Instant::ZERO, &mut out);
    raft.finish(Instant::ZERO + LONG, &mut out);
    raft.status().role
}

/// It names the server as a learner, whatever it is to become: by that alone it does not campaign,
/// whoever asks. By the same configuration in its log it does.
#[test]
fn learner_helps_by_a_configuration_of_its_log_alone() {
    let in_log = role_when_needed(EntryKind::Config, members().encode());
    assert_eq!(in_log, RoleName::PreCandidate);
    let before_the_log = role_when_needed(EntryKind::Noop, Bytes::new());
    assert_eq!(before_the_log, RoleName::Follower);
}
