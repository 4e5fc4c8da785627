//! The translation between the words of plans and histories and those of the servers.
//!
//! A history has words of its own, so that nothing that judges the servers is made of their code;
//! here is the one place that knows both.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{Prng, Revision};
use kvraft_kv::{
    Answer as KvAnswer, CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    KeyValue, PutRequest, Query, RangeRequest, RangeResponse, Refused, Request, RequestOp,
    Response, ResponseOp, TxnRequest,
};

use crate::{
    history::{Action, Answer, Condition, Operand, Operation, Relation, Seen, Shown},
    plan::Intent,
};

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
pub(crate) struct Workload {
    /// Keys in use.
    pub(crate) keys: u64,
    /// Transactions and ranges too, not only operations on one key. Without them a history can be
    /// searched key by key.
    pub(crate) rich: bool,
    /// Reads that may be stale.
    pub(crate) stale_reads: bool,
    /// Reads of the past, and compactions.
    pub(crate) looks_back: bool,
}

impl Workload {
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        Self {
            keys: prng.between(1, 6),
            rich: prng.chance(2, 3),
            stale_reads: prng.chance(2, 3),
            looks_back: prng.chance(1, 2),
        }
    }
}

/// What a client has seen last: it decides what a swap compares with.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Mod revision by key.
    seen: BTreeMap<Bytes, i64>,
    /// The newest revision of the store.
    revision: i64,
}

impl Memory {
    /// What is asked for, now that it is clear.
    pub(crate) fn settle(&self, intent: &Intent) -> Operation {
        match intent {
            Intent::One(action) => Operation::One(action.clone()),
            Intent::Stale(action) => Operation::Serializable(action.clone()),
            Intent::Swap { key, value } => self.swap(key, value),
            Intent::Past { key, end, back } => {
                let (key, end) = (key.clone(), end.clone());
                Operation::Past { key, end, revision: self.revision_before(*back) }
            }
            Intent::Compact { back } => {
                Operation::Compact { revision: self.revision_before(*back) }
            }
            Intent::Together(actions) => {
                let (conditions, otherwise) = (Vec::new(), Vec::new());
                Operation::Txn { conditions, then: actions.clone(), otherwise }
            }
        }
    }

    /// So many revisions before the newest that it has seen, or the first.
    fn revision_before(&self, back: u64) -> i64 {
        self.revision.saturating_sub_unsigned(back).max(1)
    }

    /// A put that depends on nobody having been quicker, and a look at what came of it.
    fn swap(&self, key: &Bytes, value: &Bytes) -> Operation {
        let modified = self.seen.get(key).copied().unwrap_or(0);
        let condition = Condition {
            key: key.clone(),
            relation: Relation::Equal,
            operand: Operand::Mod(modified),
        };
        let get = Action::Range { key: key.clone(), end: None };
        let put = Action::Put { key: key.clone(), value: value.clone() };
        let then = vec![put, get.clone()];
        Operation::Txn { conditions: vec![condition], then, otherwise: vec![get] }
    }

    /// Remembers what was shown.
    pub(crate) fn learn(&mut self, seen: &Seen) {
        self.revision = self.revision.max(seen.revision);
        for answer in &seen.answers {
            let Answer::Range(shown) = answer else { continue };
            for shown in shown {
                self.seen.insert(shown.key.clone(), shown.modified);
            }
        }
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
        Wish::Do(Operation::Compact { revision }) => {
            Request::Compact(CompactRequest { revision: Revision(*revision), physical: false })
        }
        Wish::Do(
            Operation::One(Action::Range { .. })
            | Operation::Serializable(_)
            | Operation::Past { .. },
        ) => {
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
        Operation::Past { key, end, revision } => {
            let revision = Revision(*revision);
            (Query::Range(RangeRequest { revision, ..range(key, end.as_ref()) }), true)
        }
        Operation::One(_)
        | Operation::Serializable(_)
        | Operation::Txn { .. }
        | Operation::Compact { .. } => {
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
        Response::Compact(_) => (true, vec![Answer::Compacted]),
        Response::SessionOpened { .. }
        | Response::SessionClosed { .. }
        | Response::VersionRaised { .. } => return None,
    };
    Some(Seen { revision: response.revision().0, succeeded, answers })
}

/// What a client sees of a refusal that depends on the state.
pub(crate) fn seen_of_refused(refused: &Refused) -> Option<Seen> {
    match refused {
        Refused::Compacted => Some(Seen::refused(Answer::TooOld)),
        Refused::FutureRevision => Some(Seen::refused(Answer::TooNew)),
        _ => None,
    }
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
