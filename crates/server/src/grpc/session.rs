//! The service `kvraft.v1.Session`: a place in the replicated state for exactly-once.

use kvraft_base::ClientId;
use kvraft_kv::{Request, Response};
use kvraft_proto::kvraft::v1::{
    CloseRequest, CloseResponse, OpenRequest, OpenResponse, session_server::Session,
};
use tonic::Status;

use super::Service;

#[tonic::async_trait]
impl Session for Service {
    async fn open(
        &self,
        request: tonic::Request<OpenRequest>,
    ) -> Result<tonic::Response<OpenResponse>, Status> {
        let ttl_ms = u64::try_from(request.into_inner().ttl_ms)
            .map_err(|_| Status::invalid_argument("kvraft: a session's ttl is not negative"))?;
        match self.propose(Request::OpenSession { ttl_ms }, 0, None).await? {
            Response::SessionOpened { revision, client } => {
                let header = self.header(revision);
                Ok(tonic::Response::new(OpenResponse { header, client_id: client.0 }))
            }
            other => unreachable!("opening answers with a session, not {other:?}"),
        }
    }

    async fn close(
        &self,
        request: tonic::Request<CloseRequest>,
    ) -> Result<tonic::Response<CloseResponse>, Status> {
        let client = ClientId(request.into_inner().client_id);
        match self.propose(Request::CloseSession { client }, 0, None).await? {
            Response::SessionClosed { revision } => {
                let header = self.header(revision);
                Ok(tonic::Response::new(CloseResponse { header }))
            }
            other => unreachable!("closing answers that it closed, not {other:?}"),
        }
    }
}
