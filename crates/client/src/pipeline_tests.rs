//! Pipelines, scans and waiting for all, against a scripted server on a loopback port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use kvraft_base::OpId;
use kvraft_proto::{
    etcdserverpb::{kv_server::*, maintenance_server::*, *},
    kvraft::v1::{CloseRequest, CloseResponse, OpenRequest, OpenResponse, session_server::*},
    mvccpb::KeyValue,
};
use tokio::sync::Semaphore;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::{Client, Closed, Completed, Error, Outcome};

type Answer<R> = Result<Response<R>, Status>;

/// A store in which every key from `key000` on is there, and which answers puts when it may.
#[derive(Clone)]
struct Fake {
    /// A put takes one of these.
    permits: Arc<Semaphore>,
    /// Numbers of operations, as they came.
    ops: Arc<Mutex<Vec<u64>>>,
    /// What the servers say of themselves.
    status: StatusResponse,
}

const KEY_COUNT: usize = 150;

impl Fake {
    fn new(permit_count: usize) -> Self {
        let header = Some(ResponseHeader { cluster_id: 5, ..ResponseHeader::default() });
        let status = StatusResponse { header, leader: 1, ..StatusResponse::default() };
        let permits = Arc::new(Semaphore::new(permit_count));
        Self { permits, ops: Arc::default(), status }
    }

    fn start(&self) -> String {
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let server = Server::builder()
            .add_service(KvServer::new(self.clone()))
            .add_service(MaintenanceServer::new(self.clone()))
            .add_service(SessionServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    }

    fn client(&self) -> Client {
        Client::builder().endpoints([self.start()]).exactly_once().build().unwrap()
    }
}

#[tonic::async_trait]
impl Kv for Fake {
    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        let op = request.metadata().get("kvraft-op").unwrap().to_str().unwrap();
        self.ops.lock().unwrap().push(op.parse().unwrap());
        self.permits.acquire().await.unwrap().forget();
        Ok(Response::new(PutResponse::default()))
    }

    async fn range(&self, request: Request<RangeRequest>) -> Answer<RangeResponse> {
        let RangeRequest { key, range_end, limit, revision, .. } = request.into_inner();
        let keys = (0..KEY_COUNT).map(|number| format!("key{number:03}"));
        let mut kvs: Vec<_> = keys
            .filter(|it| key <= *it && (it.as_bytes() < &range_end[..] || *it == key))
            .map(|key| KeyValue { key: key.into(), ..KeyValue::default() })
            .collect();
        assert!(revision == 0 || revision == 77, "later pages are of the first one's revision");
        let limit = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap() };
        let more = limit < kvs.len();
        kvs.truncate(limit);
        let header = Some(ResponseHeader { revision: 77, ..ResponseHeader::default() });
        Ok(Response::new(RangeResponse { header, kvs, more, count: 0 }))
    }

    async fn delete_range(&self, _: Request<DeleteRangeRequest>) -> Answer<DeleteRangeResponse> {
        Ok(Response::new(DeleteRangeResponse { deleted: 3, ..DeleteRangeResponse::default() }))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Answer<TxnResponse> {
        Ok(Response::new(TxnResponse { succeeded: true, ..TxnResponse::default() }))
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        not_here()
    }
}

#[tonic::async_trait]
impl Session for Fake {
    async fn open(&self, _: Request<OpenRequest>) -> Answer<OpenResponse> {
        Ok(Response::new(OpenResponse { header: None, client_id: 7 }))
    }

    async fn close(&self, _: Request<CloseRequest>) -> Answer<CloseResponse> {
        Ok(Response::new(CloseResponse::default()))
    }
}

