//! Servers of two builds in one cluster: who runs which, who is turned away, and whether the
//! cluster version was raised as it may be.

use std::time::Duration;

use kvraft_base::MemberId;
use kvraft_kv::Unsupported;

use super::{
    server::{Standing, versions_of},
    violation::Check,
    world::{Happening, RESTART_MIN, World},
};
use crate::{network::Endpoint, plan::Build};

impl World {
    /// What a server begins with.
    pub(crate) fn first_build(&self, id: MemberId) -> Build {
        let is_newcomer = self.config.servers < id.0;
        let is_old =
            if is_newcomer { self.config.old_newcomers } else { id.0 <= self.config.old_servers };
        if is_old { Build::Old } else { Build::New }
    }

    /// A process ends, and the next one is of another build.
    pub(crate) fn install(&mut self, id: MemberId, build: Build) {
        if self.servers[&id].standing != Standing::InUse {
            return;
        }
        let before = std::mem::replace(&mut self.server(id).build, build);
        match (before, build) {
            (Build::Old, Build::New) => self.sometimes.upgrades += 1,
            (Build::New, Build::Old) => self.sometimes.downgrades += 1,
            (Build::Old, Build::Old) | (Build::New, Build::New) => {}
        }
        let node = Some(Endpoint::Server(id));
        self.trace.record(self.now, node, "install", id.0, || format!("{build}"));
        self.kill(id);
    }

    /// A server does not know the version that the cluster has, and says so. That must be true, and
    /// it must have lost nothing: an operator gives it the new build, and it goes on.
    pub(crate) fn on_unsupported(&mut self, id: MemberId, said: Unsupported) {
        let known = versions_of(self.servers[&id].build);
        if said.known != known
            || known.supports(said.version)
            || self.checks.raised_to() < said.version
        {
            let agreed = self.checks.raised_to();
            let detail =
                format!("server {id} says that {said}; it knows {known:?}, it is {agreed}");
            self.checks.fail(Check::VersionsAreSupported, detail);
            return;
        }
        self.sometimes.builds_refused += 1;
        let node = Some(Endpoint::Server(id));
        self.trace.record(self.now, node, "refuse", id.0, || said.to_string());
        self.kill(id);
        self.server(id).build = Build::New;
        let pause: Duration = self.crash_prng.duration(RESTART_MIN, RESTART_MIN * 20);
        self.after(pause, Happening::Restart { server: id });
    }

    /// Somebody has taken an entry that raises the version as committed: every member of the
    /// configuration that was in force there must have been able to say that it knows the version.
    pub(crate) fn check_raises(&mut self) {
        for raise in self.checks.take_raises() {
            self.sometimes.versions_raised += 1;
            self.sometimes.raised_by_upgrade += u64::from(0 < self.config.old_servers);
            let knows = |id: &MemberId| {
                self.servers.get(id).is_some_and(|it| raise.version <= it.newest_known)
            };
            let unable = raise.members.ids().into_iter().find(|id| !knows(id));
            if let Some(id) = unable {
                let detail = format!(
                    "the entry {} raises the version to {}, which server {id} has never known",
                    raise.index, raise.version
                );
                self.checks.fail(Check::VersionsAreSupported, detail);
            }
        }
    }

    /// Every member knows the newest version, as far as they can be asked, and the cluster has it.
    pub(crate) fn is_raised(&self) -> bool {
        let (_, members) = self.checks.agreed_members();
        let known = members.ids().into_iter().map(|id| match self.servers.get(&id) {
            Some(server) if server.standing != Standing::Destroyed => versions_of(server.build),
            // It will never say what it knows, and nothing is raised.
            _ => versions_of(Build::Old),
        });
        known.map(|versions| versions.newest).min().is_none_or(|least| {
            least == versions_of(Build::Old).newest || least <= self.checks.raised_to()
        })
    }

    /// A server's state has a version that its process knows.
    pub(crate) fn check_version(&mut self, id: MemberId) {
        let server = &self.servers[&id];
        let Some(lanes) = &server.lanes else { return };
        let (version, known) = (lanes.machine.kv().cluster_version(), server.versions());
        if !known.supports(version) {
            let detail = format!("server {id} knows {known:?} and runs on a state of {version}");
            self.checks.fail(Check::VersionsAreSupported, detail);
        }
    }
}
