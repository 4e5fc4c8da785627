//! One operation carried out: attempts, pauses and fail-over as the session decides.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use kvraft_base::ClientId;
use kvraft_proto::{
    METADATA_ACKED, METADATA_CLIENT, METADATA_OP,
    kvraft::v1::{OpenRequest, session_client::SessionClient},
};
use kvraft_session::{Attempt, Ending, EndpointId, Failure, Kind, Next, Operation, Stamp};
use tonic::{Request, Response, Status, metadata::MetadataMap, transport::Channel};

use crate::{
    client::{Client, Inner},
    error::Error,
    traced::{Told, Traced},
    transport::{classify, describe},
};

/// A session that is lost more often than this for one change is not worth another try.
const SESSION_LOST_COUNT_MAX: u32 = 3;

/// An attempt has at least this long, even if the operation's time is over by then or the retry
/// policy gives it less: that nobody listens is heard sooner, and one that is cut off before that
/// leaves doubt where there is none.
const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(50);

/// What a failed attempt was told.
struct Failed {
    failure: Failure,
    endpoint: EndpointId,
    code: tonic::Code,
    cause: String,
}

/// An operation that is numbered, if it is to be, and not carried out yet. It is ended in the
/// session even if it is dropped midway.
pub(crate) struct Begun {
    inner: Arc<Inner>,
    kind: Kind,
    /// Whether it belongs to a session.
    is_numbered: bool,
    /// What is recorded of it, if anything is.
    told: Option<Told>,
    /// `None` until it has a session, if it needs one.
    operation: Option<Operation>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(operation) = &self.operation {
            self.inner.session().abandon(operation);
        }
    }
}

impl Client {
    /// Begins an operation. It is numbered if it is a mutation or `numbered`, and the client wants
    /// exactly-once: now if a session is open, and otherwise when it is carried out.
    pub(crate) fn begin(&self, kind: Kind, numbered: bool) -> Begun {
        self.begin_told(kind, numbered, None)
    }

    /// The same of an operation that is recorded if the client traces; then it is numbered.
    pub(crate) fn begin_told(&self, kind: Kind, numbered: bool, told: Option<Told>) -> Begun {
        let told = told.filter(|_| self.inner.traced.is_some());
        let numbered = numbered || told.is_some();
        let is_numbered = self.inner.session_ttl.is_some()
            && match kind {
                Kind::Mutation => true,
                Kind::Repeatable => numbered,
                Kind::Once => false,
            };
        let inner = Arc::clone(&self.inner);
        let mut begun = Begun { inner, kind, is_numbered, told, operation: None };
        begun.begin();
        begun
    }

    /// Carries out `request`, numbered if it is a mutation and the client wants exactly-once.
    pub(crate) async fn call<Q, R, F, Fut>(
        &self,
        kind: Kind,
        request: Q,
        rpc: F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.begin(kind, false).run(request, rpc).await
    }

    /// Opens a session, if the client wants exactly-once and none is open.
    pub(crate) async fn open_session(&self) -> Result<(), Error> {
        let Some(ttl) = self.inner.session_ttl else { return Ok(()) };
        let _one_at_a_time = self.inner.opening.lock().await;
        if self.inner.session().client().is_some() {
            return Ok(());
        }
        let request = OpenRequest { ttl_ms: i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX) };
        let rpc = |channel, request| async move { SessionClient::new(channel).open(request).await };
        match self.begin(Kind::Repeatable, false).carry_out(&request, &rpc, |_| None).await {
            Some(Ok(opened)) => {
                self.inner.session().attach(ClientId(opened.client_id));
                Ok(())
            }
            Some(Err(Error::Refused { code: tonic::Code::Unimplemented, .. })) => {
                Err(Error::Refused {
                    code: tonic::Code::Unimplemented,
                    message: "exactly-once needs a kvraft server, this one has no sessions"
                        .to_owned(),
                })
            }
            Some(Err(error)) => Err(error),
            None => Err(Error::SessionLost { count: 1 }),
        }
    }
}

impl Begun {
    /// Numbers it, if it can be now.
    fn begin(&mut self) {
        let now = self.inner.now();
        let mut session = self.inner.session();
        if !self.is_numbered {
            self.operation = Some(session.begin(now, self.kind));
        } else if session.client().is_some() {
            let operation = session.begin_numbered(now, self.kind);
            if let (Some(traced), Some(told), Some(number)) =
                (&self.inner.traced, &self.told, operation.number())
            {
                traced.on_asked(told, number);
            }
            self.operation = Some(operation);
        }
    }

    /// Carries it out.
    pub(crate) async fn run<Q, R, F, Fut>(self, request: Q, rpc: F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.run_reading(request, rpc, |_| None).await
    }

