//! Traces become runs, and runs traces, without losing what caused what.

use super::*;
use crate::{
    action::{Action, AppendRequest, ClientInfo, Command, Entry},
    record::Log,
    run::{Change, Clock, Event, EventId, Fate, NodeKind, Outcome, Role, Run},
    tracer::Tracer,
    verify::verify,
};

/// A client's put through a leader and one of its followers, a lost message, and the answer.
fn trace() -> Log {
    let mut client = Tracer::new("client1");
    let mut leader = Tracer::new("server1");
    let mut follower = Tracer::new("server2");
    let (id, key, value) = ("1".to_owned(), "k".to_owned(), "v".to_owned());
    let put = Action::Put { client_id: id, op_id: 1, key, value };
    let (id, key, value) = ("1".to_owned(), "k".to_owned(), "v".to_owned());
    let committed = Action::PutCommitted { client_id: id, op_id: 1, key, value, revision: None };
    let client_info = ClientInfo { client_id: "1".into(), op_id: 1 };
    let command = Command { kind: 1, key: "k".into(), val: "v".into(), client_info };
    let request = AppendRequest {
        term: 2,
        leader_id: 1,
        entries: vec![Entry { term: 2, command, index: 1 }],
        ..AppendRequest::default()
    };
    let mut records = vec![
        leader.record(1, &Action::ServerStart { server_id: 1 }),
        follower.record(1, &Action::ServerStart { server_id: 2 }),
        client.record(9, &put),
    ];
    let (token, sent) = client.generate_token(9);
    records.extend([sent, leader.receive_token(&token)]);
    records.push(leader.record(9, &Action::AppendEntriesRequestSent(request.clone())));
    let (_, lost) = leader.generate_token(9);
    let (token, sent) = leader.generate_token(9);
    records.extend([lost, sent, follower.receive_token(&token)]);
    records.push(follower.record(9, &Action::AppendEntriesRequestRecvd(request)));
    records.push(leader.record(9, &committed));
    let (token, sent) = leader.generate_token(9);
    records.extend([sent, client.receive_token(&token)]);
    let result = Action::PutResultRecvd { op_id: 1, key: "k".into(), client_id: None };
    records.push(client.record(9, &result));
    Log::from_records(records)
}

/// Causes, states, operations and fates follow from what was written down.
#[test]
fn traces_become_runs() {
    let run = run_of_log(&trace(), "a trace").unwrap();
    assert_eq!(run.check(), Ok(()));
    assert_eq!(run.clock, Clock::Logical);
    let nodes: Vec<_> = run.nodes.iter().map(|node| (node.name.as_str(), node.kind)).collect();
    let server = NodeKind::Server;
    assert_eq!(nodes, [("server1", server), ("server2", server), ("client1", NodeKind::Client)]);
    let received = run.events.iter().filter(|event| event.cause.is_some());
    let kinds: Vec<_> = received.map(|event| event.kind.as_ref()).collect();
    assert_eq!(kinds, ["ReceiveTokenTrace"; 3]);
    let fates: Vec<_> = run.events.iter().filter_map(|event| event.fate).collect();
    let ok = Fate::Delivered;
    assert_eq!(fates, [ok, Fate::Lost, ok, ok]);
    let changes: Vec<_> = run.events.iter().flat_map(|event| &event.changes).collect();
    assert!(changes.contains(&&Change::Role(Role::Leader)));
    let appended = changes.iter().filter(|it| matches!(it, Change::LogAppend(_))).count();
    assert_eq!(appended, 2, "at the leader and at the follower");
    let operation = &run.operations[0];
    assert_eq!((operation.outcome, operation.text.as_ref()), (Outcome::Ok, "put k v"));
    assert_eq!(operation.point.map(|point| point.index), Some(1));
    assert!(run.violations.is_empty(), "{:?}", run.violations);
}

