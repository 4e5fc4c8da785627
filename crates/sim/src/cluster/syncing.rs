//! "Logs should be syncing": a follower that stays connected to a leader that stays leader has
//! everything the leader had, within a bound.

use std::{collections::BTreeMap, time::Duration};

use kvraft_base::{Index, Instant, MemberId, Term};

use super::{violation::Check, world::World};
use crate::network::Endpoint;

/// A follower gets this many election timeouts, and at least [`BOUND_MIN`], to catch up.
const BOUND_ELECTION_TIMEOUTS: u32 = 50;

/// Slow disks and large snapshots need time that has nothing to do with timeouts.
const BOUND_MIN: Duration = Duration::from_secs(10);

/// What a follower must have by when, as long as nothing comes between.
#[derive(Clone, Copy, Debug)]
struct Goal {
    leader: MemberId,
    term: Term,
    index: Index,
    since: Instant,
    boots: (u64, u64),
}

/// One goal per follower.
#[derive(Debug, Default)]
pub(crate) struct Syncing {
    goals: BTreeMap<MemberId, Goal>,
}

impl World {
    pub(crate) fn check_syncing(&mut self) {
        let Some(leader) = self.leader() else {
            self.syncing.goals.clear();
            return;
        };
        for follower in self.server_ids() {
            let is_sent_to = self.checks.members_of(leader).1.contains(follower);
            if !is_sent_to {
                self.syncing.goals.remove(&follower);
            } else if follower != leader {
                self.check_follower(leader, follower);
            }
        }
    }

    fn check_follower(&mut self, leader: MemberId, follower: MemberId) {
        let ends = (Endpoint::Server(leader), Endpoint::Server(follower));
        let open = self.network.is_open(ends.0, ends.1) && self.network.is_open(ends.1, ends.0);
        let lanes = |id: &MemberId| self.servers.get(id).and_then(|server| server.lanes.as_ref());
        // Who stands still, or was left broken for good, is not connected in any useful sense.
        let is_well = |id: &MemberId| {
            !self.servers[id].paused && (self.core.is_empty() || self.core.contains(id))
        };
        let open = open && is_well(&leader) && is_well(&follower);
        let (Some(leads), Some(follows), true) = (lanes(&leader), lanes(&follower), open) else {
            self.syncing.goals.remove(&follower);
            return;
        };
        let (status, durable) = (leads.node.status(), follows.node.status().durable);
        let boots = (self.servers[&leader].boot, self.servers[&follower].boot);
        let fresh =
            Goal { leader, term: status.term, index: status.last.index, since: self.now, boots };
        let goal = *self.syncing.goals.entry(follower).or_insert(fresh);
        let same = (goal.leader, goal.term, goal.boots) == (leader, status.term, boots);
        if !same || goal.index <= durable {
            self.syncing.goals.insert(follower, fresh);
            return;
        }
        let bound = (self.config.election_timeout * BOUND_ELECTION_TIMEOUTS).max(BOUND_MIN);
        if bound < self.now.since(goal.since) {
            let detail = format!(
                "server {follower} has {durable} of {} after {bound:?} with leader {leader}; \
                 {status:?}",
                goal.index
            );
            self.checks.fail(Check::LogsKeepSyncing, detail);
        }
    }
}
