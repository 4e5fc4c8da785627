//! etcdctl's plain format: the one of its formats that is promised not to change.

use kvraft_client::proto::{
    etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, TxnResponse, response_op::Response,
    },
    mvccpb::KeyValue,
};

use super::{options::Show, reply::MemberStatus};

pub(super) fn line(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(b'\n');
}

fn pair(out: &mut Vec<u8>, record: &KeyValue) {
    line(out, &record.key);
    line(out, &record.value);
}

pub(super) fn put(out: &mut Vec<u8>, response: &PutResponse) {
    line(out, b"OK");
    if let Some(record) = &response.prev_kv {
        pair(out, record);
    }
}

pub(super) fn range(out: &mut Vec<u8>, response: &RangeResponse, show: Show) {
    if show == Show::Count {
        line(out, response.count.to_string().as_bytes());
    }
    for record in &response.kvs {
        match show {
            Show::Pairs => pair(out, record),
            Show::Values => line(out, &record.value),
            Show::Count => {}
        }
    }
}

pub(super) fn delete(out: &mut Vec<u8>, response: &DeleteRangeResponse) {
    line(out, response.deleted.to_string().as_bytes());
    for record in &response.prev_kvs {
        pair(out, record);
    }
}

/// Nested transactions are flattened, so that depth cannot exhaust the stack.
pub(super) fn txn(out: &mut Vec<u8>, response: &TxnResponse) {
    let verdict = |response: &TxnResponse| -> &[u8] {
        if response.succeeded { b"SUCCESS" } else { b"FAILURE" }
    };
    line(out, verdict(response));
    let mut pending: Vec<_> = response.responses.iter().rev().collect();
    while let Some(next) = pending.pop() {
        line(out, b"");
        match &next.response {
            Some(Response::ResponsePut(response)) => put(out, response),
            Some(Response::ResponseRange(response)) => range(out, response, Show::Pairs),
            Some(Response::ResponseDeleteRange(response)) => delete(out, response),
            Some(Response::ResponseTxn(response)) => {
                line(out, verdict(response));
                pending.extend(response.responses.iter().rev());
            }
            None => {}
        }
    }
}

pub(super) fn status(out: &mut Vec<u8>, member: &MemberStatus) {
    let status = &member.status;
    let id = status.header.as_ref().map_or(0, |header| header.member_id);
    let size = size(u64::try_from(status.db_size).unwrap_or(0));
    let fields = [
        member.endpoint.clone(),
        format!("{id:x}"),
        status.version.clone(),
        size,
        (id == status.leader).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
    ];
    let mut text = fields.join(", ");
    // Behind all that etcdctl writes, and only of servers that have one.
    if status.kvraft_cluster_version != 0 {
        text.push_str(&format!(", cluster version {}", status.kvraft_cluster_version));
    }
    line(out, text.as_bytes());
}

/// A size as etcdctl writes it: `20 kB`, `1.5 MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let bytes = u128::from(bytes);
    let mut unit = 1_000;
    let mut name = 0;
    while 1_000 * unit <= bytes + unit / 2 && name + 1 < UNITS.len() {
        unit *= 1_000;
        name += 1;
    }
    let tenths = (10 * bytes + unit / 2) / unit;
    if tenths < 100 {
        return format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[name]);
    }
    format!("{} {}", (bytes + unit / 2) / unit, UNITS[name])
}
