//! `kvraft noop-server`: answers every request at once and does nothing.
//!
//! Why: the ceiling that this machine and this gRPC library allow, to compare a real server with.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::{Context as _, Result};
use kvraft_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
    kv_server::{Kv, KvServer},
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// Answer everything at once and do nothing, to measure what this machine can do at most
#[derive(clap::Args, Debug)]
pub(crate) struct NoopServerArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:2379")]
    listen: SocketAddr,
}

/// Serves until it is interrupted.
pub(crate) async fn run(args: NoopServerArgs) -> Result<ExitCode> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("answering everything with nothing on {}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .max_concurrent_streams(kvraft_server::CLIENT_STREAMS_MAX)
        .add_service(KvServer::new(Noop))
        .serve_with_incoming_shutdown(incoming, crate::signals::interrupted())
        .await
        .context("serving failed")?;
    Ok(ExitCode::SUCCESS)
}

struct Noop;

#[expect(clippy::unnecessary_wraps, reason = "the messages' field is optional")]
fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 1, member_id: 1, revision: 1, raft_term: 1 })
}

#[tonic::async_trait]
impl Kv for Noop {
    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Ok(Response::new(RangeResponse { header: header(), ..RangeResponse::default() }))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(PutResponse { header: header(), prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Ok(Response::new(DeleteRangeResponse {
            header: header(),
            ..DeleteRangeResponse::default()
        }))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Ok(Response::new(TxnResponse { header: header(), ..TxnResponse::default() }))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Ok(Response::new(CompactionResponse { header: header() }))
    }
}
