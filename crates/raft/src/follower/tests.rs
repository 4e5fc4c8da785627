use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{
    Entry, EntryKind, Index, Instant, MemberId, Members, MembersDraft, Position, Term,
};

use crate::{Body, Config, Input, Message, Output, Raft, RoleName, Start};

const ME: MemberId = MemberId(1);

fn members(ids: &[u64]) -> Members {
    let voters = ids.iter().copied().map(MemberId).collect();
    MembersDraft { voters, id_max: MemberId(9), ..MembersDraft::default() }.finish().unwrap()
}

/// Of whoever comes and goes nothing is kept: ids are never used again, so that would only grow.
#[test]
fn closed_connections_of_strangers_are_forgotten() {
    let now = Instant::ZERO + Duration::from_secs(1);
    let mut start = Start::fresh(members(&[1, 2, 3]));
    start.hard_state.term = Term(1);
    let mut raft = Raft::new(Config::new(ME), start, 7, now).unwrap();
    let mut out = Output::default();
    for id in 2..100 {
        raft.step(now, Input::Disconnected { peer: MemberId(id) });
    }
    assert_eq!(raft.core.down, [MemberId(2), MemberId(3)].into());
    let position = Position { term: Term(1), index: Index(5) };
    raft.core.restart_log(position, members(&[1, 2]));
    raft.finish(now, &mut out);
    assert_eq!(raft.core.down, [MemberId(2)].into());
}

/// What a server that joins is started with names it as a learner, whatever it is to become: by
/// that alone it does not campaign, whoever asks. By the same configuration in its log it does.
#[test]
fn learner_helps_by_a_configuration_of_its_log_alone() {
    let mut draft = MembersDraft { id_max: MemberId(9), ..MembersDraft::default() };
    draft.voters = [MemberId(2), MemberId(3)].into();
    draft.learners = [(ME, true)].into();
    let members = draft.finish().unwrap();
    for (kind, expected) in
        [(EntryKind::Noop, RoleName::Follower), (EntryKind::Config, RoleName::PreCandidate)]
    {
        let mut start = Start::fresh(members.clone());
        let payload = if kind == EntryKind::Config { members.encode() } else { Bytes::new() };
        start.hard_state.term = Term(1);
        start.tail = vec![Entry::new(Term(1), Index(1), kind, payload)];
        start.last = Position::new(Term(1), Index(1));
        let mut raft = Raft::new(Config::new(ME), start, 7, Instant::ZERO).unwrap();
        let body = Body::PreVoteRequest { campaign: Term(2), last: Position::ZERO };
        let asked = Message { from: MemberId(2), to: ME, term: Term(1), body };
        let mut out = Output::default();
        raft.step(Instant::ZERO, Input::Receive(asked));
        raft.finish(Instant::ZERO, &mut out);
        let now = Instant::ZERO + Duration::from_secs(10);
        raft.finish(now, &mut out);
        assert_eq!(raft.status().role, expected, "with {kind:?} in its log");
    }
}
