//! Clients as values: each is pinned to one server, sends until its budget is used up, and comes
//! back to the same server when that returns.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{ClientId, Index, Instant, MemberId, OpId, Prng, Revision, Ticket};
use kvraft_kv::{
    Answer, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, Query,
    RangeRequest, Request, RequestOp, Response, SessionOp, TxnRequest,
};
use kvraft_replica::{Outcome, Reply};

use super::model::OriginKey;

/// A client gives an attempt up after this long.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    OpenSession,
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    /// Put only if the key was last changed at `modified`; 0: only if it is not there.
    Swap {
        key: Bytes,
        modified: i64,
        value: Bytes,
    },
    Get {
        key: Bytes,
    },
    /// All keys.
    Scan,
    /// As the server has it, which may be stale.
    Peek {
        key: Bytes,
    },
}

impl Op {
    pub(crate) fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Scan | Self::Peek { .. })
    }

    /// A read that must reflect everything acknowledged before it.
    pub(crate) fn is_linearizable(&self) -> bool {
        !matches!(self, Self::Peek { .. })
    }

    /// The log command, for what goes through the log.
    pub(crate) fn request(&self) -> Request {
        match self {
            Self::OpenSession => Request::OpenSession { ttl_ms: 3_600_000 },
            Self::Put { key, value } => Request::Put(put(key, value)),
            Self::Delete { key } => Request::DeleteRange(DeleteRangeRequest {
                key: key.clone(),
                ..DeleteRangeRequest::default()
            }),
            Self::Swap { key, modified, value } => Request::Txn(TxnRequest {
                compare: vec![Compare {
                    result: CompareResult::Equal,
                    target: CompareTarget::Mod(Revision(*modified)),
                    key: key.clone(),
                    range_end: Bytes::new(),
                }],
                success: vec![RequestOp::Put(put(key, value))],
                failure: Vec::new(),
            }),
            Self::Get { .. } | Self::Scan | Self::Peek { .. } => {
                unreachable!("reads do not go through the log")
            }
        }
    }

    pub(crate) fn query(&self) -> Query {
        let (key, range_end) = match self {
            Self::Get { key } | Self::Peek { key } => (key.clone(), Bytes::new()),
            Self::Scan => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            Self::OpenSession | Self::Put { .. } | Self::Delete { .. } | Self::Swap { .. } => {
                unreachable!("writes are not queries")
            }
        };
        Query::Range(RangeRequest { key, range_end, ..RangeRequest::default() })
    }
}

fn put(key: &Bytes, value: &Bytes) -> PutRequest {
    PutRequest { key: key.clone(), value: value.clone(), ..PutRequest::default() }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The server's answer, and where in the log it was given.
    Answered { index: Index, answer: Answered },
    /// It had no effect, says the server.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// The part of an answer that is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Opened(ClientId),
    Changed { revision: i64, count: i64 },
    Read { kvs: Vec<(Bytes, Bytes, i64, i64, i64)> },
    Refused(String),
}

/// One operation from its first sending to its end.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) client: u64,
    pub(crate) op: Op,
    pub(crate) session: Option<(ClientId, OpId)>,
    pub(crate) invoked: Instant,
    pub(crate) ended: Option<(Instant, Ended)>,
    /// Every attempt that reached a server, and whether that said "failed".
    pub(crate) attempts: Vec<(OriginKey, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// An attempt is under way; answers to other attempts are stale.
    Waiting {
        attempt: u64,
        since: Instant,
    },
    Done,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) server: MemberId,
    budget: u64,
    exactly_once: bool,
    session: Option<ClientId>,
    op_next: OpId,
    state: State,
    attempt_next: u64,
    current: Option<Record>,
    prng: Prng,
    keys: u64,
    values: u64,
    /// Last seen mod revision by key number, for swaps.
    seen: Vec<i64>,
}

/// One try of one operation.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) client: u64,
    pub(crate) attempt: u64,
    pub(crate) server: MemberId,
    pub(crate) op: Op,
    pub(crate) session: Option<SessionOp>,
}

impl Client {
    pub(crate) fn new(id: u64, server: MemberId, budget: u64, keys: u64, prng: &Prng) -> Self {
        let mut prng = prng.fork(&format!("client {id}"));
        Self {
            id,
            server,
            budget,
            exactly_once: prng.chance(1, 2),
            session: None,
            op_next: OpId(1),
            state: State::Idle,
            attempt_next: 1,
            current: None,
            prng,
            keys,
            values: 0,
            seen: vec![0; usize::try_from(keys).unwrap_or(0)],
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "client {} of server {}: {:?}, {:?}",
            self.id, self.server, self.state, self.current
        )
    }

    /// Begins or repeats an operation. `None`: nothing to do now.
    pub(crate) fn wake(&mut self, now: Instant) -> Option<Attempt> {
        match self.state {
            State::Done | State::Waiting { .. } => return None,
            State::Idle => {}
        }
        if self.current.is_none() {
            if self.budget == 0 {
                self.state = State::Done;
                return None;
            }
            self.begin(now);
        }
        let record = self.current.as_ref()?;
        let attempt = self.attempt_next;
        self.attempt_next += 1;
        self.state = State::Waiting { attempt, since: now };
        let acked = self.op_next.prev().prev();
        Some(Attempt {
            client: self.id,
            attempt,
            server: self.server,
            op: record.op.clone(),
            session: record.session.map(|(client, op)| SessionOp { client, op, acked }),
        })
    }

