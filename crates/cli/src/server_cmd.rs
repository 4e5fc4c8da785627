//! `kvraft server`: one server in this process, until a signal asks it to stop.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use kvraft_base::{ClusterId, MemberId};
use kvraft_server::{LogFormat, MemberConfig, Server, ServerConfig};
use tokio::io::AsyncReadExt as _;

use crate::signals::Stop;

/// Run one server
///
/// By flags, or by a file in TOML that holds the same; flags win over the file.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft server --config server.toml
  kvraft server --data-dir ./data
  kvraft server --member 1 --data-dir ./one --listen-client 10.0.0.1:2379 \\
      --listen-peer 10.0.0.1:2380 \\
      --initial-cluster 1=10.0.0.1:2380,2=10.0.0.2:2380,3=10.0.0.3:2380
  kvraft server --data-dir ./data --print-config > server.toml")]
pub(crate) struct ServerArgs {
    /// Read the configuration from here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This server's id among the members [default: 1]
    #[arg(long, value_name = "ID")]
    member: Option<u64>,
    /// The cluster's id, the same for all of its servers [default: 1]
    #[arg(long, value_name = "ID")]
    cluster_id: Option<u64>,
    /// Where everything is kept [default: kvraft-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients are served [default: 127.0.0.1:2379]
    #[arg(long, value_name = "ADDRESS")]
    listen_client: Option<SocketAddr>,
    /// Where peers are listened for [default: 127.0.0.1:2380]
    #[arg(long, value_name = "ADDRESS")]
    listen_peer: Option<SocketAddr>,
    /// All members and their peer addresses: ID=HOST:PORT,… [default: this server alone]
    #[arg(long, value_name = "MEMBERS", value_delimiter = ',', value_parser = parse_member)]
    initial_cluster: Vec<MemberConfig>,
    /// How often a leader is heard from, in milliseconds [default: 100]
    #[arg(long, value_name = "MS")]
    heartbeat_interval: Option<u64>,
    /// How long a silent leader is waited for, in milliseconds [default: 1000]
    #[arg(long, value_name = "MS")]
    election_timeout: Option<u64>,
    /// How long a request may wait, in milliseconds [default: 5000 + 2 election timeouts]
    #[arg(long, value_name = "MS")]
    request_timeout: Option<u64>,
    /// How logs look: text or json
    #[arg(long, value_enum)]
    log_format: Option<crate::cluster::LogFormat>,
    /// Which events are logged: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// DANGER, for tests: what was not fsynced is lost when this process is killed
    #[arg(long)]
    volatile_disk: bool,
    /// Stop cleanly when standard input closes: for whoever starts this process
    #[arg(long, hide = true)]
    stop_on_stdin_close: bool,
    /// Print the configuration as a file would hold it, and end
    #[arg(long)]
    print_config: bool,
}

/// Runs until a signal; ends with 0 after a clean stop.
pub(crate) async fn run(args: ServerArgs) -> Result<ExitCode> {
    let stdin_ends = args.stop_on_stdin_close;
    let print = args.print_config;
    let config = resolve(args)?;
    if print {
        print!("{}", config.to_toml());
        return Ok(ExitCode::SUCCESS);
    }
    kvraft_server::start_logs(config.log_format, &config.log_level)?;
    end_process_on_panic();
    let mut stop = Stop::listen();
    let server = tokio::select! {
        started = Server::start(config) => started?,
        // Nothing was promised to anyone yet; what is on the disk is as after a crash.
        _ = stop.asked() => bail!("stopped while starting"),
    };
    tokio::select! {
        _ = stop.asked() => {}
        () = stdin_closed(), if stdin_ends => {}
    }
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// The file, overlaid by the flags; or the flags over the defaults.
fn resolve(args: ServerArgs) -> Result<ServerConfig> {
    let mut config = match &args.config {
        Some(path) => ServerConfig::from_toml(path)?,
        None => defaults(args.member.unwrap_or(1))?,
    };
    if let Some(member) = args.member {
        config.member = MemberId(member);
    }
    if let Some(cluster) = args.cluster_id {
        config.cluster = ClusterId(cluster);
    }
    if let Some(path) = args.data_dir {
        config.data_dir = path;
    }
    if let Some(address) = args.listen_client {
        config.listen_client = address;
    }
    if let Some(address) = args.listen_peer {
        config.listen_peer = address;
    }
    if let Some(ms) = args.heartbeat_interval {
        config.heartbeat_interval = Duration::from_millis(ms);
    }
    if let Some(ms) = args.election_timeout {
        config.election_timeout = Duration::from_millis(ms);
    }
    if let Some(ms) = args.request_timeout {
        config.request_timeout = Some(Duration::from_millis(ms));
    }
    if let Some(format) = args.log_format {
        config.log_format = format.into();
    }
    if let Some(level) = args.log_level {
        config.log_level = level;
    }
    config.volatile_disk |= args.volatile_disk;
    if !args.initial_cluster.is_empty() {
        config.members = args.initial_cluster;
    } else if args.config.is_none() {
        config.members = vec![MemberConfig {
            id: config.member,
            name: String::new(),
            peer: config.listen_peer.to_string(),
            client: String::new(),
        }];
    }
    advertise_own(&mut config);
    config.validate()?;
    Ok(config)
}

/// A server alone, on etcd's ports.
fn defaults(member: u64) -> Result<ServerConfig> {
    let text = format!(
        "member = {member}\n\
         data-dir = \"kvraft-data\"\n\
         listen-client = \"127.0.0.1:2379\"\n\
         listen-peer = \"127.0.0.1:2380\"\n\
         members = []\n"
    );
    ServerConfig::parse(&text).context("--member")
}

/// Clients learn this server's address from itself at least.
fn advertise_own(config: &mut ServerConfig) {
    let (me, address) = (config.member, config.listen_client);
    let own = config.members.iter_mut().find(|member| member.id == me);
    if let Some(own) = own.filter(|own| own.client.is_empty() && !address.ip().is_unspecified()) {
        own.client = address.to_string();
    }
}

/// `ID=HOST:PORT`.
fn parse_member(text: &str) -> Result<MemberConfig, String> {
    let (id, peer) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    let id = id.parse().ok().filter(|id| *id != 0).ok_or("the id is a number from 1 up")?;
    if !peer.contains(':') {
        return Err("the address is HOST:PORT".to_owned());
    }
    let peer = peer.strip_prefix("http://").unwrap_or(peer).to_owned();
    Ok(MemberConfig { id: MemberId(id), name: String::new(), peer, client: String::new() })
}

impl From<crate::cluster::LogFormat> for LogFormat {
    fn from(format: crate::cluster::LogFormat) -> Self {
        match format {
            crate::cluster::LogFormat::Text => Self::Text,
            crate::cluster::LogFormat::Json => Self::Json,
        }
    }
}

/// A panic is a bug of ours: nothing after it can be believed, so nothing after it happens.
fn end_process_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    // Whatever is written there is ignored; an error is an end too.
    while matches!(stdin.read(&mut buffer).await, Ok(size) if 0 < size) {}
}
