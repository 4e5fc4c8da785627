//! Joining, health, views, hints, clients, and what strangers send.

use super::*;
use crate::message::Candidate;

const INTERVAL: Duration = Duration::from_millis(100);

struct Office {
    coordinator: Coordinator,
    now: Instant,
}

fn settings(num_servers: usize) -> Settings {
    Settings { num_servers, lost_msgs_thresh: 3, report_interval: INTERVAL, token: "t".into() }
}

fn hello(port: u64) -> Hello {
    let address = |port| format!("127.0.0.1:{port}");
    Hello { peer: address(port), client: address(port + 1), ..Hello::default() }
}

impl Office {
    fn new(num_servers: usize) -> Self {
        Self { coordinator: Coordinator::new(settings(num_servers)), now: Instant::ZERO }
    }

    /// Three servers with the links 1, 2 and 3; server 1 leads in term 1.
    fn with_leader() -> Self {
        let mut office = Self::new(3);
        (1..=3).for_each(|link| drop(office.join(link, hello(link * 10))));
        office.report(1, 1, true, (1, 1));
        office.report(2, 1, false, (1, 1));
        office.report(3, 1, false, (1, 1));
        office
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.coordinator.step(self.now, input, &mut out);
        out
    }

    fn join(&mut self, link: u64, hello: Hello) -> Vec<Output> {
        self.step(Input::Message(LinkId(link), ToCoordinator::Join(hello)))
    }

    fn report(&mut self, link: u64, term: u64, leads: bool, last: (u64, u64)) -> Vec<Output> {
        let last = Candidate { term: last.0, index: last.1 };
        let report = Report { term, leads, leader: leads.then_some(link), last };
        self.step(Input::Message(LinkId(link), ToCoordinator::Report(report)))
    }

    fn log_state(&mut self, link: u64, term: u64, last: (u64, u64)) -> Vec<Output> {
        let last = Candidate { term: last.0, index: last.1 };
        let report = Report { term, leads: false, leader: None, last };
        self.step(Input::Message(LinkId(link), ToCoordinator::LogState(report)))
    }

    fn pass(&mut self, by: Duration) -> Vec<Output> {
        self.now = self.now + by;
        self.step(Input::Tick)
    }
}

fn events(out: &[Output]) -> Vec<&Event> {
    out.iter()
        .filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        })
        .collect()
}

fn hints(out: &[Output]) -> Vec<LinkId> {
    out.iter()
        .filter_map(|output| match output {
            Output::Server(link, ToServer::LeaderLost { leader: 1 }) => Some(*link),
            _ => None,
        })
        .collect()
}

/// Nobody is told anything before all have come; then all are told the same.
#[test]
fn servers_are_told_when_all_have_come() {
    let mut office = Office::new(3);
    for link in 1..=2 {
        let out = office.join(link, hello(link * 10));
        assert_eq!(events(&out), [&Event::ServerWaiting(link)]);
        assert_eq!(out.len(), 1);
    }
    let out = office.join(3, hello(30));
    let welcomes: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Server(link, ToServer::Welcome(welcome)) => Some((link.0, welcome)),
            _ => None,
        })
        .collect();
    assert_eq!(welcomes.iter().map(|it| it.1.member).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(welcomes.iter().all(|(_, it)| it.members == welcomes[0].1.members && it.token == "t"));
    assert_eq!(welcomes[0].1.members[2].peer, "127.0.0.1:30");
    assert!(office.coordinator.view().is_empty(), "nobody has reported yet");
    let out = office.report(2, 1, true, (1, 1));
    assert_eq!(
        events(&out),
        [&Event::ServerJoined(2), &Event::NewLeader(2), &Event::ClusterView(vec![2])]
    );
}

