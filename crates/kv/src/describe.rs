//! Commands in a line of text, for people who read a log.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::{
    command::Command,
    request::{
        Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest,
        Request, RequestOp, TxnRequest,
    },
};

/// The command in an entry's payload, as `Put(k12,val12)`. Unprintable bytes are escaped, and what
/// is long is cut; the line is never over a few hundred characters. What cannot be decoded is said
/// so.
#[must_use]
pub fn describe(payload: &Bytes) -> String {
    let command = match Command::decode(payload.clone()) {
        Ok(command) => command,
        Err(error) => return format!("Undecodable({error})"),
    };
    let mut text = describe_request(&command.request);
    if let Some(session) = command.session {
        let _ = write!(text, " session={} op={}", session.client, session.op);
    }
    text
}

fn describe_request(request: &Request) -> String {
    match request {
        Request::Put(put) => describe_put(put),
        Request::DeleteRange(delete) => describe_delete(delete),
        Request::Txn(txn) => describe_txn(txn),
        Request::Compact(compact) => format!("Compact({})", compact.revision),
        Request::OpenSession { ttl_ms } => format!("OpenSession({ttl_ms}ms)"),
        Request::CloseSession { client } => format!("CloseSession({client})"),
        Request::RaiseVersion { version } => format!("RaiseVersion({version})"),
    }
}

fn describe_put(put: &PutRequest) -> String {
    let value = if put.ignore_value { "(same)".to_owned() } else { shown(&put.value) };
    format!("Put({},{value})", shown(&put.key))
}

fn describe_range(range: &RangeRequest) -> String {
    format!("Get({})", describe_span(&range.key, &range.range_end))
}

fn describe_delete(delete: &DeleteRangeRequest) -> String {
    format!("DeleteRange({})", describe_span(&delete.key, &delete.range_end))
}

fn describe_span(key: &[u8], range_end: &[u8]) -> String {
    match range_end {
        [] => shown(key),
        [0] => format!("{}..", shown(key)),
        end => format!("{}..{}", shown(key), shown(end)),
    }
}

/// Comparisons, then both branches: `Txn(if mod(k)=3 then Put(k,v) else Get(k))`.
fn describe_txn(txn: &TxnRequest) -> String {
    let compares = list(&txn.compare, " and ", describe_compare);
    let success = list(&txn.success, "; ", describe_op);
    let failure = list(&txn.failure, "; ", describe_op);
    let mut text = "Txn(".to_owned();
    if !compares.is_empty() {
        let _ = write!(text, "if {compares} then ");
    }
    text += &success;
    if !failure.is_empty() {
        let _ = write!(text, " else {failure}");
    }
    text + ")"
}

fn list<T>(items: &[T], between: &str, describe: fn(&T) -> String) -> String {
    let shown: Vec<String> = items.iter().take(LIST_COUNT_MAX).map(describe).collect();
    let mut text = shown.join(between);
    if LIST_COUNT_MAX < items.len() {
        let _ = write!(text, "{between}… {} more", items.len() - LIST_COUNT_MAX);
    }
    text
}

/// A nested transaction is only named, so that the line stays short.
fn describe_op(op: &RequestOp) -> String {
    match op {
        RequestOp::Range(range) => describe_range(range),
        RequestOp::Put(put) => describe_put(put),
        RequestOp::DeleteRange(delete) => describe_delete(delete),
        RequestOp::Txn(_) => "Txn(…)".to_owned(),
    }
}

fn describe_compare(compare: &Compare) -> String {
    let sign = match compare.result {
        CompareResult::Equal => "=",
        CompareResult::Greater => ">",
        CompareResult::Less => "<",
        CompareResult::NotEqual => "!=",
    };
    let (field, value) = match &compare.target {
        CompareTarget::Version(version) => ("version", version.to_string()),
        CompareTarget::Create(revision) => ("create", revision.to_string()),
        CompareTarget::Mod(revision) => ("mod", revision.to_string()),
        CompareTarget::Value(value) => ("value", shown(value)),
        CompareTarget::Lease(lease) => ("lease", lease.to_string()),
    };
    format!("{field}({}){sign}{value}", describe_span(&compare.key, &compare.range_end))
}

/// Bytes as text: printable ASCII as it is, the rest escaped, cut after some bytes.
fn shown(bytes: &[u8]) -> String {
    let mut text = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii().to_string();
    if SHOWN_BYTES_MAX < bytes.len() {
        let _ = write!(text, "… {} bytes", bytes.len());
    }
    text
}

/// Most bytes of a key or value that are shown.
const SHOWN_BYTES_MAX: usize = 32;
/// Most comparisons or operations that are shown.
const LIST_COUNT_MAX: usize = 3;
