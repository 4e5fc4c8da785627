//! Simulated operators: they carry out what the plan wants of the members, as a person with a
//! command line would. They ask a server, wait, ask again when they were refused or do not know,
//! set up new servers, and switch off some of those that have left.
//!
//! Invariants:
//! - what was asked and what was answered is noted, and held against the logs;
//! - nothing is asked that could leave a configuration without a quorum of sound servers, in
//!   whatever order the requests under way take effect;
//! - no id is given out twice.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use kvraft_base::{MemberId, MemberInfo, Members, Prng};
use kvraft_raft::{Change, ChangeError, Refusal};
use kvraft_replica::{ClientRequest, NodeIn, Outcome, Reply};

use super::{
    asks::{ConfigStep, reachable},
    clients::Told,
    server::{LaneIn, Server, Standing, Waiter},
    world::{HOP, Happening, NOTICE_MAX, World},
};
use crate::{
    network::Endpoint,
    plan::{Whom, Wish},
};

/// An operator's machine on the network: above the number of any client.
const ENDPOINT_FIRST: u64 = 1_000;

/// An operator gives a task up after so many requests.
const TRY_COUNT_MAX: u32 = 12;

/// With more requests of unknown fate than this, nothing more is asked.
const OPEN_COUNT_MAX: usize = 4;

/// A task of the plan.
#[derive(Clone, Debug)]
pub(crate) enum Errand {
    Change(Vec<Wish>),
    Replace(Whom),
    Transfer(Option<Whom>),
}

/// What is asked of a server.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Change(Vec<Change>),
    Transfer(Option<MemberId>),
}

#[derive(Debug)]
struct Current {
    errand: Errand,
    /// Once it is clear what the errand comes to.
    wanted: Option<Wanted>,
    try_count: u32,
    /// Number of the request whose answer is awaited, among all of this operator's.
    waits_for: Option<u64>,
    /// A request may have taken effect.
    maybe_done: bool,
}

/// One operator.
#[derive(Debug)]
pub(crate) struct Operator {
    id: u64,
    prng: Prng,
    waiting: VecDeque<Errand>,
    current: Option<Current>,
    request_count: u64,
}

/// A request on its way: which operator's, its number, and its number among the changes asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OperatorRequest {
    pub(crate) operator: usize,
    number: u64,
    ask: Option<usize>,
}

impl Operator {
    pub(crate) fn new(id: u64, prng: &Prng) -> Self {
        let prng = prng.fork(&format!("operator {id}"));
        Self { id, prng, waiting: VecDeque::new(), current: None, request_count: 0 }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Client(ENDPOINT_FIRST + self.id)
    }

    /// Takes what is next, if nothing is under way.
    fn take_up(&mut self) -> Option<&mut Current> {
        if self.current.is_none() {
            let errand = self.waiting.pop_front()?;
            let (wanted, try_count, waits_for, maybe_done) = (None, 0, None, false);
            self.current = Some(Current { errand, wanted, try_count, waits_for, maybe_done });
        }
        self.current.as_mut()
    }
}

impl World {
    /// The plan wants something of an operator; they take turns.
    pub(crate) fn on_errand(&mut self, item: usize, errand: Errand) {
        let operator = item % self.operators.len();
        self.operators[operator].waiting.push_back(errand);
        self.after(Duration::ZERO, Happening::OperatorWake { operator });
    }

    /// No operator does anything any more but hear how its last request ended.
    pub(crate) fn dismiss_operators(&mut self) {
        for operator in &mut self.operators {
            operator.waiting.clear();
            operator.current = None;
        }
    }

