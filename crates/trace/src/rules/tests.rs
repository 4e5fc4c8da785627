//! Every rule holds for a right trace, and each is broken by an example.

use super::*;
use crate::{
    action::{AppendRequest, AppendResponse, ClientInfo, Command, Entry},
    clock::VectorClock,
    record::Record,
    token::Token,
    tracer::Tracer,
};

/// A small world of nodes that record.
struct Scene {
    nodes: Vec<Tracer>,
    records: Vec<Record>,
}

const CLIENT: usize = 3;
const OTHER_CLIENT: usize = 4;

impl Scene {
    fn new() -> Self {
        let names = ["server1", "server2", "server3", "client1", "client2"];
        let mut scene = Self { nodes: names.map(Tracer::new).into(), records: Vec::new() };
        for server in 1..=3 {
            scene.at(server - 1, &Action::ServerStart { server_id: server as u64 });
        }
        scene
    }

    fn at(&mut self, node: usize, action: &Action) -> &mut Self {
        self.records.push(self.nodes[node].record(7, action));
        self
    }

    fn send(&mut self, node: usize) -> Token {
        let (token, record) = self.nodes[node].generate_token(7);
        self.records.push(record);
        token
    }

    fn receive(&mut self, node: usize, token: &Token) {
        self.records.push(self.nodes[node].receive_token(token));
    }

    /// From one to another, without saying what.
    fn pass(&mut self, from: usize, to: usize) {
        let token = self.send(from);
        self.receive(to, &token);
    }

    /// A leader sends, a follower takes it and answers.
    fn append(&mut self, leader: usize, follower: usize, request: &AppendRequest) {
        self.at(leader, &Action::AppendEntriesRequestSent(request.clone()));
        self.pass(leader, follower);
        self.at(follower, &Action::AppendEntriesRequestRecvd(request.clone()));
        let response =
            AppendResponse { term: request.term, success: true, ..AppendResponse::default() };
        self.at(follower, &Action::AppendEntriesResponseSent(response.clone()));
        self.pass(follower, leader);
        self.at(leader, &Action::AppendEntriesResponseRecvd(response));
    }

    fn verdict(&self, rule: Rule) -> Verdict {
        let log = Log::from_records(self.records.clone());
        assert_eq!(crate::verify::verify(&log), []);
        rule.verdict(&Facts::new(&log).unwrap())
    }

    /// A node is killed: what it records after so many records is lost.
    fn lose(&mut self, who: &str, after: u64) {
        self.records.retain(|record| *record.identity != *who || record.own() <= after);
    }

    /// A node is killed, loses what it has recorded since its clock stood like this, and starts
    /// again: what it had heard is forgotten, and each record is stood in for.
    fn restart(&mut self, node: usize, old: &VectorClock) {
        let who = self.nodes[node].identity().clone();
        let (tag, body) = Action::RecordsLost { count: 1 }.to_parts();
        let mut clock = old.clone();
        let is_lost = |record: &&mut Record| record.identity == who && old.get(&who) < record.own();
        for record in self.records.iter_mut().filter(is_lost) {
            clock.tick(&who);
            (record.tag, record.body) = (tag.as_str().into(), body.as_str().into());
            record.clock = clock.clone();
        }
        self.nodes[node] = Tracer::resume(who, clock);
    }

    /// The rule asks for what may be among records that these lack, as many of each.
    #[track_caller]
    fn leaves_open(&self, rule: Rule, missing: &[(&str, u64)]) {
        let log = Log::from_records(self.records.clone());
        let Verdict::Unknown(findings) = rule.verdict(&Facts::new(&log).unwrap()) else {
            panic!("{} is not left open", rule.name);
        };
        assert_eq!(findings.len(), 1, "{findings:?}");
        let found = findings[0].missing.iter().map(|(who, count)| (who.as_str(), *count));
        assert_eq!(found.collect::<Vec<_>>(), missing);
    }

    /// The rule is broken though records are missing: they could not make it good.
    #[track_caller]
    fn breaks_all_the_same(&self, rule: Rule) {
        let log = Log::from_records(self.records.clone());
        let verdict = rule.verdict(&Facts::new(&log).unwrap());
        assert!(matches!(verdict, Verdict::Broken(_)), "{} is {verdict:?}", rule.name);
    }

