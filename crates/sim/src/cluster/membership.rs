//! Servers that come, leave, hand over and stop: what a change of members means to the world around
//! the logs.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kvraft_base::{Index, MemberId, Members};
use kvraft_raft::{Membership, RoleName};
use kvraft_replica::{ClientRequest, NodeIn};
use kvraft_store::Identity;

use super::{
    server::{LaneIn, Server, Standing, Waiter},
    violation::{Check, Violation},
    world::{CLUSTER, HOP, Happening, World},
};
use crate::{disk::SimDisk, network::Endpoint};

/// A removed server whose supervisor starts it again ends as often as this at most.
const REMOVED_START_COUNT_MAX: u64 = 3;

impl World {
    /// A new server with a formatted disk, not started yet.
    pub(crate) fn format_server(
        &mut self,
        id: MemberId,
        members: Members,
    ) -> Result<(), Violation> {
        let costs = self.config.disk_costs(&mut self.disk_prng);
        let build = self.first_build(id);
        let server = Server::new(id, SimDisk::new(&format!("s{id}"), costs), build);
        let identity = Identity { cluster: CLUSTER, member: id, members: members.clone() };
        server.format(&identity).map_err(|error| Violation::new(Check::Recovery, error))?;
        self.checks.add_server(id, members);
        self.servers.insert(id, server);
        Ok(())
    }

    pub(crate) fn add_server(&mut self, id: MemberId, members: Members) {
        let node = Some(Endpoint::Server(id));
        self.trace.record(self.now, node, "format", id.0, || format!("{members}"));
        if let Err(violation) = self.format_server(id, members) {
            self.checks.fail(violation.check, violation.detail);
        }
    }

    /// Servers that may run, members or not.
    pub(crate) fn servers_in_use(&self) -> Vec<MemberId> {
        let in_use = self.servers.values().filter(|server| server.standing == Standing::InUse);
        in_use.map(|server| server.id).collect()
    }

    /// Members, as agreed, whose servers may run.
    pub(crate) fn members_in_use(&self) -> Vec<MemberId> {
        let (_, members) = self.checks.agreed_members();
        self.servers_in_use().into_iter().filter(|id| members.contains(*id)).collect()
    }

    /// A server says which configuration is in force.
    pub(crate) fn on_members(&mut self, id: MemberId, membership: &Membership) {
        if !membership.is_pending() {
            self.server(id).members = Some(Arc::clone(&membership.members));
        }
    }

    /// Another configuration was agreed on: clients' lists follow, sooner or later.
    pub(crate) fn on_members_agreed(&mut self, before: Index) {
        let (index, members) = self.checks.agreed_members();
        if index == before {
            return;
        }
        self.trace.record(self.now, None, "members", index.0, || format!("{members} at {index}"));
        if members.is_joint() {
            self.sometimes.joint_entered += 1;
        } else {
            self.sometimes.members_changed += 1;
        }
        let is_led_from_outside = self.leader().is_some_and(|leader| !members.contains(leader));
        self.sometimes.leader_removed += u64::from(is_led_from_outside);
        self.repoint_clients();
    }

    fn repoint_clients(&mut self) {
        let able = self.members_in_use();
        for client in self.clients.values_mut() {
            client.repoint(&able, &mut self.member_prng);
        }
    }

    /// A disk and everything on it are gone, and nobody will start on it again.
    pub(crate) fn destroy(&mut self, id: MemberId) {
        self.sometimes.disks_lost += 1;
        self.crash(id);
        self.server(id).standing = Standing::Destroyed;
        self.checks.on_destroyed(id);
        self.repoint_clients();
    }

    /// A server says that it was removed, and ends. A supervisor may start it again some times.
    pub(crate) fn on_removed(&mut self, id: MemberId, index: Index) {
        self.sometimes.removed_stopped += 1;
        let (_, members) = self.checks.agreed_members();
        if members.contains(id) || members.id_max() < id {
            let detail = format!("server {id} ends as removed at {index}, agreed is {members}");
            self.checks.fail(Check::RemovedNeverLeads, detail);
        }
        self.kill(id);
        let is_stubborn = self.servers[&id].boot < REMOVED_START_COUNT_MAX;
        if is_stubborn && self.core.is_empty() && !self.healed && self.member_prng.chance(1, 3) {
            let delay =
                self.member_prng.duration(Duration::from_millis(10), Duration::from_secs(1));
            self.after(delay, Happening::Restart { server: id });
        } else {
            self.server(id).standing = Standing::Retired;
        }
    }

    // Stopping.

    /// The process is asked to stop; a leader hands over first, and waits for that no longer than
    /// an election timeout.
    pub(crate) fn ask_to_stop(&mut self, id: MemberId) {
        let Some(lanes) = &self.servers[&id].lanes else { return };
        self.sometimes.stops += 1;
        let boot = self.servers[&id].boot;
        if lanes.node.status().role != RoleName::Leader {
            self.on_stop(id, boot);
            return;
        }
        self.sometimes.stops_of_leaders += 1;
        let ticket = self.server(id).ticket(Waiter::Stop);
        let request = ClientRequest::Transfer { to: None };
        self.deliver_to(id, HOP, LaneIn::Node(NodeIn::Client { ticket, request }));
        let patience = self.config.election_timeout;
        self.after(patience, Happening::Stop { server: id, boot });
    }

    pub(crate) fn on_stop(&mut self, id: MemberId, boot: u64) {
        if self.servers[&id].boot == boot && self.core.is_empty() && !self.healed {
            self.kill(id);
        }
    }

    // Coming and going for ever.

    pub(crate) fn on_flap(&mut self, id: MemberId) {
        if self.core.is_empty() {
            return; // It was mended.
        }
        if self.network.is_offline(Endpoint::Server(id)) {
            self.reconnect(id);
        } else {
            self.disconnect(id);
        }
        let pause = self.core_prng.duration(Duration::from_millis(20), Duration::from_secs(1));
        self.after(pause, Happening::Flap { server: id });
    }

    /// Who must go on in the second phase beside `core`: of every configuration that may come to be
    /// a quorum, and the learners that may be promoted.
    pub(crate) fn complete_core(&self, core: &mut BTreeSet<MemberId>) {
        let reachable = self.reachable_members(None);
        let is_there = |id: &MemberId| self.servers.contains_key(id) && self.is_sound(*id);
        for members in &reachable {
            let promoted = members.learners().iter().filter(|learner| learner.promote);
            core.extend(promoted.map(|learner| learner.id).filter(is_there));
        }
        // A server whose table was hit votes still: it goes on where there are not enough others.
        let is_able = |id: &MemberId| {
            self.servers.get(id).is_some_and(|server| server.standing == Standing::InUse)
        };
        for members in &reachable {
            let ids = members.ids();
            let sound = ids.iter().filter(|id| is_there(id));
            for id in sound.chain(ids.iter().filter(|id| is_able(id) && !self.is_sound(**id))) {
                let counts = |id: MemberId| core.contains(&id) && is_able(&id);
                let has_sound = members.is_quorum(|id| counts(id) && self.is_sound(id));
                if has_sound || !self.is_sound(*id) && members.is_quorum(counts) {
                    break;
                }
                core.insert(*id);
            }
            // Who has lost its table votes all the same, and is needed where too few are sound.
            let in_use = self.servers_in_use();
            for id in members.ids().into_iter().filter(|id| in_use.contains(id)) {
                if members.is_quorum(|id| core.contains(&id)) {
                    break;
                }
                core.insert(id);
            }
        }
    }
}
