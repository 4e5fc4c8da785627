//! Changes of members against a scripted server on a loopback port.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use kvraft_proto::etcdserverpb::{cluster_server::*, maintenance_server::*, *};
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::{Client, Error, NewMember};

type Answer<R> = Result<Response<R>, Status>;

/// What the server saw, and what it refuses first.
#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<(Vec<String>, VecDeque<Status>)>>);

impl Fake {
    fn refusing(statuses: impl IntoIterator<Item = Status>) -> Self {
        Self(Arc::new(Mutex::new((Vec::new(), statuses.into_iter().collect()))))
    }

    /// Starts listening, and gives a client of it.
    fn client(&self) -> Client {
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let server = Server::builder()
            .add_service(ClusterServer::new(self.clone()))
            .add_service(MaintenanceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        Client::builder().endpoints([address]).exactly_once().build().unwrap()
    }

    fn note(&self, text: String) -> Result<(), Status> {
        let mut seen = self.0.lock().unwrap();
        seen.0.push(text);
        seen.1.pop_front().map_or(Ok(()), Err)
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }
}

#[tonic::async_trait]
impl Cluster for Fake {
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Answer<MemberAddResponse> {
        let text = |key| request.metadata().get(key).map(|value| value.to_str().unwrap());
        let (promote, op) = (text("kvraft-promote"), text("kvraft-op"));
        assert_eq!(op, None, "sessions do not cover this");
        let MemberAddRequest { peer_ur_ls, is_learner } = request.get_ref();
        self.note(format!("add {} {is_learner} {promote:?}", peer_ur_ls.join(",")))?;
        let member = Member { id: 9, peer_ur_ls: peer_ur_ls.clone(), ..Member::default() };
        let members = vec![member.clone()];
        Ok(Response::new(MemberAddResponse { header: None, member: Some(member), members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Answer<MemberRemoveResponse> {
        self.note(format!("remove {}", request.get_ref().id))?;
        Ok(Response::new(MemberRemoveResponse::default()))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Answer<MemberUpdateResponse> {
        let MemberUpdateRequest { id, peer_ur_ls } = request.get_ref();
        self.note(format!("update {id} {}", peer_ur_ls.join(",")))?;
        Ok(Response::new(MemberUpdateResponse::default()))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Answer<MemberPromoteResponse> {
        self.note(format!("promote {}", request.get_ref().id))?;
        Ok(Response::new(MemberPromoteResponse::default()))
    }

    async fn member_list(&self, request: Request<MemberListRequest>) -> Answer<MemberListResponse> {
        self.note(format!("list {}", request.get_ref().linearizable))?;
        Ok(Response::new(MemberListResponse::default()))
    }
}

fn not_here<R>() -> Answer<R> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl Maintenance for Fake {
    type SnapshotStream = tonic::Streaming<SnapshotResponse>;

    async fn alarm(&self, _: Request<AlarmRequest>) -> Answer<AlarmResponse> {
        not_here()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        not_here()
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Answer<DefragmentResponse> {
        not_here()
    }

    async fn hash(&self, _: Request<HashRequest>) -> Answer<HashResponse> {
        not_here()
    }

    async fn hash_kv(&self, _: Request<HashKvRequest>) -> Answer<HashKvResponse> {
        not_here()
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        not_here()
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Answer<MoveLeaderResponse> {
        self.note(format!("move {}", request.get_ref().target_id))?;
        Ok(Response::new(MoveLeaderResponse::default()))
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Answer<DowngradeResponse> {
        not_here()
    }
}

/// Addresses become URLs, a learner that is to be promoted says so, ids are passed as they are.
#[tokio::test]
async fn changes_arrive_as_they_are_meant() {
    let fake = Fake::default();
    let client = fake.client();
    let added = client.member_add(["h:1", "http://i:2"], NewMember::Voter).await.unwrap();
    assert_eq!(added.member.unwrap().id, 9);
    client.member_add(["h:1"], NewMember::Learner).await.unwrap();
    client.member_add(["h:1"], NewMember::LearnerToPromote).await.unwrap();
    client.member_promote(9).await.unwrap();
    client.member_update(9, ["j:3"]).await.unwrap();
    client.member_remove(9).await.unwrap();
    client.member_list().await.unwrap();
    let (endpoint, _) = client.endpoints().next().unwrap();
    client.move_leader(endpoint, 7).await.unwrap();
    assert_eq!(
        fake.seen(),
        [
            "add http://h:1,http://i:2 false None",
            "add http://h:1 true None",
            "add http://h:1 true Some(\"true\")",
            "promote 9",
            "update 9 http://j:3",
            "remove 9",
            "list true",
            "move 7",
        ]
    );
    assert_eq!(client.session(), None, "no session is opened for them");
}

/// What the cluster refuses is passed on in its words; what it has not taken is sent again; doubt
/// is passed on and nothing is sent twice.
#[tokio::test]
async fn refusals_and_doubt_are_told_apart() {
    let refusals = [
        Status::failed_precondition("etcdserver: Peer URLs already exists"),
        Status::unavailable("etcdserver: no leader"),
        Status::unavailable("etcdserver: request timed out"),
    ];
    let fake = Fake::refusing(refusals);
    let client = fake.client();
    let error = client.member_add(["h:1"], NewMember::Voter).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: Code::FailedPrecondition, .. }), "{error:?}");
    assert_eq!(error.to_string(), "etcdserver: Peer URLs already exists");
    let error = client.member_remove(3).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    assert_eq!(fake.seen()[1..], ["remove 3", "remove 3"], "the first was certainly not done");
    let (endpoint, _) = client.endpoints().next().unwrap();
    fake.0.lock().unwrap().1.push_back(Status::failed_precondition("etcdserver: not leader"));
    let error = client.move_leader(endpoint, 7).await.unwrap_err();
    assert_eq!(error.to_string(), "etcdserver: not leader");
}
