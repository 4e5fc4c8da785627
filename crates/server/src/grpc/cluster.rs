//! The service `etcdserverpb.Cluster`: who is in it, and changing that.
//!
//! Any member may be asked; the leader decides. A change that cannot begin yet, because another one
//! is under way or the leader is new, is asked for again until the request's time is up.

use std::time::Duration;

use kvraft_base::{MemberId, MemberInfo, Members};
use kvraft_proto::{
    METADATA_PROMOTE,
    etcdserverpb::{self as pb, cluster_server::Cluster},
};
use kvraft_raft::{Change, InfoUpdate, Membership, Refusal};
use kvraft_replica::{ClientRequest, Outcome};
use tokio::time::Instant;
use tonic::{Status, metadata::MetadataMap};

use super::{
    Service,
    errors::{self, Certainty},
    membership::{self, View, peer_addresses},
};

type GrpcRequest<T> = tonic::Request<T>;
type GrpcResult<T> = Result<tonic::Response<T>, Status>;

/// Between two attempts, unless the members change in the meantime.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(
        &self,
        request: GrpcRequest<pb::MemberListRequest>,
    ) -> GrpcResult<pb::MemberListResponse> {
        if request.into_inner().linearizable {
            self.barrier().await?;
        }
        let (header, members) = (self.cluster_header(), self.members());
        Ok(tonic::Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: GrpcRequest<pb::MemberAddRequest>,
    ) -> GrpcResult<pb::MemberAddResponse> {
        let promote = wants_promotion(request.metadata())?;
        let pb::MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        if promote && !is_learner {
            return Err(Status::invalid_argument(format!(
                "kvraft: {METADATA_PROMOTE} is for learners: a voter has nothing to wait for"
            )));
        }
        let info =
            MemberInfo { peer_addresses: peer_addresses(&peer_ur_ls)?, ..Default::default() };
        let plan = |view: &View<'_>| {
            view.check_addresses(MemberId::ZERO, &info.peer_addresses)?;
            view.check_add(is_learner)?;
            let (id, info) = (view.members.next_id(), info.clone());
            Ok(match is_learner {
                true => Change::AddLearner { id, info, promote },
                false => Change::AddVoter { id, info },
            })
        };
        let (change, members) = self.change_members(plan).await?;
        let view = self.view(&members, &|_| true);
        // As it was added: a learner may have been promoted by now.
        let member = pb::Member { is_learner, ..view.describe(change.id()) };
        Ok(tonic::Response::new(pb::MemberAddResponse {
            header: self.cluster_header(),
            member: Some(member),
            members: view.list(),
        }))
    }

    async fn member_remove(
        &self,
        request: GrpcRequest<pb::MemberRemoveRequest>,
    ) -> GrpcResult<pb::MemberRemoveResponse> {
        let id = MemberId(request.into_inner().id);
        let plan = |view: &View<'_>| view.check_remove(id).map(|()| Change::Remove { id });
        let (_, members) = self.change_members(plan).await?;
        let (header, members) = (self.cluster_header(), self.view(&members, &|_| true).list());
        Ok(tonic::Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: GrpcRequest<pb::MemberUpdateRequest>,
    ) -> GrpcResult<pb::MemberUpdateResponse> {
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let (id, addresses) = (MemberId(id), peer_addresses(&peer_ur_ls)?);
        let plan = |view: &View<'_>| {
            view.check_member(id)?;
            view.check_addresses(id, &addresses)?;
            let peer_addresses = Some(addresses.clone());
            let info = InfoUpdate { peer_addresses, ..InfoUpdate::default() };
            Ok(Change::Update { id, info })
        };
        let (_, members) = self.change_members(plan).await?;
        let (header, members) = (self.cluster_header(), self.view(&members, &|_| true).list());
        Ok(tonic::Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: GrpcRequest<pb::MemberPromoteRequest>,
    ) -> GrpcResult<pb::MemberPromoteResponse> {
        let id = MemberId(request.into_inner().id);
        let plan = |view: &View<'_>| view.check_promote(id).map(|()| Change::Promote { id });
        let (_, members) = self.change_members(plan).await?;
        let (header, members) = (self.cluster_header(), self.view(&members, &|_| true).list());
        Ok(tonic::Response::new(pb::MemberPromoteResponse { header, members }))
    }
}