    #[track_caller]
    fn breaks(&self, rule: Rule, says: &str) {
        match self.verdict(rule) {
            Verdict::Broken(findings) => {
                assert_eq!(findings.len(), 1, "{findings:?}");
                assert!(findings[0].what.contains(says), "{:?}", findings[0].what);
            }
            other => panic!("{} is {other:?}", rule.name),
        }
    }
}

fn entry(index: u64, term: u64, value: &str) -> Entry {
    let client_info = ClientInfo { client_id: "1".into(), op_id: index };
    let command = Command { kind: 1, key: "k".into(), val: value.into(), client_info };
    Entry { term, command, index }
}

/// In the given term, by the server of that number, after `prev` (index and term).
fn request(term: u64, leader: u64, prev: (u64, u64), entries: &[Entry]) -> AppendRequest {
    AppendRequest {
        term,
        leader_id: leader,
        prev_log_index: prev.0,
        prev_log_term: prev.1,
        entries: entries.to_vec(),
        ..AppendRequest::default()
    }
}

fn put(op_id: u64, value: &str) -> Action {
    let (client_id, key) = ("1".to_owned(), "k".to_owned());
    Action::Put { client_id, op_id, key, value: value.into() }
}

fn committed(op_id: u64, value: &str) -> Action {
    let (client_id, key) = ("1".to_owned(), "k".to_owned());
    Action::PutCommitted { client_id, op_id, key, value: value.into(), revision: None }
}

fn put_result(op_id: u64) -> Action {
    Action::PutResultRecvd { op_id, key: "k".into(), client_id: None }
}

/// A put from its question to its answer, and a get of it.
fn right() -> Scene {
    let mut scene = Scene::new();
    scene.at(CLIENT, &put(1, "v"));
    scene.pass(CLIENT, 0);
    let first = request(1, 1, (0, 0), &[entry(1, 1, "v")]);
    scene.append(0, 1, &first);
    scene.at(0, &committed(1, "v"));
    scene.pass(0, CLIENT);
    scene.at(CLIENT, &put_result(1));
    let next = AppendRequest { leader_commit: 1, ..request(1, 1, (1, 1), &[]) };
    scene.append(0, 2, &next);
    let (key, value) = ("k".to_owned(), "v".to_owned());
    scene.at(CLIENT, &Action::GetResultRecvd { op_id: 2, key, value, client_id: None });
    scene
}

/// Nothing is found where nothing is wrong; and where nothing is there, nothing applies.
#[test]
fn right_traces_keep_every_rule() {
    let log = Log::from_records(right().records);
    for (rule, verdict) in judge(&log).unwrap() {
        assert_eq!(verdict, Verdict::Held, "{}", rule.name);
    }
    let mut lone = Tracer::new("a");
    let log = Log::from_records(vec![lone.create_trace(1)]);
    for (rule, verdict) in judge(&log).unwrap() {
        let why = format!("no {} in this trace", rule.needs[0]);
        assert_eq!(verdict, Verdict::NotApplicable { why });
    }
}

#[test]
fn two_leaders_of_a_term_are_found() {
    let mut scene = right();
    scene.append(1, 2, &request(1, 2, (1, 1), &[]));
    scene.breaks(terms::ONE_LEADER_PER_TERM, "servers 1 and 2 both lead in term 1");
}

#[test]
fn a_term_that_goes_back_is_found() {
    let mut scene = right();
    let response = AppendResponse { term: 5, ..AppendResponse::default() };
    scene.at(2, &Action::AppendEntriesResponseSent(response.clone()));
    let response = AppendResponse { term: 4, ..response };
    scene.at(2, &Action::AppendEntriesResponseSent(response));
    scene.breaks(terms::TERM_MONOTONIC, "server3 goes from term 5 back to 4");
}

#[test]
fn a_commit_index_that_goes_back_is_found() {
    let mut scene = right();
    scene.append(0, 2, &request(1, 1, (1, 1), &[]));
    scene.breaks(terms::COMMIT_MONOTONIC, "goes from commit index 1 back to 0");
}

#[test]
fn entries_that_differ_are_found() {
    let mut scene = right();
    scene.append(0, 2, &request(1, 1, (0, 0), &[entry(1, 1, "another")]));
    scene.breaks(log::LOG_MATCHING, "entry 1 of term 1 is not the same command");
    let mut scene = right();
    scene.append(0, 2, &request(3, 1, (1, 1), &[entry(2, 3, "x")]));
    scene.append(0, 2, &request(3, 1, (1, 2), &[entry(2, 3, "x")]));
    scene.breaks(log::LOG_MATCHING, "entry 2 of term 3 follows entries of different terms");
}

