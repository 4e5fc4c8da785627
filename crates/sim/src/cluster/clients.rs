//! Simulated clients: the shipped [`Session`] with a workload instead of a person, and the world
//! instead of sockets.
//!
//! Each client stays with one server or roams, numbers its changes or does not, and does what the
//! plan wants of it, one operation after another. What is asked again, where, when and under which
//! number is the session's to say, as in the real client. Everything asked for and told goes into
//! the history.

use std::{collections::VecDeque, fmt, time::Duration};

use bytes::Bytes;
use kvraft_base::{ClientId, Index, Instant, MemberId, Prng, Ticket};
use kvraft_kv::{Refused, Response};
use kvraft_replica::{Failure as ReplicaFailure, Outcome as ReplicaOutcome, Reply};
use kvraft_session::{
    Config, Ending, EndpointId, Failure, Kind, Mode, Next, Operation as SessionOperation,
    RetryPolicy, Session, Stamp,
};

use super::workload::{Memory, Wish, seen_of_answer, seen_of_refused, seen_of_response};
use crate::{
    history::{History, OpName, Outcome, Seen},
    plan::{ClientPlan, PAUSE_MIN, PlannedOperation},
    witness::{Place, Role},
};

/// A server's name for an attempt: member, life, ticket.
pub(crate) type OriginKey = (MemberId, u64, Ticket);

/// One try of one operation.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) client: u64,
    pub(crate) number: u64,
    pub(crate) name: OpName,
    pub(crate) server: MemberId,
    pub(crate) wish: Wish,
    pub(crate) stamp: Option<Stamp>,
    /// When the client gives it up.
    pub(crate) deadline: Instant,
}

/// What a client hears of an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// The server's word.
    Reply(Reply),
    /// There was no connection: nothing was sent.
    NotConnected,
    /// The connection broke after the request was sent, or time ran out.
    Nothing,
}

/// What follows for the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The word came too late: the client waits for something else.
    Stale,
    /// The client sends again, not before this time.
    Again(Instant),
    /// The operation has ended.
    Ended,
}

/// A session was opened, the client was told: to be found in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) name: OpName,
    pub(crate) session: ClientId,
}

#[derive(Debug)]
struct Current {
    name: OpName,
    wish: Wish,
    operation: SessionOperation,
    /// The attempt under way, where it went and until when.
    waiting: Option<(u64, EndpointId, Instant)>,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    id: u64,
    home: EndpointId,
    /// Which server each place in its list of addresses leads to. As long as the list was in the
    /// beginning; where a place leads may change, as a name in a directory does.
    places: Vec<MemberId>,
    is_pinned: bool,
    /// What is left to do.
    operations: VecDeque<PlannedOperation>,
    /// What is left for the second phase.
    reserve: VecDeque<PlannedOperation>,
    /// Set when changes are to be done exactly once.
    session_ttl_ms: Option<u64>,
    session: Session,
    memory: Memory,
    op_count: u64,
    attempt_next: u64,
    current: Option<Current>,
    /// What its sessions are made with.
    config: Config,
    /// Its process does nothing before this time.
    idle_until: Instant,
}

