//! What every command that talks to servers asks for.

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use kvraft_client::{Builder, Client};

/// Where the servers are and how patient to be.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Connection {
    /// Servers to ask, host:port or http://host:port, the first one first [default: 127.0.0.1:2379]
    #[arg(
        long,
        env = "KVRAFT_ENDPOINTS",
        value_name = "ADDRESSES",
        value_delimiter = ',',
        help_heading = "Connection"
    )]
    endpoints: Vec<String>,
    /// Ask this coordinator who leads, and where the others are, instead of --endpoints
    #[arg(
        long,
        env = "KVRAFT_COORD",
        value_name = "HOST:PORT",
        value_parser = parse_address,
        help_heading = "Connection"
    )]
    coord: Option<String>,
    /// How long making a connection may take [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Connection")]
    dial_timeout: Option<Duration>,
    /// How long a command may take, with all attempts [default: 5s; at the prompt 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Connection")]
    command_timeout: Option<Duration>,
}

/// How results are printed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOut {
    /// Plain lines, as etcdctl prints them.
    Simple,
    /// One line of JSON, keys and values in base64, as etcdctl prints it.
    Json,
}

/// The choice of it.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// How to print the result
    #[arg(short = 'w', long, value_enum, value_name = "FORMAT", default_value_t = WriteOut::Simple)]
    pub(crate) write_out: WriteOut,
}

impl Connection {
    pub(crate) fn new(
        endpoints: Vec<String>,
        coord: Option<String>,
        dial_timeout: Option<Duration>,
        command_timeout: Option<Duration>,
    ) -> Self {
        Self { endpoints, coord, dial_timeout, command_timeout }
    }

    /// What was given, and what `other` says of the rest.
    pub(crate) fn or(self, other: Self) -> Self {
        let coord = self.coord.or_else(|| other.coord.filter(|_| self.endpoints.is_empty()));
        let endpoints = if self.endpoints.is_empty() { other.endpoints } else { self.endpoints };
        let dial_timeout = self.dial_timeout.or(other.dial_timeout);
        let command_timeout = self.command_timeout.or(other.command_timeout);
        Self { endpoints, coord, dial_timeout, command_timeout }
    }

    /// The servers to ask.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        match &self.endpoints[..] {
            [] => vec!["127.0.0.1:2379".to_owned()],
            endpoints => endpoints.to_vec(),
        }
    }

    fn builder(&self, command_timeout: Duration) -> Result<Builder> {
        let time_max = self.command_timeout.unwrap_or(command_timeout);
        let endpoints = match &self.coord {
            Some(coord) => endpoints_of(coord, time_max)?,
            None => self.endpoints(),
        };
        Ok(self.timed(time_max).endpoints(endpoints))
    }

    fn timed(&self, time_max: Duration) -> Builder {
        let builder = Client::builder().request_timeout(time_max);
        match self.dial_timeout {
            Some(time) => builder.connect_timeout(time),
            None => builder,
        }
    }

    /// A client for one command, that any etcd server understands.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(self.builder(Duration::from_secs(5))?.build()?)
    }

    /// The same, of other servers.
    pub(crate) fn client_of(&self, endpoints: &[String]) -> Result<Client> {
        Ok(self.builder(Duration::from_secs(5))?.endpoints(endpoints).build()?)
    }

    /// Settings of a client for a person who waits for a new leader. One that has a coordinator
    /// must be connected, and not only built.
    pub(crate) fn patient(&self) -> Builder {
        let builder = self.timed(self.command_timeout.unwrap_or(Duration::from_secs(60)));
        match &self.coord {
            Some(coord) => builder.coordinator(coord),
            None => builder.endpoints(self.endpoints()),
        }
    }

    /// Whether a coordinator says where the servers are.
    pub(crate) fn has_coordinator(&self) -> bool {
        self.coord.is_some()
    }
}

/// Where servers are, the leader first, as their coordinator says; waits until there is one.
fn endpoints_of(coord: &str, time_max: Duration) -> Result<Vec<String>> {
    let name = format!("client-{}", std::process::id());
    let ask = tokio::time::timeout(time_max, kvraft_client::ask_leader(coord, &name));
    // A command does nothing else meanwhile.
    let wait = || tokio::runtime::Handle::current().block_on(ask);
    let info = tokio::task::block_in_place(wait)
        .map_err(|_| anyhow::anyhow!("the coordinator {coord} names no leader in {time_max:?}"))?
        .with_context(|| format!("cannot ask the coordinator {coord}"))?;
    Ok(info.endpoints)
}

/// Reads `1500ms`, `20s`, `5m`, as servers do, but not a bare number: etcdctl's times need a unit
/// too, and whoever writes `5` means seconds as often as milliseconds. Not zero.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} has no unit: write {text}s or {text}ms"));
    }
    let time = kvraft_server::parse_time(text)
        .map_err(|_| format!("{text:?} is no time: write 500ms, 20s, 5m or 1h"))?;
    if time.is_zero() { Err("must be greater than zero".to_owned()) } else { Ok(time) }
}

/// Reads `host:port`, with or without `http://` before it; gives it without.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) if !host.is_empty() && port != 0 => Ok(address.to_owned()),
        _ => Err(format!("{text:?} is not HOST:PORT")),
    }
}

/// For a shell: unchanged when it has plain characters only.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Prints a result, all of it at once.
pub(crate) fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("writing to standard output")
}