impl Service {
    /// As etcd has it in this service: without a revision.
    #[expect(clippy::unnecessary_wraps, reason = "the messages' field is optional")]
    fn cluster_header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.0.cluster.0,
            member_id: self.0.member.0,
            revision: 0,
            raft_term: self.board().term(),
        })
    }

    pub(super) fn view<'a>(
        &'a self,
        members: &'a Members,
        reaches: &'a dyn Fn(MemberId) -> bool,
    ) -> View<'a> {
        View { members, configured: &self.0.members, reaches }
    }

    /// The members that stay, whatever becomes of a change under way.
    fn members(&self) -> Vec<pb::Member> {
        let membership = self.board().members().borrow().committed().clone();
        self.view(&membership.members, &|_| true).list()
    }

    /// Has the leader make the change that `plan` finds right for the configuration in force.
    /// Yields it, and the configuration that it has led to.
    async fn change_members(
        &self,
        plan: impl Fn(&View<'_>) -> Result<Change, Status>,
    ) -> Result<(Change, Members), Status> {
        let deadline = Instant::now() + self.0.request_timeout;
        let mut known = self.board().members();
        loop {
            let membership = known.borrow_and_update().in_force().clone();
            let reaches = |id| self.0.edge.reaches(id);
            let planned = plan(&self.view(&membership.members, &reaches));
            let reason = match planned {
                // What speaks against it may be undone yet.
                Err(status) if membership.committed => return Err(status),
                Err(status) => status,
                Ok(change) => match self.ask_for(&change, deadline).await? {
                    Ok(membership) => return Ok((change, (*membership.members).clone())),
                    Err(refusal) => match membership::refused(refusal) {
                        Some(status) => return Err(status),
                        None => errors::not_yet(refusal),
                    },
                },
            };
            if deadline <= Instant::now() + RETRY_INTERVAL {
                return Err(reason);
            }
            // An error means that the time is up: then it is tried once more.
            let _ = tokio::time::timeout(RETRY_INTERVAL, known.changed()).await;
        }
    }

    /// Asks for a change once.
    async fn ask_for(
        &self,
        change: &Change,
        deadline: Instant,
    ) -> Result<Result<Membership, Refusal>, Status> {
        self.check_member()?;
        let changes = vec![change.clone()];
        let pending = self.0.driver.request(0, |_| ClientRequest::ChangeMembers(changes));
        let pending = pending.map_err(|_| errors::failed(kvraft_replica::Failure::Busy))?;
        let reply = tokio::time::timeout_at(deadline, pending.outcome()).await;
        let reply = reply.map_err(|_| errors::timed_out(Certainty::Unknown))?;
        match reply.ok_or_else(|| errors::stopped(Certainty::Unknown))?.outcome {
            Outcome::Changed(result) => Ok(result),
            Outcome::Failed(failure) => Err(errors::failed(failure)),
            Outcome::Unknown(_) => self.see_done(change, deadline).await.map(Ok),
            Outcome::Done(_) | Outcome::Answered(_) | Outcome::Transferred(_) => {
                unreachable!("a change of members is not answered by the state machine")
            }
        }
    }

    /// Nobody could say what became of a change; it shows in the configuration if it was made. What
    /// the lost leader has handed on is committed when a later one answers a read: what is not so
    /// then is in doubt for ever, and there is nothing left to wait for.
    async fn see_done(&self, change: &Change, deadline: Instant) -> Result<Membership, Status> {
        let mut known = self.board().members();
        let mut reading = std::pin::pin!(self.barrier());
        // Whether it was answered, once it has ended.
        let mut read = None;
        loop {
            let membership = known.borrow_and_update().committed().clone();
            if !membership.is_pending() {
                if is_done(change, &membership.members) {
                    return Ok(membership);
                }
                if read == Some(true) {
                    return Err(errors::lost());
                }
            }
            tokio::select! {
                answered = &mut reading, if read.is_none() => read = Some(answered.is_ok()),
                changed = tokio::time::timeout_at(deadline, known.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(errors::stopped(Certainty::Unknown)),
                    Err(_) => return Err(errors::lost()),
                },
            }
        }
    }
}

/// Whether what was wanted is so, by this request or by another one for the same.
fn is_done(change: &Change, members: &Members) -> bool {
    let at = |id, addresses: &[String]| {
        members.info(id).is_some_and(|known| known.peer_addresses == addresses)
    };
    match change {
        Change::AddVoter { id, info } => members.is_voter(*id) && at(*id, &info.peer_addresses),
        Change::AddLearner { id, info, .. } => {
            members.contains(*id) && at(*id, &info.peer_addresses)
        }
        Change::Remove { id } => !members.contains(*id),
        Change::Promote { id } => members.is_voter(*id),
        Change::Demote { id } => members.learner(*id).is_some(),
        Change::Update { id, info } => members.info(*id).is_some_and(|known| {
            let mut updated = known.clone();
            info.apply(&mut updated);
            updated == *known
        }),
    }
}

/// Whether a learner that is added is to become a voter by itself.
fn wants_promotion(metadata: &MetadataMap) -> Result<bool, Status> {
    match metadata.get(METADATA_PROMOTE).map(|value| value.as_bytes()) {
        None | Some(b"false") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(Status::invalid_argument(format!(
            "kvraft: metadata {METADATA_PROMOTE} is neither true nor false"
        ))),
    }
}
