//! The service `etcdserverpb.Cluster`: who is in it. Changing that does not exist yet.

use kvraft_base::Revision;
use kvraft_proto::etcdserverpb::{self as pb, cluster_server::Cluster};
use tonic::Status;

use super::{Service, errors};

type GrpcRequest<T> = tonic::Request<T>;
type GrpcResult<T> = Result<tonic::Response<T>, Status>;

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(
        &self,
        request: GrpcRequest<pb::MemberListRequest>,
    ) -> GrpcResult<pb::MemberListResponse> {
        if request.into_inner().linearizable {
            self.barrier().await?;
        }
        let header = self.header(Revision(self.published().revision));
        Ok(tonic::Response::new(pb::MemberListResponse { header, members: self.members() }))
    }

    async fn member_add(
        &self,
        _: GrpcRequest<pb::MemberAddRequest>,
    ) -> GrpcResult<pb::MemberAddResponse> {
        Err(errors::not_here("Cluster.MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: GrpcRequest<pb::MemberRemoveRequest>,
    ) -> GrpcResult<pb::MemberRemoveResponse> {
        Err(errors::not_here("Cluster.MemberRemove"))
    }

    async fn member_update(
        &self,
        _: GrpcRequest<pb::MemberUpdateRequest>,
    ) -> GrpcResult<pb::MemberUpdateResponse> {
        Err(errors::not_here("Cluster.MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: GrpcRequest<pb::MemberPromoteRequest>,
    ) -> GrpcResult<pb::MemberPromoteResponse> {
        Err(errors::not_here("Cluster.MemberPromote"))
    }
}
