//! etcdctl's JSON: Go's names, empty fields left out, keys and values in base64.

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kvraft_client::proto::{
    etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, StatusResponse,
        TxnResponse, response_op::Response,
    },
    mvccpb::KeyValue,
};
use serde::Serialize;

use super::reply::Reply;

/// Nested transactions deeper than this are not printed. The server allows fewer.
const DEPTH_MAX: usize = 128;

pub(super) fn render(reply: &Reply) -> Result<Vec<u8>> {
    let mut out = match reply {
        Reply::Put(response) => serde_json::to_vec(&put(response)),
        Reply::Range(response, _) => serde_json::to_vec(&range(response)),
        Reply::Delete(response) => serde_json::to_vec(&delete(response)),
        Reply::Txn(response) => serde_json::to_vec(&txn(response, 0)),
        Reply::Compact(response, _) => {
            serde_json::to_vec(&Put { header: header(response.header.as_ref()), prev_kv: None })
        }
        Reply::Status(members) => {
            let members = members.iter().map(|member| Member {
                endpoint: &member.endpoint,
                status: status(&member.status),
            });
            serde_json::to_vec(&members.collect::<Vec<_>>())
        }
    }
    .context("writing JSON")?;
    out.push(b'\n');
    Ok(out)
}

/// Whether Go would leave the field out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Who answered, and when.
#[derive(Serialize)]
pub(crate) struct Header {
    #[serde(skip_serializing_if = "is_default")]
    cluster_id: u64,
    #[serde(skip_serializing_if = "is_default")]
    member_id: u64,
    #[serde(skip_serializing_if = "is_default")]
    revision: i64,
    #[serde(skip_serializing_if = "is_default")]
    raft_term: u64,
}

#[derive(Serialize)]
struct Record {
    #[serde(skip_serializing_if = "is_default")]
    key: String,
    #[serde(skip_serializing_if = "is_default")]
    create_revision: i64,
    #[serde(skip_serializing_if = "is_default")]
    mod_revision: i64,
    #[serde(skip_serializing_if = "is_default")]
    version: i64,
    #[serde(skip_serializing_if = "is_default")]
    value: String,
    #[serde(skip_serializing_if = "is_default")]
    lease: i64,
}

#[derive(Serialize)]
struct Put {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<Record>,
}

#[derive(Serialize)]
struct Range {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kvs: Vec<Record>,
    #[serde(skip_serializing_if = "is_default")]
    more: bool,
    #[serde(skip_serializing_if = "is_default")]
    count: i64,
}

#[derive(Serialize)]
struct Delete {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_default")]
    deleted: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prev_kvs: Vec<Record>,
}

#[derive(Serialize)]
struct Txn {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_default")]
    succeeded: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    responses: Vec<Op>,
}

#[derive(Serialize)]
struct Op {
    #[serde(rename = "Response")]
    response: Option<OpResponse>,
}

/// Go prints the name of the variant's type as the field's name.
#[derive(Serialize)]
enum OpResponse {
    #[serde(rename = "ResponseRange")]
    Range(Range),
    #[serde(rename = "ResponsePut")]
    Put(Put),
    #[serde(rename = "ResponseDeleteRange")]
    DeleteRange(Delete),
    #[serde(rename = "ResponseTxn")]
    Txn(Txn),
}

#[derive(Serialize)]
struct Member<'a> {
    #[serde(rename = "Endpoint")]
    endpoint: &'a str,
    #[serde(rename = "Status")]
    status: Status<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_default")]
    version: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    db_size: i64,
    #[serde(skip_serializing_if = "is_default")]
    leader: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_index: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_term: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_applied_index: u64,
    #[serde(skip_serializing_if = "is_default")]
    errors: &'a [String],
    #[serde(skip_serializing_if = "is_default")]
    db_size_in_use: i64,
    #[serde(skip_serializing_if = "is_default")]
    is_learner: bool,
    #[serde(skip_serializing_if = "is_default")]
    storage_version: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    db_size_quota: i64,
    #[serde(skip_serializing_if = "is_default")]
    kvraft_cluster_version: u32,
}

/// As it is printed.
pub(crate) fn header(header: Option<&ResponseHeader>) -> Option<Header> {
    header.map(|header| Header {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        raft_term: header.raft_term,
    })
}

fn record(record: &KeyValue) -> Record {
    Record {
        key: STANDARD.encode(&record.key),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        version: record.version,
        value: STANDARD.encode(&record.value),
        lease: record.lease,
    }
}

fn put(response: &PutResponse) -> Put {
    Put { header: header(response.header.as_ref()), prev_kv: response.prev_kv.as_ref().map(record) }
}

fn range(response: &RangeResponse) -> Range {
    Range {
        header: header(response.header.as_ref()),
        kvs: response.kvs.iter().map(record).collect(),
        more: response.more,
        count: response.count,
    }
}

fn delete(response: &DeleteRangeResponse) -> Delete {
    Delete {
        header: header(response.header.as_ref()),
        deleted: response.deleted,
        prev_kvs: response.prev_kvs.iter().map(record).collect(),
    }
}

fn txn(response: &TxnResponse, depth: usize) -> Txn {
    let op = |response: &Response| match response {
        Response::ResponseRange(response) => OpResponse::Range(range(response)),
        Response::ResponsePut(response) => OpResponse::Put(put(response)),
        Response::ResponseDeleteRange(response) => OpResponse::DeleteRange(delete(response)),
        Response::ResponseTxn(response) => OpResponse::Txn(txn(response, depth + 1)),
    };
    let shown = if depth < DEPTH_MAX { response.responses.as_slice() } else { &[] };
    Txn {
        header: header(response.header.as_ref()),
        succeeded: response.succeeded,
        responses: shown
            .iter()
            .map(|next| Op { response: next.response.as_ref().map(op) })
            .collect(),
    }
}

fn status(response: &StatusResponse) -> Status<'_> {
    Status {
        header: header(response.header.as_ref()),
        version: &response.version,
        db_size: response.db_size,
        leader: response.leader,
        raft_index: response.raft_index,
        raft_term: response.raft_term,
        raft_applied_index: response.raft_applied_index,
        errors: &response.errors,
        db_size_in_use: response.db_size_in_use,
        is_learner: response.is_learner,
        storage_version: &response.storage_version,
        db_size_quota: response.db_size_quota,
        kvraft_cluster_version: response.kvraft_cluster_version,
    }
}