#[test]
fn a_leader_without_a_committed_entry_is_found() {
    let mut scene = right();
    scene.append(1, 2, &request(2, 2, (0, 0), &[entry(1, 2, "lost")]));
    scene.breaks(log::LEADER_COMPLETENESS, "entry 1 of term 1 was committed in term 1");
}

#[test]
fn a_commit_without_a_majority_is_found() {
    let mut scene = Scene::new();
    let request = request(1, 1, (0, 0), &[entry(1, 1, "v")]);
    scene.append(0, 1, &AppendRequest { leader_commit: 1, ..request.clone() });
    scene.breaks(log::COMMIT_NEEDS_MAJORITY, "knows of 1 of 3 servers");
    // An answer that has not reached the leader does not count, however early it was given.
    let mut scene = Scene::new();
    scene.at(0, &Action::AppendEntriesRequestSent(request.clone()));
    scene.pass(0, 1);
    scene.at(1, &Action::AppendEntriesRequestRecvd(request.clone()));
    let response = AppendResponse { term: 1, success: true, ..AppendResponse::default() };
    scene.at(1, &Action::AppendEntriesResponseSent(response));
    scene.append(0, 2, &AppendRequest { leader_commit: 1, ..request });
    scene.breaks(log::COMMIT_NEEDS_MAJORITY, "knows of 1 of 3 servers");
}

#[test]
fn a_result_without_a_commit_is_found() {
    let mut scene = right();
    scene.at(CLIENT, &put(3, "w"));
    scene.pass(CLIENT, 0);
    // Committed, but not before the client was told.
    scene.pass(0, CLIENT);
    scene.at(0, &committed(3, "w"));
    scene.at(CLIENT, &put_result(3));
    scene.breaks(operations::RESULT_AFTER_COMMIT, "no server had committed");
}

#[test]
fn a_put_that_is_committed_twice_is_found() {
    let mut scene = right();
    scene.at(1, &committed(1, "v"));
    scene.breaks(operations::COMMITTED_ONCE, "operation 1 of client 1 is committed twice");
}

/// Who answers a retry with the result of the first try has committed nothing; who has another
/// revision has.
#[test]
fn a_retry_is_told_from_a_second_effect() {
    let commit = |revision| {
        let (client_id, key, value) = ("1".to_owned(), "k".to_owned(), "w".to_owned());
        Action::PutCommitted { client_id, op_id: 5, key, value, revision: Some(revision) }
    };
    let mut scene = right();
    scene.at(0, &commit(7));
    scene.at(1, &commit(7));
    assert_eq!(scene.verdict(operations::COMMITTED_ONCE), Verdict::Held);
    scene.at(2, &commit(8));
    scene.breaks(operations::COMMITTED_ONCE, "operation 5 of client 1 is committed twice");
}

#[test]
fn a_value_from_nowhere_is_found() {
    let mut scene = right();
    let (key, value) = ("k".to_owned(), "ghost".to_owned());
    scene.at(CLIENT, &Action::GetResultRecvd { op_id: 3, key, value, client_id: None });
    scene.breaks(operations::READ_OF_A_PUT, "\"ghost\" is read from \"k\"");
}

#[test]
fn a_token_that_was_never_made_is_found() {
    let mut scene = right();
    let made_up = Token { sender: "server1".into(), trace_id: 9, clock: Default::default() };
    scene.receive(2, &made_up);
    scene.breaks(terms::TOKEN_WAS_SENT, "server3 receives a token that was never made by server1");
    // It names a record that is there and made no token, or one that is not.
    let names = |number| {
        let mut clock = VectorClock::new();
        clock.set(&"server1".into(), number);
        let mut scene = right();
        scene.receive(2, &Token { clock, ..made_up.clone() });
        scene
    };
    names(1).breaks_all_the_same(terms::TOKEN_WAS_SENT);
    let mut scene = names(2);
    scene.records.retain(|record| *record.identity != *"server1" || record.own() != 1);
    scene.breaks_all_the_same(terms::TOKEN_WAS_SENT);
    names(999).leaves_open(terms::TOKEN_WAS_SENT, &[("server1", 1)]);
}