    fn begin(&mut self, now: Instant) {
        let op = if self.exactly_once && self.session.is_none() {
            Op::OpenSession
        } else {
            self.budget -= 1;
            self.draw()
        };
        let numbered = !op.is_read() && op != Op::OpenSession;
        let session = self.session.filter(|_| numbered).map(|client| {
            let op = self.op_next;
            self.op_next = op.next();
            (client, op)
        });
        self.current = Some(Record {
            client: self.id,
            op,
            session,
            invoked: now,
            ended: None,
            attempts: Vec::new(),
        });
    }

    fn draw(&mut self) -> Op {
        let number = self.prng.below(self.keys);
        let key = Bytes::from(format!("k{number}"));
        self.values += 1;
        let value = Bytes::from(format!("c{}v{}", self.id, self.values));
        match self.prng.below(10) {
            0..=3 => Op::Put { key, value },
            4 => Op::Delete { key },
            5 => {
                let slot = usize::try_from(number).unwrap_or(0);
                Op::Swap { key, modified: self.seen.get(slot).copied().unwrap_or(0), value }
            }
            6 => Op::Scan,
            7 => Op::Peek { key },
            _ => Op::Get { key },
        }
    }

    /// An attempt has reached its server, which will know it by this origin.
    pub(crate) fn on_sent(&mut self, attempt: u64, origin: OriginKey) {
        if self.waits_for(attempt)
            && let Some(record) = &mut self.current
        {
            record.attempts.push((origin, false));
        }
    }

    fn waits_for(&self, number: u64) -> bool {
        matches!(self.state, State::Waiting { attempt, .. } if attempt == number)
    }

    /// When the present attempt is given up.
    pub(crate) fn timeout(&self) -> Option<(u64, Instant)> {
        match self.state {
            State::Waiting { attempt, since } => Some((attempt, since + ATTEMPT_TIMEOUT)),
            State::Idle | State::Done => None,
        }
    }

    /// The server's word on an attempt, or `None` when the connection broke or time ran out.
    /// Returns the finished operation, if this ends it.
    pub(crate) fn on_reply(
        &mut self,
        now: Instant,
        attempt: u64,
        reply: Option<&Reply>,
    ) -> Option<Record> {
        if !self.waits_for(attempt) {
            return None;
        }
        self.state = State::Idle;
        let ended = match reply.map(|reply| (&reply.outcome, reply.index)) {
            Some((Outcome::Done(result), index)) => {
                let answer = match result {
                    Ok(response) => answered(response),
                    Err(refused) => Answered::Refused(refused.to_string()),
                };
                Ended::Answered { index, answer }
            }
            Some((Outcome::Answered(result), index)) => {
                let answer = match result {
                    Ok(answer) => read(answer),
                    Err(refused) => Answered::Refused(refused.to_string()),
                };
                Ended::Answered { index, answer }
            }
            Some((Outcome::Failed(_), _)) => {
                let record = self.current.as_mut()?;
                if let Some(last) = record.attempts.last_mut() {
                    last.1 = true;
                }
                return self.after_failure(now, Ended::Failed);
            }
            Some((Outcome::Unknown(_), _)) | None => {
                return self.after_failure(now, Ended::Unknown);
            }
        };
        self.learn(&ended);
        self.end(now, ended)
    }

    /// A numbered operation is repeated until it is answered; a read too, since it has no effect.
    /// Anything else ends here: repeating it could do it twice.
    fn after_failure(&mut self, now: Instant, ended: Ended) -> Option<Record> {
        let record = self.current.as_ref()?;
        if record.session.is_some() || record.op.is_read() {
            return None;
        }
        self.end(now, ended)
    }

    fn end(&mut self, now: Instant, ended: Ended) -> Option<Record> {
        let mut record = self.current.take()?;
        record.ended = Some((now, ended));
        Some(record)
    }

    fn learn(&mut self, ended: &Ended) {
        let Ended::Answered { answer, .. } = ended else {
            return;
        };
        match answer {
            Answered::Opened(session) => self.session = Some(*session),
            Answered::Read { kvs } => {
                for (key, _, _, modified, _) in kvs {
                    let number = std::str::from_utf8(&key[1..]).ok().and_then(|n| n.parse().ok());
                    if let Some(slot) = number.and_then(|n: usize| self.seen.get_mut(n)) {
                        *slot = *modified;
                    }
                }
            }
            Answered::Changed { .. } | Answered::Refused(_) => {}
        }
    }

    /// A short pause before the next try, drawn.
    pub(crate) fn pause(&mut self) -> Duration {
        self.prng.duration(Duration::from_millis(1), Duration::from_millis(50))
    }
}

fn answered(response: &Response) -> Answered {
    let revision = response.revision().0;
    match response {
        Response::Put(_) => Answered::Changed { revision, count: 0 },
        Response::DeleteRange(delete) => Answered::Changed { revision, count: delete.deleted },
        Response::Txn(txn) => Answered::Changed { revision, count: i64::from(txn.succeeded) },
        Response::SessionOpened { client, .. } => Answered::Opened(*client),
        Response::Compact(_) | Response::SessionClosed { .. } => {
            unreachable!("the workload neither compacts nor closes sessions")
        }
    }
}

fn read(answer: &Answer) -> Answered {
    match answer {
        Answer::Range(range) => {
            let kvs = range.kvs.iter().map(|kv| {
                let numbers = (kv.create_revision.0, kv.mod_revision.0, kv.version);
                (kv.key.clone(), kv.value.clone(), numbers.0, numbers.1, numbers.2)
            });
            Answered::Read { kvs: kvs.collect() }
        }
        Answer::Txn(_) | Answer::HashKv(_) | Answer::Hash { .. } => {
            unreachable!("the workload asks for ranges only")
        }
    }
}

/// A server's name for an attempt.
pub(crate) fn origin_key(server: MemberId, incarnation: u64, ticket: Ticket) -> OriginKey {
    (server, incarnation, ticket)
}
