//! Histories as JSON lines: one event a line, written by hand and read by anything.
//!
//! ```text
//! {"at":1000,"client":1,"op":1,"invoke":{"put":{"key":"a","value":"1"}}}
//! {"at":2000,"client":1,"op":1,"ok":{"revision":2,"answers":["put"]}}
//! {"at":2000,"client":1,"op":1,"executed":5}
//! ```
//!
//! Times are nanoseconds. Bytes are a string when they are text, else `{"hex":"00ff"}`.

use std::fmt::Write as _;

use bytes::Bytes;
use kvraft_base::Instant;

use super::{
    Action, Answer, Condition, History, HistoryEvent, OpName, Operand, Operation, Outcome,
    Relation, Seen, Shown, json::Json,
};
use crate::witness::{Place, Role};

/// A line that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryError {
    /// Number of the line, from 1.
    pub line_number: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for HistoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line_number, self.reason)
    }
}

impl std::error::Error for HistoryError {}

impl History {
    /// The history as JSON lines.
    #[must_use]
    pub fn to_jsonl(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            writeln!(text, "{}", event_json(event)).expect("writing to a string does not fail");
        }
        text
    }

    /// Reads JSON lines; empty ones are passed over.
    ///
    /// # Errors
    /// The first line that is no event.
    pub fn from_jsonl(text: &str) -> Result<Self, HistoryError> {
        let mut events = Vec::new();
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let event = Json::parse(line).and_then(|json| read_event(&json));
            let error = |reason| HistoryError { line_number: at + 1, reason };
            events.push(event.map_err(error)?);
        }
        Ok(Self { events })
    }
}

fn event_json(event: &HistoryEvent) -> Json {
    let (at, name, kind, content) = match event {
        HistoryEvent::Invoked { at, name, operation } => {
            (at, name, "invoke", operation_json(operation))
        }
        HistoryEvent::Completed { at, name, outcome } => match outcome {
            Outcome::Ok(seen) => (at, name, "ok", seen_json(seen)),
            Outcome::Failed(words) => (at, name, "failed", Json::text(words)),
            Outcome::Unknown(words) => (at, name, "unknown", Json::text(words)),
        },
        HistoryEvent::Placed { at, name, place } => {
            let kind = match place.role {
                Role::Executed => "executed",
                Role::Looked => "looked",
            };
            (at, name, kind, Json::number(place.order))
        }
    };
    Json::object([
        ("at", Json::number(at.0)),
        ("client", Json::number(name.client)),
        ("op", Json::number(name.op)),
        (kind, content),
    ])
}

fn read_event(json: &Json) -> Result<HistoryEvent, String> {
    let at = Instant(read_number(json, "at")?);
    let name = OpName { client: read_number(json, "client")?, op: read_number(json, "op")? };
    let placed = |role, order| HistoryEvent::Placed { at, name, place: Place { order, role } };
    let completed = |outcome| HistoryEvent::Completed { at, name, outcome };
    if let Some(content) = json.member("invoke") {
        Ok(HistoryEvent::Invoked { at, name, operation: read_operation(content)? })
    } else if let Some(content) = json.member("ok") {
        Ok(completed(Outcome::Ok(read_seen(content)?)))
    } else if json.member("failed").is_some() {
        Ok(completed(Outcome::Failed(read_text(json, "failed")?)))
    } else if json.member("unknown").is_some() {
        Ok(completed(Outcome::Unknown(read_text(json, "unknown")?)))
    } else if json.member("executed").is_some() {
        Ok(placed(Role::Executed, read_number(json, "executed")?))
    } else if json.member("looked").is_some() {
        Ok(placed(Role::Looked, read_number(json, "looked")?))
    } else {
        Err("no known event".to_owned())
    }
}

