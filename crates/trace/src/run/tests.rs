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

/// Every kind of thing that a run can hold.
fn full() -> Run {
    let mut run = small();
    (run.seed, run.command) = (Some(u64::MAX), "kvraft sim --seed 42".to_owned());
    run.truncated = Some("the end".to_owned());
    let client = run.add_node("client1", NodeKind::Client);
    let server = NodeId(0);
    let text = |text: &str| Arc::<str>::from(text);
    let changes = vec![
        Change::Role(Role::Leader),
        Change::Vote(Some(server)),
        Change::Vote(None),
        Change::Commit(7),
        Change::Applied(6),
        Change::Durable(7),
        Change::LogFirst(3),
        Change::LogCut { from: 9 },
        Change::LogAppend(LogEntry { index: 9, term: 2, text: text("put a = 1"), key: text("a") }),
        Change::Progress { peer: NodeId(1), matched: 4, next: 6 },
        Change::ProgressEnd,
        Change::Power(Power::Paused),
    ];
    let mut event = Event::new(3_000, server, "Turn").with("id", u64::MAX >> 12).with("é", "<ü>");
    event.changes = changes;
    let cause = Some(run.add_event(event));
    for fate in [Fate::Lost, Fate::Pending] {
        let event = Event::new(3_000, server, "Append").with("to", "server2").with("term", 3);
        run.add_event(Event { fate: Some(fate), cause, ..event });
    }
    let kinds = [BandKind::Crash, BandKind::Pause, BandKind::Partition];
    for kind in kinds.into_iter().chain([BandKind::Link, BandKind::Disk, BandKind::Clock]) {
        run.bands.push(Band { nodes: vec![server, client], kind, from: 5, to: 9, text: text("x") });
    }
    for (outcome, to) in
        [(Outcome::Ok, Some(9)), (Outcome::Failed, Some(5)), (Outcome::Unknown, None)]
    {
        run.operations.push(Operation {
            client,
            number: 3,
            text: text("put a = 1"),
            keys: vec![text("a"), text("b")],
            from: 5,
            to,
            outcome,
            answer: text("done"),
            point: to.map(|at| Point { at, index: 4 }),
        });
    }
    let (check, detail) = (text("one-leader-per-term"), text("</script>"));
    let nodes = vec![server];
    run.violations.push(Violation { at: 9, event: cause, nodes, check, text: detail });
    run
}

/// A run is the same after it was written and read, also through a page.
#[test]
fn run_reads_back() {
    for run in [small(), full(), Run::new("nothing", Clock::Logical)] {
        assert_eq!(Run::decode(&run.encode()), Ok(run));
    }
    let page = page(&[&small(), &full()]);
    assert_eq!(runs_of(&page), Ok(vec![small(), full()]));
    assert_eq!(runs_of("<html>"), Err(RunDecodeError::NoRun));
}

/// Numbers that a browser cannot hold come back as text.
#[test]
fn great_numbers_are_text() {
    let mut run = small();
    run.events[0].fields[1].value = Value::Number(u64::MAX);
    let read = Run::decode(&run.encode()).unwrap();
    assert_eq!(read.events[0].fields[1].value, Value::Text(u64::MAX.to_string().into()));
}

/// Damage anywhere is an error or another run, and never more than that.
#[test]
fn damage_is_no_panic() {
    use std::io::{Read, Write};
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&full().encode()[..]).read_to_end(&mut bytes).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&damaged).unwrap();
        let _whatever_it_says = Run::decode(&gzip.finish().unwrap());
    }
    assert_eq!(Run::decode(b"rubbish"), Err(RunDecodeError::Compression));
}

/// The page is one file: it names nothing that a browser would have to fetch.
#[test]
fn page_asks_for_nothing() {
    let page = page(&[&full()]);
    for word in ["http://", "https://", "src=", "@import"] {
        assert!(!page.contains(word), "the page contains {word}");
    }
    assert_eq!(page.matches("</html>").count(), 1);
}
