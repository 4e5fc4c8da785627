//! The client and its operations.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Stream, stream};
use kvraft_base::{ClientId, OpId};
use kvraft_proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
        HashKvRequest, HashKvResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
        StatusRequest, StatusResponse, TxnRequest, TxnResponse, kv_client::KvClient,
        maintenance_client::MaintenanceClient, request_op::Request as Op,
    },
    kvraft::v1::{CloseRequest, session_client::SessionClient},
    mvccpb::KeyValue,
};
use kvraft_session::{EndpointId, Kind, Session};
use tonic::{Response, Status, transport::Channel};

use crate::{
    builder::Builder,
    call::Begun,
    error::Error,
    traced::{Told, Traced},
    transport::{Server, describe},
};

/// A client of one cluster. Clones share connections and session.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    servers: Vec<Server>,
    /// Held for the length of a decision, never across an await.
    session: Mutex<Session>,
    pub(crate) session_ttl: Option<Duration>,
    /// Held while a session is being opened, so that one is enough.
    pub(crate) opening: tokio::sync::Mutex<()>,
    /// The zero of the session's clock.
    pub(crate) origin: Instant,
    request_timeout: Duration,
    /// Of a client that traces.
    pub(crate) traced: Option<Traced>,
}

impl Inner {
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        // A panic elsewhere leaves the session whole: every method finishes what it changes.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn server(&self, endpoint: EndpointId) -> &Server {
        &self.servers[endpoint.0]
    }

    /// Asks this very server, once.
    pub(crate) async fn ask<R, Fut>(&self, endpoint: EndpointId, answer: Fut) -> Result<R, Error>
    where
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let name = &self.server(endpoint).name;
        let unavailable = |cause: String| Error::Unavailable { endpoint: name.clone(), cause };
        match tokio::time::timeout(self.request_timeout, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) if std::error::Error::source(&status).is_none() => {
                Err(Error::Refused { code: status.code(), message: describe(&status) })
            }
            Ok(Err(status)) => Err(unavailable(describe(&status))),
            Err(_elapsed) => Err(unavailable("no answer in time".to_owned())),
        }
    }
}

