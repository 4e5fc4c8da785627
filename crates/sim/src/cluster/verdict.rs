//! The verdict over a finished run: what clients were told, against the log that was agreed on.
//!
//! Linear in the length of the history: every answer names the log index at which it was given, so
//! the model is replayed once and each answer is compared where it belongs; then real-time order is
//! checked against index order.

use std::collections::{BTreeMap, BTreeSet};

use kvraft_base::{EntryKind, Index, Instant};
use kvraft_kv::Command;

use super::{
    checks::Agreed,
    clients::{Answered, Ended, Op, Record},
    model::{Effect, Model, OriginKey},
    violation::{Check, Violation},
};

/// Replays the agreed log and compares.
///
/// # Errors
/// The first rule that was broken.
pub(crate) fn check(agreed: &[Agreed], records: &[Record]) -> Result<Model, Violation> {
    let mut reads: BTreeMap<Index, Vec<&Record>> = BTreeMap::new();
    for record in records {
        if let Some((_, Ended::Answered { index, .. })) = &record.ended
            && record.op.is_read()
        {
            reads.entry(*index).or_default().push(record);
        }
    }
    let mut model = Model::new();
    let mut origins = BTreeSet::new();
    for record in reads.remove(&Index::ZERO).unwrap_or_default() {
        check_read(&model, record)?;
    }
    for (slot, entry) in agreed.iter().enumerate() {
        let index = Index(slot as u64 + 1);
        if entry.kind == EntryKind::Command {
            let command = Command::decode(entry.payload.clone()).map_err(|error| {
                Violation::new(Check::Recovery, format!("entry {index} cannot be decoded: {error}"))
            })?;
            let origin = &command.origin;
            note_origin(&mut origins, (origin.member, origin.incarnation, origin.ticket), index)?;
            model.apply(index, &command);
        }
        for record in reads.remove(&index).unwrap_or_default() {
            check_read(&model, record)?;
        }
    }
    if let Some((index, early)) = reads.into_iter().next() {
        let detail = format!("{:?} was answered at index {index}, not committed", early[0].op);
        return Err(Violation::new(Check::Linearizable, detail));
    }
    check_writes(&model, records)?;
    check_failed(&origins, records)?;
    check_real_time(&model, records)?;
    Ok(model)
}

/// One attempt is one entry: a message that arrives twice must not be appended twice.
fn note_origin(
    origins: &mut BTreeSet<OriginKey>,
    origin: OriginKey,
    index: Index,
) -> Result<(), Violation> {
    if origins.insert(origin) {
        return Ok(());
    }
    let detail = format!("the attempt {origin:?} is in the log twice, again at {index}");
    Err(Violation::new(Check::ExactlyOnce, detail))
}

fn check_read(model: &Model, record: &Record) -> Result<(), Violation> {
    let Some((_, Ended::Answered { index, answer })) = &record.ended else {
        return Ok(());
    };
    let row = |key: &bytes::Bytes, v: &super::model::Versioned| {
        (key.clone(), v.value.clone(), v.create, v.modified, v.version)
    };
    let expected: Vec<_> = match &record.op {
        Op::Get { key } | Op::Peek { key } => {
            model.map.get(key).map(|v| row(key, v)).into_iter().collect()
        }
        Op::Scan => model.map.iter().map(|(key, v)| row(key, v)).collect(),
        Op::OpenSession | Op::Put { .. } | Op::Delete { .. } | Op::Swap { .. } => return Ok(()),
    };
    if *answer == (Answered::Read { kvs: expected.clone() }) {
        return Ok(());
    }
    let detail = format!(
        "client {} read {:?} at index {index}: {answer:?}, the log says {expected:?}",
        record.client, record.op
    );
    Err(Violation::new(Check::Linearizable, detail))
}

fn effect_of<'a>(model: &'a Model, record: &Record) -> Option<&'a (Index, Effect)> {
    if let Some(key) = record.session {
        return model.executed.get(&key);
    }
    record.attempts.iter().find_map(|(origin, _)| model.effects.get(origin))
}

fn check_writes(model: &Model, records: &[Record]) -> Result<(), Violation> {
    for record in records {
        let Some((_, Ended::Answered { index, answer })) = &record.ended else {
            continue;
        };
        if record.op.is_read() {
            continue;
        }
        let Some((_, effect)) = effect_of(model, record) else {
            let detail = format!(
                "client {} was told that {:?} is done at {index}, it is nowhere in the log",
                record.client, record.op
            );
            return Err(Violation::new(Check::Linearizable, detail));
        };
        let matches = match (effect, answer) {
            (Effect::Changed { revision, count }, Answered::Changed { revision: r, count: c }) => {
                revision == r && count == c
            }
            (Effect::Opened(client), Answered::Opened(answered)) => client == answered,
            (Effect::Changed { .. } | Effect::Opened(_) | Effect::Other, _) => false,
        };
        if !matches {
            let check =
                if record.session.is_some() { Check::ExactlyOnce } else { Check::Linearizable };
            let detail = format!(
                "client {}, {:?} at {index}: told {answer:?}, the log says {effect:?}",
                record.client, record.op
            );
            return Err(Violation::new(check, detail));
        }
    }
    Ok(())
}

fn check_failed(origins: &BTreeSet<OriginKey>, records: &[Record]) -> Result<(), Violation> {
    for record in records {
        for (origin, failed) in &record.attempts {
            if *failed && origins.contains(origin) {
                let detail = format!(
                    "client {} was told that {:?} failed, it is in the log",
                    record.client, record.op
                );
                return Err(Violation::new(Check::FailedIsHonest, detail));
            }
        }
    }
    Ok(())
}

/// Who began after another had ended must come after it.
fn check_real_time(model: &Model, records: &[Record]) -> Result<(), Violation> {
    let mut ends: Vec<(Instant, Index)> = Vec::new();
    let mut begins: Vec<(Instant, Index, &Record)> = Vec::new();
    for record in records {
        let Some((at, Ended::Answered { index, .. })) = &record.ended else {
            continue;
        };
        if !record.op.is_linearizable() {
            continue;
        }
        let place = if record.op.is_read() {
            *index
        } else {
            effect_of(model, record).map_or(*index, |(index, _)| *index)
        };
        ends.push((*at, place));
        begins.push((record.invoked, place, record));
    }
    ends.sort_unstable();
    begins.sort_unstable_by_key(|(at, place, _)| (*at, *place));
    let mut ends = ends.into_iter().peekable();
    let mut latest = Index::ZERO;
    for (began, place, record) in begins {
        while let Some((_, ended)) = ends.next_if(|(at, _)| *at < began) {
            latest = latest.max(ended);
        }
        let stale = if record.op.is_read() { place < latest } else { place <= latest };
        if stale && latest != Index::ZERO {
            let detail = format!(
                "client {}, {:?} took place at {place}, after {latest} had been acknowledged",
                record.client, record.op
            );
            return Err(Violation::new(Check::Linearizable, detail));
        }
    }
    Ok(())
}