/// A server that was told who it is comes back with its data; all have joined when all have
/// reported, and that is told once.
#[test]
fn all_have_joined_when_all_have_reported() {
    let mut office = Office::new(2);
    (1..=2).for_each(|link| drop(office.join(link, hello(link * 10))));
    for (id, link) in [(1, 3), (2, 4)] {
        office.step(Input::Closed(LinkId(id)));
        let known = Hello { member: Some(id), cluster: Some(7), ..hello(id * 10) };
        let out = office.join(link, known);
        assert_eq!(events(&out)[0], &Event::ServerJoining(id));
        assert!(out.contains(&Output::Server(LinkId(link), ToServer::Joined {})), "{out:?}");
    }
    let out = office.report(3, 1, true, (1, 1));
    assert_eq!(events(&out), [&Event::ServerJoined(1), &Event::NewLeader(1)]);
    let out = office.report(4, 1, false, (1, 1));
    assert_eq!(events(&out), [&Event::ServerJoined(2), &Event::AllServersJoined]);
    assert_eq!(events(&office.report(4, 1, false, (1, 1))), Vec::<&Event>::new());
}

/// One more is refused with words, and so is one that has lost its data.
#[test]
fn one_too_many_is_refused() {
    let mut office = Office::with_leader();
    for port in [40, 10] {
        let out = office.join(4, hello(port));
        let [_, Output::Server(LinkId(4), ToServer::Refused(why)), Output::Close(LinkId(4))] =
            &out[..]
        else {
            panic!("{out:?}")
        };
        assert!(why.contains("all 3 servers have joined"), "{why}");
    }
}

/// Who dies before all have come leaves its place; who comes twice has one.
#[test]
fn places_are_free_until_all_have_come() {
    let mut office = Office::new(2);
    office.join(1, hello(10));
    office.step(Input::Closed(LinkId(1)));
    office.join(2, hello(20));
    assert_eq!(events(&office.join(3, hello(20))), [&Event::ServerWaiting(1)]);
    assert_eq!(office.coordinator.gathering.len(), 1);
    let out = office.join(4, hello(30));
    let is_welcome = |output: &&Output| matches!(output, Output::Server(_, ToServer::Welcome(_)));
    assert_eq!(out.iter().filter(is_welcome).count(), 2);
}

/// A coordinator that starts again knows its servers by their data, and gathers no second cluster.
#[test]
fn servers_with_data_are_believed() {
    let mut office = Office::new(3);
    office.join(1, hello(10));
    let known = |id, port| Hello { member: Some(id), cluster: Some(7), ..hello(port) };
    office.join(2, known(2, 20));
    office.join(3, known(3, 30));
    assert_eq!(office.coordinator.view(), [2, 3]);
    let out = office.join(4, Hello { cluster: Some(8), ..known(1, 10) });
    assert!(matches!(out.last(), Some(Output::Close(LinkId(4)))), "{out:?}");
    let out = office.join(5, hello(40));
    assert!(matches!(out.last(), Some(Output::Close(LinkId(5)))), "{out:?}");
}

/// A leader that falls silent: after three missing reports the view is without it, and the server
/// with the longest log is told, again and again, until somebody leads.
#[test]
fn the_longest_log_is_told_of_a_silent_leader() {
    let mut office = Office::with_leader();
    for _ in 0..3 {
        office.now = office.now + INTERVAL;
        assert_eq!(hints(&office.report(2, 1, false, (1, 5))), []);
        assert_eq!(hints(&office.report(3, 1, false, (1, 6))), []);
    }
    let out = office.pass(Duration::from_millis(1));
    assert_eq!(
        events(&out),
        [
            &Event::ServerFailed(1),
            &Event::ClusterView(vec![2, 3]),
            &Event::LogStateAsked(2),
            &Event::LogStateAsked(3),
        ]
    );
    assert_eq!(hints(&office.log_state(2, 1, (1, 8))), [], "the other may have more");
    let out = office.log_state(3, 1, (1, 9));
    assert!(
        matches!(events(&out)[..], [Event::Hinted { server: 3, failed: 1, term: 1, peers }]
            if peers.len() == 2),
        "{out:?}"
    );
    assert_eq!(hints(&out), [LinkId(3)]);
    assert_eq!(hints(&office.pass(Duration::from_millis(1))), [], "not at once again");
    assert_eq!(hints(&office.pass(INTERVAL)), [LinkId(3)]);
    let out = office.report(3, 2, true, (2, 7));
    assert_eq!(events(&out), [&Event::NewLeader(3)]);
    office.report(2, 2, false, (2, 7));
    assert_eq!(hints(&office.pass(INTERVAL)), []);
    let out = office.report(1, 1, true, (1, 6));
    assert_eq!(
        events(&out),
        [&Event::ServerRecovered(1), &Event::ClusterView(vec![1, 2, 3])],
        "what leads in an older term does not lead"
    );
}