fn operation_json(operation: &Operation) -> Json {
    match operation {
        Operation::One(action) => action_json(action),
        Operation::Serializable(action) => Json::object([("serializable", action_json(action))]),
        Operation::Past { key, end, revision } => Json::object([
            ("past", span_json(key, end.as_ref())),
            ("revision", Json::number(*revision)),
        ]),
        Operation::Compact { revision } => Json::object([("compact", Json::number(*revision))]),
        Operation::Txn { conditions, then, otherwise } => Json::object([(
            "txn",
            Json::object([
                ("if", Json::List(conditions.iter().map(condition_json).collect())),
                ("then", Json::List(then.iter().map(action_json).collect())),
                ("else", Json::List(otherwise.iter().map(action_json).collect())),
            ]),
        )]),
    }
}

fn read_operation(json: &Json) -> Result<Operation, String> {
    if let Some(action) = json.member("serializable") {
        return read_action(action).map(Operation::Serializable);
    }
    if let Some(span) = json.member("past") {
        let (key, end) = (read_member(span, "key")?, read_end(span)?);
        return Ok(Operation::Past { key, end, revision: read_number(json, "revision")? });
    }
    if json.member("compact").is_some() {
        return Ok(Operation::Compact { revision: read_number(json, "compact")? });
    }
    let Some(txn) = json.member("txn") else { return read_action(json).map(Operation::One) };
    Ok(Operation::Txn {
        conditions: read_list(txn, "if", read_condition)?,
        then: read_list(txn, "then", read_action)?,
        otherwise: read_list(txn, "else", read_action)?,
    })
}

fn action_json(action: &Action) -> Json {
    match action {
        Action::Put { key, value } => {
            let content = Json::object([("key", bytes_json(key)), ("value", bytes_json(value))]);
            Json::object([("put", content)])
        }
        Action::Range { key, end } => Json::object([("range", span_json(key, end.as_ref()))]),
        Action::Delete { key, end } => Json::object([("delete", span_json(key, end.as_ref()))]),
    }
}

fn span_json(key: &Bytes, end: Option<&Bytes>) -> Json {
    match end {
        None => Json::object([("key", bytes_json(key))]),
        Some(end) => Json::object([("key", bytes_json(key)), ("end", bytes_json(end))]),
    }
}

fn read_end(json: &Json) -> Result<Option<Bytes>, String> {
    json.member("end").map(read_bytes).transpose()
}

fn read_action(json: &Json) -> Result<Action, String> {
    if let Some(json) = json.member("put") {
        Ok(Action::Put { key: read_member(json, "key")?, value: read_member(json, "value")? })
    } else if let Some(json) = json.member("range") {
        Ok(Action::Range { key: read_member(json, "key")?, end: read_end(json)? })
    } else if let Some(json) = json.member("delete") {
        Ok(Action::Delete { key: read_member(json, "key")?, end: read_end(json)? })
    } else {
        Err("no known action".to_owned())
    }
}

const RELATIONS: [(&str, Relation); 4] = [
    ("=", Relation::Equal),
    ("!=", Relation::NotEqual),
    (">", Relation::Greater),
    ("<", Relation::Less),
];

fn condition_json(condition: &Condition) -> Json {
    let relation = RELATIONS.iter().find(|(_, relation)| *relation == condition.relation);
    let (sign, _) = relation.expect("every relation has a sign");
    let (target, operand) = match &condition.operand {
        Operand::Version(number) => ("version", Json::number(*number)),
        Operand::Create(number) => ("create", Json::number(*number)),
        Operand::Mod(number) => ("mod", Json::number(*number)),
        Operand::Value(value) => ("value", bytes_json(value)),
    };
    Json::object([("key", bytes_json(&condition.key)), ("is", Json::text(sign)), (target, operand)])
}

fn read_condition(json: &Json) -> Result<Condition, String> {
    let sign = read_text(json, "is")?;
    let relation = RELATIONS.iter().find(|(other, _)| *other == sign);
    let (_, relation) = relation.ok_or_else(|| format!("no such relation: {sign}"))?;
    let operand = if json.member("version").is_some() {
        Operand::Version(read_number(json, "version")?)
    } else if json.member("create").is_some() {
        Operand::Create(read_number(json, "create")?)
    } else if json.member("mod").is_some() {
        Operand::Mod(read_number(json, "mod")?)
    } else {
        Operand::Value(read_member(json, "value")?)
    };
    Ok(Condition { key: read_member(json, "key")?, relation: *relation, operand })
}

