//! What clients asked for, from question to answer, and when it took effect.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use kvraft_trace::run::{NodeId, Operation as Shown, Outcome as ShownOutcome, Point};

use crate::{
    cluster::{verdict, workload::Wish, world::World},
    history::{
        Action, Answer, Condition, HistoryEvent, OpName, Operand, Operation, Outcome, Relation,
        Seen,
    },
    network::Endpoint,
    witness::Place,
};

/// The operations of a run, in the order in which they were asked for.
pub(super) fn of(
    world: &World,
    nodes: &BTreeMap<Endpoint, NodeId>,
    committed_at: &[u64],
) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut numbers: BTreeMap<OpName, usize> = BTreeMap::new();
    let mut places = verdict::places(world.checks.agreed(), &world.evidence);
    for event in world.evidence.history.events() {
        match event {
            HistoryEvent::Invoked { at, name, operation } => {
                let Some(client) = nodes.get(&Endpoint::Client(name.client)) else { continue };
                numbers.insert(*name, shown.len());
                shown.push(asked(*client, name.op, at.0, operation));
            }
            HistoryEvent::Completed { at, name, outcome } => {
                if let Some(number) = numbers.get(name) {
                    told(&mut shown[*number], at.0, outcome);
                }
            }
            HistoryEvent::Placed { name, place, .. } => {
                places.entry(*name).or_insert(*place);
            }
        }
    }
    for (name, place) in places {
        if let Some(number) = numbers.get(&name) {
            shown[*number].point = point(&shown[*number], place, committed_at);
        }
    }
    shown
}

fn asked(client: NodeId, number: u64, from: u64, operation: &Operation) -> Shown {
    Shown {
        client,
        number,
        text: describe(operation).into(),
        keys: keys(operation),
        from,
        to: None,
        outcome: ShownOutcome::Unknown,
        answer: "".into(),
        point: None,
    }
}

fn told(shown: &mut Shown, at: u64, outcome: &Outcome) {
    let (outcome, answer) = match outcome {
        Outcome::Ok(seen) => (ShownOutcome::Ok, describe_seen(seen)),
        Outcome::Failed(why) => (ShownOutcome::Failed, why.clone()),
        Outcome::Unknown(why) => (ShownOutcome::Unknown, why.clone()),
    };
    (shown.to, shown.outcome, shown.answer) = (Some(at), outcome, answer.into());
}

/// Between question and answer, when the entry at its place was first known to be committed: a
/// change took effect then, and whoever only looked saw no earlier state.
fn point(shown: &Shown, place: Place, committed_at: &[u64]) -> Option<Point> {
    if shown.text.starts_with(STALE) {
        return None; // It may have seen any earlier state.
    }
    let slot = place.order.checked_sub(1).and_then(|slot| usize::try_from(slot).ok());
    let committed = slot.map_or(Some(0), |slot| committed_at.get(slot).copied())?;
    let at = committed.max(shown.from).min(shown.to.unwrap_or(u64::MAX));
    Some(Point { at, index: place.order })
}

/// What begins a read that need not be the newest.
const STALE: &str = "stale ";

/// What a client wants, in a line.
pub(super) fn describe_wish(wish: &Wish) -> String {
    match wish {
        Wish::OpenSession { .. } => "open a session".to_owned(),
        Wish::Do(operation) => describe(operation),
    }
}

fn describe(operation: &Operation) -> String {
    match operation {
        Operation::One(action) => describe_action(action),
        Operation::Serializable(action) => format!("{STALE}{}", describe_action(action)),
        Operation::Past { key, end, revision } => {
            format!("get {} at revision {revision}", span(key, end.as_ref()))
        }
        Operation::Compact { revision } => format!("compact to revision {revision}"),
        Operation::Txn { conditions, then, otherwise } => {
            let all = |actions: &[Action]| {
                actions.iter().map(describe_action).collect::<Vec<_>>().join("; ")
            };
            let conditions: Vec<_> = conditions.iter().map(describe_condition).collect();
            let mut text = format!("if {} then {}", conditions.join(" and "), all(then));
            if !otherwise.is_empty() {
                let _ = write!(text, " else {}", all(otherwise));
            }
            text
        }
    }
}

fn describe_action(action: &Action) -> String {
    match action {
        Action::Put { key, value } => format!("put {} = {}", word(key), word(value)),
        Action::Range { key, end } => format!("get {}", span(key, end.as_ref())),
        Action::Delete { key, end } => format!("delete {}", span(key, end.as_ref())),
    }
}

fn span(key: &Bytes, end: Option<&Bytes>) -> String {
    end.map_or_else(|| word(key), |end| format!("{}..{}", word(key), word(end)))
}

fn word(bytes: &Bytes) -> String {
    bytes.escape_ascii().to_string()
}

fn describe_condition(condition: &Condition) -> String {
    let Condition { key, relation, operand } = condition;
    let sign = match relation {
        Relation::Equal => "=",
        Relation::NotEqual => "≠",
        Relation::Greater => ">",
        Relation::Less => "<",
    };
    let (of, number) = match operand {
        Operand::Version(number) => ("version", number.to_string()),
        Operand::Create(number) => ("create", number.to_string()),
        Operand::Mod(number) => ("mod", number.to_string()),
        Operand::Value(value) => ("value", word(value)),
    };
    format!("{of}({}) {sign} {number}", word(key))
}

fn describe_seen(seen: &Seen) -> String {
    let answer = |answer: &Answer| match answer {
        Answer::Put => "done".to_owned(),
        Answer::Deleted(count) => format!("{count} deleted"),
        Answer::Compacted => "compacted".to_owned(),
        Answer::TooOld => "refused: compacted before".to_owned(),
        Answer::TooNew => "refused: still to come".to_owned(),
        Answer::Range(shown) if shown.is_empty() => "nothing".to_owned(),
        Answer::Range(shown) => {
            let pairs = shown.iter().map(|one| format!("{}={}", word(&one.key), word(&one.value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
    };
    let answers: Vec<_> = seen.answers.iter().map(answer).collect();
    if seen.revision == 0 {
        return answers.join("; ");
    }
    let branch = if seen.succeeded { "" } else { "else: " };
    format!("{branch}{} at revision {}", answers.join("; "), seen.revision)
}

/// Every key that is named, once each; of a span, its beginning.
fn keys(operation: &Operation) -> Vec<Arc<str>> {
    let (actions, conditions): (Vec<&Action>, &[Condition]) = match operation {
        Operation::One(action) | Operation::Serializable(action) => (vec![action], &[]),
        Operation::Txn { conditions, then, otherwise } => {
            (then.iter().chain(otherwise).collect(), conditions)
        }
        Operation::Past { key, .. } => return vec![word(key).into()],
        Operation::Compact { .. } => return Vec::new(),
    };
    let of_action = |action: &Action| match action {
        Action::Put { key, .. } | Action::Range { key, .. } | Action::Delete { key, .. } => {
            word(key)
        }
    };
    let mut keys: Vec<String> = actions.into_iter().map(of_action).collect();
    keys.extend(conditions.iter().map(|condition| word(&condition.key)));
    keys.sort();
    keys.dedup();
    keys.into_iter().map(Into::into).collect()
}
