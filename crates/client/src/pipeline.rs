//! Operations that are started and not waited for: their results come over a channel.
//!
//! Why: a program that asks much wants to go on asking while answers are under way, and wants a
//! bound on that.
//!
//! Invariants:
//! - operations are numbered from 1, one more for each call; an operation keeps its number through
//!   all its attempts;
//! - operations that are under way and results that nobody has taken are together at most the
//!   pipeline's capacity; starting one more waits;
//! - every operation that was started gives exactly one result, unless the pipeline is dropped.
//!
//! What it lacks: order. Operations that are under way at the same time may take effect in any
//! order; whoever needs one waits for the first one's result.

use std::{
    num::NonZeroUsize,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;
use kvraft_base::OpId;
use kvraft_proto::{
    etcdserverpb::{
        DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, TxnRequest,
        TxnResponse,
    },
    mvccpb::KeyValue,
};
use kvraft_session::Kind;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    client::{Client, is_read_only, kv},
    error::Error,
};

/// Starts operations of one client; see [`Client::pipeline`]. When it is dropped, what is under way
/// is given up; [`Pipeline::stop`] waits instead.
#[derive(Debug)]
pub struct Pipeline {
    client: Client,
    results: mpsc::Sender<Completed>,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    last: OpId,
    tasks: JoinSet<()>,
}

/// Where the results of a [`Pipeline`] come out, in the order in which operations end. It ends when
/// the pipeline has stopped. A [`Stream`], too.
#[derive(Debug)]
pub struct Results(mpsc::Receiver<Completed>);

/// An operation that has ended.
#[derive(Clone, Debug)]
pub struct Completed {
    /// Its number, as starting it has returned it.
    pub op: OpId,
    /// How it ended.
    pub result: Result<Outcome, Error>,
}

/// What an operation brought.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The key is written.
    Put(PutResponse),
    /// The record of the key; `None` if there is no such key.
    Get(Option<KeyValue>),
    /// The keys are deleted.
    Delete(DeleteRangeResponse),
    /// The transaction is done.
    Txn(TxnResponse),
}

/// Nobody takes results any more, so that nothing more is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes the results of this pipeline any more")]
pub struct Closed;

impl Client {
    /// A way to start operations without waiting for their results, at most `capacity` of them at a
    /// time. With exactly-once it opens the session now.
    ///
    /// ```no_run
    /// # async fn run(client: kvraft_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::num::NonZeroUsize;
    ///
    /// use kvraft_client::Outcome;
    ///
    /// let (pipeline, mut results) = client.pipeline(NonZeroUsize::new(8).unwrap()).await?;
    /// let put = pipeline.put("color", "blue").await?;
    /// let get = pipeline.get("no such key").await?;
    /// for _ in [put, get] {
    ///     let completed = results.recv().await.expect("two were started");
    ///     match completed.result? {
    ///         Outcome::Put(_) => assert_eq!(completed.op, put),
    ///         Outcome::Get(found) => assert_eq!(found, None),
    ///         other => unreachable!("not started: {other:?}"),
    ///     }
    /// }
    /// pipeline.stop().await;
    /// assert!(results.recv().await.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The session cannot be opened; see [`Error`].
    pub async fn pipeline(&self, capacity: NonZeroUsize) -> Result<(Pipeline, Results), Error> {
        self.open_session().await?;
        let capacity = capacity.get().min(tokio::sync::Semaphore::MAX_PERMITS);
        let (results, taken) = mpsc::channel(capacity);
        let running = Mutex::new(Running { last: OpId::ZERO, tasks: JoinSet::new() });
        Ok((Pipeline { client: self.clone(), results, running }, Results(taken)))
    }
}

impl Pipeline {
    /// Starts to write a key. Waits for room.
    ///
    /// # Errors
    /// Nobody takes results any more; so for every operation.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<OpId, Closed> {
        let (key, value) = (key.into(), value.into());
        self.put_with(PutRequest { key, value, ..PutRequest::default() }).await
    }

    /// Starts to write a key, with all options. Waits for room.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn put_with(&self, request: PutRequest) -> Result<OpId, Closed> {
        self.start(|client| {
            let begun = client.begin_put(&request, true);
            async move { client.finish_put(begun, request).await.map(Outcome::Put) }
        })
        .await
    }

    /// Starts to read a key, linearizably. Waits for room.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<OpId, Closed> {
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        self.start(|client| {
            let begun = client.begin_range(&request, true);
            async move {
                let mut answer = client.finish_range(begun, request).await?;
                Ok(Outcome::Get(answer.kvs.pop()))
            }
        })
        .await
    }

    /// Starts to delete a range of keys. Waits for room.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<OpId, Closed> {
        self.start(|client| {
            let begun = client.begin(Kind::Mutation, true);
            async move {
                let rpc = |channel, request| async move { kv(channel).delete_range(request).await };
                begun.run(request, rpc).await.map(Outcome::Delete)
            }
        })
        .await
    }

    /// Starts a transaction. Waits for room.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn txn(&self, request: TxnRequest) -> Result<OpId, Closed> {
        self.start(|client| {
            let kind = if is_read_only(&request) { Kind::Repeatable } else { Kind::Mutation };
            let begun = client.begin(kind, true);
            async move {
                let rpc = |channel, request| async move { kv(channel).txn(request).await };
                begun.run(request, rpc).await.map(Outcome::Txn)
            }
        })
        .await
    }

    /// Waits until everything that is under way has ended. Results that nobody has taken can still
    /// be taken afterwards.
    pub async fn stop(self) {
        let running = self.running.into_inner().unwrap_or_else(PoisonError::into_inner);
        drop(self.results);
        running.tasks.join_all().await;
    }

    /// `begin` numbers the operation, now; what it returns carries it out.
    async fn start<F>(&self, begin: impl FnOnce(Client) -> F) -> Result<OpId, Closed>
    where
        F: Future<Output = Result<Outcome, Error>> + Send + 'static,
    {
        let room = self.results.clone().reserve_owned().await.map_err(|_| Closed)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.tasks.try_join_next().is_some() {}
        running.last = running.last.next();
        let op = running.last;
        // In the order of the calls, so that sessions number alike.
        let carried_out = begin(self.client.clone());
        running.tasks.spawn(async move {
            let result = carried_out.await;
            room.send(Completed { op, result });
        });
        Ok(op)
    }
}

impl Results {
    /// The next result; `None` when the pipeline has stopped and all were taken.
    pub async fn recv(&mut self) -> Option<Completed> {
        self.0.recv().await
    }
}

impl Stream for Results {
    type Item = Completed;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Completed>> {
        self.0.poll_recv(context)
    }
}
