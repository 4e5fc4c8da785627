//! The service `etcdserverpb.Maintenance`, as far as it exists here: `Status`, `HashKV`, `Hash`,
//! `MoveLeader`, and `Alarm` in so far as there are none.

use std::{pin::Pin, time::Duration};

use futures::Stream;
use kvraft_base::{MemberId, Revision};
use kvraft_kv::{Answer, Query};
use kvraft_proto::etcdserverpb::{self as pb, maintenance_server::Maintenance};
use kvraft_replica::{ClientRequest, Outcome};
use tokio::time::Instant;
use tonic::Status;

use super::{
    Service,
    errors::{self, Certainty},
    membership,
};

/// The version of etcd whose API is served. Clients switch features on and off by this text, so it
/// names an etcd, not this program: 3.6 is the newest whose key-value semantics are all here.
const ETCD_VERSION: &str = "3.6.0";

/// As etcd 3.6 names the layout of its backend.
const STORAGE_VERSION: &str = "3.6.0";

type GrpcRequest<T> = tonic::Request<T>;
type GrpcResult<T> = Result<tonic::Response<T>, Status>;

#[tonic::async_trait]
impl Maintenance for Service {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn status(&self, _: GrpcRequest<pb::StatusRequest>) -> GrpcResult<pb::StatusResponse> {
        let snapshot = self.published();
        let raft = snapshot.raft;
        let db_size = self.database_size_bytes();
        let mut errors = Vec::new();
        if raft.leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        Ok(tonic::Response::new(pb::StatusResponse {
            header: self.header(Revision(snapshot.revision)),
            version: ETCD_VERSION.to_owned(),
            db_size,
            leader: raft.leader.unwrap_or_default().0,
            raft_index: raft.commit.0,
            raft_term: raft.term.0,
            raft_applied_index: raft.applied.0,
            errors,
            db_size_in_use: db_size,
            is_learner: raft.membership.members.learner(self.0.member).is_some(),
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: 0,
            downgrade_info: None,
            kvraft_cluster_version: snapshot.cluster_version,
        }))
    }

    async fn hash_kv(
        &self,
        request: GrpcRequest<pb::HashKvRequest>,
    ) -> GrpcResult<pb::HashKvResponse> {
        let revision = Revision(request.into_inner().revision);
        match self.query(Query::HashKv { revision }, false).await? {
            Answer::HashKv(response) => Ok(tonic::Response::new(pb::HashKvResponse {
                header: self.header(response.revision),
                hash: response.hash,
                compact_revision: response.compact_revision.0,
                hash_revision: response.hash_revision.0,
            })),
            other => unreachable!("a hash is answered by a hash, not {other:?}"),
        }
    }

    async fn hash(&self, _: GrpcRequest<pb::HashRequest>) -> GrpcResult<pb::HashResponse> {
        match self.query(Query::Hash, false).await? {
            Answer::Hash { revision, hash } => {
                let header = self.header(revision);
                Ok(tonic::Response::new(pb::HashResponse { header, hash }))
            }
            other => unreachable!("a hash is answered by a hash, not {other:?}"),
        }
    }

    /// There are no alarms; asking for them is answered so, setting one is refused.
    async fn alarm(&self, request: GrpcRequest<pb::AlarmRequest>) -> GrpcResult<pb::AlarmResponse> {
        if request.into_inner().action() != pb::alarm_request::AlarmAction::Get {
            return Err(errors::not_here("raising or disarming an alarm"));
        }
        let header = self.header(Revision(self.published().revision));
        Ok(tonic::Response::new(pb::AlarmResponse { header, alarms: Vec::new() }))
    }

    async fn defragment(
        &self,
        _: GrpcRequest<pb::DefragmentRequest>,
    ) -> GrpcResult<pb::DefragmentResponse> {
        Err(errors::not_here("Maintenance.Defragment"))
    }

    async fn snapshot(
        &self,
        _: GrpcRequest<pb::SnapshotRequest>,
    ) -> GrpcResult<Self::SnapshotStream> {
        Err(errors::not_here("Maintenance.Snapshot"))
    }

    async fn move_leader(
        &self,
        request: GrpcRequest<pb::MoveLeaderRequest>,
    ) -> GrpcResult<pb::MoveLeaderResponse> {
        // 0 names nobody: the leader chooses. An etcd refuses that.
        let to = Some(MemberId(request.into_inner().target_id)).filter(|to| *to != MemberId::ZERO);
        let raft = self.published().raft;
        if raft.leader != Some(self.0.member) {
            return Err(membership::not_leader());
        }
        if let Some(to) = to {
            self.view(&raft.membership.members, &|_| true).check_successor(to)?;
        }
        if to != Some(self.0.member) {
            self.transfer(to).await?;
        }
        Ok(tonic::Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        _: GrpcRequest<pb::DowngradeRequest>,
    ) -> GrpcResult<pb::DowngradeResponse> {
        Err(errors::not_here("Maintenance.Downgrade"))
    }
}

/// Between two attempts to hand leadership over to a member that still lacks something, or that may
/// lead already.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl Service {
    /// Has another server lead, the most up-to-date voter that is reachable if none is named, in
    /// the time that a request has.
    async fn transfer(&self, to: Option<MemberId>) -> Result<(), Status> {
        let deadline = Instant::now() + self.0.request_timeout;
        loop {
            let request = |_| ClientRequest::Transfer { to };
            let pending = self.0.driver.request(0, request);
            let pending = pending.map_err(|_| errors::failed(kvraft_replica::Failure::Busy))?;
            let reply = tokio::time::timeout_at(deadline, pending.outcome()).await;
            let reply = reply.map_err(|_| membership::transfer_too_long())?;
            let refusal = match reply.ok_or_else(|| errors::stopped(Certainty::Unknown))?.outcome {
                Outcome::Transferred(Ok(_)) => return Ok(()),
                Outcome::Transferred(Err(refusal)) => refusal,
                Outcome::Failed(failure) | Outcome::Unknown(failure) => {
                    return Err(errors::failed(failure));
                }
                Outcome::Done(_) | Outcome::Answered(_) | Outcome::Changed(_) => {
                    unreachable!("a transfer is not answered by the state machine")
                }
            };
            if let Some(end) = membership::not_transferred(to, refusal) {
                return end;
            }
            if deadline <= Instant::now() + RETRY_INTERVAL {
                return Err(membership::transfer_too_long());
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}
