//! The group as a model for the checker: what may happen next, and what then holds.

use std::{
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
};

use kvraft_raft::{Body, RoleName};
use stateright::{Model, Property};

use crate::{
    bounds::Bounds,
    node::{LEFT, Local, Look, ME, RIGHT, Removed, Tag},
    rules::Rule,
    state::{Committed, SERVER_COUNT, Server, State},
    table::{Digest, Event, MessageId, NodeId, Outcome, Table, Tables},
};

/// One step of the group. Servers are named by their place in the ring, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Something happens to a server.
    One(usize, Event),
    /// A server campaigns, makes its vote durable and asks a neighbour, who makes its own durable
    /// and answers: the server leads.
    Elect {
        /// Who leads then.
        candidate: usize,
        /// Which of its neighbours vote for it.
        voters: Voters,
        /// The term.
        term: u64,
    },
}

/// Who is asked for votes, as the candidate sees it. Its own is not mentioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voters {
    /// Nobody: it is alone.
    None,
    /// The right neighbour.
    Right,
    /// The left neighbour.
    Left,
    /// Both.
    Both,
}

impl Voters {
    /// All of them, those first that a group of three needs.
    const ALL: [Self; 4] = [Self::Right, Self::Left, Self::None, Self::Both];

    /// Whether the right neighbour is asked, and the left.
    fn asked(self) -> &'static [bool] {
        match self {
            Self::None => &[],
            Self::Right => &[true],
            Self::Left => &[false],
            Self::Both => &[true, false],
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Group {
    bounds: Bounds,
    table: Table,
    fresh: NodeId,
    /// Nothing happens any more: the search has taken too long.
    stopped: AtomicBool,
}

impl Group {
    /// A group that has never run.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let (table, fresh) = Table::new(bounds);
        Self { bounds, table, fresh, stopped: AtomicBool::new(false) }
    }

    /// Lets the search come to an end without looking further, or lets things happen again.
    pub(crate) fn stop(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::Relaxed);
    }

