//! A run that somebody watches and meddles with.
//!
//! Whatever is done to it becomes an item of its plan, and the run is replayed with that item up to
//! where it was. So what is seen is always what the plan says, and nothing can be done that could
//! not be done again.
//!
//! Invariant: the replay reaches the same moment: an item takes effect after all that was seen.
//!
//! What it lacks: a bound on the time of a replay other than the events that a run may have.

#[cfg(test)]
mod tests;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use kvraft_base::Instant;
use kvraft_trace::run::Run;

use super::{
    course::Course, recording::Recording, run::of_panic, scenario::Scenario, violation::Violation,
    world::World,
};
use crate::plan::{Fault, TimedFault};

/// An item takes effect this long after the moment in which it was asked for: after everything that
/// was there to be seen.
const SOON: Duration = Duration::from_nanos(1);

/// A recording that is longer than this is not continued: a page could not be made anew often
/// enough.
const RECORDED_COUNT_MAX: usize = 300_000;

/// A run that goes on when it is told to.
pub struct Live {
    scenario: Scenario,
    /// What was done to it, by time.
    done: Vec<TimedFault>,
    world: World,
    course: Course,
    ending: Option<Ending>,
}

/// Why a run does not go on.
#[derive(Clone, Debug)]
pub enum Ending {
    /// It is over, and no rule was broken.
    Clean,
    /// A rule was broken.
    Broken(Violation),
    /// It is as long as can be shown.
    Long,
}

impl Live {
    /// A run whose cluster has just been started.
    ///
    /// # Errors
    /// In words, when the scenario cannot be run.
    pub fn new(scenario: Scenario) -> Result<Self, String> {
        let mut world = World::new(&scenario).map_err(|violation| violation.to_string())?;
        let clients: Vec<u64> = world.clients.keys().copied().collect();
        world.recording = Some(Box::new(Recording::new(&world.server_ids(), &clients)));
        let course = Course::begin(&mut world);
        Ok(Self { scenario, done: Vec::new(), world, course, ending: None })
    }

    /// How far it has come, in virtual time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.world.now.since(Instant::ZERO)
    }

    /// Why it does not go on; `None` while it does.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// What was done to it, by time.
    #[must_use]
    pub fn done(&self) -> &[TimedFault] {
        &self.done
    }

    /// Goes on by one event that is recorded.
    pub fn step(&mut self) {
        let before = self.recorded_count();
        while self.ending.is_none() && self.recorded_count() == before {
            self.go();
        }
    }

    /// Goes on to a time, for `event_count_max` events at most. True: it is there, or at its end.
    pub fn run_until(&mut self, time: Duration, event_count_max: u64) -> bool {
        let until = Instant::ZERO + time;
        let count = self.world.event_count;
        while self.ending.is_none() && self.world.heap.next_at().is_some_and(|at| at <= until) {
            if event_count_max <= self.world.event_count - count {
                return false;
            }
            self.go();
        }
        true
    }

    /// Something goes wrong now, or is put right.
    ///
    /// # Errors
    /// In words: it cannot happen here, or no more.
    pub fn inject(&mut self, fault: Fault) -> Result<(), String> {
        if self.ending.is_some() {
            return Err("the run has ended: branch from an earlier moment".to_owned());
        }
        let timed = TimedFault { at: self.world.now + SOON, fault };
        let mut faults = self.scenario.plan.faults().to_vec();
        faults.push(timed.clone());
        let (count, now) = (self.world.event_count, self.world.now);
        let mut done = self.done.clone();
        done.push(timed);
        self.replay(faults, done, |world| world.event_count < count)?;
        assert!(self.world.now == now, "a replay comes to the same moment");
        Ok(())
    }

    /// Takes it back to a moment: what was done to it after that is undone, and it goes on from
    /// there.
    ///
    /// # Errors
    /// In words, when that cannot be run.
    pub fn go_back(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::ZERO + time;
        let (kept, undone): (Vec<_>, Vec<_>) =
            self.done.iter().cloned().partition(|timed| timed.at <= until);
        let mut faults = self.scenario.plan.faults().to_vec();
        for timed in undone {
            let place = faults.iter().rposition(|one| *one == timed);
            faults.remove(place.expect("what was done is in the plan"));
        }
        let is_before = |world: &World| world.heap.next_at().is_some_and(|at| at <= until);
        self.replay(faults, kept, is_before)
    }

    fn replay(
        &mut self,
        faults: Vec<TimedFault>,
        done: Vec<TimedFault>,
        is_before: impl Fn(&World) -> bool,
    ) -> Result<(), String> {
        let scenario = self.scenario.clone();
        let scenario = Scenario { plan: scenario.plan.with_faults(faults), ..scenario };
        scenario.validate()?;
        let mut again = Self::new(scenario)?;
        while again.ending.is_none() && is_before(&again.world) {
            again.go();
        }
        again.done = done;
        self.world.sever_all();
        *self = again;
        Ok(())
    }

    /// One event.
    fn go(&mut self) {
        let (course, world) = (&mut self.course, &mut self.world);
        let result = catch_unwind(AssertUnwindSafe(|| course.step(world)));
        let result = result.unwrap_or_else(|panic| Err(of_panic(panic.as_ref())));
        self.ending = match result {
            Ok(true) if RECORDED_COUNT_MAX <= self.recorded_count() => Some(Ending::Long),
            Ok(true) => None,
            Ok(false) => Some(Ending::Clean),
            Err(violation) => {
                self.world.sever_all();
                Some(Ending::Broken(violation))
            }
        };
    }

    fn recorded_count(&self) -> usize {
        self.world.recording.as_ref().map_or(0, |recording| recording.event_count())
    }

    /// The run up to here, for people to look at.
    #[must_use]
    pub fn recorded(&self) -> Run {
        let recording = self.world.recording.as_deref().expect("a live run is recorded");
        let violation = match &self.ending {
            Some(Ending::Broken(violation)) => Some(violation),
            Some(Ending::Clean | Ending::Long) | None => None,
        };
        recording.clone().finish(&self.world, self.scenario.seed, violation)
    }

    /// The run up to here as a scenario that can be run again: things go wrong until now, and then
    /// it comes to its end like any other.
    #[must_use]
    pub fn scenario(&self) -> Scenario {
        let mut scenario = self.scenario.clone();
        let faults = scenario.plan.faults().iter();
        let last = faults.map(|timed| timed.at + SOON).max().unwrap_or(Instant::ZERO);
        let end = last.max(self.world.now + SOON).since(Instant::ZERO);
        scenario.config.faults_until = end.min(scenario.config.faults_until);
        scenario
    }
}