    pub(crate) fn on_operator_wake(&mut self, operator: usize) {
        let leader = self.leader();
        let in_use = self.servers_in_use();
        let it = &mut self.operators[operator];
        let Some(current) = it.take_up() else { return };
        if current.waits_for.is_some() {
            return;
        }
        current.try_count += 1;
        if TRY_COUNT_MAX < current.try_count {
            self.end_errand(operator);
            return;
        }
        // Mostly the leader: what reaches it is refused less often.
        let asked =
            leader.filter(|_| it.prng.chance(2, 3)).or_else(|| it.prng.pick(&in_use).copied());
        let known = asked.and_then(|id| self.servers[&id].members.clone());
        let (Some(server), Some(known)) = (asked, known) else {
            self.wake_later(operator);
            return;
        };
        if self.is_fulfilled(operator, &known) {
            self.end_errand(operator);
            return;
        }
        match self.want(operator, &known, leader) {
            Some(wanted) => self.ask(operator, server, wanted),
            None => self.end_errand(operator),
        }
    }

    /// After doubt: what was wanted is so already.
    fn is_fulfilled(&self, operator: usize, known: &Members) -> bool {
        let Some(current) = &self.operators[operator].current else { return false };
        let Some(Wanted::Change(changes)) = &current.wanted else { return false };
        current.maybe_done
            && changes.iter().all(|change| match change {
                Change::AddVoter { id, .. } | Change::AddLearner { id, .. } => known.contains(*id),
                Change::Remove { id } => !known.contains(*id),
                Change::Promote { id } => known.voters().contains(id),
                Change::Demote { id } => known.learner(*id).is_some(),
                Change::Update { .. } => true,
            })
    }

    fn ask(&mut self, operator: usize, server: MemberId, wanted: Wanted) {
        let ask = match &wanted {
            Wanted::Change(changes) => Some(self.asks.on_sent(changes)),
            Wanted::Transfer(_) => None,
        };
        let it = &mut self.operators[operator];
        it.request_count += 1;
        let request = OperatorRequest { operator, number: it.request_count, ask };
        let current = it.current.as_mut().expect("an errand is under way");
        (current.waits_for, current.wanted) = (Some(request.number), Some(wanted.clone()));
        let ends = (it.endpoint(), Endpoint::Server(server));
        let patience = self.config.election_timeout * 2 + self.config.patience_extra();
        for at in self.network.send(self.now, ends.0, ends.1, 100, &mut self.net_prng) {
            let wanted = wanted.clone();
            self.heap.push(at, Happening::OperatorAsks { request, server, wanted });
        }
        self.after(patience, Happening::OperatorTold { request, told: Told::Nothing });
    }

    pub(crate) fn on_operator_asks(
        &mut self,
        request: OperatorRequest,
        id: MemberId,
        wanted: Wanted,
    ) {
        let from = self.operators[request.operator].endpoint();
        if !self.network.is_open(from, Endpoint::Server(id)) {
            return;
        }
        if !self.servers[&id].is_up() {
            let told = Told::NotConnected;
            self.after(NOTICE_MAX, Happening::OperatorTold { request, told });
            return;
        }
        self.trace.record(self.now, Some(from), "operator", id.0, || format!("{wanted:?}"));
        if let Some(recording) = &mut self.recording {
            recording.on_world(self.now, "Operator", format!("asks server{id}: {wanted:?}"));
        }
        let server = self.server(id);
        let (boot, ticket) = (server.boot, server.ticket(Waiter::Operator(request)));
        self.give_up_at_edge(id, boot, ticket);
        let request = match wanted {
            Wanted::Change(changes) => ClientRequest::ChangeMembers(changes),
            Wanted::Transfer(to) => ClientRequest::Transfer { to },
        };
        self.deliver_to(id, HOP, LaneIn::Node(NodeIn::Client { ticket, request }));
    }

    /// A server's answer goes back.
    pub(crate) fn answer_operator(&mut self, id: MemberId, request: OperatorRequest, reply: Reply) {
        let node = Some(Endpoint::Server(id));
        let digest = reply.ticket.0;
        self.trace.record(self.now, node, "reply", digest, || format!("{:?}", reply.outcome));
        let to = self.operators[request.operator].endpoint();
        let ends = (Endpoint::Server(id), to);
        for at in self.network.send(self.now, ends.0, ends.1, 100, &mut self.net_prng) {
            let told = Told::Reply(reply.clone());
            self.heap.push(at, Happening::OperatorTold { request, told });
        }
    }