    /// How many server states, messages and steps of a server are known.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        self.table.read().counts()
    }

    /// How far the search goes.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    fn locals(&self, state: &State, look: &Look, add: &mut impl FnMut(Local)) {
        let bounds = &self.bounds;
        if 0 < look.write_count {
            add(Local::Sync);
        }
        if !bounds.whole_elections {
            self.next_terms(state, look).for_each(|term| add(Local::Campaign(term)));
        }
        if look.follows && 0 < bounds.heartbeat_count_max {
            add(Local::Doubt);
        }
        if look.role == RoleName::Leader {
            if state.proposal_count < bounds.proposal_count_max {
                add(Local::Propose);
            }
            if state.change_count < bounds.change_count_max {
                Removed::ALL.into_iter().for_each(|removed| add(Local::Remove(removed)));
            }
            if look.heartbeat_count < bounds.heartbeat_count_max {
                add(Local::Heartbeat);
            }
        }
        if self.may_crash(state, look) {
            add(Local::Crash);
        }
    }

    /// Terms are only compared, so none is skipped that nobody has been in.
    fn next_terms(&self, state: &State, look: &Look) -> RangeInclusive<u64> {
        look.term + 1..=self.bounds.term_max.min(state.term_seen + 1)
    }

    fn may_crash(&self, state: &State, look: &Look) -> bool {
        state.crash_count < self.bounds.crash_total_max
            && (0 < look.write_count || self.bounds.idle_crashes)
            && look.crash_count < self.bounds.crash_count_max
    }

    fn elections(&self, state: &State, look: &Look, candidate: usize, actions: &mut Vec<Action>) {
        let voters = if 0 < state.change_count { &Voters::ALL[..] } else { &Voters::ALL[..2] };
        for term in self.next_terms(state, look) {
            for voters in voters {
                actions.push(Action::Elect { candidate, voters: *voters, term });
            }
        }
    }

    fn is_noop(state: &State, place: usize, outcome: &Outcome) -> bool {
        let has = |(right, message): &(bool, _)| {
            let receiver = neighbour(place, *right);
            state.servers[receiver].inbox.binary_search(message).is_ok()
        };
        state.servers[place].node == outcome.node
            && outcome.broken.is_none()
            && outcome.sent.iter().all(has)
    }

    /// One event at one server. Returns whether anything came of it.
    fn step(&self, state: &mut State, place: usize, event: Event) -> bool {
        let outcome = self.table.outcome(state.servers[place].node, event);
        if Self::is_noop(state, place, &outcome) {
            return false;
        }
        self.apply(state, place, event, &outcome);
        true
    }

    /// A whole election. Returns whether it was won, or broke a rule.
    fn elect(&self, state: &mut State, candidate: usize, voters: Voters, term: u64) -> bool {
        let voters = voters.asked();
        self.step(state, candidate, Event::Local(Local::Campaign(term)));
        self.sync_all(state, candidate);
        let asks = |body: &Body| matches!(body, Body::VoteRequest { .. });
        for right in voters {
            let voter = neighbour(candidate, *right);
            self.receive_first(state, voter, !right, term, asks);
            self.sync_all(state, voter);
        }
        let answers = |body: &Body| matches!(body, Body::VoteAnswer { .. });
        for right in voters {
            self.receive_first(state, candidate, *right, term, answers);
        }
        let tables = self.table.read();
        let look = &tables.node(state.servers[candidate].node).look;
        state.broken.is_some() || (look.role == RoleName::Leader && look.term == term)
    }

    fn sync_all(&self, state: &mut State, place: usize) {
        let busy = |state: &State| {
            let tables = self.table.read();
            0 < tables.node(state.servers[place].node).look.write_count
        };
        while state.broken.is_none() && busy(state) {
            self.step(state, place, Event::Local(Local::Sync));
        }
    }

    /// The first message in an inbox that is from the right or left neighbour, of this term, and
    /// wanted, arrives.
    fn receive_first(
        &self,
        state: &mut State,
        place: usize,
        right: bool,
        term: u64,
        wanted: impl Fn(&Body) -> bool,
    ) {
        let from = if right { RIGHT } else { LEFT };
        let first = {
            let tables = self.table.read();
            let fits = |id: &&MessageId| {
                let message = &tables.message(**id).message;
                message.from == from && message.term.0 == term && wanted(&message.body)
            };
            state.servers[place].inbox.iter().find(fits).copied()
        };
        if let (Some(message), None) = (first, state.broken) {
            self.step(state, place, Event::Receive(message));
        }
    }

    fn apply(&self, state: &mut State, place: usize, event: Event, outcome: &Outcome) {
        let tables = self.table.read();
        match event {
            Event::Local(Local::Propose) => state.proposal_count += 1,
            Event::Local(Local::Crash) => state.crash_count += 1,
            Event::Local(Local::Remove(_)) => state.change_count += 1,
            Event::Local(_) | Event::Receive(_) => {}
        }
        let record = tables.node(outcome.node);
        withdraw_requests(&tables, state, place, &record.look);
        let server = &mut state.servers[place];
        server.node = outcome.node;
        server.digest = record.digest;
        state.term_seen = state.term_seen.max(record.look.term);
        self.deliver(&tables, state, place, outcome, event == Event::Local(Local::Crash));
        state.broken = outcome.broken.or_else(|| judge(&tables, state, place, outcome));
    }

    /// Puts what was sent into the inboxes, and drops what has become pointless.
    fn deliver(
        &self,
        tables: &Tables,
        state: &mut State,
        place: usize,
        outcome: &Outcome,
        crashed: bool,
    ) {
        for (right, message) in &outcome.sent {
            let receiver = neighbour(place, *right);
            let look = &tables.node(state.servers[receiver].node).look;
            let record = tables.message(*message);
            if !look.is_deaf_to(&record.message, self.may_crash(state, look)) {
                state.servers[receiver].put(*message, record.digest);
            }
        }
        // A crash anywhere may have been the last, for everyone.
        for at in (0..SERVER_COUNT).filter(|at| crashed || *at == place) {
            let look = &tables.node(state.servers[at].node).look;
            let may_crash = self.may_crash(state, look);
            state.servers[at].retain(|message| {
                let record = tables.message(message);
                (!look.is_deaf_to(&record.message, may_crash), record.digest)
            });
        }
    }
}

