//! Recordings of real runs hold what a run promises, and change nothing.

use kvraft_trace::run::{Change, Fate, NodeKind, Run};

use crate::{
    cluster::{Choices, Scenario, record_scenario, run},
    plan::{FaultChoice, Profile},
};

fn choices() -> Choices {
    Choices { ops_max: 20, servers: Some(3), ..Choices::default() }
}

fn recorded(seed: u64) -> Run {
    record_scenario(Scenario::draw(seed, choices())).1.expect("the cluster can be set up")
}

/// A run is the same to the last event whether or not it is recorded.
#[test]
fn recording_changes_nothing() {
    for seed in 0..20 {
        let (report, recorded) = record_scenario(Scenario::draw(seed, choices()));
        assert_eq!(report.trace_hash, run(seed, choices()).trace_hash, "seed {seed}");
        assert_eq!(recorded.expect("there is a world").check(), Ok(()), "seed {seed}");
    }
}

/// What is shown of every server at the end is what it is: its log, by the changes alone.
#[test]
fn logs_follow_from_changes() {
    for seed in 0..20 {
        let (report, recorded) = record_scenario(Scenario::draw(seed, choices()));
        let recorded = recorded.expect("there is a world");
        let mut longest = 0;
        for (node, _) in servers(&recorded) {
            let (mut log, mut first, mut commit) = (Vec::<u64>::new(), 1, 0);
            for event in recorded.events.iter().filter(|event| usize::from(event.node.0) == node) {
                for change in &event.changes {
                    match change {
                        Change::LogAppend(entry) => {
                            assert_eq!(entry.index, first + log.len() as u64, "seed {seed}: gap");
                            assert!(!entry.text.is_empty(), "seed {seed}: an entry says nothing");
                            log.push(entry.term);
                        }
                        Change::LogCut { from } => {
                            log.truncate(usize::try_from(from - first).unwrap());
                        }
                        Change::LogFirst(index) => {
                            let gone = usize::try_from(index.saturating_sub(first)).unwrap();
                            log.drain(..gone.min(log.len()));
                            first = *index;
                        }
                        Change::Commit(index) => commit = *index,
                        _ => {}
                    }
                }
            }
            longest = longest.max(commit);
            assert!(commit < first + log.len() as u64, "seed {seed}: committed past the log");
        }
        if report.violation.is_none() {
            assert_eq!(longest, report.entry_count, "seed {seed}");
        }
    }
}

fn servers(run: &Run) -> impl Iterator<Item = (usize, &str)> {
    let nodes = run.nodes.iter().enumerate();
    let servers = nodes.filter(|(_, node)| node.kind == NodeKind::Server);
    servers.map(|(number, node)| (number, node.name.as_str()))
}

/// Every operation of the history is there; those that took effect did so while they were asked
/// for.
#[test]
fn operations_take_effect_while_they_are_asked_for() {
    let mut placed = 0;
    for seed in 0..20 {
        let (report, recorded) = record_scenario(Scenario::draw(seed, choices()));
        let recorded = recorded.expect("there is a world");
        assert_eq!(recorded.operations.len() as u64, report.history.operation_count());
        for operation in &recorded.operations {
            let Some(point) = operation.point else { continue };
            let to = operation.to.unwrap_or(u64::MAX);
            assert!((operation.from..=to).contains(&point.at), "seed {seed}: {operation:?}");
            placed += 1;
        }
    }
    assert!(100 < placed, "only {placed} operations were placed");
}

/// Faults are seen as bands, lost messages as such, in some run of a few.
#[test]
fn trouble_is_seen() {
    let mut kinds = std::collections::BTreeSet::new();
    let mut lost = 0;
    for seed in 0..40 {
        let faults = FaultChoice { profile: Profile::default(), ..FaultChoice::default() };
        let choices = Choices { faults, ..choices() };
        let run = record_scenario(Scenario::draw(seed, choices)).1.expect("there is a world");
        kinds.extend(run.bands.iter().map(|band| band.kind));
        lost += run.events.iter().filter(|event| event.fate == Some(Fate::Lost)).count();
    }
    assert_eq!(kinds.len(), 6, "not every kind of trouble was seen: {kinds:?}");
    assert!(100 < lost);
}

/// A page of a real run reads back as that run.
#[test]
fn recorded_run_reads_back() {
    let run = recorded(3);
    let read = Run::decode(&run.encode()).expect("it was encoded just now");
    for (written, read) in run.events.iter().zip(&read.events) {
        assert_eq!(written, read);
    }
    assert_eq!(read, run);
}