    pub(crate) fn on_operator_told(&mut self, request: OperatorRequest, told: &Told) {
        if let Some(ask) = request.ask {
            self.note_answer(ask, told);
        }
        let operator = request.operator;
        let it = &mut self.operators[operator];
        let Some(current) = &mut it.current else { return };
        if current.waits_for != Some(request.number) {
            return;
        }
        current.waits_for = None;
        match what_next(told) {
            WhatNext::End => self.end_errand(operator),
            WhatNext::Doubt => {
                current.maybe_done = true;
                self.sometimes.change_unknown += u64::from(request.ask.is_some());
                self.wake_later(operator);
            }
            WhatNext::Again => self.wake_later(operator),
            // The id may be used because it was this very request that used it: whoever is asked
            // next may know.
            WhatNext::Anew if current.maybe_done && current.try_count < TRY_COUNT_MAX / 2 => {
                self.wake_later(operator);
            }
            WhatNext::Anew => {
                current.wanted = None;
                self.wake_later(operator);
            }
        }
    }

    /// Holds an answer against the logs.
    fn note_answer(&mut self, ask: usize, told: &Told) {
        let result = match told {
            Told::Nothing => return,
            Told::NotConnected => self.asks.on_refused(ask),
            Told::Reply(reply) => match &reply.outcome {
                Outcome::Changed(Ok(membership)) => {
                    self.sometimes.change_done += 1;
                    self.asks.on_done(ask, membership);
                    return;
                }
                Outcome::Changed(Err(_)) | Outcome::Failed(_) => {
                    self.sometimes.change_refused += 1;
                    self.asks.on_refused(ask)
                }
                Outcome::Unknown(_)
                | Outcome::Done(_)
                | Outcome::Answered(_)
                | Outcome::Transferred(_) => return,
            },
        };
        if let Err(violation) = result {
            self.checks.fail(violation.check, violation.detail);
        }
    }

    fn wake_later(&mut self, operator: usize) {
        let pause = self.operators[operator].prng.duration(PAUSE_MIN, PAUSE_MAX);
        self.after(pause, Happening::OperatorWake { operator });
    }

    /// The errand is over, one way or another.
    fn end_errand(&mut self, operator: usize) {
        let it = &mut self.operators[operator];
        if let Some(Current { wanted: Some(Wanted::Change(changes)), .. }) = it.current.take() {
            let removed = changes.iter().filter_map(|change| match change {
                Change::Remove { id } => Some(*id),
                _ => None,
            });
            // Others are left running, and may find out by themselves.
            let retired: Vec<_> = removed.filter(|_| it.prng.chance(1, 3)).collect();
            let delays: Vec<_> =
                retired.iter().map(|_| it.prng.duration(PAUSE_MIN, PAUSE_MAX)).collect();
            for (server, delay) in retired.into_iter().zip(delays) {
                self.after(delay, Happening::Retire { server });
            }
        }
        self.wake_later(operator);
    }

    /// Switches a server off for good, if it really is no member any more.
    pub(crate) fn on_retire(&mut self, id: MemberId) {
        let (_, members) = self.checks.agreed_members();
        let is_left = members.has_removed(id);
        let is_in_use = |server: &Server| server.standing == Standing::InUse;
        if is_left && self.servers.get(&id).is_some_and(is_in_use) {
            self.kill(id);
            self.server(id).standing = Standing::Retired;
        }
    }

    // What to ask for.

