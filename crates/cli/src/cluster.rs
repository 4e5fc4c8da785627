//! `kvraft cluster`: several servers on this machine, each in a process of its own.
//!
//! Invariants:
//! - the servers do not outlive this process: their standard input is a pipe from it, and they stop
//!   when that closes, whatever ended this process;
//! - a server that dies is reported, not restarted: how to start it again is on the screen.

mod child;
mod place;
mod screen;
mod watchers;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets};
use kvraft_base::{ClusterId, MemberId};
use kvraft_server::{ConfigFile, MemberConfig, ServerConfig, parse_size_or_off, parse_time};
use tokio::{sync::watch, task::JoinSet, time::sleep};

pub(crate) use self::place::new_cluster_id;
use self::{
    child::{Ended, Order},
    place::{Place, ServerPlace},
    screen::Screen,
    watchers::Watchers,
};
use crate::{connection::quote, signals::Stop};

/// Run a whole cluster on this machine, each server in its own process
///
/// Data is kept in a temporary directory that is removed at the end, unless --data-dir is given.
/// Ctrl-C stops all servers cleanly; a second one kills them.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft cluster -n 3
  kvraft cluster -n 5 --data-dir ./data --base-port 3379
  kvraft cluster -n 3 --heartbeat-interval 3s --election-timeout 30s
  ETCDCTL_API=3 etcdctl --endpoints 127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383 put k v")]
