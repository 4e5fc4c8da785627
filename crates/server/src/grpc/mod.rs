//! etcd's API, and kvraft's own beside it, over the driver.
//!
//! Why here and not below: the lanes know requests, answers and refusals; codes, headers, metadata
//! and time limits are a matter of this one protocol.
//!
//! Invariants:
//! - what a client is told is honest: a request that got no answer says whether it can have had an
//!   effect (see `errors`);
//! - a request is checked before it costs the cluster anything;
//! - a waiting request is bounded in time and gives its place back when its client goes away.
//!
//! What it lacks: watches, leases and auth; the snapshot stream.

mod cluster;
mod convert;
mod errors;
mod kv;
mod maintenance;
mod membership;
mod session;
mod unserved;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use kvraft_base::{ClusterId, MemberId, Revision, limits};
use kvraft_kv::{Answer, Command, Origin, Query, RangeRequest, Request, Response, SessionOp};
use kvraft_proto::{
    etcdserverpb::{
        self as pb, cluster_server::ClusterServer, kv_server::KvServer,
        maintenance_server::MaintenanceServer,
    },
    kvraft::v1::session_server::SessionServer,
};
use kvraft_replica::{ClientRequest, Outcome, Reply};
use tonic::{Status, service::Routes};

use self::errors::Certainty;
use crate::{
    board::Board,
    config::MemberConfig,
    driver::{Driver, Pending, Snapshot},
    edge::ServerEdge,
};

/// What the services need to know.
pub(crate) struct Inner {
    pub(crate) driver: Arc<Driver>,
    pub(crate) edge: Arc<ServerEdge>,
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    /// This life of the server: its tickets mean nothing in another.
    pub(crate) incarnation: u64,
    /// The longest that a client waits.
    pub(crate) request_timeout: Duration,
    /// The members in this server's configuration, for what the cluster's own does not say.
    pub(crate) members: Vec<MemberConfig>,
    /// The table's file, for its size.
    pub(crate) table_path: PathBuf,
}

/// All services of one server; cheap to copy.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

/// Greatest message that is decoded at all: beyond a request's own limit, so that one that is a
/// little too large is answered with etcd's text.
const MESSAGE_SIZE_BYTES_MAX: usize = limits::REQUEST_SIZE_BYTES_MAX + 512 * 1024;

/// All services, ready to be served.
pub(crate) fn routes(inner: Inner) -> Routes {
    let service = Arc::new(Service(Arc::new(inner)));
    let limit = MESSAGE_SIZE_BYTES_MAX;
    let kv = KvServer::from_arc(Arc::clone(&service)).max_decoding_message_size(limit);
    let session = SessionServer::from_arc(Arc::clone(&service)).max_decoding_message_size(limit);
    let cluster = ClusterServer::from_arc(Arc::clone(&service)).max_decoding_message_size(limit);
    let maintenance = MaintenanceServer::from_arc(service).max_decoding_message_size(limit);
    let routes = Routes::new(kv).add_service(maintenance).add_service(cluster).add_service(session);
    unserved::refuse_by_name(routes)
}

impl Service {
    /// What the core has last said about itself.
    fn published(&self) -> Snapshot {
        self.board().snapshot()
    }

    fn board(&self) -> &Board {
        &self.0.edge.board
    }

    fn database_size_bytes(&self) -> i64 {
        let size = std::fs::metadata(&self.0.table_path).map_or(0, |metadata| metadata.len());
        i64::try_from(size).unwrap_or(i64::MAX)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the messages' field is optional")]
    fn header(&self, revision: Revision) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.0.cluster.0,
            member_id: self.0.member.0,
            revision: revision.0,
            raft_term: self.board().term(),
        })
    }

    /// A server that was removed does nothing for anybody any more.
    fn check_member(&self) -> Result<(), Status> {
        match self.board().is_removed() {
            true => Err(errors::stopped(Certainty::Failed)),
            false => Ok(()),
        }
    }

    /// Has the cluster do something. `size_bytes` is that of the request as it came.
    async fn propose(
        &self,
        request: Request,
        size_bytes: usize,
        session: Option<SessionOp>,
    ) -> Result<Response, Status> {
        request.check().map_err(|refused| errors::refused(&refused))?;
        self.check_member()?;
        let time_ms = self.0.driver.wall_ms();
        let pending = self.0.driver.request(size_bytes, |ticket| {
            let origin = Origin { member: self.0.member, incarnation: self.0.incarnation, ticket };
            let command = Command { session, ..Command::new(origin, time_ms, request) };
            ClientRequest::Propose(command.encode())
        });
        let pending = pending.map_err(|_| errors::failed(kvraft_replica::Failure::Busy))?;
        match self.wait(pending, Certainty::Unknown).await?.outcome {
            Outcome::Done(result) => result.map_err(|refused| errors::refused(&refused)),
            Outcome::Failed(failure) => Err(errors::failed(failure)),
            Outcome::Unknown(_) => Err(errors::lost()),
            Outcome::Answered(_) | Outcome::Changed(_) | Outcome::Transferred(_) => {
                unreachable!("a command is answered by the state machine")
            }
        }
    }

    /// Asks this server's state machine.
    async fn query(&self, query: Query, linearizable: bool) -> Result<Answer, Status> {
        self.check_member()?;
        let size_bytes = query.size_bytes();
        let request = |_| ClientRequest::Query { query, linearizable };
        let pending = self.0.driver.request(size_bytes, request);
        let pending = pending.map_err(|_| errors::failed(kvraft_replica::Failure::Busy))?;
        match self.wait(pending, Certainty::Failed).await?.outcome {
            Outcome::Answered(result) => result.map_err(|refused| errors::refused(&refused)),
            // A query has no effect, so what became of it matters to nobody.
            Outcome::Failed(failure) | Outcome::Unknown(failure) => Err(errors::failed(failure)),
            Outcome::Done(_) | Outcome::Changed(_) | Outcome::Transferred(_) => {
                unreachable!("a query is not answered like a command")
            }
        }
    }

    /// Waits until this server has applied everything that was acknowledged before.
    async fn barrier(&self) -> Result<(), Status> {
        let range = RangeRequest {
            key: Bytes::from_static(b"\0"),
            count_only: true,
            ..RangeRequest::default()
        };
        self.query(Query::Range(range), true).await.map(drop)
    }

    async fn wait(&self, pending: Pending<'_>, certainty: Certainty) -> Result<Reply, Status> {
        match tokio::time::timeout(self.0.request_timeout, pending.outcome()).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(errors::stopped(certainty)),
            Err(_) => Err(errors::timed_out(certainty)),
        }
    }
}
