//! `kvraft server`: one server in this process, until a signal asks it to stop.
//!
//! Invariant: a data directory that has been formatted is what it is; who a server is comes from
//! there unless it is told, and what it is told must then be the same.

mod join;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use kvraft_server::{
    ConfigFile, LogFormat, MemberConfig, MemberEntry, Server, ServerConfig, StartError,
    flush_flight_recorders, parse_size_or_off, parse_time,
};
use kvraft_store::Identity;
use tokio::io::AsyncReadExt as _;

use crate::{connection::parse_address, signals::Stop};

/// Run one server
///
/// By flags, or by a file in TOML that holds the same; flags win over the file. Every key of the
/// file is described in docs/configuration.md, and --print-config shows them all.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft server --config server.toml
  kvraft server --data-dir ./data
  kvraft server --member 1 --data-dir ./one --listen-client 10.0.0.1:2379 \\
      --listen-peer 10.0.0.1:2380 \\
      --initial-cluster 1=10.0.0.1:2380,2=10.0.0.2:2380,3=10.0.0.3:2380
  kvraft server --name b --initial-cluster-token prod \\
      --initial-cluster a=10.0.0.1:2380,b=10.0.0.2:2380,c=10.0.0.3:2380
  kvraft server --join 10.0.0.1:2379,10.0.0.2:2379 --name d --data-dir ./d \\
      --listen-client 10.0.0.4:2379 --listen-peer 10.0.0.4:2380
  kvraft server --heartbeat-interval 3s --election-timeout 30s --set limits.retained-entries=100
  kvraft server --data-dir ./data --print-config > server.toml")]