pub(crate) struct ClusterArgs {
    /// How many servers
    #[arg(short = 'n', long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    size: u64,
    /// Keep data here, and continue from what is here [default: a temporary directory]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Client ports are this, +2, +4, …; peer ports +1, +3, …
    #[arg(long, default_value_t = 2379)]
    base_port: u16,
    /// How servers log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// How often a leader tells the others that it is there: 100ms, 3s, or a number of
    /// milliseconds [default: 100ms]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    heartbeat_interval: Option<Duration>,
    /// How long a follower waits for a leader's sign before it campaigns [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    election_timeout: Option<Duration>,
    /// Set any other key of the servers' configuration, as in limits.retained-entries=1000
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Which events servers log: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: String,
    /// Keep what each server is given in a ring of this size, for kvraft replay; or off
    /// [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size_or_off)]
    flight_recorder: Option<u64>,
    /// DANGER, for tests: what was not fsynced is lost when a server is killed
    #[arg(long)]
    volatile_disk: bool,
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// One server, as the table shows it.
#[derive(Clone, Debug)]
struct Member {
    number: u64,
    client: SocketAddr,
    peer: SocketAddr,
    place: ServerPlace,
}

/// Runs until it is interrupted.
pub(crate) async fn run(args: ClusterArgs) -> Result<ExitCode> {
    // Before anything is started: an early Ctrl-C must not leave processes behind.
    let mut stop = Stop::listen();
    let screen = Screen::new(args.log_format == LogFormat::Json);
    for path in place::remove_abandoned() {
        screen.say(&format!("removed {}, left by a cluster that was killed", path.display()));
    }
    let ports = ports(args.base_port, args.size)?;
    let place = match &args.data_dir {
        Some(path) => Place::kept(path, args.size)?,
        None => Place::temporary(args.size)?,
    };
    let members = members(&place, &ports)?;
    for member in &members {
        write_config(member, &members, &place, &args)?;
    }
    let outcome = serve(&members, &place, screen, &mut stop).await;
    let root = place.root().to_path_buf();
    let temporary = place.is_temporary();
    match place.leave() {
        Ok(true) if temporary => screen.say(&format!("removed {}", root.display())),
        Ok(true) => screen.say(&format!("data is kept in {}", root.display())),
        Ok(false) => {
            let text = "a server that was started by hand still runs there";
            screen.say(&format!("{} stays: {text}", root.display()));
        }
        Err(error) => screen.say(&format!("{error:#}")),
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Client and peer address of each server; all free at this moment.
fn ports(base: u16, size: u64) -> Result<Vec<(SocketAddr, SocketAddr)>> {
    let count = u16::try_from(2 * size).context("the size is at most 7")?;
    if base == 0 || base.checked_add(count - 1).is_none() {
        bail!("ports {base} to {base} + {} are not all between 1 and 65535", count - 1);
    }
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for port in base..=base + (count - 1) {
        let number = (port - base) / 2 + 1;
        let role = if (port - base).is_multiple_of(2) { "client" } else { "peer" };
        TcpListener::bind(address(port)).map(drop).with_context(|| {
            format!(
                "port {port}, the {role} port of server {number}, cannot be used; \
                 choose others with --base-port"
            )
        })?;
    }
    let pairs = (base..=base + (count - 1)).step_by(2);
    Ok(pairs.map(|port| (address(port), address(port + 1))).collect())
}

fn members(place: &Place, ports: &[(SocketAddr, SocketAddr)]) -> Result<Vec<Member>> {
    (1..)
        .zip(ports)
        .map(|(number, (client, peer))| {
            let place = place.server(number)?;
            Ok(Member { number, client: *client, peer: *peer, place })
        })
        .collect()
}

/// Writes a server's configuration, anew at each start: ports may have changed.
fn write_config(member: &Member, all: &[Member], place: &Place, args: &ClusterArgs) -> Result<()> {
    let (data, client, peer) = (member.place.data.clone(), member.client, member.peer);
    let mut config = ServerConfig::alone(data, client, peer);
    config.member = MemberId(member.number);
    config.cluster = ClusterId(place.cluster_id());
    config.heartbeat_interval = args.heartbeat_interval.unwrap_or(config.heartbeat_interval);
    config.election_timeout = args.election_timeout.unwrap_or(config.election_timeout);
    config.volatile_disk = args.volatile_disk;
    config.flight_recorder = args.flight_recorder.unwrap_or(config.flight_recorder);
    config.log_format = args.log_format.into();
    config.log_level = args.log_level.clone();
    config.members = all
        .iter()
        .map(|member| MemberConfig {
            id: MemberId(member.number),
            name: format!("server-{}", member.number),
            peer: member.peer.to_string(),
            client: member.client.to_string(),
        })
        .collect();
    let mut file = ConfigFile::from(&config);
    for set in &args.set {
        file.set(set).context("--set")?;
    }
    let config = file.resolve()?;
    let path = &member.place.config;
    let text = format!("# Written by `kvraft cluster`.\n{}", config.to_toml());
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Starts the servers, tells about them, and stops them in the end.
async fn serve(members: &[Member], place: &Place, screen: Screen, stop: &mut Stop) -> Result<()> {
    let orders = watch::Sender::new(Order::Run);
    let mut running = JoinSet::new();
    let mut pids = Vec::new();
    for member in members {
        let (pid, end) =
            child::start(member.number, &member.place.config, screen, orders.subscribe())?;
        running.spawn(end);
        pids.push(pid);
    }
    screen.say(&table(members, &pids, place.root())?);
    if place.used {
        screen.say(&format!("continuing from {}", place.root().display()));
    }
    let mut watchers = Watchers::new(members, screen);
    let watched = watch_members(members, &mut running, &mut watchers, screen, stop).await;
    watchers.end();
    end_all(&mut running, &orders, screen, stop).await?;
    watched
}

/// Reports who dies and who comes back, until asked to stop.
async fn watch_members(
    members: &[Member],
    running: &mut JoinSet<Ended>,
    watchers: &mut Watchers,
    screen: Screen,
    stop: &mut Stop,
) -> Result<()> {
    loop {
        tokio::select! {
            name = stop.asked() => {
                screen.say(&format!("{name}: stopping; once more to kill"));
                return Ok(());
            }
            Some(Ok(ended)) = running.join_next() => {
                let member = members.iter().find(|member| member.number == ended.number);
                let member = member.expect("only members' processes are awaited");
                screen.say(&format!(
                    "server-{} has ended: {}; start it again with\n  {}",
                    ended.number,
                    ended.how,
                    start_command(&member.place.config)
                ));
                if running.is_empty() && !watchers.is_ready() {
                    bail!("no server could be started");
                }
                watchers.expect_back(member.clone());
            }
        }
    }
}

async fn end_all(
    running: &mut JoinSet<Ended>,
    orders: &watch::Sender<Order>,
    screen: Screen,
    stop: &mut Stop,
) -> Result<()> {
    orders.send_replace(Order::Stop);
    let mut failed = Vec::new();
    while !running.is_empty() {
        tokio::select! {
            _ = stop.asked() => {
                screen.say("killing");
                orders.send_replace(Order::Kill);
            }
            () = sleep(STOP_TIME_MAX) => {
                screen.say("servers take too long to stop: killing");
                orders.send_replace(Order::Kill);
            }
            Some(joined) = running.join_next() => {
                if let Ok(ended) = joined && !ended.clean {
                    failed.push(format!("server-{}: {}", ended.number, ended.how));
                }
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not stopped cleanly: {}", failed.join(", "))
}

/// What a person needs to use the cluster and to hurt it.
fn table(members: &[Member], pids: &[u32], root: &Path) -> Result<String> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["server", "clients", "peers", "pid", "data directory"]);
    for (member, pid) in members.iter().zip(pids) {
        table.add_row([
            format!("server-{}", member.number),
            member.client.to_string(),
            member.peer.to_string(),
            pid.to_string(),
            member.place.data.display().to_string(),
        ]);
    }
    let mut text = table.to_string();
    text.push_str("\n\nkill one:          start it again:\n");
    for (member, pid) in members.iter().zip(pids) {
        let start = start_command(&member.place.config);
        text.push_str(&format!("  kill -9 {pid:<8}   {start}\n"));
    }
    let endpoints: Vec<String> = members.iter().map(|member| member.client.to_string()).collect();
    let endpoints = endpoints.join(",");
    if let Some(join) = join_command(members, &endpoints, root) {
        text.push_str(&format!("\nadd a server:\n  {join}\n"));
    }
    text.push_str(&format!("\nendpoints: {endpoints}\n"));
    Ok(text)
}

/// The command line that adds a server to the cluster, with the next ports; none when there are no
/// more ports.
fn join_command(members: &[Member], endpoints: &str, root: &Path) -> Option<String> {
    let last = members.last()?;
    let address = |after: SocketAddr| {
        Some(SocketAddr::new(after.ip(), after.port().checked_add(2)?).to_string())
    };
    let name = format!("server-{}", last.number + 1);
    let data = root.join(&name).join("data");
    Some(format!(
        "{} server --join {endpoints} --name {name} \\\n    --listen-client {} --listen-peer {} \
         --data-dir {}",
        program(),
        address(last.client)?,
        address(last.peer)?,
        quote(&data.display().to_string())
    ))
}

/// The command line that starts a server by hand.
fn start_command(config: &Path) -> String {
    format!("{} server --config {}", program(), quote(&config.display().to_string()))
}

/// This program, for a shell.
fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("kvraft"));
    quote(&program.display().to_string())
}

/// A server that takes longer to flush than this has a problem that waiting does not solve.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
