//! How a client is set up.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io,
    sync::Arc,
    time::Duration,
};

use kvraft_session::{ConfigError, Mode, RetryPolicy, Session};
use kvraft_trace::clock::is_identity;
use tokio::runtime::Handle;

use crate::{client::Client, coordinator, error::Error, traced::Traced, transport::Server};

/// Settings of a [`Client`]; see [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct Builder {
    endpoints: Vec<String>,
    /// Who says where the endpoints are.
    coordinator: Option<String>,
    connect_timeout: Duration,
    request_timeout: Duration,
    retry: RetryPolicy,
    session_ttl: Option<Duration>,
    waits_for_all: bool,
    /// Address of the tracing server, and the client's name there.
    tracing: Option<(String, String)>,
}

/// Why a client cannot be connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Its settings cannot work.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The servers do not want it, or cannot serve it in time.
    #[error(transparent)]
    Client(#[from] Error),
    /// The coordinator cannot be asked, or knows of no leader in time.
    #[error("coordinator {address}: {cause}")]
    Coordinator {
        /// As given.
        address: String,
        /// What is wrong.
        cause: io::Error,
    },
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Not an address.
    #[error("endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a name for traces.
    #[error("{0:?} is no name for traces: one word of at most 128 bytes")]
    Identity(String),
    /// A client that traces was made outside of tokio.
    #[error("a client that traces is made within a tokio runtime")]
    NoRuntime,
    /// Wrong in another way.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            coordinator: None,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            retry: RetryPolicy::default(),
            session_ttl: None,
            waits_for_all: false,
            tracing: None,
        }
    }
}

impl Builder {
    /// The servers to ask: `host:port` or `http://host:port`, the first one first.
    pub fn endpoints<I, S>(mut self, endpoints: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// Ask the coordinator at `address`, a `host:port`, where the servers are and who leads, in
    /// place of [`Builder::endpoints`]. [`Builder::connect`] does so, and waits for a leader within
    /// the request timeout; then the client hears of new leaders, and asks each of them first that
    /// was among the servers of that answer.
    pub fn coordinator(mut self, address: impl Into<String>) -> Self {
        self.coordinator = Some(address.into());
        self
    }

    /// How long making a connection may take; 1 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an operation may take with all its attempts; 5 s by default. An attempt that has
    /// begun may end up to 50 ms later.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How to try again.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Opens a session with the first change, so that a change of unknown fate can be sent again
    /// and is still done once. The servers must be kvraft's. It lives ten minutes unused.
    pub fn exactly_once(self) -> Self {
        self.session_ttl(Duration::from_secs(600))
    }

    /// As [`Builder::exactly_once`], with another time to live.
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = Some(ttl);
        self
    }

    /// [`Builder::connect`] waits until all configured servers have joined, and not only until a
    /// majority can serve; for as long as that takes.
    pub fn wait_for_all(mut self) -> Self {
        self.waits_for_all = true;
        self
    }

    /// Records what the client does, under the name `identity`, and sends it to the tracing server
    /// at `address`, as `host:port`; nothing waits for that. Also turns on
    /// [`Builder::exactly_once`], since operations are called by their numbers, reads as well.
    pub fn trace_to(mut self, address: impl Into<String>, identity: impl Into<String>) -> Self {
        self.tracing = Some((address.into(), identity.into()));
        if self.session_ttl.is_none() { self.exactly_once() } else { self }
    }

    /// Makes the client and has it connected: waits until all servers have joined, if that was
    /// asked for, and opens the session of one that wants exactly-once.
    ///
    /// # Errors
    /// As [`Builder::build`] and [`Client::wait_for_all`]; or no session was opened within the
    /// request timeout.
    pub async fn connect(mut self) -> Result<Client, ConnectError> {
        let waits_for_all = self.waits_for_all;
        let client = match self.coordinator.take() {
            Some(address) => self.connect_by(address).await?,
            None => self.build()?,
        };
        if waits_for_all {
            client.wait_for_all().await?;
        }
        client.open_session().await?;
        Ok(client)
    }

    /// Asks the coordinator, makes the client of what it says, and lets it hear more.
    async fn connect_by(mut self, address: String) -> Result<Client, ConnectError> {
        let traced = self.start_traced()?;
        let name = match &self.tracing {
            Some((_, identity)) => identity.clone(),
            None => format!("client-{}", std::process::id()),
        };
        let asked = coordinator::ask(&address, &name, traced.as_ref(), self.waits_for_all);
        // Waiting for all takes as long as it takes.
        let time_max = if self.waits_for_all { Duration::MAX } else { self.request_timeout };
        let answer = tokio::time::timeout(time_max, asked).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no leader in {time_max:?}"));
        let (info, watch) = answer
            .unwrap_or_else(|_elapsed| Err(late()))
            .map_err(|cause| ConnectError::Coordinator { address: address.clone(), cause })?;
        self.endpoints = info.endpoints;
        let client = self.build_with(traced)?;
        let inner = Arc::downgrade(&client.inner);
        tokio::spawn(coordinator::follow(inner, address, name, Some(watch)));
        Ok(client)
    }

    /// Makes the client. It connects when it is first used.
    ///
    /// # Errors
    /// When an endpoint is not an address, there is none, a duration is zero, or a client that
    /// traces cannot do so. With a coordinator there is none: see [`Builder::connect`].
    pub fn build(self) -> Result<Client, BuildError> {
        let traced = self.start_traced()?;
        self.build_with(traced)
    }

    fn build_with(self, traced: Option<Traced>) -> Result<Client, BuildError> {
        let config = kvraft_session::Config {
            endpoint_count: self.endpoints.len(),
            mode: Mode::Roaming,
            retry: self.retry,
            operation_timeout: self.request_timeout,
        };
        // Jitter is the one thing random here; the standard library's hasher is seeded enough.
        let session = Session::new(config, RandomState::new().build_hasher().finish())?;
        let servers = self.endpoints.iter().map(|endpoint| {
            Server::new(endpoint, self.connect_timeout)
                .map_err(|reason| BuildError::Endpoint { endpoint: endpoint.clone(), reason })
        });
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        Ok(Client::new(servers, session, self.session_ttl, self.request_timeout, traced))
    }

    /// From here on what the client does is recorded, if that was asked for.
    fn start_traced(&self) -> Result<Option<Traced>, BuildError> {
        let Some((address, identity)) = &self.tracing else { return Ok(None) };
        if !is_identity(identity) {
            return Err(BuildError::Identity(identity.clone()));
        }
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        Ok(Some(Traced::start(identity, address.clone(), &runtime)))
    }
}
