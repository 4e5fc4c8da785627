//! Sessions: what makes a retried operation happen exactly once.
//!
//! A client opens a session through the log and numbers its operations. The result of each is kept
//! until the client says it has received it, so a retry that was already done gets the first result
//! (Raft §8; the dissertation's §6.3).
//!
//! Invariants:
//! - a session that is unknown or expired is refused and never comes back: its id is the index of
//!   the entry that opened it, and indexes do not return;
//! - a result is forgotten only when acknowledged or with its session; when the window is full, new
//!   operations are refused, and not done;
//! - sessions expire by the replicated clock, which moves only with commands, so every member
//!   expires them at the same entry.
//!
//! What it lacks: protection from a leader whose wall clock jumps ahead while it leads, and before
//! cluster version 2 from one whose clock is ahead: it expires sessions early. They are then
//! refused, never done twice.
//!
//! Rows in [`TableId::Sessions`], keys big-endian: `client` → the session, `client op` → a result.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kvraft_base::{
    ClientId, Damage, DecodeError, Index, OpId, Reader, Records, TableId, Writer, checksum,
};
use serde::{Deserialize, Serialize};

use crate::{
    command::SessionOp,
    damage::{lost, undecodable},
    index::mix,
    overlay::Overlay,
    refused::Refused,
    response::Response,
    response_codec::{decode_result, encode_result},
};

/// Shortest time to live of a session, in milliseconds; shorter ones are lengthened to it.
pub const SESSION_TTL_MS_MIN: u64 = 1_000;
/// Longest time to live of a session, in milliseconds: a day. Longer ones are shortened to it.
pub const SESSION_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Time to live of a session that asks for none, in milliseconds.
pub const SESSION_TTL_MS_DEFAULT: u64 = 5 * 60 * 1_000;
/// Most sessions at once; one more is refused rather than another one forgotten.
pub const SESSION_COUNT_MAX: usize = 10_000;
/// Greatest window of unacknowledged results of one session, before the last one was added.
pub const SESSION_RESULTS_SIZE_BYTES_MAX: u64 = 1024 * 1024;
/// Greatest sum of the windows of all sessions: they are in every snapshot.
pub const RESULTS_SIZE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Greatest result that is kept; of a greater one only that it was done.
pub const RESULT_SIZE_BYTES_MAX: usize = 1024 * 1024;
/// What a result counts for beside its bytes: its key, and its place here and in the table.
const RESULT_OVERHEAD_BYTES: u64 = 64;
/// Most expired sessions removed at one entry, so that no entry becomes slow.
const EXPIRE_COUNT_MAX: usize = 16;

/// A result in the window. The bytes are in overlay or table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    size_bytes: u32,
    checksum: u32,
}

impl Kept {
    fn of(row: &[u8]) -> Self {
        let size_bytes = u32::try_from(row.len()).expect("results are bounded");
        Self { size_bytes, checksum: checksum(row) }
    }

    fn cost(self) -> u64 {
        u64::from(self.size_bytes) + RESULT_OVERHEAD_BYTES
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    ttl_ms: u64,
    /// The replicated clock at which it ends. Invariant: the same as in `Sessions::expiries`.
    expires_ms: u64,
    /// All operations up to and with this one were acknowledged. Never goes back.
    acked: OpId,
    /// Unacknowledged results. Invariant: all above `acked`.
    results: BTreeMap<OpId, Kept>,
    /// Sum of the costs of `results`.
    results_size_bytes: u64,
}

/// Whether an operation is to be done.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It has not been done yet.
    New,
    /// It was done; its result is kept.
    Done(Kept),
}

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    sessions: BTreeMap<ClientId, Session>,
    expiries: BTreeSet<(u64, ClientId)>,
    results_size_bytes: u64,
}

impl Sessions {
    /// Opens the session of the entry at `index`, which is its id.
    pub(crate) fn open(
        &mut self,
        index: Index,
        ttl_ms: u64,
        clock_ms: u64,
        overlay: &mut Overlay,
    ) -> Result<ClientId, Refused> {
        if SESSION_COUNT_MAX <= self.sessions.len() {
            return Err(Refused::TooManySessions);
        }
        let ttl_ms = match ttl_ms {
            0 => SESSION_TTL_MS_DEFAULT,
            ttl_ms => ttl_ms.clamp(SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX),
        };
        let client = ClientId(index.0);
        let session = Session {
            ttl_ms,
            expires_ms: clock_ms.saturating_add(ttl_ms),
            acked: OpId::ZERO,
            results: BTreeMap::new(),
            results_size_bytes: 0,
        };
        session.write(index, client, overlay);
        self.expiries.insert((session.expires_ms, client));
        let before = self.sessions.insert(client, session);
        assert!(before.is_none(), "an index names one session");
        Ok(client)
    }

