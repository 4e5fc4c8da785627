//! The client against a scripted server on a loopback port.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use kvraft_proto::{
    etcdserverpb::{kv_server::*, *},
    kvraft::v1::{CloseRequest, CloseResponse, OpenRequest, OpenResponse, session_server::*},
};
use tokio::task::JoinHandle;
use tonic::{
    Code, Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::{Server, server::TcpIncoming},
};

use crate::{Client, Error, RetryPolicy, prefix_end};

/// What the server does with one put.
#[derive(Clone, Debug)]
enum Act {
    /// Answers.
    Answer,
    /// Answers with this error.
    Say(Code, &'static str),
    /// Answers with an error of that text, saying whether the put had an effect.
    SayOutcome(&'static str, &'static str),
    /// Never answers.
    Hang,
}

/// What the server saw and will do; shared by all servers of a test.
#[derive(Debug, Default)]
struct Script {
    acts: VecDeque<Act>,
    /// (client, op, acked) of each put, as they came.
    puts: Vec<[Option<String>; 3]>,
    session_count: u64,
}

/// A server that follows its script, and answers when that is used up.
#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<Script>>);

impl Fake {
    fn with(acts: impl IntoIterator<Item = Act>) -> Self {
        let script = Script { acts: acts.into_iter().collect(), ..Script::default() };
        Self(Arc::new(Mutex::new(script)))
    }

    /// Starts listening; the address, and the task to abort for a death.
    fn start(&self) -> (String, JoinHandle<()>) {
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let server = Server::builder()
            .add_service(KvServer::new(self.clone()))
            .add_service(SessionServer::new(self.clone()));
        let task = tokio::spawn(async move {
            server.serve_with_incoming(incoming).await.unwrap();
        });
        (address, task)
    }

    fn puts(&self) -> Vec<[Option<String>; 3]> {
        self.0.lock().unwrap().puts.clone()
    }

    fn note(&self, metadata: &MetadataMap) -> Act {
        let text = |key| metadata.get(key).map(|value| value.to_str().unwrap().to_owned());
        let mut script = self.0.lock().unwrap();
        let stamp = ["kvraft-client", "kvraft-op", "kvraft-acked"].map(text);
        script.puts.push(stamp);
        script.acts.pop_front().unwrap_or(Act::Answer)
    }
}

#[tonic::async_trait]
impl Kv for Fake {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        match self.note(request.metadata()) {
            Act::Answer => Ok(Response::new(PutResponse::default())),
            Act::Say(code, text) => Err(Status::new(code, text)),
            Act::SayOutcome(text, outcome) => Err(with_outcome(text, outcome)),
            Act::Hang => std::future::pending().await,
        }
    }

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        match self.note(request.metadata()) {
            Act::Answer => Ok(Response::new(RangeResponse { count: 5, ..Default::default() })),
            Act::Say(code, text) => Err(Status::new(code, text)),
            Act::SayOutcome(text, outcome) => Err(with_outcome(text, outcome)),
            Act::Hang => std::future::pending().await,
        }
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }
}

#[tonic::async_trait]
impl Session for Fake {
    async fn open(&self, _: Request<OpenRequest>) -> Result<Response<OpenResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        script.session_count += 1;
        let client_id = 6 + script.session_count;
        Ok(Response::new(OpenResponse { header: None, client_id }))
    }

    async fn close(&self, _: Request<CloseRequest>) -> Result<Response<CloseResponse>, Status> {
        Ok(Response::new(CloseResponse::default()))
    }
}

fn with_outcome(text: &str, outcome: &'static str) -> Status {
    let mut status = Status::unavailable(text);
    status.metadata_mut().insert("kvraft-outcome", MetadataValue::from_static(outcome));
    status
}

fn stamp(client: u64, op: u64, acked: u64) -> [Option<String>; 3] {
    [client, op, acked].map(|number| Some(number.to_string()))
}

const NO_STAMP: [Option<String>; 3] = [None, None, None];