impl Client {
    /// A client of a cluster whose servers are 1 to `servers` in the beginning. `seed` is for the
    /// pauses before it asks again.
    ///
    /// # Errors
    /// In words, when it cannot be as the plan wants it.
    pub(crate) fn new(plan: &ClientPlan, servers: u64, seed: u64) -> Result<Self, String> {
        let wrong = |reason: &dyn fmt::Display| format!("client {}: {reason}", plan.id);
        let home = plan.home.0.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        let home = EndpointId(home.ok_or_else(|| wrong(&"no server is its home"))?);
        if servers < plan.home.0 {
            return Err(wrong(&format!("server {} is not there in the beginning", plan.home)));
        }
        let config = Config {
            endpoint_count: usize::try_from(servers).expect("at most seven servers"),
            mode: if plan.is_pinned { Mode::Pinned(home) } else { Mode::Roaming },
            retry: RetryPolicy {
                pause_min: PAUSE_MIN,
                pause_max: plan.pause_max,
                attempt_timeout: plan.attempt_timeout,
            },
            operation_timeout: plan.operation_timeout,
        };
        let mut session = Session::new(config.clone(), seed).map_err(|error| wrong(&error))?;
        session.prefer(home);
        let (reserve, operations) =
            plan.operations.iter().cloned().partition(|operation| operation.is_reserve);
        let ttl_ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            id: plan.id,
            home,
            places: (1..=servers).map(MemberId).collect(),
            is_pinned: plan.is_pinned,
            operations,
            reserve,
            session_ttl_ms: plan.session.map(ttl_ms),
            session,
            memory: Memory::default(),
            op_count: 0,
            attempt_next: 1,
            current: None,
            config,
            idle_until: Instant::ZERO,
        })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.operations.is_empty() && self.current.is_none()
    }

    /// How long it waits for an answer that does not come. A change without a number has one
    /// attempt.
    pub(crate) fn patience(&self) -> Duration {
        let Config { retry, operation_timeout, .. } = &self.config;
        if self.session_ttl_ms.is_some() { retry.attempt_timeout } else { *operation_timeout }
    }

    /// How many operations are left to do, the present one included.
    pub(crate) fn left(&self) -> usize {
        self.operations.len() + usize::from(self.current.is_some())
    }

    /// The only server it asks, if it is pinned to one.
    pub(crate) fn pinned_to(&self) -> Option<MemberId> {
        self.is_pinned.then(|| self.places[self.home.0])
    }

    /// The members are others now: places that lead to nobody lead to one of them, and some more.
    pub(crate) fn repoint(&mut self, members: &[MemberId], prng: &mut Prng) {
        for place in &mut self.places {
            if (!members.contains(place) || prng.chance(1, 4))
                && let Some(other) = prng.pick(members)
            {
                *place = *other;
            }
        }
    }

    /// What was left for the second phase is to be done, too. Who had nothing to do any more must
    /// be woken after the time that is returned.
    pub(crate) fn grant(&mut self) -> Option<Duration> {
        let was_done = self.is_done();
        self.operations.append(&mut self.reserve);
        was_done.then(|| self.pause())
    }

    /// How long after the end of what it did last the next operation begins.
    pub(crate) fn pause(&self) -> Duration {
        self.operations.front().map_or(Duration::ZERO, |operation| operation.after)
    }

    /// Until when its process does nothing.
    pub(crate) fn idle_until(&self) -> Instant {
        self.idle_until
    }

    /// Its process stands still until then; what comes meanwhile waits.
    pub(crate) fn pause_until(&mut self, until: Instant) {
        self.idle_until = self.idle_until.max(until);
    }

    /// Its process has ended, and with it all that it knew: its session, what it has seen, and what
    /// became of the operation that it waited for. Another one goes on with what is left to do.
    pub(crate) fn crash(&mut self, now: Instant, seed: u64, history: &mut History) {
        if let Some(Current { name, wish: Wish::Do(_), .. }) = self.current.take() {
            history.complete(now, name, Outcome::Unknown("the client crashed".to_owned()));
        }
        let session = Session::new(self.config.clone(), seed);
        self.session = session.expect("the first one was made with the same configuration");
        self.session.prefer(self.home);
        self.memory = Memory::default();
    }

    pub(crate) fn describe(&self) -> String {
        let Self { id, home, operations, current, .. } = self;
        let server = self.places[home.0];
        format!("client {id} of server {server}: {} left, {current:?}", operations.len())
    }

    /// Begins or repeats an operation. `None`: nothing to do now.
    pub(crate) fn wake(&mut self, now: Instant, history: &mut History) -> Option<Attempt> {
        if self.current.as_ref().is_some_and(|current| current.waiting.is_some()) {
            return None;
        }
        if self.current.is_none() {
            self.begin(now, history)?;
        }
        let current = self.current.as_mut().expect("begun above");
        let attempt = self.session.attempt(now, &current.operation);
        let attempt = attempt.expect("one operation at a time: its session is still there");
        let number = self.attempt_next;
        self.attempt_next += 1;
        current.waiting = Some((number, attempt.endpoint, attempt.deadline));
        Some(Attempt {
            client: self.id,
            number,
            name: current.name,
            server: self.places[attempt.endpoint.0],
            wish: current.wish.clone(),
            stamp: attempt.stamp,
            deadline: attempt.deadline,
        })
    }

    fn begin(&mut self, now: Instant, history: &mut History) -> Option<()> {
        let is_opening = self.session_ttl_ms.filter(|_| self.session.client().is_none());
        let wish = match is_opening.filter(|_| !self.operations.is_empty()) {
            Some(ttl_ms) => Wish::OpenSession { ttl_ms },
            None => Wish::Do(self.memory.settle(&self.operations.pop_front()?.intent)),
        };
        self.op_count += 1;
        let name = OpName { client: self.id, op: self.op_count };
        let kind = match &wish {
            Wish::OpenSession { .. } => Kind::Repeatable,
            Wish::Do(operation) => {
                history.invoke(now, name, operation.clone());
                if operation.may_write() { Kind::Mutation } else { Kind::Repeatable }
            }
        };
        let operation = self.session.begin(now, kind);
        self.current = Some(Current { name, wish, operation, waiting: None });
        Some(())
    }

    /// The attempt that it waits for.
    pub(crate) fn waited_for(&self) -> Option<u64> {
        let waiting = self.current.as_ref()?.waiting;
        waiting.map(|(number, ..)| number)
    }

    /// It waits for this attempt.
    pub(crate) fn waits_for(&self, number: u64) -> bool {
        self.current
            .as_ref()
            .and_then(|current| current.waiting)
            .is_some_and(|(waited, _, _)| waited == number)
    }

    /// The server's word on an attempt, or that there will be none.
    pub(crate) fn on_told(
        &mut self,
        now: Instant,
        number: u64,
        told: &Told,
        history: &mut History,
        opened: &mut Vec<Opened>,
    ) -> Step {
        if !self.waits_for(number) {
            return Step::Stale;
        }
        let mut current = self.current.take().expect("it waits");
        let (_, endpoint, _) = current.waiting.take().expect("it waits");
        let (failure, words) = match verdict_on(told) {
            Verdict::Opened(session) => {
                self.session.succeed(current.operation);
                self.session.attach(session);
                opened.push(Opened { name: current.name, session });
                return Step::Ended;
            }
            Verdict::Seen { seen, index } => {
                self.session.succeed(current.operation);
                self.memory.learn(&seen);
                if !current.wish.is_write() {
                    let place = Place { order: index.0, role: Role::Looked };
                    history.place(now, current.name, place);
                }
                history.complete(now, current.name, Outcome::Ok(seen));
                return Step::Ended;
            }
            Verdict::Failure(failure, words) => (failure, words),
        };
        match self.session.fail(now, &mut current.operation, endpoint, failure) {
            Next::Retry { at } => {
                self.current = Some(current);
                Step::Again(at)
            }
            Next::End(ending) => {
                if let Wish::Do(_) = current.wish {
                    history.complete(now, current.name, outcome_of(ending, words));
                }
                Step::Ended
            }
        }
    }
}

