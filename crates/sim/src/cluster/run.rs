//! One run from its seed to its verdict: faults, healing, convergence, history.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use kvraft_base::{Index, Instant, MemberId, Members, Revision, limits};
use kvraft_kv::{Answer, Query, RangeRequest};
use kvraft_trace::run::Run;

use super::{
    config::Choices,
    course::{Course, TICK},
    recording::Recording,
    scenario::Scenario,
    server::{Standing, members},
    sometimes::Sometimes,
    verdict,
    violation::{Check, Violation},
    workload::shown,
    world::{Happening, World},
};
use crate::{
    history::History,
    judge::{Searched, search},
    models::StoreState,
};

/// The search takes this much of a history.
const SEARCH_EVENT_COUNT_MAX: usize = 600;

/// The search tries this many operations before it gives up.
const SEARCH_STEP_COUNT_MAX: u64 = 10_000;

/// How often the embedding program is asked whether the run may go on.
pub(crate) const EVENTS_BETWEEN_LOOKS: u64 = 4_096;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What decided it.
    pub scenario: Scenario,
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
    /// The members that were agreed on last.
    pub members: Members,
    /// What the black-box search said, if it took this run's history.
    pub searched: Option<Searched>,
    /// What clients asked for and were told.
    pub history: History,
    /// What happened how often.
    pub sometimes: Sometimes,
    /// The last events, in columns, if text was asked for.
    pub last_events: Vec<String>,
}

impl Report {
    /// For tests.
    ///
    /// # Panics
    /// A rule was broken: with the rule, the last events and the plan, which repeats the run.
    #[track_caller]
    pub fn assert_clean(&self) {
        let Some(violation) = &self.violation else { return };
        let (seed, plan) = (self.scenario.seed, &self.scenario.plan);
        panic!("seed {seed}: {violation}\n{}\nplan: {plan}", self.last_events.join("\n"));
    }
}

/// Runs a seed. The same seed and choices give the same outcome, always.
#[must_use]
pub fn run(seed: u64, choices: Choices) -> Report {
    run_scenario(Scenario::draw(seed, choices), &|| true)
}

/// Runs a seed as [`run`] does and asks now and then whether it may go on: the embedding program
/// has a clock, the simulator has none.
#[must_use]
pub fn run_bounded(seed: u64, choices: Choices, may_go_on: &dyn Fn() -> bool) -> Report {
    run_scenario(Scenario::draw(seed, choices), may_go_on)
}

/// Where two runs of one seed part: the first event that differs, as each has it. `None`: they are
/// the same, which is a promise.
#[must_use]
pub fn first_difference(seed: u64, choices: Choices) -> Option<String> {
    let choices = Choices { trace_line_count: usize::MAX, ..choices };
    let (left, right) = (run(seed, choices), run(seed, choices));
    difference(&left, &right)
}

fn difference(left: &Report, right: &Report) -> Option<String> {
    let (left, right) = (&left.last_events, &right.last_events);
    let parted = (0..left.len().max(right.len())).find(|at| left.get(*at) != right.get(*at))?;
    let none = "(nothing more)".to_owned();
    let of = |lines: &Vec<String>| lines.get(parted).unwrap_or(&none).clone();
    Some(format!("{}\n{}", of(left), of(right)))
}

/// Runs a scenario, drawn or edited, and asks now and then whether it may go on.
#[must_use]
pub fn run_scenario(scenario: Scenario, may_go_on: &dyn Fn() -> bool) -> Report {
    run_and_record(scenario, may_go_on, false).0
}

/// Runs a scenario as [`run_scenario`] does, and records it for people to look at. `None` instead
/// of a recording when there was no world to look at.
#[must_use]
pub fn record_scenario(scenario: Scenario) -> (Report, Option<Run>) {
    run_and_record(scenario, &|| true, true)
}

