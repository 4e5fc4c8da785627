//! What waits is bounded: what comes beyond that is refused, and nothing that waited is lost.

use kvraft_base::{Instant, MemberId, Ticket};
use kvraft_raft::{Input, Output, Refusal, RoleName};

use crate::world::World;

/// Reads that may wait at a server for a confirmation.
const READS_MAX: u64 = 65_536;

#[test]
fn reads_that_wait_are_bounded_at_leader_and_follower() {
    let mut world = World::new(3, 1, |_| {});
    for id in world.ids() {
        world.start(id, 0).unwrap();
    }
    world.run(Instant(5_000_000_000));
    let leads = |world: &mut World, id| {
        world.node(id).status().is_some_and(|status| status.role == RoleName::Leader)
    };
    let (leaders, followers): (Vec<MemberId>, Vec<MemberId>) =
        world.ids().into_iter().partition(|id| leads(&mut world, *id));
    assert_eq!((leaders.len(), followers.len()), (1, 2));
    for id in [leaders[0], followers[0]] {
        let now = world.clock(id);
        let raft = world.node(id).raft.as_mut().unwrap();
        for number in 0..READS_MAX + 10 {
            raft.step(now, Input::Read { ticket: Ticket(number) });
        }
        let mut out = Output::default();
        raft.finish(now, &mut out);
        let refused: Vec<_> = (READS_MAX..READS_MAX + 10)
            .map(|number| (Ticket(number), Err(Refusal::Busy)))
            .collect();
        assert_eq!(out.reads, refused, "at {id}");
    }
}
