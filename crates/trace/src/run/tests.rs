//! Runs that are none are told why.

use super::*;

pub(crate) fn small() -> Run {
    let mut run = Run::new("a small run", Clock::Virtual);
    let one = run.add_node("server1", NodeKind::Server);
    let two = run.add_node("server2", NodeKind::Server);
    let mut send = Event::new(1_000, one, "Append").with("to", "server2").with("term", 1);
    send.fate = Some(Fate::Delivered);
    let cause = Some(run.add_event(send));
    let entry = LogEntry { index: 1, term: 1, text: "no-op".into(), key: "".into() };
    let changes = vec![Change::Term(1), Change::Leader(Some(one)), Change::LogAppend(entry)];
    let receive = Event { cause, changes, ..Event::new(2_000, two, "Append") };
    run.add_event(receive);
    run
}

/// A run that holds its invariants passes; each that it breaks is named.
#[test]
fn broken_invariants_are_named() {
    assert_eq!(small().check(), Ok(()));
    let broken = |break_it: &dyn Fn(&mut Run)| {
        let mut run = small();
        break_it(&mut run);
        run.check().unwrap_err().to_string()
    };
    let back = broken(&|run| run.events[1].at = 999);
    assert_eq!(back, "event 1 happened before the one above it");
    let cause = broken(&|run| run.events[1].cause = Some(EventId(1)));
    assert_eq!(cause, "event 1 comes before its cause");
    let node = broken(&|run| run.events[0].node = NodeId(2));
    assert_eq!(node, "an event names no node 2");
    let change = broken(&|run| run.events[0].changes = vec![Change::Vote(Some(NodeId(9)))]);
    assert_eq!(change, "a change names no node 9");
}

/// Without times, events stand in an order all the same, and their depth may go back.
#[test]
fn logical_runs_have_no_times() {
    let mut run = small();
    run.clock = Clock::Logical;
    run.events[1].at = 1;
    assert_eq!(run.check(), Ok(()));
}
