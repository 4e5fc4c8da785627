//! `kvraft coord`: gathers servers, watches them and hints, until a signal asks it to stop.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, anyhow};
use kvraft_server::{CoordConfig, CoordServer, LogFormat};

use crate::{config_file, signals::Stop};

/// Gather the servers of a cluster, watch them, and hint who should lead
///
/// Servers started with --coord join here and are told who belongs to the cluster once all have
/// come. From then on their health is watched, clients are told who leads, and when the leader dies
/// the server with the longest log is told so. It only hints: servers elect their leader by
/// themselves, and go on without a coordinator.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft coord --num-servers 3
  kvraft coord --config config/coord.toml
  kvraft server --coord 127.0.0.1:23002      three times, each in a terminal of its own
  kvraft put --coord 127.0.0.1:23009 KEY VALUE")]
pub(crate) struct CoordArgs {
    /// Read the configuration from here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Servers that make the cluster [default: 3]
    #[arg(long, value_name = "COUNT")]
    num_servers: Option<usize>,
    /// Reports that may be missing in a row before a server is taken for dead [default: 3]
    #[arg(long, value_name = "COUNT")]
    lost_msgs_thresh: Option<u32>,
    /// Where servers are listened for [default: 127.0.0.1:23002]
    #[arg(long, value_name = "ADDRESS")]
    listen_servers: Option<SocketAddr>,
    /// Where clients are listened for [default: 127.0.0.1:23009]
    #[arg(long, value_name = "ADDRESS")]
    listen_clients: Option<SocketAddr>,
    /// Record what it does at this tracing server
    #[arg(long, value_name = "HOST:PORT")]
    tracing_server: Option<String>,
    /// For tests: tell every server this often that its leader is dead, whether or not it is
    #[arg(long, value_name = "MILLISECONDS", hide = true)]
    lie_interval_ms: Option<u64>,
}

/// Runs until a signal; ends with 0 after a clean stop.
pub(crate) async fn run(args: CoordArgs) -> Result<ExitCode> {
    let config = resolve(args)?;
    kvraft_server::start_logs(LogFormat::Text, "warn")?;
    let mut stop = Stop::listen();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let token = format!("{}-{}", since.as_nanos(), std::process::id());
    let coordinator = CoordServer::start(config, token, tell).await?;
    let (servers, clients) = (coordinator.servers_address(), coordinator.clients_address());
    tell(&format!("coordinator for servers on {servers}, for clients on {clients}"));
    stop.asked().await;
    coordinator.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// At once, also into a pipe. Whoever has closed it wants to hear no more.
fn tell(line: &str) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// Flags win over the file.
fn resolve(args: CoordArgs) -> Result<CoordConfig> {
    let mut config: CoordConfig = config_file::read(args.config.as_deref())?;
    config.num_servers = args.num_servers.unwrap_or(config.num_servers);
    config.lost_msgs_thresh = args.lost_msgs_thresh.unwrap_or(config.lost_msgs_thresh);
    config.listen_servers = args.listen_servers.unwrap_or(config.listen_servers);
    config.listen_clients = args.listen_clients.unwrap_or(config.listen_clients);
    config.tracing_server = args.tracing_server.or(config.tracing_server);
    config.lie_interval_ms = args.lie_interval_ms.or(config.lie_interval_ms);
    config.validate().map_err(|error| anyhow!(error))?;
    Ok(config)
}