impl Model for Group {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let digest = self.table.read().node(self.fresh).digest;
        let server = Server {
            node: self.fresh,
            digest,
            inbox: Vec::new(),
            inbox_digest: Digest::default(),
            votes: Vec::new(),
        };
        let terms = usize::try_from(self.bounds.term_max).expect("few terms");
        vec![State {
            servers: [server.clone(), server.clone(), server],
            committed: Vec::new(),
            leaders: vec![0; terms],
            term_seen: 0,
            proposal_count: 0,
            change_count: 0,
            crash_count: 0,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() || self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let tables = self.table.read();
        for (place, server) in state.servers.iter().enumerate() {
            if self.bounds.whole_elections {
                self.elections(state, &tables.node(server.node).look, place, actions);
            }
            let events = server.inbox.iter().map(|message| Event::Receive(*message));
            actions.extend(events.map(|event| Action::One(place, event)));
            let look = &tables.node(server.node).look;
            self.locals(state, look, &mut |local| {
                actions.push(Action::One(place, Event::Local(local)));
            });
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let changed = match action {
            Action::One(place, event) => self.step(&mut next, place, event),
            Action::Elect { candidate, voters, term } => {
                self.elect(&mut next, candidate, voters, term)
            }
        };
        changed.then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! never {
            ($($rule:ident),* $(,)?) => {
                vec![$(Property::always(Rule::$rule.name(), |_: &Self, state: &State| {
                    state.broken != Some(Rule::$rule)
                })),*]
            };
        }
        let mut properties = never![
            OneLeaderPerTerm,
            OneVotePerTerm,
            LogMatching,
            LeaderCompleteness,
            CommittedNeverChanges,
            CommittedIsDurable,
            PromiseIsDurable,
            AppliedIsDurable,
            CommitsOwnTerm,
            MembersWhenAppended,
            Assertion,
        ];
        assert!(properties.len() == Rule::ALL.len(), "every rule is a property");
        properties.extend([
            Property::sometimes(SOMETIMES[0], |group: &Self, state: &State| {
                let tables = group.table.read();
                let leads =
                    |server: &Server| tables.node(server.node).look.role == RoleName::Leader;
                state.servers.iter().any(leads)
            }),
            Property::sometimes(SOMETIMES[1], |_: &Self, state: &State| {
                !state.committed.is_empty()
            }),
            Property::sometimes(SOMETIMES[2], |_: &Self, state: &State| {
                let term = |committed: &Committed| committed.term;
                state.committed.first().map(term) != state.committed.last().map(term)
            }),
        ]);
        properties
    }

    fn format_action(&self, action: &Action) -> String {
        let (place, event) = match *action {
            Action::One(place, event) => (place, event),
            Action::Elect { candidate, voters, term } => {
                let leader = candidate + 1;
                return format!("server {leader} is elected in term {term}, by {voters:?}");
            }
        };
        let server = place + 1;
        match event {
            Event::Local(local) => format!("server {server}: {local:?}"),
            Event::Receive(message) => {
                let tables = self.table.read();
                let kvraft_raft::Message { from, term, body, .. } =
                    &tables.message(message).message;
                let from = neighbour(place, *from == RIGHT) + 1;
                format!("server {server} receives from {from} in term {term}: {body:?}")
            }
        }
    }
}

fn neighbour(place: usize, right: bool) -> usize {
    (place + if right { 1 } else { SERVER_COUNT - 1 }) % SERVER_COUNT
}

/// A candidate that is none any more needs no votes of that term; to give one now would only make a
/// server refuse more.
fn withdraw_requests(tables: &Tables, state: &mut State, place: usize, look: &Look) {
    let before = &tables.node(state.servers[place].node).look;
    let candidate = |look: &Look| look.role == RoleName::Candidate;
    if !candidate(before) || (candidate(look) && look.term == before.term) {
        return;
    }
    for right in [true, false] {
        let sender = if right { LEFT } else { RIGHT };
        state.servers[neighbour(place, right)].retain(|message| {
            let record = tables.message(message);
            let message = &record.message;
            let request = matches!(message.body, Body::VoteRequest { .. });
            (!request || message.from != sender || message.term.0 != before.term, record.digest)
        });
    }
}

/// Updates what is remembered of the past, and names the first rule that does not hold.
fn judge(tables: &Tables, state: &mut State, place: usize, outcome: &Outcome) -> Option<Rule> {
    let nodes: [NodeId; SERVER_COUNT] = state.servers.each_ref().map(|server| server.node);
    let looks = nodes.map(|node| &tables.node(node).look);
    judge_votes(&mut state.servers[place], looks[place], outcome)
        .or_else(|| judge_leaders(state, &looks, place))
        .or_else(|| judge_commits(state, &looks, place))
        .or_else(|| judge_logs(state, &looks, place))
}

fn judge_votes(server: &mut Server, look: &Look, outcome: &Outcome) -> Option<Rule> {
    server.votes.retain(|(term, _)| look.disk_term <= *term);
    for (term, name) in &outcome.votes {
        let at = server.votes.partition_point(|(other, _)| other < term);
        if server.votes.get(at).is_none_or(|(other, _)| other != term) {
            server.votes.insert(at, (*term, 0));
        }
        server.votes[at].1 |= 1 << name;
    }
    let twice = server.votes.iter().any(|(_, names)| 1 < names.count_ones());
    twice.then_some(Rule::OneVotePerTerm)
}

fn judge_leaders(state: &mut State, looks: &[&Look], place: usize) -> Option<Rule> {
    let look = looks[place];
    if look.role == RoleName::Leader {
        state.leaders[usize::try_from(look.term - 1).expect("few terms")] |= 1 << place;
    }
    let twice = state.leaders.iter().any(|places| 1 < places.count_ones());
    let left = looks.iter().map(|look| look.disk_term).min().unwrap_or(0);
    for (term, places) in (1..).zip(&mut state.leaders) {
        if term < left {
            *places = 0;
        }
    }
    twice.then_some(Rule::OneLeaderPerTerm)
}

fn judge_commits(state: &mut State, looks: &[&Look], place: usize) -> Option<Rule> {
    let look = looks[place];
    let commit = usize::try_from(look.commit.0).expect("logs of a model are short");
    let known = look.log.iter().take(commit);
    if known.clone().zip(&state.committed).any(|(tag, committed)| *tag != committed.tag) {
        return Some(Rule::CommittedNeverChanges);
    }
    for tag in known.skip(state.committed.len()) {
        let at = state.committed.len();
        let holds = |id| {
            let holder = if id == ME { place } else { neighbour(place, id == RIGHT) };
            looks[holder].disk_log.get(at) == Some(tag)
        };
        // As the committing leader counts; a configuration that it has committed and left behind
        // in the same step is the one case in which it counted otherwise before.
        if look.role == RoleName::Leader && !look.members.is_quorum(holds) {
            return Some(Rule::CommittedIsDurable);
        }
        state.committed.push(Committed { tag: tag.clone(), term: look.term });
    }
    None
}

fn judge_logs(state: &State, looks: &[&Look], place: usize) -> Option<Rule> {
    let others = looks.iter().enumerate().filter(|(at, _)| *at != place);
    if others.into_iter().any(|(_, other)| !match_each_other(&looks[place].log, &other.log)) {
        return Some(Rule::LogMatching);
    }
    for (at, committed) in state.committed.iter().enumerate() {
        let lacks = |look: &&&Look| {
            look.role == RoleName::Leader
                && committed.term < look.term
                && look.log.get(at) != Some(&committed.tag)
        };
        if looks.iter().any(|look| lacks(&look)) {
            return Some(Rule::LeaderCompleteness);
        }
        let holds = |look: &&&Look| look.disk_log.get(at) == Some(&committed.tag);
        if state.change_count == 0 && 2 * looks.iter().filter(holds).count() <= SERVER_COUNT {
            return Some(Rule::CommittedIsDurable);
        }
    }
    None
}

/// Terms never decrease along a log, so the last common term decides what must be equal.
fn match_each_other(left: &[Tag], right: &[Tag]) -> bool {
    let both = || left.iter().zip(right);
    let last = both().rposition(|(left, right)| left.term == right.term);
    last.is_none_or(|last| both().take(last + 1).all(|(left, right)| left == right))
}

/// What must be reachable, or the model has come to a halt for a reason of its own.
pub(crate) const SOMETIMES: [&str; 3] =
    ["a leader exists", "an entry is committed", "a second leader commits"];