impl Client {
    /// Settings for a new client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        servers: Vec<Server>,
        session: Session,
        session_ttl: Option<Duration>,
        request_timeout: Duration,
        traced: Option<Traced>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                servers,
                session: Mutex::new(session),
                session_ttl,
                opening: tokio::sync::Mutex::new(()),
                origin: Instant::now(),
                request_timeout,
                traced,
            }),
        }
    }

    /// Writes one key.
    ///
    /// # Errors
    /// See [`Error`]; so for every operation.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<PutResponse, Error> {
        let (key, value) = (key.into(), value.into());
        self.put_with(PutRequest { key, value, ..PutRequest::default() }).await
    }

    /// Writes one key, with all options.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_with(&self, request: PutRequest) -> Result<PutResponse, Error> {
        let begun = self.begin_put(&request, false);
        self.finish_put(begun, request).await
    }

    pub(crate) fn begin_put(&self, request: &PutRequest, numbered: bool) -> Begun {
        let told = Told::put(&request.key, &request.value);
        self.begin_told(Kind::Mutation, numbered, Some(told))
    }

    pub(crate) async fn finish_put(
        &self,
        begun: Begun,
        request: PutRequest,
    ) -> Result<PutResponse, Error> {
        let rpc = |channel, request| async move { kv(channel).put(request).await };
        begun.run(request, rpc).await
    }

    /// Reads one key, linearizably.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        Ok(self.range(request).await?.kvs.pop())
    }

    /// Reads a range of keys, with all options.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let begun = self.begin_range(&request, false);
        self.finish_range(begun, request).await
    }

    pub(crate) fn begin_range(&self, request: &RangeRequest, numbered: bool) -> Begun {
        let told = request.range_end.is_empty().then(|| Told::get(&request.key));
        self.begin_told(Kind::Repeatable, numbered, told)
    }

    pub(crate) async fn finish_range(
        &self,
        begun: Begun,
        request: RangeRequest,
    ) -> Result<RangeResponse, Error> {
        let rpc = |channel, request| async move { kv(channel).range(request).await };
        begun.run_reading(request, rpc, first_value).await
    }

    /// Deletes one key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<DeleteRangeResponse, Error> {
        let request = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
        self.delete_range(request).await
    }

    /// Deletes a range of keys, with all options.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        let rpc = |channel, request| async move { kv(channel).delete_range(request).await };
        self.call(Kind::Mutation, request, rpc).await
    }

    /// Compares, then does one of two lists of operations, as one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        let kind = if is_read_only(&request) { Kind::Repeatable } else { Kind::Mutation };
        let rpc = |channel, request| async move { kv(channel).txn(request).await };
        self.call(kind, request, rpc).await
    }

    /// Forgets what the store was before `revision`; `physical` waits until the space is free.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn compact(
        &self,
        revision: i64,
        physical: bool,
    ) -> Result<CompactionResponse, Error> {
        let request = CompactionRequest { revision, physical };
        let rpc = |channel, request| async move { kv(channel).compact(request).await };
        self.call(Kind::Mutation, request, rpc).await
    }

    /// How this very server is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(&self, endpoint: EndpointId) -> Result<StatusResponse, Error> {
        let mut client = MaintenanceClient::new(self.inner.server(endpoint).channel());
        self.inner.ask(endpoint, client.status(StatusRequest {})).await
    }

    /// The hash of this very server's store up to `revision`; 0 is the newest.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hash_kv(
        &self,
        endpoint: EndpointId,
        revision: i64,
    ) -> Result<HashKvResponse, Error> {
        let mut client = MaintenanceClient::new(self.inner.server(endpoint).channel());
        self.inner.ask(endpoint, client.hash_kv(HashKvRequest { revision })).await
    }

    /// Asks all servers who leads, and asks that one first from now on. `None` if nobody leads or
    /// the leader is not among the endpoints.
    pub async fn find_leader(&self) -> Option<EndpointId> {
        if let Some(traced) = &self.inner.traced {
            traced.on_leader_asked();
        }
        let (leader, member) = self.look_for_leader().await?;
        if let Some(traced) = &self.inner.traced {
            traced.on_leader_told(member);
        }
        Some(leader)
    }

    /// Looks who leads every `interval`, asks that one first from then on, and gives it whenever it
    /// is another than before: before is `known`.
    pub fn leader_changes(
        &self,
        known: Option<EndpointId>,
        interval: Duration,
    ) -> impl Stream<Item = Option<EndpointId>> + Send + 'static {
        stream::unfold((self.clone(), known), move |(client, known)| async move {
            loop {
                tokio::time::sleep(interval).await;
                let found = client.look_for_leader().await;
                let leader = found.map(|(endpoint, _)| endpoint);
                if leader == known {
                    continue;
                }
                if let (Some(traced), Some((_, member))) = (&client.inner.traced, found) {
                    traced.on_leader_changed(member);
                }
                return Some((leader, (client, leader)));
            }
        })
    }

    /// The leader and its id as a member.
    async fn look_for_leader(&self) -> Option<(EndpointId, u64)> {
        let mut asked = tokio::task::JoinSet::new();
        for (endpoint, _) in self.endpoints() {
            let client = self.clone();
            asked.spawn(async move { (endpoint, client.status(endpoint).await) });
        }
        let mut newest: Option<(u64, EndpointId, u64)> = None;
        while let Some(answer) = asked.join_next().await {
            let Ok((endpoint, Ok(status))) = answer else { continue };
            let member = status.header.map_or(0, |header| header.member_id);
            // A deposed leader may still believe in itself, in a lower term.
            let leads = status.leader != 0 && status.leader == member;
            if leads && newest.is_none_or(|(term, ..)| term < status.raft_term) {
                newest = Some((status.raft_term, endpoint, member));
            }
        }
        let (_, leader, member) = newest?;
        self.inner.session().prefer(leader);
        Some((leader, member))
    }

    /// Gives the session back, so that the servers need not keep it until it expires. A client that
    /// traces has stopped then; what it recorded is sent, for a second at most.
    ///
    /// # Errors
    /// See [`Error`]. The session is not used again in any case.
    pub async fn close(&self) -> Result<(), Error> {
        let client = {
            let mut session = self.inner.session();
            let client = session.client();
            session.detach();
            client
        };
        let closed = match client {
            Some(ClientId(client_id)) => {
                let rpc = |channel, request| async move {
                    SessionClient::new(channel).close(request).await
                };
                self.call(Kind::Repeatable, CloseRequest { client_id }, rpc).await.map(drop)
            }
            None => Ok(()),
        };
        if let Some(traced) = &self.inner.traced {
            traced.stop().await;
        }
        closed
    }

    /// The servers, as they were given.
    pub fn endpoints(&self) -> impl Iterator<Item = (EndpointId, &str)> {
        let numbered = self.inner.servers.iter().enumerate();
        numbered.map(|(at, server)| (EndpointId(at), server.name.as_str()))
    }

    /// The server that is asked next, as it was given.
    #[must_use]
    pub fn preferred(&self) -> &str {
        let endpoint = self.inner.session().preferred();
        &self.inner.server(endpoint).name
    }

    /// The open session and the last number used in it, if exactly-once is on and a change was
    /// made.
    #[must_use]
    pub fn session(&self) -> Option<(ClientId, OpId)> {
        let session = self.inner.session();
        Some((session.client()?, session.last_op()?))
    }
}

fn first_value(answer: &RangeResponse) -> Option<&[u8]> {
    Some(answer.kvs.first()?.value.as_ref())
}

/// Whether a transaction changes nothing, whatever its comparisons bring.
pub(crate) fn is_read_only(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, None | Some(Op::RequestRange(_))))
}

/// A client of the KV service without tonic's limit of 4 MiB on answers; etcd's has none either.
pub(crate) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// The end of the range of all keys that begin with `prefix`; `\0`, "everything from there on", if
/// there is no greater key of that length.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < u8::MAX) {
        None => Bytes::from_static(b"\0"),
        Some(at) => {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            end.into()
        }
    }
}

/// Keeps the signature of a call honest: it must be possible to carry it to another thread.
const _: fn() = || {
    fn is_send<T: Send>(_: T) {}
    let _check = |client: Client| is_send(async move { client.put("k", "v").await });
};
