//! The state machine: its state, and what it offers.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{
    Checkpoint, Damage, Entry, EntryKind, META_MEMBERS, Members, Position, Reader, Records,
    Revision, TableId, TableOp, checksum,
};
use serde::{Deserialize, Serialize};

use crate::{
    command::{Command, Header, Origin, SessionOp},
    damage::undecodable,
    index::{Index, mix},
    meta::Meta,
    overlay::Overlay,
    refused::Refused,
    request::{CompactRequest, Request},
    response::{CompactResponse, Response},
    sessions::{Admission, Sessions},
    txn::Changes,
    version::{StateError, Versions},
    view::{Stop, View},
};

/// The key-value state after some entry.
///
/// Invariant: two values that applied the same entries are equal, also if one of them was settled
/// to a table and loaded from there; [`Kv::state_hash`] tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kv {
    pub(crate) meta: Meta,
    pub(crate) members: Option<Members>,
    pub(crate) index: Index,
    pub(crate) sessions: Sessions,
    pub(crate) overlay: Overlay,
    /// What the build knows, which is no part of the state.
    pub(crate) versions: Versions,
}

/// What came of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Who waits for it; of a command that cannot be decoded, as far as that is known.
    pub origin: Origin,
    /// Where the command is in the log.
    pub position: Position,
    /// What to answer.
    pub result: Result<Response, Refused>,
    /// Whether nothing was done because it had been done before, and this is the first result.
    pub duplicate: bool,
}

/// Sizes of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys that are there now.
    pub key_count: u64,
    /// Changes that are kept, tombstones included.
    pub change_count: u64,
    /// Bytes of all records that are kept.
    pub records_size_bytes: u64,
    /// Sessions, with those whose time is up but which have not been removed.
    pub session_count: usize,
    /// Results that sessions keep.
    pub result_count: usize,
    /// Bytes of these results, in overlay and table.
    pub results_size_bytes: u64,
    /// Bytes that wait for a checkpoint; see [`Kv::overlay_size_bytes`].
    pub overlay_size_bytes: usize,
    /// The replicated clock, in milliseconds.
    pub clock_ms: u64,
    /// Which rules apply follows.
    pub cluster_version: u32,
}

impl Default for Kv {
    fn default() -> Self {
        Self::new()
    }
}

impl Kv {
    /// An empty store at revision 1, of the first cluster version.
    #[must_use]
    pub fn new() -> Self {
        Self::of_versions(Versions::OF_BUILD)
    }

