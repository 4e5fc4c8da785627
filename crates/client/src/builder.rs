//! How a client is set up.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    time::Duration,
};

use kvraft_session::{ConfigError, Mode, RetryPolicy, Session};
use thiserror::Error;

use crate::{client::Client, transport::Server};

/// Settings of a [`Client`]; see [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct Builder {
    endpoints: Vec<String>,
    connect_timeout: Duration,
    request_timeout: Duration,
    retry: RetryPolicy,
    session_ttl: Option<Duration>,
}

/// Settings that cannot work.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Not an address.
    #[error("endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Wrong in another way.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            retry: RetryPolicy::default(),
            session_ttl: None,
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

    /// How long making a connection may take; 1 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an operation may take with all its attempts; 5 s by default.
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

    /// Makes the client. It connects when it is first used.
    ///
    /// # Errors
    /// When an endpoint is not an address, there is none, or a duration is zero.
    pub fn build(self) -> Result<Client, BuildError> {
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
        Ok(Client::new(servers, session, self.session_ttl, self.request_timeout))
    }
}