    /// Ends a session.
    pub(crate) fn close(
        &mut self,
        index: Index,
        client: ClientId,
        clock_ms: u64,
        overlay: &mut Overlay,
    ) -> Result<(), Refused> {
        let known = self.sessions.get(&client).is_some_and(|s| clock_ms < s.expires_ms);
        if !known {
            return Err(Refused::SessionUnknown);
        }
        self.remove(index, client, overlay);
        Ok(())
    }

    /// Removes sessions whose time is up, oldest first, a bounded number at a time. Those that
    /// have to wait are refused all the same.
    pub(crate) fn expire(&mut self, index: Index, clock_ms: u64, overlay: &mut Overlay) {
        for _ in 0..EXPIRE_COUNT_MAX {
            match self.expiries.first() {
                Some(&(expires_ms, client)) if expires_ms <= clock_ms => {
                    self.remove(index, client, overlay);
                }
                _ => return,
            }
        }
    }

    fn remove(&mut self, index: Index, client: ClientId, overlay: &mut Overlay) {
        let session = self.sessions.remove(&client).expect("only sessions that exist are removed");
        let listed = self.expiries.remove(&(session.expires_ms, client));
        assert!(listed, "every session has its expiry");
        self.results_size_bytes -= session.results_size_bytes;
        for op in session.results.keys() {
            overlay.delete(index, TableId::Sessions, result_key(client, *op));
        }
        overlay.delete(index, TableId::Sessions, session_key(client));
    }

    /// Says whether an operation is to be done, extends its session and forgets what the client has
    /// acknowledged.
    pub(crate) fn admit(
        &mut self,
        index: Index,
        wanted: SessionOp,
        clock_ms: u64,
        overlay: &mut Overlay,
    ) -> Result<Admission, Refused> {
        let SessionOp { client, op, acked } = wanted;
        let total = self.results_size_bytes;
        let session = self.sessions.get_mut(&client).filter(|s| clock_ms < s.expires_ms);
        let session = session.ok_or(Refused::SessionUnknown)?;
        self.expiries.remove(&(session.expires_ms, client));
        session.expires_ms = clock_ms.saturating_add(session.ttl_ms);
        self.expiries.insert((session.expires_ms, client));
        let freed = session.release(index, client, acked, overlay);
        self.results_size_bytes = total - freed;
        session.write(index, client, overlay);
        if op <= session.acked {
            return Err(Refused::OpAcknowledged { client, op });
        }
        if let Some(kept) = session.results.get(&op) {
            return Ok(Admission::Done(*kept));
        }
        if SESSION_RESULTS_SIZE_BYTES_MAX <= session.results_size_bytes {
            return Err(Refused::WindowFull { client });
        }
        if RESULTS_SIZE_BYTES_MAX <= self.results_size_bytes {
            return Err(Refused::ResultsFull);
        }
        Ok(Admission::New)
    }

    /// Keeps the result of an operation that was admitted as new. If the operation closed its own
    /// session, there is nothing to keep it in.
    pub(crate) fn keep(
        &mut self,
        index: Index,
        done: SessionOp,
        result: &Result<Response, Refused>,
        overlay: &mut Overlay,
    ) {
        let SessionOp { client, op, .. } = done;
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let mut row = encode_result(result);
        if RESULT_SIZE_BYTES_MAX < row.len() {
            row = encode_result(&Err(Refused::ResultDropped { client, op }));
        }
        let kept = Kept::of(&row);
        assert!(session.acked < op, "only unacknowledged results are kept");
        let before = session.results.insert(op, kept);
        assert!(before.is_none(), "an operation is done once");
        session.results_size_bytes += kept.cost();
        self.results_size_bytes += kept.cost();
        overlay.put(index, TableId::Sessions, result_key(client, op), row);
    }

