//! The verdict over a finished run: what clients were told, against the log that was agreed on.
//!
//! The log says where each change took effect, so the history is completed with those places and
//! then judged like any other: by the order that the servers say (`witness`), and by a search that
//! believes only what clients saw (`judge`).
//!
//! Sessions are replayed here a second time, in a few lines of their own: which of several entries
//! of one numbered operation counts is a question that the servers must not answer alone.

use std::collections::{BTreeMap, BTreeSet};

use kvraft_base::{ClientId, EntryKind, Index, Instant, OpId, Term};
use kvraft_kv::{Command, Request, SessionOp};

use super::{
    checks::Agreed,
    clients::{Opened, OriginKey},
    violation::{Check, Violation},
};
use crate::{
    history::{History, HistoryEvent, OpName, Operation},
    models::{PastModel, StoreState},
    witness::{Place, Role, WitnessViolation, Witnessed, check_witness},
};

/// An attempt that reached a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) name: OpName,
    /// The server said that it failed.
    pub(crate) failed: bool,
}

/// What clients did, as the world saw it.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) history: History,
    pub(crate) sent: BTreeMap<OriginKey, Sent>,
    pub(crate) opened: Vec<Opened>,
}

/// What a judged run came to.
#[derive(Debug)]
pub(crate) struct Judged {
    /// The store after everything.
    pub(crate) state: StoreState,
    /// Entries of numbered operations that had been done already.
    pub(crate) duplicate_count: u64,
    /// Entries whose session had expired.
    pub(crate) expired_count: u64,
}

/// Places every operation, then judges the history.
///
/// # Errors
/// The first rule that was broken.
pub(crate) fn check(
    agreed: &[Agreed],
    evidence: &mut Evidence,
    at: Instant,
) -> Result<Judged, Violation> {
    let replayed = replay(agreed, evidence)?;
    for (name, index) in &replayed.places {
        evidence.history.place(at, *name, Place { order: index.0, role: Role::Executed });
    }
    check_opened(&replayed, evidence)?;
    check_read_indexes(agreed, &evidence.history)?;
    if let Some(name) = evidence.history.dishonest().first() {
        let executed = replayed.places.get(name);
        let check = if executed.is_some() { Check::FailedIsHonest } else { Check::Linearizable };
        let detail = format!("{}: the log has it at {executed:?}", describe(evidence, *name));
        return Err(Violation::new(check, detail));
    }
    let state = check_order(&replayed, evidence)?;
    let Replayed { duplicate_count, expired_count, .. } = replayed;
    Ok(Judged { state, duplicate_count, expired_count })
}

/// Where operations took effect in a log that may have broken rules: as far as it can be replayed.
pub(crate) fn places(agreed: &[Agreed], evidence: &Evidence) -> BTreeMap<OpName, Place> {
    let mut replayed = Replayed::default();
    for (slot, entry) in agreed.iter().enumerate() {
        if entry.kind == EntryKind::Command
            && let Ok(command) = Command::decode(entry.payload.clone())
            && replayed.apply(entry.term, Index(slot as u64 + 1), &command, evidence).is_err()
        {
            break;
        }
    }
    let place = |index: Index| Place { order: index.0, role: Role::Executed };
    replayed.places.into_iter().map(|(name, index)| (name, place(index))).collect()
}

/// One session as the log has it.
#[derive(Debug, Default)]
struct Replica {
    ttl_ms: u64,
    expires_ms: u64,
    acked: OpId,
    done: BTreeSet<OpId>,
}

/// The clock by which sessions expire.
#[derive(Debug, Default)]
struct ReplicatedClock {
    now_ms: u64,
    /// From cluster version 2 on: which leader has told the time last, and the latest it has told.
    leader: Option<(Term, u64)>,
}

impl ReplicatedClock {
    fn tell(&mut self, term: Term, time_ms: u64) {
        match self.leader {
            // The greatest time that anybody has told.
            None => self.now_ms = self.now_ms.max(time_ms),
            // What has passed between two times of one leader, and never back.
            Some((of, before)) if of == term => {
                self.now_ms += time_ms.saturating_sub(before);
                self.leader = Some((term, time_ms.max(before)));
            }
            Some(_) => self.leader = Some((term, time_ms)),
        }
    }

    fn raise(&mut self, version: u32, term: Term, time_ms: u64) {
        if 2 <= version && self.leader.is_none() {
            self.leader = Some((term, time_ms));
        }
    }
}

#[derive(Debug, Default)]
struct Replayed {
    clock: ReplicatedClock,
    sessions: BTreeMap<ClientId, Replica>,
    /// Where each change of the store took effect.
    places: BTreeMap<OpName, Index>,
    opened: BTreeMap<ClientId, OpName>,
    numbered: BTreeSet<OpName>,
    origins: BTreeSet<OriginKey>,
    duplicate_count: u64,
    expired_count: u64,
}

fn replay(agreed: &[Agreed], evidence: &Evidence) -> Result<Replayed, Violation> {
    let mut replayed = Replayed::default();
    for (slot, entry) in agreed.iter().enumerate() {
        if entry.kind == EntryKind::Command {
            let index = Index(slot as u64 + 1);
            let command = Command::decode(entry.payload.clone()).map_err(|error| {
                Violation::new(Check::Recovery, format!("entry {index} cannot be decoded: {error}"))
            })?;
            replayed.apply(entry.term, index, &command, evidence)?;
        }
    }
    Ok(replayed)
}

