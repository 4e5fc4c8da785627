//! One run from its seed to its verdict: faults, healing, convergence, history.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use kvraft_base::{Index, Instant, MemberId, Revision};
use kvraft_kv::{Answer, Query, RangeRequest};

use super::{
    config::{Choices, ClusterConfig},
    faults,
    sometimes::Sometimes,
    verdict,
    violation::{Check, Violation},
    world::{Happening, World},
};
use crate::plan::Plan;

/// Slow checks look this often.
const TICK: Duration = Duration::from_millis(100);

/// After healing, everybody must agree and every client be served within this time. Generous: the
/// slowest drawn disks and links need tens of election timeouts for a backlog.
const CONVERGENCE_MAX: Duration = Duration::from_secs(120);

/// A run that takes more events than this does not end by itself.
const EVENT_COUNT_MAX: u64 = 5_000_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first broken rule.
    pub violation: Option<Violation>,
    /// Fingerprint of everything that happened: equal for equal runs.
    pub trace_hash: u64,
    /// Events handled.
    pub event_count: u64,
    /// Virtual time passed.
    pub virtual_time: Duration,
    /// Client operations that ended.
    pub operation_count: u64,
    /// Entries that were agreed on.
    pub entry_count: u64,
    /// Elections won.
    pub leader_count: u64,
    /// What happened how often.
    pub sometimes: Sometimes,
    /// The configuration.
    pub config: ClusterConfig,
    /// The faults.
    pub plan: Plan,
    /// The last events, in columns, if text was asked for.
    pub last_events: Vec<String>,
}

/// Runs a seed. The same seed and choices give the same outcome, always.
#[must_use]
pub fn run(seed: u64, choices: Choices) -> Report {
    let config = ClusterConfig::draw(seed, choices);
    let plan = faults::draw(seed, &config);
    run_plan(seed, config, plan)
}

/// Runs a configuration and a plan, drawn or edited.
#[must_use]
pub fn run_plan(seed: u64, config: ClusterConfig, plan: Plan) -> Report {
    let mut world = match World::new(config.clone(), seed, plan.clone()) {
        Ok(world) => world,
        Err(violation) => return Report::of_nothing(seed, config, plan, violation),
    };
    // A sweep survives its first finding: a panic is a violation like any other.
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = result.unwrap_or_else(|panic| Err(of_panic(panic.as_ref()))).err();
    if violation.is_some() {
        // Dropping a table writes; a dead server's disk must not be written to.
        world.sever_all();
    }
    Report {
        seed,
        violation,
        trace_hash: world.trace.hash(),
        event_count: world.event_count,
        virtual_time: world.now.since(Instant::ZERO),
        operation_count: world.records.len() as u64,
        entry_count: world.checks.agreed().len() as u64,
        leader_count: world.checks.leader_count() as u64,
        sometimes: world.sometimes,
        config,
        plan,
        last_events: world.trace.lines().map(ToString::to_string).collect(),
    }
}

impl Report {
    fn of_nothing(seed: u64, config: ClusterConfig, plan: Plan, violation: Violation) -> Self {
        Self {
            seed,
            violation: Some(violation),
            trace_hash: 0,
            event_count: 0,
            virtual_time: Duration::ZERO,
            operation_count: 0,
            entry_count: 0,
            leader_count: 0,
            sometimes: Sometimes::default(),
            config,
            plan,
            last_events: Vec::new(),
        }
    }
}

fn of_panic(panic: &(dyn std::any::Any + Send)) -> Violation {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no message".to_owned());
    Violation::new(Check::NoPanic, text)
}

