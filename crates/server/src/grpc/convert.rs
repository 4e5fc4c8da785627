//! Protobuf messages to the state machine's requests and back, field by field.
//!
//! Numbers that name nothing are refused here, since the state machine's own types cannot hold
//! them.

use kvraft_base::Revision;
use kvraft_kv as kv;
use kvraft_kv::Refused;
use kvraft_proto::{
    etcdserverpb::{self as pb, compare::TargetUnion, request_op, response_op},
    mvccpb,
};

// Requests.

pub(crate) fn range_request(request: pb::RangeRequest) -> Result<kv::RangeRequest, Refused> {
    Ok(kv::RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: Revision(request.revision),
        sort_order: request.sort_order.try_into()?,
        sort_target: request.sort_target.try_into()?,
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: Revision(request.min_mod_revision),
        max_mod_revision: Revision(request.max_mod_revision),
        min_create_revision: Revision(request.min_create_revision),
        max_create_revision: Revision(request.max_create_revision),
    })
}

pub(crate) fn put_request(request: pb::PutRequest) -> kv::PutRequest {
    kv::PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(crate) fn delete_request(request: pb::DeleteRangeRequest) -> kv::DeleteRangeRequest {
    kv::DeleteRangeRequest {
        key: request.key,
        range_end: request.range_end,
        prev_kv: request.prev_kv,
    }
}

/// Nesting is bounded by the protobuf decoder, which refuses more than 100 levels.
pub(crate) fn txn_request(request: pb::TxnRequest) -> Result<kv::TxnRequest, Refused> {
    Ok(kv::TxnRequest {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: request.success.into_iter().map(request_op).collect::<Result<_, _>>()?,
        failure: request.failure.into_iter().map(request_op).collect::<Result<_, _>>()?,
    })
}

fn request_op(op: pb::RequestOp) -> Result<kv::RequestOp, Refused> {
    match op.request {
        Some(request_op::Request::RequestRange(range)) => {
            range_request(range).map(kv::RequestOp::Range)
        }
        Some(request_op::Request::RequestPut(put)) => Ok(kv::RequestOp::Put(put_request(put))),
        Some(request_op::Request::RequestDeleteRange(delete)) => {
            Ok(kv::RequestOp::DeleteRange(delete_request(delete)))
        }
        Some(request_op::Request::RequestTxn(txn)) => txn_request(txn).map(kv::RequestOp::Txn),
        None => Err(Refused::KeyNotFound),
    }
}

fn compare(compare: pb::Compare) -> Result<kv::Compare, Refused> {
    Ok(kv::Compare {
        result: compare.result.try_into()?,
        target: compare_target(compare.target, compare.target_union)?,
        key: compare.key,
        range_end: compare.range_end,
    })
}

/// The number decides, not the union: a union of another kind counts as absent, which is zero.
fn compare_target(number: i32, union: Option<TargetUnion>) -> Result<kv::CompareTarget, Refused> {
    let target =
        pb::compare::CompareTarget::try_from(number).map_err(|_| Refused::InvalidCompare)?;
    Ok(match (target, union) {
        (pb::compare::CompareTarget::Version, Some(TargetUnion::Version(version))) => {
            kv::CompareTarget::Version(version)
        }
        (pb::compare::CompareTarget::Version, _) => kv::CompareTarget::Version(0),
        (pb::compare::CompareTarget::Create, Some(TargetUnion::CreateRevision(revision))) => {
            kv::CompareTarget::Create(Revision(revision))
        }
        (pb::compare::CompareTarget::Create, _) => kv::CompareTarget::Create(Revision(0)),
        (pb::compare::CompareTarget::Mod, Some(TargetUnion::ModRevision(revision))) => {
            kv::CompareTarget::Mod(Revision(revision))
        }
        (pb::compare::CompareTarget::Mod, _) => kv::CompareTarget::Mod(Revision(0)),
        (pb::compare::CompareTarget::Value, Some(TargetUnion::Value(value))) => {
            kv::CompareTarget::Value(value)
        }
        (pb::compare::CompareTarget::Value, _) => kv::CompareTarget::Value(bytes::Bytes::new()),
        (pb::compare::CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => {
            kv::CompareTarget::Lease(lease)
        }
        (pb::compare::CompareTarget::Lease, _) => kv::CompareTarget::Lease(0),
    })
}

// Responses. The outermost header is the caller's; those within a transaction carry the revision
// only, as in etcd.

fn inner_header(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision: revision.0, ..Default::default() })
}

pub(crate) fn key_value(kv: kv::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

pub(crate) fn range_response(
    response: kv::RangeResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub(crate) fn put_response(
    response: kv::PutResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: response.prev_kv.map(key_value) }
}

pub(crate) fn delete_response(
    response: kv::DeleteRangeResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header,
        deleted: response.deleted,
        prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

pub(crate) fn txn_response(
    response: kv::TxnResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::TxnResponse {
    pb::TxnResponse {
        header,
        succeeded: response.succeeded,
        responses: response.responses.into_iter().map(response_op).collect(),
    }
}

fn response_op(op: kv::ResponseOp) -> pb::ResponseOp {
    let response = match op {
        kv::ResponseOp::Range(range) => {
            let header = inner_header(range.revision);
            response_op::Response::ResponseRange(range_response(range, header))
        }
        kv::ResponseOp::Put(put) => {
            let header = inner_header(put.revision);
            response_op::Response::ResponsePut(put_response(put, header))
        }
        kv::ResponseOp::DeleteRange(delete) => {
            let header = inner_header(delete.revision);
            response_op::Response::ResponseDeleteRange(delete_response(delete, header))
        }
        kv::ResponseOp::Txn(txn) => {
            let header = inner_header(txn.revision);
            response_op::Response::ResponseTxn(txn_response(txn, header))
        }
    };
    pb::ResponseOp { response: Some(response) }
}