fn retry() -> RetryPolicy {
    RetryPolicy {
        pause_min: Duration::from_millis(2),
        pause_max: Duration::from_millis(10),
        attempt_timeout: Duration::from_millis(200),
    }
}

fn plain(endpoints: &[&str]) -> Client {
    Client::builder().endpoints(endpoints.iter().copied()).retry(retry()).build().unwrap()
}

fn exactly_once(endpoints: &[&str]) -> Client {
    let builder = Client::builder().endpoints(endpoints.iter().copied()).retry(retry());
    builder.exactly_once().build().unwrap()
}

/// An address at which nobody listens, and never will: the system gives this port to nobody.
fn nobody() -> String {
    "127.0.0.1:1".to_owned()
}

/// An answer that leaves doubt is asked again under the same number, and later numbers confirm it.
#[tokio::test]
async fn put_of_unknown_fate_is_resent_under_its_number() {
    let fake = Fake::with([Act::Say(Code::Unavailable, "etcdserver: leader changed")]);
    let (address, _task) = fake.start();
    let client = exactly_once(&[&address]);
    client.put("k", "v").await.unwrap();
    client.put("k", "w").await.unwrap();
    assert_eq!(fake.puts(), [stamp(7, 1, 0), stamp(7, 1, 0), stamp(7, 2, 1)]);
    assert_eq!(fake.0.lock().unwrap().session_count, 1);
    client.close().await.unwrap();
    assert_eq!(client.session(), None);
}

/// A server that falls silent is left after the attempt's timeout, with the same number.
#[tokio::test]
async fn silent_server_is_left() {
    let (silent, good) = (Fake::with([Act::Hang]), Fake::default());
    let (first, _first_task) = silent.start();
    let (second, _second_task) = good.start();
    let client = exactly_once(&[&first, &second]);
    client.put("k", "v").await.unwrap();
    assert_eq!((silent.puts(), good.puts()), (vec![stamp(7, 1, 0)], vec![stamp(7, 1, 0)]));
    assert_eq!(client.preferred(), second);
}

/// Without a session doubt is passed on, and nothing foreign to etcd is sent.
#[tokio::test]
async fn plain_put_of_unknown_fate_is_not_resent() {
    let fake = Fake::with([Act::Say(Code::Unavailable, "etcdserver: request timed out")]);
    let (address, _task) = fake.start();
    let error = plain(&[&address]).put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }) && !error.is_certain(), "{error}");
    assert!(error.to_string().ends_with("etcdserver: request timed out"), "{error}");
    assert_eq!(fake.puts(), [NO_STAMP]);
}

/// A refused connection is no doubt: even a plain put moves on to the next server.
#[tokio::test]
async fn dead_server_is_passed_over() {
    let fake = Fake::default();
    let (address, _task) = fake.start();
    let client = plain(&[&nobody(), &address]);
    client.put("k", "v").await.unwrap();
    assert_eq!(fake.puts(), [NO_STAMP]);
    assert_eq!(client.preferred(), address);
}

/// A server that vouches for "no effect" dispels the doubt that its words leave; and the reverse.
#[tokio::test]
async fn outcome_metadata_is_believed() {
    let fake = Fake::with([Act::SayOutcome("etcdserver: leader changed", "failed")]);
    let (address, _task) = fake.start();
    plain(&[&address]).put("k", "v").await.unwrap();
    assert_eq!(fake.puts(), [NO_STAMP, NO_STAMP]);

    let fake = Fake::with([Act::SayOutcome("etcdserver: no leader", "unknown")]);
    let (address, _task) = fake.start();
    let error = plain(&[&address]).put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
}