/// How many records of this node come before the first of this kind.
fn count_before(scene: &Scene, who: &str, tag: &str) -> u64 {
    let own = scene.records.iter().filter(|record| *record.identity == *who);
    own.take_while(|record| *record.tag != *tag).count() as u64
}

/// The leader is killed after it told the client, and what it recorded of that was still its own.
#[test]
fn what_a_killed_leader_took_along_is_left_open() {
    let mut scene = right();
    scene.at(CLIENT, &put(3, "w"));
    scene.pass(CLIENT, 0);
    let clock = scene.nodes[0].clock().clone();
    scene.at(0, &committed(3, "w"));
    scene.pass(0, CLIENT);
    scene.at(CLIENT, &put_result(3));
    // The commit, and the token that brought the news.
    scene.restart(0, &clock);
    scene.leaves_open(operations::RESULT_AFTER_COMMIT, &[("server1", 2)]);
    scene.lose("server1", clock.get("server1"));
    scene.leaves_open(operations::RESULT_AFTER_COMMIT, &[("server1", 2)]);
    scene.leaves_open(terms::TOKEN_WAS_SENT, &[("server1", 1)]);
}

/// What was lost before a client asked cannot be the answer to it.
#[test]
fn what_was_lost_before_the_question_excuses_nothing() {
    let mut scene = right();
    let clock = scene.nodes[0].clock().clone();
    scene.pass(0, CLIENT);
    scene.restart(0, &clock);
    scene.at(CLIENT, &put(3, "w"));
    scene.at(CLIENT, &put_result(3));
    scene.breaks_all_the_same(operations::RESULT_AFTER_COMMIT);
}

/// Clients commit nothing, so that what one of them took along is no commit.
#[test]
fn what_another_client_took_along_excuses_no_result() {
    let mut scene = right();
    let asks = Action::Get { client_id: "2".into(), op_id: 1, key: "k".into() };
    scene.at(OTHER_CLIENT, &asks);
    let after = scene.nodes[OTHER_CLIENT].clock().get("client2");
    scene.at(CLIENT, &put(3, "w"));
    scene.pass(OTHER_CLIENT, CLIENT);
    scene.at(CLIENT, &put_result(3));
    scene.lose("client2", after);
    scene.breaks_all_the_same(operations::RESULT_AFTER_COMMIT);
}

/// What was lost before a leader began cannot be an answer to what it sends.
#[test]
fn answers_that_were_lost_before_the_term_excuse_nothing() {
    let mut scene = Scene::new();
    let clock = scene.nodes[1].clock().clone();
    scene.pass(1, 0);
    scene.restart(1, &clock);
    let answer = AppendResponse { term: 0, success: true, ..AppendResponse::default() };
    scene.at(2, &Action::AppendEntriesResponseSent(answer));
    let request = request(1, 1, (0, 0), &[entry(1, 1, "v")]);
    scene.at(0, &Action::AppendEntriesRequestSent(request.clone()));
    scene.at(0, &Action::AppendEntriesRequestSent(AppendRequest { leader_commit: 1, ..request }));
    scene.breaks_all_the_same(log::COMMIT_NEEDS_MAJORITY);
}

/// A leader that was told by the last one what is committed, and has forgotten it since.
#[test]
fn answers_that_a_killed_leader_had_heard_of_are_left_open() {
    let mut scene = Scene::new();
    let first = request(1, 2, (0, 0), &[entry(1, 1, "v")]);
    let clock = scene.nodes[0].clock().clone();
    scene.append(1, 2, &first);
    scene.pass(2, 0);
    scene.pass(0, 1);
    scene.restart(0, &clock);
    let next = AppendRequest { leader_commit: 1, ..request(2, 1, (1, 1), &[]) };
    scene.at(0, &Action::AppendEntriesRequestSent(next));
    scene.leaves_open(log::COMMIT_NEEDS_MAJORITY, &[("server1", 2)]);
}

