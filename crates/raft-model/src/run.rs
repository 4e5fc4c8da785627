//! A search from start to end, with progress and a verdict.

use std::fmt;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::{
    bounds::Bounds,
    model::{Action, Group, SOMETIMES},
    rules::Rule,
    state::State,
};

/// In which order states are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Depth first: little memory.
    Depth,
    /// Breadth first: the first find is as short as can be.
    Breadth,
}

/// What a search came to.
#[derive(Debug)]
pub struct Verdict {
    /// How far it went.
    pub bounds: Bounds,
    /// States reached, counting those reached again.
    pub state_count: usize,
    /// Different states, up to symmetry.
    pub unique_count: usize,
    /// Steps of the longest run.
    pub depth: usize,
    /// Different states of a single server, messages, and steps of a single server.
    pub local_counts: [usize; 3],
    /// How long it took.
    pub elapsed: Duration,
    /// Whether every state within the bounds was looked at.
    pub exhausted: bool,
    /// The first broken rule, and what led to it, a step a line.
    pub broken: Option<(Rule, Vec<String>)>,
    /// What should have been reached and was not.
    pub missing: Vec<&'static str>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.exhausted { "exhausted" } else { "NOT exhausted" };
        let [nodes, messages, steps] = self.local_counts;
        writeln!(f, "bounded: {}", self.bounds)?;
        writeln!(
            f,
            "{how}: {} states, {} of them different, depth {}, {:.1} s; \
             one server: {nodes} states, {messages} messages, {steps} steps",
            self.state_count,
            self.unique_count,
            self.depth,
            self.elapsed.as_secs_f64()
        )?;
        for name in &self.missing {
            writeln!(f, "never: {name}")?;
        }
        if let Some((rule, steps)) = &self.broken {
            writeln!(f, "BROKEN: {}", rule.name())?;
            for (number, step) in (1..).zip(steps) {
                writeln!(f, "  {number:2}. {step}")?;
            }
        }
        Ok(())
    }
}

/// Looks at every state within `bounds`, until a rule is broken or `patience` ends.
pub fn explore(
    bounds: Bounds,
    order: Order,
    patience: Duration,
    progress: impl FnMut(String),
) -> Verdict {
    let checker = Group::new(bounds).checker().finish_when(HasDiscoveries::AnyFailures);
    let start = Instant::now();
    match order {
        Order::Depth => watch(checker.spawn_dfs(), bounds, start, patience, progress),
        Order::Breadth => watch(checker.spawn_bfs(), bounds, start, patience, progress),
    }
}

fn watch(
    mut checker: impl Checker<Group>,
    bounds: Bounds,
    start: Instant,
    patience: Duration,
    mut progress: impl FnMut(String),
) -> Verdict {
    let handles = checker.handles();
    let mut told = start;
    let mut stopped = false;
    while !handles.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(LOOK_EVERY);
        if patience < start.elapsed() {
            stopped = true;
            checker.model().stop(true);
        }
        if PROGRESS_EVERY < told.elapsed() {
            told = Instant::now();
            progress(tell_progress(&checker, start));
        }
    }
    for handle in handles {
        handle.join().expect("panics of production code are caught, and the model has none");
    }
    let elapsed = start.elapsed();
    // What was found is told by going there once more.
    checker.model().stop(false);
    let mut found = checker.discoveries();
    let broken = Rule::ALL.into_iter().find_map(|rule| Some((rule, found.remove(rule.name())?)));
    let exhausted = broken.is_none() && !stopped;
    let missing = SOMETIMES.into_iter().filter(|name| !found.contains_key(name)).collect();
    let group = checker.model();
    Verdict {
        bounds,
        state_count: checker.state_count(),
        unique_count: checker.unique_state_count(),
        depth: checker.max_depth(),
        local_counts: group.counts(),
        elapsed,
        exhausted,
        broken: broken.map(|(rule, path)| (rule, tell_steps(group, path))),
        missing,
    }
}

fn tell_progress(checker: &impl Checker<Group>, start: Instant) -> String {
    let elapsed = start.elapsed();
    let (states, unique) = (checker.state_count(), checker.unique_state_count());
    let rate = states as u128 * 1000 / elapsed.as_millis().max(1);
    let [nodes, messages, _] = checker.model().counts();
    format!(
        "{:6} s  {states} states, {unique} different, {rate}/s, depth {}; \
         one server: {nodes} states, {messages} messages",
        elapsed.as_secs(),
        checker.max_depth()
    )
}

fn tell_steps(group: &Group, path: Path<State, Action>) -> Vec<String> {
    path.into_actions().iter().map(|action| group.format_action(action)).collect()
}

const LOOK_EVERY: Duration = Duration::from_millis(10);
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