/// With nobody to ask, a change ends as certainly not done, naming server and cause.
#[tokio::test]
async fn nobody_to_ask_is_certain() {
    let address = nobody();
    let builder = Client::builder().endpoints([address.as_str()]).retry(retry());
    let client = builder.request_timeout(Duration::from_secs(2)).build().unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.is_certain(), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

/// An attempt that begins when the time is nearly over still hears that nobody listens, here on a
/// thread that is busy until the time is over.
#[tokio::test]
async fn the_last_attempt_has_time_to_be_refused() {
    let builder = Client::builder().endpoints([nobody()]).retry(retry());
    let client = builder.request_timeout(Duration::from_millis(1)).build().unwrap();
    let busy = async { std::thread::sleep(Duration::from_millis(3)) };
    let (outcome, ()) = tokio::join!(client.put("k", "v"), busy);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.is_certain(), "{error}");
}

/// A refusal keeps the server's code and words, and is not asked again.
#[tokio::test]
async fn refusal_is_passed_on() {
    let fake = Fake::with([Act::Say(Code::InvalidArgument, "etcdserver: key is not provided")]);
    let (address, _task) = fake.start();
    let error = exactly_once(&[&address]).put("", "v").await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: Code::InvalidArgument, .. }));
    assert_eq!(error.to_string(), "etcdserver: key is not provided");
    assert_eq!(fake.puts().len(), 1);
}

/// Reads are repeated whatever went wrong, session or not.
#[tokio::test]
async fn read_is_repeated() {
    let fake = Fake::with([Act::Say(Code::Unavailable, "huh"), Act::Hang]);
    let (address, _task) = fake.start();
    let answer = plain(&[&address]).range(RangeRequest::default()).await.unwrap();
    assert_eq!((answer.count, fake.puts().len()), (5, 3));
}

/// A session that expired before anything was done is replaced without anyone noticing.
#[tokio::test]
async fn expired_session_is_replaced() {
    let fake = Fake::with([
        Act::Answer,
        Act::Say(Code::FailedPrecondition, "kvraft: session unknown or expired"),
    ]);
    let (address, _task) = fake.start();
    let client = exactly_once(&[&address]);
    client.put("k", "v").await.unwrap();
    client.put("k", "w").await.unwrap();
    assert_eq!(fake.puts(), [stamp(7, 1, 0), stamp(7, 2, 1), stamp(8, 1, 0)]);
}

/// If it expired after doubt, the doubt remains.
#[tokio::test]
async fn expired_session_after_doubt_is_unknown() {
    let fake = Fake::with([
        Act::Say(Code::Unavailable, "etcdserver: leader changed"),
        Act::Say(Code::FailedPrecondition, "kvraft: session unknown or expired"),
    ]);
    let (address, _task) = fake.start();
    let error = exactly_once(&[&address]).put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
}

/// A put whose caller went away does not hold up the floor for ever.
#[tokio::test]
async fn dropped_put_gives_its_number_back() {
    let fake = Fake::with([Act::Hang]);
    let (address, _task) = fake.start();
    let client = exactly_once(&[&address]);
    let brief = Duration::from_millis(50);
    tokio::time::timeout(brief, client.put("k", "v")).await.unwrap_err();
    client.put("k", "w").await.unwrap();
    assert_eq!(fake.puts().last(), Some(&stamp(7, 2, 1)));
}

/// What is not an address is refused before anything is sent.
#[tokio::test]
async fn bad_endpoints_are_named() {
    let refused =
        |endpoint: &str| Client::builder().endpoints([endpoint]).build().unwrap_err().to_string();
    assert!(refused("https://127.0.0.1:2379").contains("https is not supported"));
    assert!(refused("127.0.0.1").contains("port is missing"));
    assert!(refused("two words:1").contains("two words:1"));
    let none = Client::builder().build().unwrap_err().to_string();
    assert_eq!(none, "no endpoint is given");
}

/// The end of a prefix is the next prefix; all-ones have none.
#[test]
fn prefix_ends() {
    assert_eq!(&prefix_end(b"ab")[..], b"ac");
    assert_eq!(&prefix_end(b"a\xff")[..], b"b");
    assert_eq!(&prefix_end(b"\xff")[..], b"\0");
    assert_eq!(&prefix_end(b"")[..], b"\0");
}