/// A server of which nothing is left answered, too.
#[test]
fn answers_of_a_server_without_records_are_left_open() {
    let mut scene = right();
    scene.lose("server2", 0);
    let known = scene.records.iter().filter(|record| *record.identity == *"server1");
    let known = known.map(|record| record.clock.get("server2")).max().unwrap();
    scene.leaves_open(log::COMMIT_NEEDS_MAJORITY, &[("server2", known)]);
    // One more that nothing is left of would be one more server: two of four are too few.
    let mut scene = Scene::new();
    scene.at(1, &Action::AppendEntriesResponseSent(AppendResponse::default()));
    let request = request(1, 1, (0, 0), &[entry(1, 1, "v")]);
    scene.at(0, &Action::AppendEntriesRequestSent(request.clone()));
    scene.pass(OTHER_CLIENT, 0);
    scene.at(0, &Action::AppendEntriesRequestSent(AppendRequest { leader_commit: 1, ..request }));
    scene.lose("client2", 0);
    scene.breaks_all_the_same(log::COMMIT_NEEDS_MAJORITY);
}

#[test]
fn answers_that_a_killed_follower_took_along_are_left_open() {
    let scene = || {
        let mut scene = right();
        let after = count_before(&scene, "server2", "AppendEntriesResponseSent");
        scene.lose("server2", after);
        scene
    };
    scene().leaves_open(log::COMMIT_NEEDS_MAJORITY, &[("server2", 2)]);
    // With that answer, too, it would be two of four.
    let mut scene = scene();
    scene.at(CLIENT, &Action::ServerStart { server_id: 4 });
    scene.breaks_all_the_same(log::COMMIT_NEEDS_MAJORITY);
}

#[test]
fn puts_that_a_killed_client_took_along_are_left_open() {
    let mut scene = right();
    let after = scene.nodes[CLIENT].clock().get("client1");
    scene.at(CLIENT, &put(3, "w"));
    scene.pass(CLIENT, 1);
    let (key, value) = ("k".to_owned(), "w".to_owned());
    scene.at(1, &Action::GetResultRecvd { op_id: 1, key, value, client_id: None });
    assert_eq!(scene.verdict(operations::READ_OF_A_PUT), Verdict::Held);
    scene.lose("client1", after);
    scene.leaves_open(operations::READ_OF_A_PUT, &[("client1", 2)]);
    // Servers put nothing: what they took along excuses no value from nowhere.
    let mut scene = right();
    scene.pass(1, CLIENT);
    let (key, value) = ("k".to_owned(), "ghost".to_owned());
    scene.at(CLIENT, &Action::GetResultRecvd { op_id: 3, key, value, client_id: None });
    scene.lose("server2", 1);
    scene.breaks_all_the_same(operations::READ_OF_A_PUT);
}

/// A server that was killed has forgotten who put what it has on its disk.
#[test]
fn puts_that_a_killed_server_had_heard_of_are_left_open() {
    let mut scene = right();
    let clock = scene.nodes[0].clock().clone();
    scene.at(OTHER_CLIENT, &put(1, "w"));
    scene.pass(OTHER_CLIENT, 0);
    scene.pass(0, 1);
    scene.restart(0, &clock);
    scene.nodes[CLIENT] = Tracer::new("client3");
    scene.pass(0, CLIENT);
    let (key, value) = ("k".to_owned(), "w".to_owned());
    scene.at(CLIENT, &Action::GetResultRecvd { op_id: 1, key, value, client_id: None });
    scene.leaves_open(operations::READ_OF_A_PUT, &[("server1", 2)]);
}

/// Clocks of other programs may hold anything.
#[test]
fn missing_records_are_counted_within_bounds() {
    let log = Log::from_records(right().records);
    let history = History::new(&log);
    let count = right().records.iter().filter(|it| *it.identity == *"server1").count() as u64;
    assert_eq!(history.missing_count("server1", 0, count), 0);
    assert_eq!(history.missing_count("server1", 0, u64::MAX), u64::MAX - count);
    assert_eq!(history.missing_count("nobody", 2, 4), 2);
    assert_eq!(history.missing_count("nobody", u64::MAX, u64::MAX), 0);
    assert_eq!(history.missing_count("nobody", u64::MAX, 1), 0);
}

/// A trace whose clocks go back cannot be judged.
#[test]
fn clocks_without_order_are_refused() {
    let mut scene = right();
    scene.records.push(scene.records[0].clone());
    let log = Log::from_records(scene.records);
    let line = log.records.len() as u64;
    assert_eq!(judge(&log).unwrap_err(), JudgeError::Clocks { line });
}
