//! One operation carried out: attempts, pauses and fail-over as the session decides.

use std::{future::Future, time::Instant};

use kvraft_base::ClientId;
use kvraft_proto::{
    METADATA_ACKED, METADATA_CLIENT, METADATA_OP,
    kvraft::v1::{OpenRequest, session_client::SessionClient},
};
use kvraft_session::{Attempt, Ending, EndpointId, Failure, Kind, Next, Operation, Stamp};
use tonic::{Request, Response, Status, metadata::MetadataMap, transport::Channel};

use crate::{
    client::Inner,
    error::Error,
    transport::{classify, describe},
};

/// A session that is lost more often than this for one change is not worth another try.
const SESSION_LOST_COUNT_MAX: u32 = 3;

/// What a failed attempt was told.
struct Failed {
    failure: Failure,
    endpoint: EndpointId,
    code: tonic::Code,
    cause: String,
}

/// An operation that is ended in the session even if its future is dropped midway.
struct InFlight<'a> {
    inner: &'a Inner,
    operation: Option<Operation>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(operation) = &self.operation {
            self.inner.session().abandon(operation);
        }
    }
}

impl Inner {
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
        for _ in 0..SESSION_LOST_COUNT_MAX {
            if kind == Kind::Mutation && self.session_ttl.is_some() {
                self.ensure_session().await?;
            }
            if let Some(outcome) = self.carry_out(kind, &request, &rpc).await {
                return outcome;
            }
        }
        Err(Error::SessionLost { count: SESSION_LOST_COUNT_MAX })
    }

    /// `None`: the session was lost and the operation certainly not done.
    async fn carry_out<Q, R, F, Fut>(
        &self,
        kind: Kind,
        request: &Q,
        rpc: &F,
    ) -> Option<Result<R, Error>>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let operation = self.session().begin(self.now(), kind);
        let mut in_flight = InFlight { inner: self, operation: Some(operation) };
        loop {
            let operation = in_flight.operation.as_mut().expect("set until the operation ends");
            let attempt = self.session().attempt(self.now(), operation);
            let failed = match attempt {
                None => Failed {
                    failure: Failure::SessionLost,
                    endpoint: self.session().preferred(),
                    code: tonic::Code::FailedPrecondition,
                    cause: "the session was lost".to_owned(),
                },
                Some(attempt) => match self.attempt(attempt, request.clone(), rpc).await {
                    Ok(response) => {
                        let operation = in_flight.operation.take().expect("it has not ended");
                        self.session().succeed(operation);
                        return Some(Ok(response));
                    }
                    Err(failed) => failed,
                },
            };
            let next = self.session().fail(self.now(), operation, failed.endpoint, failed.failure);
            match next {
                Next::Retry { at } => tokio::time::sleep_until(self.real(at).into()).await,
                Next::End(ending) => {
                    in_flight.operation = None;
                    return self.conclude(kind, ending, failed);
                }
            }
        }
    }

    /// One try at one server.
    async fn attempt<Q, R, F, Fut>(
        &self,
        attempt: Attempt,
        message: Q,
        rpc: &F,
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
        let deadline = self.real(attempt.deadline);
        let failed =
            |failure, code, cause| Failed { failure, endpoint: attempt.endpoint, code, cause };
        match tokio::time::timeout_at(deadline.into(), rpc(server.channel(), request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
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

    /// Opens a session unless one is open.
    async fn ensure_session(&self) -> Result<(), Error> {
        let _one_at_a_time = self.opening.lock().await;
        if self.session().client().is_some() {
            return Ok(());
        }
        let ttl = self.session_ttl.unwrap_or_default().as_millis();
        let request = OpenRequest { ttl_ms: i64::try_from(ttl).unwrap_or(i64::MAX) };
        let rpc = |channel, request| async move { SessionClient::new(channel).open(request).await };
        match self.carry_out(Kind::Repeatable, &request, &rpc).await {
            Some(Ok(opened)) => {
                self.session().attach(ClientId(opened.client_id));
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

    /// Time on the session's clock.
    fn now(&self) -> kvraft_base::Instant {
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
