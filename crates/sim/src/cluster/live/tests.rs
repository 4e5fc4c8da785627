//! Tests of live runs: what was done to one is done again by its plan.

use std::time::Duration;

use kvraft_base::MemberId;

use super::{Ending, Live};
use crate::{Choices, Fault, FaultChoice, Profile, Scenario, Target, record_scenario};

fn quiet() -> Scenario {
    let faults = FaultChoice { profile: Profile::Quiet, ..FaultChoice::default() };
    let first_phase = Some(Duration::from_secs(60));
    let choices = Choices { servers: Some(3), faults, first_phase, ..Choices::default() };
    Scenario::draw(7, choices)
}

fn crash(id: u64) -> Fault {
    Fault::Crash(Target::Server(MemberId(id)))
}

/// A run that was meddled with and the replay of its saved plan are the same, event by event.
#[test]
fn a_saved_plan_is_what_was_seen() {
    let mut live = Live::new(quiet()).unwrap();
    assert!(live.run_until(Duration::from_millis(900), u64::MAX));
    live.inject(crash(1)).unwrap();
    assert!(live.run_until(Duration::from_millis(1_500), u64::MAX));
    live.inject("partition isolate 2".parse().unwrap()).unwrap();
    live.inject(Fault::Restart(Target::All)).unwrap();
    assert!(live.run_until(Duration::from_millis(2_000), u64::MAX));
    assert_eq!(live.done().len(), 3);
    let saved: Scenario = live.scenario().to_string().parse().unwrap();
    let (report, replayed) = record_scenario(saved);
    assert_eq!(report.violation, None);
    let (seen, replayed) = (live.recorded(), replayed.unwrap());
    assert!(500 < seen.events.len(), "{} events", seen.events.len());
    for (seen, replayed) in seen.events.iter().zip(&replayed.events) {
        // What was still on its way has arrived in the replay.
        assert_eq!((seen.at, seen.node, &seen.kind), (replayed.at, replayed.node, &replayed.kind));
        assert_eq!(seen.changes, replayed.changes);
    }
}

/// Whoever goes back undoes what was done later, and what happens then is what happened.
#[test]
fn going_back_undoes() {
    let mut live = Live::new(quiet()).unwrap();
    assert!(live.run_until(Duration::from_millis(1_200), u64::MAX));
    let before = live.recorded();
    live.inject(crash(1)).unwrap();
    assert!(live.run_until(Duration::from_millis(1_500), u64::MAX));
    live.go_back(Duration::from_millis(1_000)).unwrap();
    assert!(live.done().is_empty());
    assert!(live.now() <= Duration::from_millis(1_000));
    assert!(live.run_until(Duration::from_millis(1_200), u64::MAX));
    assert_eq!(live.recorded().events, before.events);
}

/// A step is one event that is seen; the end is an end.
#[test]
fn steps_lead_to_the_end() {
    let text = "set first-phase 1s\nclient 1 home 1\nclient 1 after 0.1s put k v";
    let mut live = Live::new(text.parse().unwrap()).unwrap();
    let count = live.recorded().events.len();
    live.step();
    assert!(count < live.recorded().events.len());
    assert!(live.run_until(Duration::from_secs(300), u64::MAX));
    assert!(matches!(live.ending(), Some(Ending::Clean)), "{:?}", live.ending());
    live.inject(crash(1)).unwrap_err();
    live.go_back(Duration::from_millis(500)).unwrap();
    live.inject(crash(1)).unwrap();
}