    /// What the errand comes to, as far as the asked server knows the members.
    fn want(
        &mut self,
        operator: usize,
        known: &Members,
        leader: Option<MemberId>,
    ) -> Option<Wanted> {
        let current = self.operators[operator].current.as_ref().expect("an errand is under way");
        if let Some(wanted) = &current.wanted {
            // It was allowed when it was asked first; since then a disk may have been hit.
            let is_harmless = match wanted {
                Wanted::Change(changes) => self.leaves_quorums(changes),
                Wanted::Transfer(_) => true,
            };
            return Some(wanted.clone()).filter(|_| is_harmless);
        }
        let changes = match current.errand.clone() {
            Errand::Transfer(None) => return Some(Wanted::Transfer(None)),
            Errand::Transfer(Some(whom)) => {
                return whom.choose(known.voters(), leader).map(|id| Wanted::Transfer(Some(id)));
            }
            Errand::Change(wishes) => self.changes_of(&wishes, known, leader),
            Errand::Replace(whom) => self.replacement(operator, whom, known, leader)?,
        };
        if changes.is_empty() || !self.may_ask(&changes) {
            return None;
        }
        for change in &changes {
            if let Change::AddVoter { id, .. } | Change::AddLearner { id, .. } = change
                && self.operators[operator].prng.chance(1, 2)
            {
                self.set_up(*id, known);
            }
        }
        Some(Wanted::Change(changes))
    }

    fn changes_of(
        &mut self,
        wishes: &[Wish],
        known: &Members,
        leader: Option<MemberId>,
    ) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for wish in wishes {
            let named: Vec<MemberId> = changes.iter().map(Change::id).collect();
            let free = |ids: Vec<MemberId>| -> Vec<MemberId> {
                ids.into_iter().filter(|id| !named.contains(id)).collect()
            };
            let learners = known.learners().iter().map(|learner| learner.id);
            let change = match wish {
                Wish::AddVoter => Some(self.new_voter(known)),
                Wish::AddLearner { promote } => {
                    let (id, info) = self.new_member(known);
                    Some(Change::AddLearner { id, info, promote: *promote })
                }
                Wish::Remove(whom) => whom
                    .choose(&free(known.ids().into_iter().collect()), leader)
                    .map(|id| Change::Remove { id }),
                Wish::Promote(whom) => {
                    whom.choose(&free(learners.collect()), leader).map(|id| Change::Promote { id })
                }
                Wish::Demote(whom) => whom
                    .choose(&free(known.voters().to_vec()), leader)
                    .map(|id| Change::Demote { id }),
            };
            changes.extend(change);
        }
        changes
    }

    fn new_voter(&mut self, known: &Members) -> Change {
        let (id, info) = self.new_member(known);
        Change::AddVoter { id, info }
    }

    /// The next id as far as anybody knows, and a name.
    fn new_member(&mut self, known: &Members) -> (MemberId, MemberInfo) {
        self.id_given = self.id_given.max(known.id_max()).next();
        let name = format!("server {}", self.id_given);
        (self.id_given, MemberInfo { name, ..MemberInfo::default() })
    }

    /// A disk is lost, and a new server is to take its place: in one step, or by way of a learner.
    fn replacement(
        &mut self,
        operator: usize,
        whom: Whom,
        known: &Members,
        leader: Option<MemberId>,
    ) -> Option<Vec<Change>> {
        let id = whom.choose(known.voters(), leader)?;
        if !self.servers.contains_key(&id) || !self.may_lose(id) {
            self.sometimes.change_forbidden += 1;
            return None;
        }
        self.destroy(id);
        let remove = Wish::Remove(Whom::Member(id));
        let it = &mut self.operators[operator];
        let wishes = if it.prng.chance(1, 2) {
            vec![remove, Wish::AddVoter]
        } else {
            it.waiting.push_front(Errand::Change(vec![remove]));
            vec![Wish::AddLearner { promote: true }]
        };
        if let Some(current) = &mut it.current {
            // Whatever becomes of this request, no other disk is lost.
            current.errand = Errand::Change(wishes.clone());
        }
        Some(self.changes_of(&wishes, known, leader))
    }

    // What may be asked for.

    /// Every configuration that may come to be.
    pub(crate) fn reachable_members(&self, wanted: Option<&[Change]>) -> Vec<Arc<Members>> {
        let open: Vec<&[Change]> = self.asks.open().chain(wanted).collect();
        reachable(self.checks.possible_members(), &open)
    }

    /// A server that can be counted on, now or as soon as it is set up.
    pub(crate) fn is_sound(&self, id: MemberId) -> bool {
        let is_in_use = |server: &Server| server.standing == Standing::InUse;
        !self.hurt.contains(&id) && self.servers.get(&id).is_none_or(is_in_use)
    }

    fn may_ask(&mut self, changes: &[Change]) -> bool {
        let is_allowed = self.asks.open().count() < OPEN_COUNT_MAX && self.leaves_quorums(changes);
        self.sometimes.change_forbidden += u64::from(!is_allowed);
        is_allowed
    }

    /// Whatever comes of the changes and of those under way, there is a quorum of sound servers.
    fn leaves_quorums(&self, changes: &[Change]) -> bool {
        let reachable = self.reachable_members(Some(changes));
        reachable.iter().all(|members| members.is_quorum(|id| self.is_sound(id)))
    }

    /// The others can do without this server's disk for ever, whatever is under way.
    pub(crate) fn may_lose(&self, id: MemberId) -> bool {
        let reachable = self.reachable_members(None);
        let mut promoted = reachable.iter().flat_map(|members| members.learners());
        !promoted.any(|learner| learner.promote && learner.id == id)
            && reachable
                .iter()
                .all(|members| members.is_quorum(|other| other != id && self.is_sound(other)))
    }

    // New servers.

    /// A configuration was appended: whoever is new in it is set up a little later, unless that was
    /// done before anybody was asked.
    pub(crate) fn on_config_step(&mut self, step: &ConfigStep) {
        if let Err(violation) = self.asks.on_step(step) {
            self.checks.fail(violation.check, violation.detail);
        }
        let missing = step.next.ids().into_iter().filter(|id| !self.servers.contains_key(id));
        for server in missing.collect::<Vec<_>>() {
            let delay = self.operators[0].prng.duration(PAUSE_MIN, PAUSE_MAX * 2);
            self.after(delay, Happening::SetUp { server });
        }
    }

    /// Sets up a server that is a member by now, unless it has left again.
    pub(crate) fn on_set_up(&mut self, id: MemberId) {
        let (_, members) = self.checks.agreed_members();
        let has_left = members.has_removed(id);
        if !has_left {
            self.set_up(id, &members);
        }
    }

    /// Formats a disk for a new server, which knows the others and itself as a learner, and starts
    /// it.
    fn set_up(&mut self, id: MemberId, known: &Members) {
        let mut draft = known.draft();
        draft.voters.remove(&id);
        draft.voters_outgoing.clear();
        // With the others a cluster may have all the learners that there can be.
        draft.learners = [(id, false)].into();
        draft.id_max = draft.id_max.max(id);
        draft.infos.clear();
        // Of the last member of all there is no other to begin with.
        if let Ok(members) = draft.finish()
            && !self.servers.contains_key(&id)
        {
            self.sometimes.servers_set_up += 1;
            self.add_server(id, members);
            self.start(id);
        }
    }
}