    /// The same for a server that knows these cluster versions.
    #[must_use]
    pub fn of_versions(versions: Versions) -> Self {
        Self {
            versions,
            meta: Meta::FRESH,
            members: None,
            index: Index::default(),
            sessions: Sessions::default(),
            overlay: Overlay::default(),
        }
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied(&self) -> Position {
        self.meta.applied
    }

    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.meta.revision)
    }

    /// The last compaction; -1 if there was none, as etcd has it.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        Revision(self.meta.compacted)
    }

    /// Which rules apply follows.
    #[must_use]
    pub fn cluster_version(&self) -> u32 {
        self.meta.cluster_version
    }

    /// The configuration in force; `None` as long as the bootstrap configuration is.
    #[must_use]
    pub fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// Applies the next entry. `None` when nobody waits for an outcome: no-ops and configurations.
    ///
    /// A compaction is done whole at its entry: it walks every key, and queues one delete for each
    /// record it drops. About a second for ten million keys; the overlay grows by some 200 bytes a
    /// dropped record until the next checkpoints.
    ///
    /// # Errors
    /// [`StateError::Damage`] when a record that is needed is missing or wrong in the table. The
    /// value is then half changed and must be dropped. [`StateError::Unsupported`] when the entry
    /// raises the cluster version to one that is not known here; nothing is changed then.
    ///
    /// # Panics
    /// When entries are not contiguous.
    pub fn apply(
        &mut self,
        records: &dyn Records,
        entry: &Entry,
    ) -> Result<Option<Applied>, StateError> {
        let before = self.meta.applied;
        assert!(before.index.next() == entry.index, "entries are applied one after the other");
        assert!(before.term <= entry.term, "terms never go back along the log");
        let revision = self.meta.revision;
        let mut members = None;
        let applied = match entry.kind {
            EntryKind::Noop => None,
            EntryKind::Config => {
                let decoded = Members::decode(entry.payload.clone());
                let what = || format!("configuration at {}", entry.position());
                self.members = Some(decoded.map_err(|error| undecodable(what(), &error))?);
                members = Some(entry.payload.clone());
                None
            }
            EntryKind::Command => Some(self.apply_command(records, entry)?),
        };
        assert!(self.meta.revision - revision <= 1, "an entry is at most one revision");
        self.meta.applied = entry.position();
        self.overlay.seal(self.meta, members);
        Ok(applied)
    }

    fn apply_command(
        &mut self,
        records: &dyn Records,
        entry: &Entry,
    ) -> Result<Applied, StateError> {
        let position = entry.position();
        let Ok(command) = Command::decode(entry.payload.clone()) else {
            let header = Header::decode(&mut Reader::new(entry.payload.clone()));
            let origin = header.map(|header| header.origin).unwrap_or_default();
            let result = Err(Refused::Undecodable);
            return Ok(Applied { origin, position, result, duplicate: false });
        };
        if let Request::RaiseVersion { version } = command.request
            && self.meta.cluster_version < version
        {
            self.versions.check(version)?;
        }
        self.meta.advance_clock(entry.term, command.time_ms);
        self.sessions.expire(entry.index, self.meta.clock_ms, &mut self.overlay);
        let (result, duplicate) = match command.session {
            None => (self.execute(records, entry, &command)?, false),
            Some(op) => self.execute_once(records, entry, op, &command)?,
        };
        Ok(Applied { origin: command.origin, position, result, duplicate })
    }

    fn execute_once(
        &mut self,
        records: &dyn Records,
        entry: &Entry,
        op: SessionOp,
        command: &Command,
    ) -> Result<(Result<Response, Refused>, bool), Damage> {
        let clock_ms = self.meta.clock_ms;
        match self.sessions.admit(entry.index, op, clock_ms, &mut self.overlay) {
            Err(refused) => Ok((Err(refused), false)),
            Ok(Admission::Done(kept)) => {
                Ok((self.sessions.result(&self.overlay, records, op, kept)?, true))
            }
            Ok(Admission::New) => {
                let result = self.execute(records, entry, command)?;
                self.sessions.keep(entry.index, op, &result, &mut self.overlay);
                Ok((result, false))
            }
        }
    }

    fn execute(
        &mut self,
        records: &dyn Records,
        entry: &Entry,
        command: &Command,
    ) -> Result<Result<Response, Refused>, Damage> {
        let request = &command.request;
        if let Err(refused) = request.check() {
            return Ok(Err(refused));
        }
        let at = entry.index;
        let clock_ms = self.meta.clock_ms;
        let revision = self.revision();
        Stop::split(match request {
            Request::Put(put) => {
                Changes::begin(self, records, at).put_alone(put).map(Response::Put)
            }
            Request::DeleteRange(delete) => {
                Changes::begin(self, records, at).delete_alone(delete).map(Response::DeleteRange)
            }
            Request::Txn(txn) => {
                Changes::begin(self, records, at).txn_alone(txn).map(Response::Txn)
            }
            Request::Compact(compact) => self.compact(entry, compact).map_err(Stop::from),
            Request::OpenSession { ttl_ms } => self
                .sessions
                .open(at, *ttl_ms, clock_ms, &mut self.overlay)
                .map(|client| Response::SessionOpened { revision, client })
                .map_err(Stop::from),
            Request::CloseSession { client } => self
                .sessions
                .close(at, *client, clock_ms, &mut self.overlay)
                .map(|()| Response::SessionClosed { revision })
                .map_err(Stop::from),
            Request::RaiseVersion { version } => {
                self.meta.raise(*version, entry.term, command.time_ms);
                let version = self.meta.cluster_version;
                Ok(Response::VersionRaised { revision, version })
            }
        })
    }

    fn compact(&mut self, entry: &Entry, compact: &CompactRequest) -> Result<Response, Refused> {
        let revision = compact.revision.0;
        if revision <= self.meta.compacted {
            return Err(Refused::Compacted);
        }
        if self.meta.revision < revision {
            return Err(Refused::FutureRevision);
        }
        for rev in self.index.compact(revision) {
            self.overlay.delete(entry.index, TableId::Records, rev.encode());
        }
        self.meta.compacted = revision;
        Ok(Response::Compact(CompactResponse { revision: self.revision() }))
    }

    pub(crate) fn view_at<'a>(&'a self, records: &'a dyn Records, revision: i64) -> View<'a> {
        let Self { index, overlay, .. } = self;
        View { index, overlay, records, revision, compacted: self.meta.compacted }
    }

    /// The next changes for the table: those of the oldest entries that are not settled, whole
    /// entries, at least one, and not more than `size_bytes_max` if there is a choice. Rows that
    /// change more than once appear once. The same again until [`Kv::settle`] is called. `None`
    /// when everything is settled.
    #[must_use]
    pub fn checkpoint(&self, size_bytes_max: usize) -> Option<Checkpoint> {
        let mut rows: BTreeMap<(TableId, &Bytes), &TableOp> = BTreeMap::new();
        let mut members = None;
        let mut meta = None;
        for batch in self.overlay.prefix(size_bytes_max) {
            for op in &batch.ops {
                let (TableOp::Put { table, key, .. } | TableOp::Delete { table, key }) = op;
                rows.insert((*table, key), op);
            }
            members = batch.members.as_ref().or(members);
            meta = Some(batch.meta);
        }
        let meta = meta?;
        let mut ops: Vec<TableOp> = rows.into_values().cloned().collect();
        ops.extend(meta.ops());
        ops.extend(members.map(|value| TableOp::Put {
            table: TableId::Meta,
            key: Bytes::from_static(META_MEMBERS),
            value: value.clone(),
        }));
        Some(Checkpoint { applied: meta.applied, ops })
    }

    /// The checkpoint at `applied` is durable: what it carried is read from the table from now on.
    pub fn settle(&mut self, applied: Position) {
        assert!(applied.index <= self.meta.applied.index, "only what was applied can be settled");
        self.overlay.settle(applied);
    }

    /// Bytes that wait for a checkpoint, with an allowance for what holds them. The caller stops
    /// applying while this is over its budget.
    #[must_use]
    pub fn overlay_size_bytes(&self) -> usize {
        self.overlay.size_bytes()
    }

    /// Sizes of the state.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            key_count: self.index.live_count(),
            change_count: self.index.change_count(),
            records_size_bytes: self.index.size_bytes(),
            session_count: self.sessions.count(),
            result_count: self.sessions.result_count(),
            results_size_bytes: self.sessions.results_size_bytes(),
            overlay_size_bytes: self.overlay.size_bytes(),
            clock_ms: self.meta.clock_ms,
            cluster_version: self.meta.cluster_version,
        }
    }

    /// A digest of all replicated state, records included: equal on members that applied the same
    /// entries, whatever they have settled. Costs a walk over the sessions, not over the keys.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let members = self.members.as_ref().map_or(0, |members| checksum(&members.encode()));
        let Meta { applied, revision, compacted, clock_ms, cluster_version, leader_clock } =
            self.meta;
        let parts = [
            applied.term.0,
            applied.index.0,
            revision.cast_unsigned(),
            compacted.cast_unsigned(),
            clock_ms,
            u64::from(cluster_version),
            leader_clock.term.0,
            leader_clock.time_ms,
            u64::from(members),
            self.index.digest(),
            self.sessions.digest(),
        ];
        parts.into_iter().fold(0, |digest, part| mix(digest ^ part))
    }
}