/// Without tokens, causes follow from clocks.
#[test]
fn clocks_alone_give_causes() {
    let text = "(?<host>\\S*) (?<clock>{.*})\\n(?<event>.*)\n\na {\"a\":1}\nasks\nb {\"a\":1, \
                \"b\":1}\nanswers\nc {\"a\":1, \"b\":1, \"c\":1}\nhears\n";
    let log = Log::read(text.as_bytes()).unwrap();
    let run = run_of_log(&log, "").unwrap();
    let causes: Vec<_> = run.events.iter().map(|event| event.cause).collect();
    assert_eq!(causes, [None, Some(EventId(0)), Some(EventId(1))]);
    let depths: Vec<_> = run.events.iter().map(|event| event.at).collect();
    assert_eq!(depths, [1, 2, 3]);
}

/// A broken rule becomes a violation at the event that shows it.
#[test]
fn broken_rules_become_violations() {
    let mut log = trace();
    let twice = log.records.iter().find(|it| it.tag.as_ref() == "PutCommitted").unwrap().clone();
    let own = log.records.iter().rfind(|it| it.identity.as_ref() == "server2");
    let mut other = Tracer::resume("server2", own.unwrap().clock.clone());
    let again = other.record(9, &twice.action().unwrap());
    log = Log::from_records(log.records.into_iter().chain([again]).collect());
    let run = run_of_log(&log, "").unwrap();
    assert_eq!(run.violations.len(), 1);
    assert_eq!(run.violations[0].check.as_ref(), "committed-once");
}

/// A run becomes a trace whose clocks are right, with a token for each message.
#[test]
fn runs_become_traces() {
    let mut run = Run::new("a run", Clock::Virtual);
    run.seed = Some(7);
    let world = run.add_node("world", NodeKind::World);
    let one = run.add_node("server1", NodeKind::Server);
    let two = run.add_node("server2", NodeKind::Server);
    let fault = run.add_event(Event::new(1, world, "Heal").with("what", "all \"links\""));
    run.add_event(Event { cause: Some(fault), ..Event::new(2, one, "Start") });
    let mut send = Event::new(3, one, "VoteRequest").with("term", 1).with("to", "server2");
    send.fate = Some(Fate::Delivered);
    let cause = Some(run.add_event(send));
    run.add_event(Event { cause, ..Event::new(5, two, "VoteRequest") });
    let log = log_of_run(&run);
    assert_eq!(verify(&log), []);
    let tags: Vec<_> = log.records.iter().map(|it| it.tag.as_ref()).collect();
    assert_eq!(
        tags,
        [
            "Heal",
            "ServerStart",
            "VoteRequestSent",
            "GenerateTokenTrace",
            "ReceiveTokenTrace",
            "VoteRequestRecvd"
        ]
    );
    assert_eq!(log.records[0].body.as_ref(), r#"{"What":"all \"links\""}"#);
    assert_eq!(log.records[1].clock.to_string(), r#"{"server1":1, "world":1}"#);
    assert_eq!(log, log_of_run(&run), "always the same");
    let again = run_of_log(&Log::read(log.to_json_lines().as_bytes()).unwrap(), "").unwrap();
    assert_eq!(again.check(), Ok(()));
}

/// Perfetto's JSON is JSON, with an arrow for each message.
#[test]
fn perfetto_gets_json() {
    let run = run_of_log(&trace(), "a \"trace\"").unwrap();
    let text = crate::perfetto::write(&run);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let count = |ph: &str| events.iter().filter(|event| event["ph"] == ph).count();
    assert_eq!((count("X"), count("s"), count("f")), (run.events.len(), 3, 3));
    assert!(events.iter().any(|event| event["name"] == "leads in term 2"));
    assert!(events.iter().any(|event| event["name"] == "put k v" && event["ph"] == "b"));
}

/// Text has a line for each event.
#[test]
fn text_has_a_line_for_each_event() {
    let run = run_of_log(&trace(), "a trace").unwrap();
    let text = crate::text::write(&run);
    assert!(text.contains("server1 AppendEntriesRequestSent trace=9 term=2 LeaderId=1"), "{text}");
    assert!(text.contains("(lost)"));
    assert!(text.contains("client1  1. put k v: ok"));
}