/// What follows from an answer.
enum WhatNext {
    End,
    /// It may have been done.
    Doubt,
    /// It was not done: the same once more.
    Again,
    /// It was not done, and cannot be done like that.
    Anew,
}

fn what_next(told: &Told) -> WhatNext {
    let reply = match told {
        Told::Nothing => return WhatNext::Doubt,
        Told::NotConnected => return WhatNext::Again,
        Told::Reply(reply) => reply,
    };
    match &reply.outcome {
        Outcome::Changed(Ok(_)) | Outcome::Transferred(_) => WhatNext::End,
        Outcome::Unknown(_) => WhatNext::Doubt,
        Outcome::Failed(_) => WhatNext::Again,
        Outcome::Changed(Err(Refusal::Change(error))) => match error {
            ChangeError::NotInStep(_) => WhatNext::Again,
            ChangeError::AlreadyMember(_) | ChangeError::IdReused { .. } => WhatNext::Anew,
            _ => WhatNext::End,
        },
        Outcome::Changed(Err(_)) => WhatNext::Again,
        Outcome::Done(_) | Outcome::Answered(_) => {
            unreachable!("operators do not ask for what answers so: {reply:?}")
        }
    }
}

/// Shortest pause of an operator.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Longest pause of an operator.
const PAUSE_MAX: Duration = Duration::from_millis(400);