impl World {
    /// The whole life of a world.
    fn run(&mut self) -> Result<(), Violation> {
        for id in self.server_ids() {
            self.start(id);
        }
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.after(Duration::from_millis(1), Happening::ClientWake { client });
        }
        self.schedule_plan();
        self.after(TICK, Happening::Tick);
        let faults_until = Instant::ZERO + self.config.faults_until;
        self.run_until(|world| faults_until <= world.now)?;
        self.heal_all();
        let limit = self.now + CONVERGENCE_MAX;
        self.run_until(|world| limit <= world.now || world.has_converged())?;
        if !self.has_converged() {
            return Err(Violation::new(Check::Convergence, self.why_not_converged()));
        }
        self.judge()
    }

    pub(crate) fn server_ids(&self) -> Vec<MemberId> {
        self.servers.keys().copied().collect()
    }

    fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<(), Violation> {
        while !done(self) {
            if !self.step() {
                return Err(Violation::new(Check::Convergence, "nothing is left to happen"));
            }
            if let Some(violation) = self.checks.first_violation() {
                return Err(violation);
            }
            if EVENT_COUNT_MAX < self.event_count {
                return Err(Violation::new(Check::Convergence, "the run does not end"));
            }
        }
        Ok(())
    }

    pub(crate) fn on_tick(&mut self) {
        self.check_syncing();
        self.after(TICK, Happening::Tick);
    }

    /// Everybody is up, one leads, all have applied everything, and every client is done.
    fn has_converged(&self) -> bool {
        let end = Index(self.checks.agreed().len() as u64);
        self.clients.values().all(super::clients::Client::is_done)
            && self.leader().is_some()
            && self.servers.values().all(|server| {
                server.lanes.as_ref().is_some_and(|lanes| {
                    lanes.machine.kv().applied().index == end
                        && lanes.node.status().last.index == end
                })
            })
    }

    fn why_not_converged(&self) -> String {
        let end = self.checks.agreed().len();
        let mut text = format!("{CONVERGENCE_MAX:?} after healing, {end} entries are agreed on;");
        for server in self.servers.values() {
            match &server.lanes {
                None => text.push_str(&format!(" server {} is down;", server.id)),
                Some(lanes) => {
                    let applied = lanes.machine.kv().applied();
                    let status = lanes.node.status();
                    text.push_str(&format!(" {status:?}, applied {applied};"));
                }
            }
        }
        for client in self.clients.values().filter(|client| !client.is_done()) {
            text.push_str(&format!(" {};", client.describe()));
        }
        text
    }

    /// The verdict over the finished history and the final states.
    fn judge(&mut self) -> Result<(), Violation> {
        let model = verdict::check(self.checks.agreed(), &self.records)?;
        let mut hashes = Vec::new();
        for server in self.servers.values() {
            let Some(lanes) = &server.lanes else { continue };
            let kv = lanes.machine.kv();
            let ask = |query: &Query| {
                kv.query(lanes.machine.reader(), query).map_err(|damage| {
                    Violation::new(Check::Recovery, format!("server {}: {damage}", server.id))
                })
            };
            let all = bytes::Bytes::from_static(b"\0");
            let range =
                RangeRequest { key: all.clone(), range_end: all, ..RangeRequest::default() };
            if let Ok(Answer::Range(range)) = ask(&Query::Range(range))? {
                let equal = range.kvs.len() == model.map.len()
                    && range.kvs.iter().zip(&model.map).all(|(kv, (key, v))| {
                        kv.key == *key && kv.value == v.value && kv.mod_revision.0 == v.modified
                    });
                if !equal || range.revision.0 != model.revision {
                    let detail = format!("server {} differs from the replayed log", server.id);
                    return Err(Violation::new(Check::Convergence, detail));
                }
            }
            if let Ok(Answer::HashKv(hash)) = ask(&Query::HashKv { revision: Revision(0) })? {
                hashes.push((server.id, hash.hash));
            }
        }
        match hashes.iter().find(|(_, hash)| *hash != hashes[0].1) {
            None => Ok(()),
            Some((id, _)) => {
                let detail = format!("servers {} and {id} have different hashes", hashes[0].0);
                Err(Violation::new(Check::Convergence, detail))
            }
        }
    }
}
