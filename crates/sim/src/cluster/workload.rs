//! What simulated clients ask for, and the translation between the words of a history and those of
//! the servers.
//!
//! A history has words of its own, so that nothing that judges the servers is made of their code;
//! here is the one place that knows both.

use bytes::Bytes;
use kvraft_base::{Prng, Revision};
use kvraft_kv::{
    Answer as KvAnswer, Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue,
    PutRequest, Query, RangeRequest, RangeResponse, Request, RequestOp, Response, ResponseOp,
    TxnRequest,
};

use crate::history::{Action, Answer, Condition, Operand, Operation, Relation, Seen, Shown};

/// Before every key of the workload.
const FIRST_KEY: &[u8] = b"k";
/// Behind every key of the workload.
const END_KEY: &[u8] = b"l";

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A session, for exactly-once. It is no operation on the store and stands in no history.
    OpenSession {
        /// See [`Request::OpenSession`].
        ttl_ms: u64,
    },
    /// An operation on the store.
    Do(Operation),
}

impl Wish {
    /// It goes through the log.
    pub(crate) fn is_write(&self) -> bool {
        match self {
            Self::OpenSession { .. } => true,
            Self::Do(operation) => operation.may_write(),
        }
    }
}

/// How a seed's clients behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Keys in use.
    pub keys: u64,
    /// Transactions and ranges too, not only operations on one key. Without them a history can be
    /// searched key by key.
    pub rich: bool,
    /// Reads that may be stale.
    pub stale_reads: bool,
}

/// A client's own part in the workload: what it has seen decides what it compares with.
#[derive(Debug)]
pub(crate) struct Author {
    client: u64,
    workload: Workload,
    prng: Prng,
    values: u64,
    /// Last seen mod revision by number of the key.
    seen: Vec<i64>,
}

impl Author {
    pub(crate) fn new(client: u64, workload: Workload, prng: Prng) -> Self {
        let seen = vec![0; usize::try_from(workload.keys).expect("a handful of keys")];
        Self { client, workload, prng, values: 0, seen }
    }

    /// The next operation.
    pub(crate) fn draw(&mut self) -> Operation {
        let number = self.prng.below(self.workload.keys);
        let key = Bytes::from(format!("k{number}"));
        let get = Action::Range { key: key.clone(), end: None };
        match self.prng.below(12) {
            0..=4 => Operation::One(self.put(key)),
            5 => Operation::One(Action::Delete { key, end: None }),
            6 if self.workload.rich => self.swap(key, number),
            7 if self.workload.rich => self.draw_wide(),
            8 if self.workload.stale_reads => Operation::Serializable(get),
            _ => Operation::One(get),
        }
    }

    fn put(&mut self, key: Bytes) -> Action {
        self.values += 1;
        Action::Put { key, value: Bytes::from(format!("c{}v{}", self.client, self.values)) }
    }

    /// A put that depends on nobody having been quicker, and a look at what came of it.
    fn swap(&mut self, key: Bytes, number: u64) -> Operation {
        let slot = usize::try_from(number).expect("a handful of keys");
        let condition = Condition {
            key: key.clone(),
            relation: Relation::Equal,
            operand: Operand::Mod(self.seen[slot]),
        };
        let get = Action::Range { key: key.clone(), end: None };
        let then = vec![self.put(key), get.clone()];
        Operation::Txn { conditions: vec![condition], then, otherwise: vec![get] }
    }

    /// Something that concerns several keys.
    fn draw_wide(&mut self) -> Operation {
        let (key, end) = (Bytes::from_static(FIRST_KEY), Some(Bytes::from_static(END_KEY)));
        match self.prng.below(6) {
            0 => {
                let low = Bytes::from(format!("k{}", self.prng.below(self.workload.keys)));
                Operation::One(Action::Delete { key: low, end })
            }
            1 => {
                let then = vec![self.put(Bytes::from("k0")), self.put(Bytes::from("k1"))];
                Operation::Txn { conditions: Vec::new(), then, otherwise: Vec::new() }
            }
            _ => Operation::One(Action::Range { key, end }),
        }
    }

    /// Remembers what was shown.
    pub(crate) fn learn(&mut self, seen: &Seen) {
        for answer in &seen.answers {
            let Answer::Range(shown) = answer else { continue };
            for shown in shown {
                let number = std::str::from_utf8(&shown.key[1..]).ok().and_then(|n| n.parse().ok());
                if let Some(slot) = number.and_then(|n: usize| self.seen.get_mut(n)) {
                    *slot = shown.modified;
                }
            }
        }
    }

    /// The client's own generator, for whatever else it draws.
    pub(crate) fn prng(&mut self) -> &mut Prng {
        &mut self.prng
    }
}

