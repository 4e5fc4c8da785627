//! Connections, made when first needed, and what their errors mean.

use std::{error::Error as _, sync::OnceLock, time::Duration};

use kvraft_proto::METADATA_OUTCOME;
use kvraft_session::Failure;
use tonic::{
    ConnectError, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

/// One server of the list and its connection.
#[derive(Debug)]
pub(crate) struct Server {
    /// As the user wrote it.
    pub(crate) name: String,
    endpoint: Endpoint,
    /// Filled at first use, because making it needs a running tokio.
    channel: OnceLock<Channel>,
}

impl Server {
    pub(crate) fn new(name: &str, connect_timeout: Duration) -> Result<Self, String> {
        let uri = match name.split_once("://") {
            None => format!("http://{name}"),
            Some(("http", _)) => name.to_owned(),
            Some((scheme, _)) => return Err(format!("scheme {scheme} is not supported, use http")),
        };
        let endpoint = Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
        if endpoint.uri().port_u16().is_none() {
            return Err("a port is missing, as in 127.0.0.1:2379".to_owned());
        }
        let endpoint = endpoint
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            // etcd cuts off clients that ping more often than every five seconds.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        Ok(Self { name: name.to_owned(), endpoint, channel: OnceLock::new() })
    }

    /// Its connection, which reconnects by itself.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.get_or_init(|| self.endpoint.connect_lazy()).clone()
    }
}

/// What a failed call says about the request.
pub(crate) fn classify(status: &Status) -> Failure {
    let mut source = status.source();
    if source.is_none() {
        // Only an answer of the server comes without a cause on our side.
        let code = u32::try_from(i32::from(status.code())).expect("gRPC codes are not negative");
        let failure = Failure::of_answer(code, status.message());
        // A kvraft server says more than the code and the words do.
        return match status.metadata().get(METADATA_OUTCOME).map(MetadataValue::as_bytes) {
            Some(b"failed") if failure == Failure::Unknown => Failure::NotSent,
            Some(b"unknown") => Failure::Unknown,
            _ => failure,
        };
    }
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return Failure::NotSent;
        }
        source = cause.source();
    }
    Failure::Unknown
}

/// The text of a failed call: the server's own words, or the innermost cause on our side.
pub(crate) fn describe(status: &Status) -> String {
    let Some(mut cause) = status.source() else {
        return if status.message().is_empty() {
            status.code().description().to_owned()
        } else {
            status.message().to_owned()
        };
    };
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