impl Replayed {
    fn apply(
        &mut self,
        term: Term,
        index: Index,
        command: &Command,
        evidence: &Evidence,
    ) -> Result<(), Violation> {
        if let Request::RaiseVersion { version } = command.request {
            // A leader's own doing: no client has sent it.
            self.clock.tell(term, command.time_ms);
            self.clock.raise(version, term, command.time_ms);
            return Ok(());
        }
        let origin = &command.origin;
        let key = (origin.member, origin.incarnation, origin.ticket);
        let Some(sent) = evidence.sent.get(&key) else {
            let detail = format!("entry {index} is of {key:?}, which no client has sent");
            return Err(Violation::new(Check::Linearizable, detail));
        };
        if !self.origins.insert(key) {
            let detail = format!("the attempt {key:?} is in the log twice, again at {index}");
            return Err(Violation::new(Check::ExactlyOnce, detail));
        }
        if sent.failed {
            let what = describe(evidence, sent.name);
            let detail = format!("{what}: an attempt was said to have failed, it is at {index}");
            return Err(Violation::new(Check::FailedIsHonest, detail));
        }
        self.clock.tell(term, command.time_ms);
        if let Request::OpenSession { ttl_ms } = command.request {
            let expires_ms = self.clock.now_ms.saturating_add(ttl_ms);
            let session = Replica { ttl_ms, expires_ms, ..Replica::default() };
            self.sessions.insert(ClientId(index.0), session);
            self.opened.insert(ClientId(index.0), sent.name);
            return Ok(());
        }
        if command.session.is_some() {
            self.numbered.insert(sent.name);
        }
        if command.session.is_some_and(|session| !self.admit(session)) {
            return Ok(());
        }
        if let Some(first) = self.places.insert(sent.name, index) {
            let what = describe(evidence, sent.name);
            let detail = format!("{what} was done at {first} and again at {index}");
            return Err(Violation::new(Check::ExactlyOnce, detail));
        }
        Ok(())
    }

    /// Whether a numbered operation is done here, and not before or never.
    fn admit(&mut self, wanted: SessionOp) -> bool {
        let clock_ms = self.clock.now_ms;
        let known = self.sessions.get_mut(&wanted.client).filter(|s| clock_ms < s.expires_ms);
        let Some(session) = known else {
            self.expired_count += 1;
            return false;
        };
        session.expires_ms = clock_ms.saturating_add(session.ttl_ms);
        session.acked = session.acked.max(wanted.acked);
        if wanted.op <= session.acked {
            return false;
        }
        let is_new = session.done.insert(wanted.op);
        self.duplicate_count += u64::from(!is_new);
        is_new
    }
}

/// A session that a client was told of is the one that its entry opened.
fn check_opened(replayed: &Replayed, evidence: &Evidence) -> Result<(), Violation> {
    for Opened { name, session } in &evidence.opened {
        if replayed.opened.get(session) != Some(name) {
            let detail = format!("{name:?} was told of session {session}, not its own");
            return Err(Violation::new(Check::ExactlyOnce, detail));
        }
    }
    Ok(())
}

/// Nobody reads what is not committed.
fn check_read_indexes(agreed: &[Agreed], history: &History) -> Result<(), Violation> {
    let end = agreed.len() as u64;
    for event in history.events() {
        if let HistoryEvent::Placed { name, place, .. } = event
            && end < place.order
        {
            let detail =
                format!("{name:?} was answered at index {}, {end} is committed", place.order);
            return Err(Violation::new(Check::Linearizable, detail));
        }
    }
    Ok(())
}

fn check_order(replayed: &Replayed, evidence: &Evidence) -> Result<StoreState, Violation> {
    let witnessed = evidence.history.witnessed();
    let checked = check_witness(&PastModel::of(&witnessed), &witnessed);
    checked.map(|state| state.store).map_err(|violation| {
        let (check, numbers) = match violation {
            WitnessViolation::WrongResult { operation }
                if replayed.numbered.contains(&witnessed[operation].op.name) =>
            {
                (Check::ExactlyOnce, vec![operation])
            }
            WitnessViolation::WrongResult { operation } => (Check::Linearizable, vec![operation]),
            WitnessViolation::OutOfTime { ordered_first, ordered_second } => {
                (Check::Linearizable, vec![ordered_first, ordered_second])
            }
            WitnessViolation::SharedPlace { first, second } => {
                (Check::Linearizable, vec![first, second])
            }
        };
        let mut detail = violation.to_string();
        for number in numbers {
            let Witnessed { op, place, .. } = &witnessed[number];
            detail.push_str(&format!("; operation {number} at {place:?}: {op:?}"));
        }
        Violation::new(check, detail)
    })
}

fn describe(evidence: &Evidence, name: OpName) -> String {
    let operation = evidence.history.events().iter().find_map(|event| match event {
        HistoryEvent::Invoked { name: other, operation, .. } if *other == name => Some(operation),
        HistoryEvent::Invoked { .. }
        | HistoryEvent::Completed { .. }
        | HistoryEvent::Placed { .. } => None,
    });
    let operation: Option<&Operation> = operation;
    format!("operation {} of client {}, {operation:?}", name.op, name.client)
}