fn seen_json(seen: &Seen) -> Json {
    let answers = Json::List(seen.answers.iter().map(answer_json).collect());
    Json::object([
        ("revision", Json::number(seen.revision)),
        ("succeeded", Json::Bool(seen.succeeded)),
        ("answers", answers),
    ])
}

fn read_seen(json: &Json) -> Result<Seen, String> {
    Ok(Seen {
        revision: read_number(json, "revision")?,
        succeeded: json.member("succeeded") != Some(&Json::Bool(false)),
        answers: read_list(json, "answers", read_answer)?,
    })
}

fn answer_json(answer: &Answer) -> Json {
    match answer {
        Answer::Put => Json::text("put"),
        Answer::Compacted => Json::text("compacted"),
        Answer::TooOld => Json::text("too old"),
        Answer::TooNew => Json::text("too new"),
        Answer::Deleted(count) => Json::object([("deleted", Json::number(*count))]),
        Answer::Range(all) => {
            Json::object([("range", Json::List(all.iter().map(shown_json).collect()))])
        }
    }
}

fn read_answer(json: &Json) -> Result<Answer, String> {
    let words = [Answer::Put, Answer::Compacted, Answer::TooOld, Answer::TooNew];
    if let Some(answer) = words.into_iter().find(|answer| answer_json(answer) == *json) {
        Ok(answer)
    } else if json.member("deleted").is_some() {
        read_number(json, "deleted").map(Answer::Deleted)
    } else {
        read_list(json, "range", read_shown).map(Answer::Range)
    }
}

fn shown_json(shown: &Shown) -> Json {
    Json::object([
        ("key", bytes_json(&shown.key)),
        ("value", bytes_json(&shown.value)),
        ("create", Json::number(shown.create)),
        ("mod", Json::number(shown.modified)),
        ("version", Json::number(shown.version)),
    ])
}

fn read_shown(json: &Json) -> Result<Shown, String> {
    Ok(Shown {
        key: read_member(json, "key")?,
        value: read_member(json, "value")?,
        create: read_number(json, "create")?,
        modified: read_number(json, "mod")?,
        version: read_number(json, "version")?,
    })
}

fn bytes_json(bytes: &Bytes) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => Json::text(text),
        Err(_) => {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Json::object([("hex", Json::Text(hex.concat()))])
        }
    }
}

fn read_bytes(json: &Json) -> Result<Bytes, String> {
    if let Json::Text(text) = json {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let Some(Json::Text(hex)) = json.member("hex") else { return Err("no bytes".to_owned()) };
    let pairs = hex.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| match pair {
        [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>().map(Bytes::from).ok_or_else(|| "bad hex".to_owned())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn read_member(json: &Json, name: &str) -> Result<Bytes, String> {
    let member = json.member(name).ok_or_else(|| format!("missing: {name}"))?;
    read_bytes(member).map_err(|reason| format!("{name}: {reason}"))
}

fn read_number<N: TryFrom<i128>>(json: &Json, name: &str) -> Result<N, String> {
    match json.member(name) {
        Some(Json::Number(number)) => {
            N::try_from(*number).map_err(|_| format!("{name} out of range: {number}"))
        }
        _ => Err(format!("missing number: {name}")),
    }
}

fn read_text(json: &Json, name: &str) -> Result<String, String> {
    match json.member(name) {
        Some(Json::Text(text)) => Ok(text.clone()),
        _ => Err(format!("missing text: {name}")),
    }
}

fn read_list<T>(
    json: &Json,
    name: &str,
    read: impl Fn(&Json) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match json.member(name) {
        Some(Json::List(items)) => items.iter().map(read).collect(),
        _ => Err(format!("missing list: {name}")),
    }
}