/// The log command, for what goes through the log.
pub(crate) fn request(wish: &Wish) -> Request {
    match wish {
        Wish::OpenSession { ttl_ms } => Request::OpenSession { ttl_ms: *ttl_ms },
        Wish::Do(Operation::One(Action::Put { key, value })) => Request::Put(put(key, value)),
        Wish::Do(Operation::One(Action::Delete { key, end })) => {
            Request::DeleteRange(delete(key, end.as_ref()))
        }
        Wish::Do(Operation::Txn { conditions, then, otherwise }) => Request::Txn(TxnRequest {
            compare: conditions.iter().map(compare).collect(),
            success: then.iter().map(request_op).collect(),
            failure: otherwise.iter().map(request_op).collect(),
        }),
        Wish::Do(Operation::One(Action::Range { .. }) | Operation::Serializable(_)) => {
            unreachable!("reads do not go through the log")
        }
    }
}

/// The question, for what does not go through the log, and whether it must be up to date.
pub(crate) fn query(operation: &Operation) -> (Query, bool) {
    match operation {
        Operation::One(Action::Range { key, end }) => {
            (Query::Range(range(key, end.as_ref())), true)
        }
        Operation::Serializable(Action::Range { key, end }) => {
            (Query::Range(range(key, end.as_ref())), false)
        }
        Operation::One(_) | Operation::Serializable(_) | Operation::Txn { .. } => {
            unreachable!("only ranges are asked as queries")
        }
    }
}

fn put(key: &Bytes, value: &Bytes) -> PutRequest {
    PutRequest { key: key.clone(), value: value.clone(), ..PutRequest::default() }
}

fn delete(key: &Bytes, end: Option<&Bytes>) -> DeleteRangeRequest {
    let range_end = end.cloned().unwrap_or_default();
    DeleteRangeRequest { key: key.clone(), range_end, ..DeleteRangeRequest::default() }
}

fn range(key: &Bytes, end: Option<&Bytes>) -> RangeRequest {
    let range_end = end.cloned().unwrap_or_default();
    RangeRequest { key: key.clone(), range_end, ..RangeRequest::default() }
}

fn request_op(action: &Action) -> RequestOp {
    match action {
        Action::Put { key, value } => RequestOp::Put(put(key, value)),
        Action::Range { key, end } => RequestOp::Range(range(key, end.as_ref())),
        Action::Delete { key, end } => RequestOp::DeleteRange(delete(key, end.as_ref())),
    }
}

fn compare(condition: &Condition) -> Compare {
    let target = match &condition.operand {
        Operand::Version(version) => CompareTarget::Version(*version),
        Operand::Create(revision) => CompareTarget::Create(Revision(*revision)),
        Operand::Mod(revision) => CompareTarget::Mod(Revision(*revision)),
        Operand::Value(value) => CompareTarget::Value(value.clone()),
    };
    let result = match condition.relation {
        Relation::Equal => CompareResult::Equal,
        Relation::NotEqual => CompareResult::NotEqual,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
    };
    Compare { result, target, key: condition.key.clone(), range_end: Bytes::new() }
}

/// What a client sees of a response from the log; `None` for what is no operation on the store.
pub(crate) fn seen_of_response(response: &Response) -> Option<Seen> {
    let (succeeded, answers) = match response {
        Response::Put(_) => (true, vec![Answer::Put]),
        Response::DeleteRange(delete) => (true, vec![Answer::Deleted(delete.deleted)]),
        Response::Txn(txn) => {
            (txn.succeeded, txn.responses.iter().map(answer_of).collect::<Option<_>>()?)
        }
        Response::Compact(_) | Response::SessionOpened { .. } | Response::SessionClosed { .. } => {
            return None;
        }
    };
    Some(Seen { revision: response.revision().0, succeeded, answers })
}

/// What a client sees of an answer to a query; `None` for what the workload does not ask.
pub(crate) fn seen_of_answer(answer: &KvAnswer) -> Option<Seen> {
    match answer {
        KvAnswer::Range(range) => Some(Seen {
            revision: range.revision.0,
            succeeded: true,
            answers: vec![Answer::Range(shown_in(range))],
        }),
        KvAnswer::Txn(_) | KvAnswer::HashKv(_) | KvAnswer::Hash { .. } => None,
    }
}

fn answer_of(response: &ResponseOp) -> Option<Answer> {
    match response {
        ResponseOp::Put(_) => Some(Answer::Put),
        ResponseOp::Range(range) => Some(Answer::Range(shown_in(range))),
        ResponseOp::DeleteRange(delete) => Some(Answer::Deleted(delete.deleted)),
        ResponseOp::Txn(_) => None,
    }
}

fn shown_in(range: &RangeResponse) -> Vec<Shown> {
    range.kvs.iter().map(shown).collect()
}

/// A pair as a history shows it.
pub(crate) fn shown(kv: &KeyValue) -> Shown {
    Shown {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create: kv.create_revision.0,
        modified: kv.mod_revision.0,
        version: kv.version,
    }
}