pub(crate) struct ServerArgs {
    /// Read the configuration from here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This server's id among the members [default: 1, unless --name says who it is]
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    member: Option<u64>,
    /// This server's name among the members
    #[arg(long)]
    name: Option<String>,
    /// The cluster's id, the same for all of its servers [default: 1, or made of the token]
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    cluster_id: Option<u64>,
    /// A text that no other cluster has: of it and their names ids are made for members without
    #[arg(long, value_name = "TEXT")]
    initial_cluster_token: Option<String>,
    /// Where everything is kept [default: kvraft-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients are served [default: 127.0.0.1:2379]
    #[arg(long, value_name = "ADDRESS")]
    listen_client: Option<SocketAddr>,
    /// Where peers are listened for [default: 127.0.0.1:2380]
    #[arg(long, value_name = "ADDRESS")]
    listen_peer: Option<SocketAddr>,
    /// All members and their peer addresses: ID=HOST:PORT,… or NAME=HOST:PORT,… [default: this
    /// server alone]
    #[arg(long, value_name = "MEMBERS", value_delimiter = ',', value_parser = parse_member)]
    initial_cluster: Vec<MemberEntry>,
    /// Join the running cluster that is served here: this server is added as a learner, and votes
    /// by itself as soon as it has caught up. Ignored once there is data
    #[arg(
        long,
        value_name = "ENDPOINTS",
        value_delimiter = ',',
        conflicts_with = "initial_cluster"
    )]
    join: Vec<String>,
    /// Start with nothing but the address of a coordinator: it tells this server who belongs to the
    /// cluster once all have come. Where nothing else is said, this server takes the first free
    /// ports from 2379 up, and the data directory kvraft-data-PORT
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_parser = parse_address,
        conflicts_with_all = ["join", "initial_cluster"]
    )]
    coord: Option<String>,
    /// With --join: stay a learner, which receives everything and does not vote
    #[arg(long, requires = "join")]
    learner: bool,
    /// Where other servers reach this one, when that is not where it listens
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    advertise_peer: Option<String>,
    /// Where clients reach this one, when that is not where it listens
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    advertise_client: Option<String>,
    /// How often a leader is heard from: 100ms, 3s, or a number of milliseconds [default: 100ms]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    heartbeat_interval: Option<Duration>,
    /// How long a silent leader is waited for [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    election_timeout: Option<Duration>,
    /// How long a request may wait [default: 5s and two election timeouts]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    request_timeout: Option<Duration>,
    /// Set any other key of the configuration file, as in limits.retained-entries=1000
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How logs look: text or json
    #[arg(long, value_enum)]
    log_format: Option<crate::cluster::LogFormat>,
    /// Which events are logged: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// Keep what the server is given in a ring of this size, for kvraft replay; or off
    /// [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size_or_off)]
    flight_recorder: Option<u64>,
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
pub(crate) async fn run(mut args: ServerArgs) -> Result<ExitCode> {
    let place = settle_down(&mut args)?;
    let stdin_ends = args.stop_on_stdin_close;
    let print = args.print_config;
    let (endpoints, as_learner) = (args.join.clone(), args.learner);
    let has_coord = args.coord.is_some();
    let (mut config, is_new) = resolve(args)?;
    if print {
        print!("{}", config.to_toml());
        return Ok(ExitCode::SUCCESS);
    }
    kvraft_server::start_logs(config.log_format, &config.log_level)?;
    end_process_on_panic();
    let mut stop = Stop::listen();
    if is_new && !endpoints.is_empty() {
        tokio::select! {
            joined = join::join(&mut config, &endpoints, as_learner) => joined?,
            _ = stop.asked() => bail!("stopped while joining"),
        }
    } else if let Some(address) = config.coord.clone().filter(|_| is_new && has_coord) {
        tokio::select! {
            joined = be_gathered(&mut config, &address) => joined?,
            _ = stop.asked() => bail!("stopped while waiting for the other servers"),
        }
    } else if !endpoints.is_empty() {
        let (member, cluster) = (config.member.0, config.cluster.0);
        let directory = config.data_dir.display();
        eprintln!("{directory} is of member {member:x} of cluster {cluster:x}: --join is ignored");
    }
    let data_dir = config.data_dir.clone();
    drop(place);
    let server = tokio::select! {
        started = Server::start(config) => started.map_err(|error| in_data_dir(error, &data_dir))?,
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

/// What is wrong with a file of the data directory names the file; this names the directory.
fn in_data_dir(error: StartError, path: &Path) -> anyhow::Error {
    match error {
        StartError::Disk(_) | StartError::Format(_) | StartError::Replica(_) => {
            anyhow::Error::new(error).context(format!("data directory {}", path.display()))
        }
        other => other.into(),
    }
}

/// What this server is to be, and whether there is no data yet.
fn resolve(args: ServerArgs) -> Result<(ServerConfig, bool)> {
    let mut file = overlay(&args)?;
    // A directory that cannot be read is no new one; what is wrong with it, the start says.
    let identity = kvraft_server::read_identity(&file.data_dir);
    let is_new = matches!(identity, Ok(None));
    be_who_it_is(&mut file, &args, identity.ok().flatten().as_ref());
    let mut config = match (&args.config, file.resolve()) {
        (Some(path), Err(error)) => bail!("{}: {error}", path.display()),
        (_, resolved) => resolved?,
    };
    advertise(&mut config, args.advertise_peer, args.advertise_client);
    Ok((config, is_new))
}

/// The file, overlaid by the flags; or the flags over the defaults.
fn overlay(args: &ServerArgs) -> Result<ConfigFile> {
    let mut file = match &args.config {
        Some(path) => ConfigFile::read(path)?,
        None => alone(args),
    };
    file.member = args.member.or(file.member);
    file.name = args.name.clone().or(file.name);
    file.cluster = args.cluster_id.or(file.cluster);
    file.cluster_token = args.initial_cluster_token.clone().or(file.cluster_token);
    file.data_dir = args.data_dir.clone().unwrap_or(file.data_dir);
    file.listen_client = args.listen_client.unwrap_or(file.listen_client);
    file.listen_peer = args.listen_peer.unwrap_or(file.listen_peer);
    file.heartbeat_interval = args.heartbeat_interval.unwrap_or(file.heartbeat_interval);
    file.election_timeout = args.election_timeout.unwrap_or(file.election_timeout);
    file.request_timeout = args.request_timeout.or(file.request_timeout);
    file.log_format = args.log_format.map_or(file.log_format, Into::into);
    file.log_level = args.log_level.clone().unwrap_or(file.log_level);
    file.coord = args.coord.clone().or(file.coord);
    file.flight_recorder = args.flight_recorder.unwrap_or(file.flight_recorder);
    file.volatile_disk |= args.volatile_disk;
    if !args.initial_cluster.is_empty() {
        file.members.clone_from(&args.initial_cluster);
    }
    for set in &args.set {
        file.set(set).context("--set")?;
    }
    Ok(file)
}

/// Fills in who this server is, where nobody has said it: its data does, or the cluster will.
fn be_who_it_is(file: &mut ConfigFile, args: &ServerArgs, identity: Option<&Identity>) {
    let is_joining = !args.join.is_empty();
    let has_list = args.config.is_some() || !args.initial_cluster.is_empty();
    if args.member.is_some() || (has_list && !is_joining) {
        return;
    }
    let id = identity.map_or(1, |identity| identity.member.0);
    if let Some(identity) = identity {
        file.member = Some(id);
        if args.cluster_id.is_none() && args.initial_cluster_token.is_none() {
            file.cluster = Some(identity.cluster.0);
        }
    } else if is_joining {
        file.member.get_or_insert(id);
    }
    if args.config.is_none() && (is_joining || id != 1) {
        // The defaults' list is of a server alone.
        file.members.clear();
    }
}

/// A server alone, on etcd's ports.
fn alone(args: &ServerArgs) -> ConfigFile {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let peer = args.listen_peer.unwrap_or_else(|| address(2380));
    let config = ServerConfig::alone("kvraft-data".into(), address(2379), peer);
    let mut file = ConfigFile::from(&config);
    file.cluster = None;
    file.member = args.name.is_none().then_some(1);
    let token_makes_id = args.name.is_some() && args.initial_cluster_token.is_some();
    for member in &mut file.members {
        member.id = (!token_makes_id).then(|| args.member.unwrap_or(1));
        member.name = args.name.clone().unwrap_or_default();
    }
    file
}

/// Finds a place for a server that was told of its coordinator and nothing else: the first two
/// free ports from etcd's up, and a data directory that is called after them, so that a server that
/// starts again finds its data. What is returned keeps the ports until the server listens there by
/// itself: others look for a place meanwhile.
fn settle_down(args: &mut ServerArgs) -> Result<Vec<TcpListener>> {
    let mut place = Vec::new();
    if args.coord.is_none() || args.config.is_some() {
        return Ok(place);
    }
    if args.listen_client.is_none() && args.listen_peer.is_none() {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let take = |port| Some(vec![bind(address(port))?, bind(address(port + 1))?]);
        let mut ports = (0..PLACES_MAX).map(|place| 2379 + 2 * place);
        let found = ports.find_map(|port| Some((port, take(port)?)));
        let (port, taken) = found.context("no free ports from 2379 up: give --listen-client")?;
        place = taken;
        (args.listen_client, args.listen_peer) = (Some(address(port)), Some(address(port + 1)));
    }
    if args.data_dir.is_none() {
        let port = args.listen_client.map_or(2379, |address| address.port());
        args.data_dir = Some(format!("kvraft-data-{port}").into());
    }
    Ok(place)
}

fn bind(address: SocketAddr) -> Option<TcpListener> {
    TcpListener::bind(address).ok()
}

/// Servers of one machine that find a place by themselves.
const PLACES_MAX: u16 = 64;

/// Waits until all servers have come to the coordinator, and becomes one of them.
async fn be_gathered(config: &mut ServerConfig, address: &str) -> Result<()> {
    let own = config.members.iter().find(|member| member.id == config.member);
    let told = |told: Option<&String>, listen: SocketAddr| {
        told.filter(|told| !told.is_empty()).cloned().unwrap_or_else(|| listen.to_string())
    };
    let peer = told(own.map(|own| &own.peer), config.listen_peer);
    let client = told(own.map(|own| &own.client), config.listen_client);
    let name = own.map_or(&config.name, |own| &own.name);
    let joined = kvraft_server::join_coordinator(address, name, &peer, &client).await?;
    (config.member, config.cluster) = (joined.member, joined.cluster);
    config.members = joined.members;
    Ok(config.validate()?)
}

/// Others learn this server's addresses from itself at least.
fn advertise(config: &mut ServerConfig, peer: Option<String>, client: Option<String>) {
    let (me, listen) = (config.member, config.listen_client);
    if !config.members.iter().any(|member| member.id == me) && (peer.is_some() || client.is_some())
    {
        config.members.push(MemberConfig {
            id: me,
            name: config.name.clone(),
            peer: config.listen_peer.to_string(),
            client: String::new(),
        });
    }
    let Some(own) = config.members.iter_mut().find(|member| member.id == me) else { return };
    own.peer = peer.unwrap_or_else(|| own.peer.clone());
    own.client = client.unwrap_or_else(|| own.client.clone());
    if own.client.is_empty() && !listen.ip().is_unspecified() {
        own.client = listen.to_string();
    }
}

/// `ID=HOST:PORT` or `NAME=HOST:PORT`.
fn parse_member(text: &str) -> Result<MemberEntry, String> {
    let (who, peer) = text.split_once('=').ok_or("expected ID=HOST:PORT or NAME=HOST:PORT")?;
    let (id, name) = match who.parse::<i64>() {
        Ok(_) => (Some(parse_id(who)?), String::new()),
        Err(_) if who.is_empty() => return Err("a member needs an id or a name".to_owned()),
        Err(_) => (None, who.to_owned()),
    };
    let peer = peer.strip_prefix("http://").unwrap_or(peer);
    let port = peer.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(_))) {
        return Err(format!("{peer:?} is not HOST:PORT"));
    }
    Ok(MemberEntry { id, name, peer: peer.to_owned(), client: String::new() })
}