#[tonic::async_trait]
impl Maintenance for Fake {
    type SnapshotStream = tonic::Streaming<SnapshotResponse>;

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        Ok(Response::new(self.status.clone()))
    }

    async fn alarm(&self, _: Request<AlarmRequest>) -> Answer<AlarmResponse> {
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

    async fn move_leader(&self, _: Request<MoveLeaderRequest>) -> Answer<MoveLeaderResponse> {
        not_here()
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Answer<DowngradeResponse> {
        not_here()
    }
}

fn not_here<R>() -> Answer<R> {
    Err(Status::unimplemented("not part of this test"))
}

fn two() -> NonZeroUsize {
    NonZeroUsize::new(2).unwrap()
}

const BRIEF: Duration = Duration::from_millis(50);

/// Every operation has its number, and its result comes under it; a missing key is absent.
#[tokio::test]
async fn results_come_over_the_channel() {
    let client = Fake::new(9).client();
    let (pipeline, mut results) = client.pipeline(NonZeroUsize::new(5).unwrap()).await.unwrap();
    assert_eq!(pipeline.put("k", "v").await, Ok(OpId(1)));
    assert_eq!(pipeline.get("no such key").await, Ok(OpId(2)));
    assert_eq!(pipeline.get("key007").await, Ok(OpId(3)));
    assert_eq!(pipeline.delete_range(DeleteRangeRequest::default()).await, Ok(OpId(4)));
    assert_eq!(pipeline.txn(TxnRequest::default()).await, Ok(OpId(5)));
    pipeline.stop().await;
    let mut all = Vec::new();
    while let Some(Completed { op, result }) = results.recv().await {
        all.push((op, result.unwrap()));
    }
    all.sort_by_key(|(op, _)| *op);
    let [put, missing, found, deleted, txn] = &all[..] else { panic!("{all:?}") };
    assert_eq!(put.1, Outcome::Put(PutResponse::default()));
    assert_eq!(missing.1, Outcome::Get(None));
    assert!(matches!(&found.1, Outcome::Get(Some(record)) if record.key == "key007"));
    assert!(matches!(&deleted.1, Outcome::Delete(answer) if answer.deleted == 3));
    assert!(matches!(&txn.1, Outcome::Txn(answer) if answer.succeeded));
}

/// No more operations are under way than there is room for, and room comes when a result is taken.
#[tokio::test]
async fn what_is_under_way_is_bounded() {
    let fake = Fake::new(0);
    let client = fake.client();
    let (pipeline, mut results) = client.pipeline(two()).await.unwrap();
    pipeline.put("a", "1").await.unwrap();
    pipeline.get("b").await.unwrap();
    // The get has ended, but nobody has taken its result.
    let third = tokio::time::timeout(BRIEF, pipeline.put("c", "3")).await;
    assert!(third.is_err());
    assert_eq!(results.recv().await.unwrap().op, OpId(2));
    assert_eq!(pipeline.put("c", "3").await, Ok(OpId(3)), "a put that waited took no number");
    fake.permits.add_permits(2);
    let rest: Vec<_> = (&mut results).take(2).map(|completed| completed.op.0).collect().await;
    assert_eq!(rest.iter().sum::<u64>(), 1 + 3);
    // Sessions number like pipelines do, reads as well.
    let mut ops = fake.ops.lock().unwrap().clone();
    ops.sort_unstable();
    assert_eq!(ops, [1, 3]);
}

/// Who takes no results any more starts nothing any more.
#[tokio::test]
async fn nobody_listens() {
    let client = Fake::new(9).client();
    let (pipeline, results) = client.pipeline(two()).await.unwrap();
    drop(results);
    assert_eq!(pipeline.put("k", "v").await, Err(Closed));
    pipeline.stop().await;
}

/// A range of several pages is one stream of one revision.
#[tokio::test]
async fn scans_go_over_pages() {
    let client = Fake::new(0).client();
    let keys: Vec<_> =
        client.scan("key010", "key999").map_ok(|it| it.key).try_collect().await.unwrap();
    assert_eq!(keys.len(), KEY_COUNT - 10);
    assert!(keys.is_sorted() && keys.first().is_some_and(|key| key == "key010"));
    let none: Vec<_> = client.scan("x", "y").try_collect().await.unwrap();
    assert!(none.is_empty());
}

/// All servers must be there, and of one cluster.
#[tokio::test]
async fn waits_until_all_have_joined() {
    let fake = Fake::new(0);
    let mut alone = fake.clone();
    alone.status.leader = 0;
    let connect = |endpoints: [String; 2]| {
        Client::builder().endpoints(endpoints).exactly_once().wait_for_all().connect()
    };
    let client = connect([fake.start(), fake.start()]).await.unwrap();
    assert!(client.session().is_some(), "the session is open");
    assert!(tokio::time::timeout(BRIEF, connect([fake.start(), alone.start()])).await.is_err());
    let nobody = "127.0.0.1:1".to_owned();
    assert!(tokio::time::timeout(BRIEF, connect([fake.start(), nobody])).await.is_err());
    let mut other = fake.clone();
    other.status.header = None;
    let client = Client::builder().endpoints([fake.start(), other.start()]).build().unwrap();
    assert!(matches!(client.wait_for_all().await, Err(Error::Mixed { .. })));
}