    /// The same; `read` finds what was read in the answer, for the trace.
    pub(crate) async fn run_reading<Q, R, F, Fut>(
        mut self,
        request: Q,
        rpc: F,
        read: fn(&R) -> Option<&[u8]>,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        for _ in 0..SESSION_LOST_COUNT_MAX {
            if self.operation.is_none() {
                Client { inner: Arc::clone(&self.inner) }.open_session().await?;
                self.begin();
            }
            // A session that is closed again already counts as lost.
            if self.operation.is_some()
                && let Some(outcome) = self.carry_out(&request, &rpc, read).await
            {
                return outcome;
            }
        }
        Err(Error::SessionLost { count: SESSION_LOST_COUNT_MAX })
    }

    /// `None`: the session was lost and the operation certainly not done.
    async fn carry_out<Q, R, F, Fut>(
        &mut self,
        request: &Q,
        rpc: &F,
        read: fn(&R) -> Option<&[u8]>,
    ) -> Option<Result<R, Error>>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let inner = Arc::clone(&self.inner);
        let traced = inner.traced.as_ref().filter(|_| self.told.is_some());
        loop {
            let operation = self.operation.as_mut().expect("set until the operation ends");
            let attempt = inner.session().attempt(inner.now(), operation);
            let failed = match attempt {
                None => Failed {
                    failure: Failure::SessionLost,
                    endpoint: inner.session().preferred(),
                    code: tonic::Code::FailedPrecondition,
                    cause: "the session was lost".to_owned(),
                },
                Some(attempt) => match inner.attempt(attempt, request.clone(), rpc, traced).await {
                    Ok(response) => {
                        let operation = self.operation.take().expect("it has not ended");
                        if let (Some(traced), Some(told), Some(number)) =
                            (traced, &self.told, operation.number())
                        {
                            traced.on_result(told, number, read(&response));
                        }
                        inner.session().succeed(operation);
                        return Some(Ok(response));
                    }
                    Err(failed) => failed,
                },
            };
            let next =
                inner.session().fail(inner.now(), operation, failed.endpoint, failed.failure);
            match next {
                Next::Retry { at } => tokio::time::sleep_until(inner.real(at).into()).await,
                Next::End(ending) => {
                    self.operation = None;
                    return inner.conclude(self.kind, ending, failed);
                }
            }
        }
    }
}

impl Inner {
    /// One try at one server.
    async fn attempt<Q, R, F, Fut>(
        &self,
        attempt: Attempt,
        message: Q,
        rpc: &F,
        traced: Option<&Traced>,
    ) -> Result<R, Failed>
    where
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let server = self.server(attempt.endpoint);
        let mut request = Request::new(message);
        if let Some(stamp) = attempt.stamp {
            write_stamp(request.metadata_mut(), stamp);
        }
        if let Some(traced) = traced {
            traced.on_sent(request.metadata_mut());
        }
        let deadline = self.real(attempt.deadline).max(Instant::now() + ATTEMPT_TIME_MIN);
        let failed =
            |failure, code, cause| Failed { failure, endpoint: attempt.endpoint, code, cause };
        match tokio::time::timeout_at(deadline.into(), rpc(server.channel(), request)).await {
            Ok(Ok(response)) => {
                if let Some(traced) = traced {
                    traced.on_answer(response.metadata());
                }
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(failed(classify(&status), status.code(), describe(&status))),
            Err(_elapsed) => Err(failed(
                Failure::Unknown,
                tonic::Code::DeadlineExceeded,
                "no answer in time".to_owned(),
            )),
        }
    }

    fn conclude<R>(&self, kind: Kind, ending: Ending, failed: Failed) -> Option<Result<R, Error>> {
        let endpoint = self.server(failed.endpoint).name.clone();
        let cause = failed.cause;
        Some(Err(match (ending, kind) {
            (Ending::SessionLost, _) => return None,
            (Ending::Refused, _) => Error::Refused { code: failed.code, message: cause },
            // A read of which nothing is known has changed nothing.
            (Ending::NotDone, _) | (Ending::Unknown, Kind::Repeatable) => {
                Error::Unavailable { endpoint, cause }
            }
            (Ending::Unknown, Kind::Mutation | Kind::Once) => Error::Unknown { endpoint, cause },
        }))
    }

    /// Time on the session's clock.
    pub(crate) fn now(&self) -> kvraft_base::Instant {
        kvraft_base::Instant::ZERO + self.origin.elapsed()
    }

    /// A time of the session's clock on the real one.
    fn real(&self, at: kvraft_base::Instant) -> Instant {
        self.origin + at.since(kvraft_base::Instant::ZERO)
    }
}

fn write_stamp(metadata: &mut MetadataMap, stamp: Stamp) {
    metadata.insert(METADATA_CLIENT, stamp.client.0.into());
    metadata.insert(METADATA_OP, stamp.op.0.into());
    metadata.insert(METADATA_ACKED, stamp.acked.0.into());
}