/// From 1, and below 2^63 as in a file; with `0x` in hexadecimal, as commands show ids.
pub(crate) fn parse_id(text: &str) -> Result<u64, String> {
    let id = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => text.parse::<i64>(),
    };
    let id = id.ok().and_then(|id| u64::try_from(id).ok());
    id.filter(|id| *id != 0)
        .ok_or_else(|| "an id is a number from 1 up, or 0x and digits".to_owned())
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
        flush_flight_recorders();
        std::process::abort();
    }));
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    // Whatever is written there is ignored; an error is an end too.
    while matches!(stdin.read(&mut buffer).await, Ok(size) if 0 < size) {}
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser, Debug)]
    struct Line {
        #[command(flatten)]
        args: ServerArgs,
    }

    /// Servers that wait for each other do not take the same place.
    #[test]
    fn servers_find_places_of_their_own() {
        let line = || Line::parse_from(["server", "--coord", "127.0.0.1:23002"]).args;
        let (mut one, mut other) = (line(), line());
        let place = settle_down(&mut one).unwrap();
        let _other_place = settle_down(&mut other).unwrap();
        assert_eq!(place.len(), 2);
        assert_ne!(one.listen_client, other.listen_client);
        assert_ne!(one.data_dir, other.data_dir);
        let port = one.listen_client.unwrap().port();
        assert_eq!(one.data_dir, Some(format!("kvraft-data-{port}").into()));
    }
}
