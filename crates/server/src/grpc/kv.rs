//! The service `etcdserverpb.KV`.

use kvraft_base::{ClientId, OpId, limits};
use kvraft_kv::{Answer, CompactRequest, Query, Refused, Request, Response, SessionOp};
use kvraft_proto::{
    METADATA_ACKED, METADATA_CLIENT, METADATA_OP, METADATA_TRACE,
    etcdserverpb::{self as pb, kv_server::Kv},
};
use prost::Message;
use tonic::{Status, metadata::MetadataMap};

use super::{Service, convert, errors};
use crate::recorder::{GetSeen, PutSeen};

type GrpcRequest<T> = tonic::Request<T>;
type GrpcResult<T> = Result<tonic::Response<T>, Status>;

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: GrpcRequest<pb::RangeRequest>) -> GrpcResult<pb::RangeResponse> {
        let (metadata, _, range) = request.into_parts();
        let seen = self.0.edge.recorder.as_deref().filter(|_| range.range_end.is_empty());
        let seen = seen.map(|recorder| {
            // A read needs no session; who numbers its reads names it for traces only.
            let session = session_of(&metadata).ok().flatten();
            let seen = GetSeen::new(session, &range.key);
            (recorder, recorder.on_request(trace_token(&metadata), &seen.received()), seen)
        });
        let range = convert::range_request(range);
        let range = range.map_err(|refused| errors::refused(&refused))?;
        range.check().map_err(|refused| errors::refused(&refused))?;
        let linearizable = !range.serializable;
        match self.query(Query::Range(range), linearizable).await? {
            Answer::Range(response) => {
                let header = self.header(response.revision);
                let token = seen.and_then(|(recorder, trace, seen)| {
                    let value = response.kvs.first().map(|kv| kv.value.as_ref());
                    recorder.on_answer(trace, &seen.answered(value))
                });
                let response = convert::range_response(response, header);
                Ok(with_token(tonic::Response::new(response), token))
            }
            other => unreachable!("a range is answered by a range, not {other:?}"),
        }
    }

    async fn put(&self, request: GrpcRequest<pb::PutRequest>) -> GrpcResult<pb::PutResponse> {
        let session = session_of(request.metadata())?;
        let (metadata, _, put) = request.into_parts();
        let size_bytes = checked_size(&put)?;
        let seen = self.0.edge.recorder.as_deref().map(|recorder| {
            let seen = PutSeen::new(session, &put.key, &put.value);
            (recorder, recorder.on_request(trace_token(&metadata), &seen.received()), seen)
        });
        let put = Request::Put(convert::put_request(put));
        match self.propose(put, size_bytes, session).await? {
            Response::Put(response) => {
                let header = self.header(response.revision);
                let token = seen.and_then(|(recorder, trace, seen)| {
                    recorder.on_answer(trace, &seen.committed(response.revision.0))
                });
                let response = convert::put_response(response, header);
                Ok(with_token(tonic::Response::new(response), token))
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: GrpcRequest<pb::DeleteRangeRequest>,
    ) -> GrpcResult<pb::DeleteRangeResponse> {
        let session = session_of(request.metadata())?;
        let delete = request.into_inner();
        let size_bytes = checked_size(&delete)?;
        let delete = Request::DeleteRange(convert::delete_request(delete));
        match self.propose(delete, size_bytes, session).await? {
            Response::DeleteRange(response) => {
                let header = self.header(response.revision);
                Ok(tonic::Response::new(convert::delete_response(response, header)))
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn txn(&self, request: GrpcRequest<pb::TxnRequest>) -> GrpcResult<pb::TxnResponse> {
        let session = session_of(request.metadata())?;
        let txn = request.into_inner();
        let size_bytes = checked_size(&txn)?;
        let txn = convert::txn_request(txn).map_err(|refused| errors::refused(&refused))?;
        let response = if txn.is_readonly() {
            txn.check().map_err(|refused| errors::refused(&refused))?;
            let linearizable = !txn.is_serializable();
            match self.query(Query::Txn(txn), linearizable).await? {
                Answer::Txn(response) => response,
                other => unreachable!("a transaction is answered by one, not {other:?}"),
            }
        } else {
            match self.propose(Request::Txn(txn), size_bytes, session).await? {
                Response::Txn(response) => response,
                other => return Err(mismatch(&other)),
            }
        };
        let header = self.header(response.revision);
        Ok(tonic::Response::new(convert::txn_response(response, header)))
    }

    async fn compact(
        &self,
        request: GrpcRequest<pb::CompactionRequest>,
    ) -> GrpcResult<pb::CompactionResponse> {
        let session = session_of(request.metadata())?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let revision = kvraft_base::Revision(revision);
        let compact = Request::Compact(CompactRequest { revision, physical });
        match self.propose(compact, 0, session).await? {
            Response::Compact(response) => {
                let header = self.header(response.revision);
                Ok(tonic::Response::new(pb::CompactionResponse { header }))
            }
            other => Err(mismatch(&other)),
        }
    }
}

/// The token of a client that traces.
fn trace_token(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(METADATA_TRACE)?.to_str().ok()
}

/// The answer to a client that traces has a token, too.
fn with_token<T>(mut response: tonic::Response<T>, token: Option<String>) -> tonic::Response<T> {
    if let Some(token) = token.and_then(|token| token.parse().ok()) {
        response.metadata_mut().insert(METADATA_TRACE, token);
    }
    response
}

fn checked_size(message: &impl Message) -> Result<usize, Status> {
    let size_bytes = message.encoded_len();
    if limits::REQUEST_SIZE_BYTES_MAX < size_bytes {
        return Err(errors::refused(&Refused::TooLarge));
    }
    Ok(size_bytes)
}

/// A session that reuses an operation's number for another kind of operation gets the first one's
/// result, which does not fit.
fn mismatch(response: &Response) -> Status {
    Status::invalid_argument(format!(
        "kvraft: this operation number was used for another request, whose result is kept: {}",
        match response {
            Response::Put(_) => "put",
            Response::DeleteRange(_) => "delete range",
            Response::Txn(_) => "txn",
            Response::Compact(_) => "compaction",
            Response::SessionOpened { .. } => "open session",
            Response::SessionClosed { .. } => "close session",
            Response::VersionRaised { .. } => "raise version",
        }
    ))
}

/// The session that a request belongs to, if it says so.
fn session_of(metadata: &MetadataMap) -> Result<Option<SessionOp>, Status> {
    let Some(client) = number(metadata, METADATA_CLIENT)? else {
        return Ok(None);
    };
    let Some(op) = number(metadata, METADATA_OP)? else {
        return Err(errors::bad_metadata(METADATA_OP));
    };
    let acked = number(metadata, METADATA_ACKED)?.unwrap_or(0);
    Ok(Some(SessionOp { client: ClientId(client), op: OpId(op), acked: OpId(acked) }))
}

fn number(metadata: &MetadataMap, key: &str) -> Result<Option<u64>, Status> {
    let Some(value) = metadata.get(key) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| errors::bad_metadata(key))
}