/// A closed connection is worth more than missing reports, unless it comes back at once.
#[test]
fn closed_connections_are_noticed_early() {
    let mut office = Office::with_leader();
    office.step(Input::Closed(LinkId(1)));
    let out = office.pass(Duration::from_millis(21));
    assert!(events(&out).contains(&&Event::ServerFailed(1)), "{out:?}");
    assert_eq!(hints(&out), [], "they are asked first");
    let out = office.pass(Duration::from_millis(25));
    assert_eq!(hints(&out), [LinkId(2)], "of equals the lowest id, and nobody is waited for long");
}

/// All go at once, as when somebody stops them all: one view of nobody, and nobody is told.
#[test]
fn all_may_go_at_once() {
    let mut office = Office::with_leader();
    (1..=3).for_each(|link| drop(office.step(Input::Closed(LinkId(link)))));
    let out = office.pass(Duration::from_millis(21));
    let failed = [1, 2, 3].map(Event::ServerFailed);
    let rest = [Event::ClusterView(Vec::new()), Event::QuorumUnavailable];
    assert_eq!(events(&out), failed.iter().chain(&rest).collect::<Vec<_>>());
    assert_eq!(out.len(), 5, "{out:?}");
    assert_eq!(office.pass(INTERVAL), []);
}

/// Where no majority lives nobody is told to campaign.
#[test]
fn without_a_quorum_nobody_is_told() {
    let mut office = Office::with_leader();
    office.step(Input::Closed(LinkId(1)));
    office.step(Input::Closed(LinkId(2)));
    let out = office.pass(Duration::from_millis(21));
    assert!(events(&out).contains(&&Event::QuorumUnavailable), "{out:?}");
    assert_eq!(hints(&out), []);
}

/// Clients wait for the first leader, and are told of every other one.
#[test]
fn clients_are_told_who_leads() {
    let mut office = Office::new(3);
    let ask = ToCoordinator::GetLeader { client: "client1".into() };
    let out = office.step(Input::Message(LinkId(9), ask));
    assert_eq!(events(&out), [&Event::LeaderAsked("client1".into())]);
    (1..=3).for_each(|link| drop(office.join(link, hello(link * 10))));
    let told = |out: &[Output]| {
        out.iter().find_map(|output| match output {
            Output::Client(LinkId(9), ToClient::Leader(info)) => Some(info.clone()),
            _ => None,
        })
    };
    let info = told(&office.report(2, 1, true, (1, 1))).unwrap();
    assert_eq!((info.server, info.client.as_str()), (2, "127.0.0.1:21"));
    assert_eq!(info.endpoints, ["127.0.0.1:21", "127.0.0.1:11", "127.0.0.1:31"]);
    assert_eq!(told(&office.report(2, 1, true, (1, 2))), None, "no news");
    assert_eq!(told(&office.report(3, 2, true, (2, 3))).unwrap().server, 3);
    office.step(Input::Closed(LinkId(9)));
    assert_eq!(told(&office.report(1, 3, true, (3, 4))), None);
}

/// A report without a join ends the connection, and nothing else.
#[test]
fn strangers_are_shown_the_door() {
    let mut office = Office::with_leader();
    let out = office.report(9, 99, true, (99, 99));
    assert_eq!(out, [Output::Close(LinkId(9))]);
    assert_eq!(office.coordinator.leader(), Some(1));
}