    /// Reads a kept result back.
    pub(crate) fn result(
        &self,
        overlay: &Overlay,
        records: &dyn Records,
        done: SessionOp,
        kept: Kept,
    ) -> Result<Result<Response, Refused>, Damage> {
        let what = || format!("result of operation {} of session {}", done.op, done.client);
        let key = result_key(done.client, done.op);
        let row = overlay.read(records, TableId::Sessions, &key)?;
        let row = row.ok_or_else(|| lost(what(), "missing"))?;
        if Kept::of(&row) != kept {
            return Err(lost(what(), "checksum mismatch"));
        }
        decode_result(row).map_err(|error| undecodable(what(), &error))
    }

    /// Takes in one row of the table. Rows come in key order, so a session precedes its results.
    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(Bytes::copy_from_slice(key));
        let client = ClientId(big_endian(&reader.take("session client", 8)?));
        if reader.remaining() == 0 {
            let session = Session::decode(value)?;
            self.expiries.insert((session.expires_ms, client));
            self.sessions.insert(client, session);
            return Ok(());
        }
        let op = OpId(big_endian(&reader.take("session op", 8)?));
        reader.finish()?;
        let orphan = DecodeError::Unknown { what: "session of a result", value: client.0 };
        let session = self.sessions.get_mut(&client).ok_or(orphan)?;
        if op <= session.acked {
            return Err(DecodeError::Unknown { what: "op of a result", value: op.0 });
        }
        let kept = Kept::of(value);
        session.results.insert(op, kept);
        session.results_size_bytes += kept.cost();
        self.results_size_bytes += kept.cost();
        Ok(())
    }

    /// How many sessions there are.
    pub(crate) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// How many results all windows together hold.
    pub(crate) fn result_count(&self) -> usize {
        self.sessions.values().map(|session| session.results.len()).sum()
    }

    /// What all windows together hold, in bytes.
    pub(crate) fn results_size_bytes(&self) -> u64 {
        self.results_size_bytes
    }

    /// Equal for equal sessions and results.
    pub(crate) fn digest(&self) -> u64 {
        self.sessions.iter().fold(0, |digest, (client, session)| {
            let head = [client.0, session.ttl_ms, session.expires_ms, session.acked.0];
            let head = head.into_iter().fold(digest, |digest, part| mix(digest ^ part));
            session.results.iter().fold(head, |digest, (op, kept)| {
                let row = u64::from(kept.size_bytes) << 32 | u64::from(kept.checksum);
                mix(mix(digest ^ op.0) ^ row)
            })
        })
    }
}

impl Session {
    /// Forgets the results that the client has received; returns how many bytes that frees.
    fn release(
        &mut self,
        index: Index,
        client: ClientId,
        acked: OpId,
        overlay: &mut Overlay,
    ) -> u64 {
        self.acked = self.acked.max(acked);
        let mut freed = 0;
        while let Some(first) = self.results.first_entry() {
            if self.acked < *first.key() {
                break;
            }
            let (op, kept) = first.remove_entry();
            freed += kept.cost();
            overlay.delete(index, TableId::Sessions, result_key(client, op));
        }
        self.results_size_bytes -= freed;
        freed
    }

    fn write(&self, index: Index, client: ClientId, overlay: &mut Overlay) {
        let mut writer = Writer::new();
        writer.u8(VERSION).u64(self.ttl_ms).u64(self.expires_ms).u64(self.acked.0);
        overlay.put(index, TableId::Sessions, session_key(client), writer.finish());
    }

    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Bytes::copy_from_slice(value));
        let version = reader.u8("session version")?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "session version", value: version.into() });
        }
        let session = Self {
            ttl_ms: reader.u64("session ttl")?,
            expires_ms: reader.u64("session expiry")?,
            acked: OpId(reader.u64("session acked")?),
            results: BTreeMap::new(),
            results_size_bytes: 0,
        };
        reader.finish()?;
        Ok(session)
    }
}

fn session_key(client: ClientId) -> Bytes {
    Bytes::copy_from_slice(&client.0.to_be_bytes())
}

fn result_key(client: ClientId, op: OpId) -> Bytes {
    let mut writer = Writer::with_capacity(16);
    writer.raw(&client.0.to_be_bytes()).raw(&op.0.to_be_bytes());
    writer.finish()
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

const VERSION: u8 = 1;
