//! A key-value store as simple as can be: what the real one's answers are compared with.
//!
//! It shares no code with the real state machine beyond the command's encoding.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{ClientId, Index, MemberId, OpId, Ticket};
use kvraft_kv::{Command, Compare, CompareTarget, Request, RequestOp};

/// A value with its etcd numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) value: Bytes,
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
}

/// What an operation answered, as far as clients compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Put, delete or transaction: the revision afterwards, and how many keys were deleted or
    /// whether the transaction succeeded.
    Changed { revision: i64, count: i64 },
    /// A session was opened by the entry at this index.
    Opened(ClientId),
    /// Nothing that clients compare.
    Other,
}

/// Which attempt of which client's request an entry is.
pub(crate) type OriginKey = (MemberId, u64, Ticket);

/// The replayed store.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) revision: i64,
    pub(crate) map: BTreeMap<Bytes, Versioned>,
    /// Index and effect of the entry that executed each numbered operation.
    pub(crate) executed: BTreeMap<(ClientId, OpId), (Index, Effect)>,
    /// Effect by attempt, duplicates included.
    pub(crate) effects: BTreeMap<OriginKey, (Index, Effect)>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            map: BTreeMap::new(),
            executed: BTreeMap::new(),
            effects: BTreeMap::new(),
        }
    }

    /// Executes the command at `index`.
    pub(crate) fn apply(&mut self, index: Index, command: &Command) {
        let session = command.session.as_ref().map(|session| (session.client, session.op));
        let known = session.and_then(|key| self.executed.get(&key).cloned());
        let (index, effect) = known.unwrap_or_else(|| {
            let effect = self.execute(index, &command.request);
            if let Some(key) = session {
                self.executed.insert(key, (index, effect.clone()));
            }
            (index, effect)
        });
        let origin = &command.origin;
        let key = (origin.member, origin.incarnation, origin.ticket);
        self.effects.insert(key, (index, effect));
    }

    fn execute(&mut self, index: Index, request: &Request) -> Effect {
        match request {
            Request::OpenSession { .. } => Effect::Opened(ClientId(index.0)),
            Request::Put(put) => {
                self.revision += 1;
                self.put(&put.key, &put.value);
                Effect::Changed { revision: self.revision, count: 0 }
            }
            Request::DeleteRange(delete) => {
                let deleted = i64::from(self.map.remove(&delete.key).is_some());
                self.revision += deleted;
                Effect::Changed { revision: self.revision, count: deleted }
            }
            Request::Txn(txn) => {
                let holds = txn.compare.iter().all(|compare| self.holds(compare));
                let branch = if holds { &txn.success } else { &txn.failure };
                if branch.iter().any(|op| matches!(op, RequestOp::Put(_))) {
                    self.revision += 1;
                }
                for op in branch {
                    if let RequestOp::Put(put) = op {
                        self.put(&put.key, &put.value);
                    }
                }
                Effect::Changed { revision: self.revision, count: i64::from(holds) }
            }
            Request::Compact(_) | Request::CloseSession { .. } => Effect::Other,
        }
    }

    /// The workload compares mod revisions for equality only.
    fn holds(&self, compare: &Compare) -> bool {
        let modified = self.map.get(&compare.key).map_or(0, |versioned| versioned.modified);
        match &compare.target {
            CompareTarget::Mod(revision) => revision.0 == modified,
            CompareTarget::Version(_)
            | CompareTarget::Create(_)
            | CompareTarget::Value(_)
            | CompareTarget::Lease(_) => {
                unreachable!("the workload compares mod revisions only")
            }
        }
    }

    fn put(&mut self, key: &Bytes, value: &Bytes) {
        let revision = self.revision;
        let before = self.map.get(key);
        let next = Versioned {
            value: value.clone(),
            create: before.map_or(revision, |versioned| versioned.create),
            modified: revision,
            version: before.map_or(1, |versioned| versioned.version + 1),
        };
        self.map.insert(key.clone(), next);
    }
}