enum Verdict {
    Opened(ClientId),
    Seen { seen: Seen, index: Index },
    Failure(Failure, String),
}

/// What the real edge and the real client make of a reply between them.
fn verdict_on(told: &Told) -> Verdict {
    let reply = match told {
        Told::Reply(reply) => reply,
        Told::NotConnected => {
            return Verdict::Failure(Failure::NotSent, "no connection".to_owned());
        }
        Told::Nothing => return Verdict::Failure(Failure::Unknown, "no answer".to_owned()),
    };
    let index = reply.index;
    let unexpected = || unreachable!("the workload does not ask for what answers so: {reply:?}");
    match &reply.outcome {
        ReplicaOutcome::Done(Ok(Response::SessionOpened { client, .. })) => {
            Verdict::Opened(*client)
        }
        ReplicaOutcome::Done(Ok(response)) => {
            let seen = seen_of_response(response).unwrap_or_else(unexpected);
            Verdict::Seen { seen, index }
        }
        ReplicaOutcome::Answered(Ok(answer)) => {
            let seen = seen_of_answer(answer).unwrap_or_else(unexpected);
            Verdict::Seen { seen, index }
        }
        ReplicaOutcome::Done(Err(refused)) | ReplicaOutcome::Answered(Err(refused)) => {
            match seen_of_refused(refused) {
                Some(seen) => Verdict::Seen { seen, index },
                None => Verdict::Failure(failure_of(refused), refused.to_string()),
            }
        }
        ReplicaOutcome::Failed(ReplicaFailure::TooLarge) => {
            Verdict::Failure(Failure::Refused, ReplicaFailure::TooLarge.to_string())
        }
        ReplicaOutcome::Changed(_) | ReplicaOutcome::Transferred(_) => {
            unreachable!("the workload does not ask for what answers so: {reply:?}")
        }
        // The edge says so beside the status, and the client believes it.
        ReplicaOutcome::Failed(failure) => Verdict::Failure(Failure::NotSent, failure.to_string()),
        ReplicaOutcome::Unknown(failure) => Verdict::Failure(Failure::Unknown, failure.to_string()),
    }
}

fn failure_of(refused: &Refused) -> Failure {
    Failure::of_answer(refused.code() as u32, &refused.to_string())
}

fn outcome_of(ending: Ending, words: String) -> Outcome {
    match ending {
        Ending::NotDone | Ending::Refused | Ending::SessionLost => Outcome::Failed(words),
        Ending::Unknown => Outcome::Unknown(words),
    }
}

/// The same answer, whenever it is given: what a duplicate must be answered with.
pub(crate) fn answer_of(reply: &Reply) -> Option<Bytes> {
    match &reply.outcome {
        ReplicaOutcome::Done(Ok(response)) => Some(Bytes::from(format!("{response:?}"))),
        ReplicaOutcome::Done(Err(_))
        | ReplicaOutcome::Answered(_)
        | ReplicaOutcome::Failed(_)
        | ReplicaOutcome::Unknown(_)
        | ReplicaOutcome::Changed(_)
        | ReplicaOutcome::Transferred(_) => None,
    }
}