fn run_and_record(
    scenario: Scenario,
    may_go_on: &dyn Fn() -> bool,
    is_recorded: bool,
) -> (Report, Option<Run>) {
    let mut world = match World::new(&scenario) {
        Ok(world) => world,
        Err(violation) => return (Report::of_nothing(scenario, violation), None),
    };
    if is_recorded {
        let clients: Vec<u64> = world.clients.keys().copied().collect();
        world.recording = Some(Box::new(Recording::new(&world.server_ids(), &clients)));
    }
    // A sweep survives its first finding: a panic is a violation like any other.
    let result = catch_unwind(AssertUnwindSafe(|| world.run(may_go_on)));
    let violation = result.unwrap_or_else(|panic| Err(of_panic(panic.as_ref()))).err();
    // Dropping a table writes: a dead server's disk must not be written to, and for a living one
    // nobody needs it any more.
    world.sever_all();
    let recording = world.recording.take();
    let recorded = recording.map(|one| one.finish(&world, scenario.seed, violation.as_ref()));
    let report = Report {
        scenario,
        violation,
        trace_hash: world.trace.hash(),
        event_count: world.event_count,
        virtual_time: world.now.since(Instant::ZERO),
        operation_count: world.evidence.history.operation_count(),
        entry_count: world.checks.agreed().len() as u64,
        leader_count: world.checks.leader_count() as u64,
        members: Members::clone(&world.checks.agreed_members().1),
        searched: world.searched,
        history: world.evidence.history,
        sometimes: world.sometimes,
        last_events: world.trace.lines().map(ToString::to_string).collect(),
    };
    (report, recorded)
}

impl Report {
    fn of_nothing(scenario: Scenario, violation: Violation) -> Self {
        Self {
            violation: Some(violation),
            trace_hash: 0,
            event_count: 0,
            virtual_time: Duration::ZERO,
            operation_count: 0,
            entry_count: 0,
            leader_count: 0,
            members: members(scenario.config.servers),
            searched: None,
            history: History::new(),
            sometimes: Sometimes::default(),
            scenario,
            last_events: Vec::new(),
        }
    }
}

pub(crate) fn of_panic(panic: &(dyn std::any::Any + Send)) -> Violation {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no message".to_owned());
    Violation::new(Check::NoPanic, text)
}

impl World {
    /// The whole life of a world.
    fn run(&mut self, may_go_on: &dyn Fn() -> bool) -> Result<(), Violation> {
        let mut course = Course::begin(self);
        while course.step(self)? {
            if self.event_count.is_multiple_of(EVENTS_BETWEEN_LOOKS) && !may_go_on() {
                return Err(Violation::new(Check::RunEnds, "the time for one seed is over"));
            }
        }
        Ok(())
    }

    pub(crate) fn server_ids(&self) -> Vec<MemberId> {
        self.servers.keys().copied().collect()
    }

    pub(crate) fn on_tick(&mut self) {
        self.check_syncing();
        self.find_healed();
        self.after(TICK, Happening::Tick);
    }

    /// One leads, no change of members is under way, all of them have applied everything, every
    /// client is done, and the cluster has the newest version that all know. Who has lost its disk
    /// for ever is excused.
    pub(crate) fn has_converged(&self) -> bool {
        let end = Index(self.checks.agreed().len() as u64);
        let (_, members) = self.checks.agreed_members();
        let has_all = |id: &MemberId| {
            let lanes = self.servers.get(id).and_then(|server| server.lanes.as_ref());
            lanes.is_some_and(|lanes| {
                lanes.machine.kv().applied().index == end && lanes.node.status().last.index == end
            })
        };
        let is_lost = |id: &MemberId| self.is_lost(*id);
        self.clients.values().all(super::clients::Client::is_done)
            && self.leader().is_some_and(|leader| members.contains(leader))
            && !members.is_joint()
            && (members.voters().len() == limits::VOTERS_MAX
                || !members.learners().iter().any(|it| it.promote && !is_lost(&it.id)))
            && members.ids().iter().all(|id| is_lost(id) || has_all(id))
            && self.is_raised()
    }

