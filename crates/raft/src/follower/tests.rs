use std::time::Duration;

use kvraft_base::{Index, Instant, MemberId, Members, MembersDraft, Position, Term};

use crate::{Config, Input, Output, Raft, Start};

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