    /// Disks that are lost for ever make nobody's vote indispensable among those who are left.
    pub(crate) fn has_votes_to_spare(&self) -> bool {
        let (_, members) = self.checks.agreed_members();
        let voters = members.voters();
        let is_there = |id: MemberId| !self.is_lost(id);
        let without = |spared: MemberId| members.is_quorum(|id| id != spared && is_there(id));
        voters.iter().all(|id| is_there(*id)) || voters.iter().all(|id| without(*id))
    }

    /// The server's disk is gone for ever, and the server with it.
    fn is_lost(&self, id: MemberId) -> bool {
        self.servers.get(&id).is_some_and(|server| server.standing == Standing::Destroyed)
    }

    pub(crate) fn describe_state(&self, after: Duration) -> String {
        let end = self.checks.agreed().len();
        let (_, members) = self.checks.agreed_members();
        let version = self.checks.raised_to();
        let mut text = format!(
            "after {after:?} {end} entries are agreed on, members {members}, raised to {version};"
        );
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
    pub(crate) fn judge(&mut self) -> Result<(), Violation> {
        self.sometimes.on_history(&self.evidence.history);
        self.sometimes.members_cut += self.checks.cut_count;
        self.sometimes.on_looks(self.checks.looks);
        self.sometimes.overflows += self.network.stats().overflowed_count;
        let judged = verdict::check(self.checks.agreed(), &mut self.evidence, self.now)?;
        self.sometimes.duplicates += judged.duplicate_count;
        self.sometimes.expired += judged.expired_count;
        self.asks.judge(|position| self.checks.is_agreed(position))?;
        self.search()?;
        self.judge_states(&judged.state)
    }

    /// The black-box search over the beginning of the history: a prefix of a linearizable history
    /// is one itself.
    fn search(&mut self) -> Result<(), Violation> {
        if !self.config.searched {
            return Ok(());
        }
        self.sometimes.searched += 1;
        let history = self.evidence.history.prefix(SEARCH_EVENT_COUNT_MAX);
        let searched = search(&history, SEARCH_STEP_COUNT_MAX);
        let result = match &searched {
            Searched::Violation(detail) => {
                Err(Violation::new(Check::LinearizableSearch, detail.clone()))
            }
            Searched::Linearizable | Searched::Unknown => Ok(()),
        };
        self.searched = Some(searched);
        result
    }

    /// Every server's store is what the operations of the history make of an empty one.
    fn judge_states(&self, expected: &StoreState) -> Result<(), Violation> {
        let mut hashes = Vec::new();
        for id in self.members_in_use() {
            let server = &self.servers[&id];
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
                let is_equal = range.kvs.len() == expected.shown().len()
                    && range.kvs.iter().map(shown).zip(expected.shown()).all(|(l, r)| l == *r);
                if !is_equal || range.revision.0 != expected.revision() {
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

#[cfg(test)]
mod tests {
    use super::{Choices, difference, first_difference, run, run_bounded};

    /// Equal runs have no difference; of unequal ones the first event that differs is shown.
    #[test]
    fn difference_shows_the_first_event_that_differs() {
        let choices = Choices { ops_max: 3, ..Choices::default() };
        assert_eq!(first_difference(1, choices), None);
        let choices = Choices { trace_line_count: 100, ..choices };
        let shown = difference(&run(1, choices), &run(2, choices)).expect("two seeds differ");
        assert_eq!(shown.lines().count(), 2);
    }

    /// A seed that takes too long is ended and says so.
    #[test]
    fn run_ends_when_it_may_not_go_on() {
        let choices = Choices { ops_max: 60, servers: Some(5), ..Choices::default() };
        let ended = (0..10).filter_map(|seed| run_bounded(seed, choices, &|| false).violation);
        assert!(ended.into_iter().any(|violation| violation.check.name() == "run-ends"));
    }
}
