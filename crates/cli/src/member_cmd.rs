//! `kvraft member list|add|promote|remove|update`: who belongs to the cluster.
//!
//! Invariants:
//! - results are printed as etcdctl prints them, ids in hexadecimal;
//! - a member may be named by its id, its name, or a peer address; what names two is refused;
//! - nothing is sent that a plain etcd server does not know, but for the mark of a learner that is
//!   to vote by itself, which etcd ignores;
//! - nobody is added who votes before it has caught up: until then it would count as a server that
//!   has failed, and if it has lost its disk meanwhile nobody could tell.

mod find;
mod render;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use kvraft_client::{
    Client, Error, NewMember,
    proto::etcdserverpb::{Member, MemberAddResponse, MemberListResponse, ResponseHeader},
};

pub(crate) use self::{
    find::{find, without_scheme},
    render::MemberReply,
};
use crate::connection::{Connection, Output, WriteOut, parse_address, print, quote};

/// Show who belongs to the cluster, or change it while it runs
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft member list
  kvraft member add d --peer 10.0.0.4:2380               then start it as is printed
  kvraft member add d --learner --peer 10.0.0.4:2380     receives everything and does not vote
  kvraft member promote d
  kvraft member update d --peer 10.0.0.14:2380
  kvraft member remove 8e9e05c52164694d

`kvraft server --join ENDPOINTS` adds a server and starts it in one step.")]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    List(ListArgs),
    Add(AddArgs),
    /// Make a learner that has caught up a voter
    #[command(after_help = "Example:
  kvraft member promote d")]
    Promote(TargetArgs),
    /// Remove a member for ever: its server ends, and its id is never given again
    #[command(after_help = "Examples:
  kvraft member remove d
  kvraft member remove 8e9e05c52164694d
  kvraft member remove 10.0.0.4:2380")]
    Remove(TargetArgs),
    Update(UpdateArgs),
}

/// List the members: id, whether it was started, name, peer and client addresses, learner or not
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft member list
  kvraft member list -w json")]
struct ListArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Add a member; prints the command that starts it
///
/// It begins as a learner, and votes by itself as soon as it has caught up; with --learner it stays
/// one until `kvraft member promote`, as it also does when the servers are etcd's.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft member add d --peer 10.0.0.4:2380
  kvraft member add d --learner --peer d.example:2380 --client d.example:2379")]
struct AddArgs {
    /// The new server's name, for people
    name: String,
    /// Where the other servers will reach it
    #[arg(long, value_name = "HOST:PORT", required = true, value_parser = parse_address)]
    peer: String,
    /// Where clients will reach it [default: the peer's host, and the port before]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    client: Option<String>,
    /// It stays a learner, which receives everything and does not vote
    #[arg(long)]
    learner: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

// What is said of it stands with each of the commands that take it.
#[derive(clap::Args, Debug)]
struct TargetArgs {
    /// Its id in hexadecimal, its name, or its peer address
    member: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Say where the other servers reach a member from now on
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  kvraft member update d --peer 10.0.0.14:2380")]
struct UpdateArgs {
    /// Its id in hexadecimal, its name, or its peer address so far
    member: String,
    /// Where it is reached from now on; several with commas
    #[arg(long, value_name = "HOST:PORT", required = true, value_delimiter = ',', value_parser = parse_address)]
    peer: Vec<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// `kvraft member`.
pub(crate) async fn run(args: MemberArgs) -> Result<()> {
    match args.action {
        Action::List(args) => list(args).await,
        Action::Add(args) => add(args).await,
        Action::Promote(args) => promote(args).await,
        Action::Remove(args) => remove(args).await,
        Action::Update(args) => update(args).await,
    }
}

async fn list(args: ListArgs) -> Result<()> {
    let MemberListResponse { header, members } = args.connection.client()?.member_list().await?;
    show(&MemberReply::List { header, members }, args.output.write_out)
}

async fn add(args: AddArgs) -> Result<()> {
    let kind = if args.learner { NewMember::Learner } else { NewMember::LearnerToPromote };
    let added = args.connection.client()?.member_add([&args.peer], kind).await;
    let MemberAddResponse { header, member, members } = added
        .map_err(in_doubt)
        .with_context(|| format!("adding {} at {}", args.name, args.peer))?;
    let start = start_command(&args)?;
    let member = member.context("the server's answer names no member")?;
    show(&MemberReply::Added { header, member, members, start }, args.output.write_out)
}

async fn promote(args: TargetArgs) -> Result<()> {
    let client = args.connection.client()?;
    let id = id_of(&client, &args.member).await?;
    let done = client.member_promote(id).await.map_err(in_doubt);
    let done = done.with_context(|| format!("promoting {}", args.member))?;
    changed("promoted in", id, done.header, done.members, args.output)
}

async fn remove(args: TargetArgs) -> Result<()> {
    let client = args.connection.client()?;
    let id = id_of(&client, &args.member).await?;
    let done = client.member_remove(id).await.map_err(in_doubt);
    let done = done.with_context(|| format!("removing {}", args.member))?;
    changed("removed from", id, done.header, done.members, args.output)
}

async fn update(args: UpdateArgs) -> Result<()> {
    let client = args.connection.client()?;
    let id = id_of(&client, &args.member).await?;
    let done = client.member_update(id, &args.peer).await.map_err(in_doubt);
    let done = done.with_context(|| format!("updating {}", args.member))?;
    changed("updated in", id, done.header, done.members, args.output)
}

fn changed(
    what: &'static str,
    id: u64,
    header: Option<ResponseHeader>,
    members: Vec<Member>,
    output: Output,
) -> Result<()> {
    show(&MemberReply::Changed { what, id, header, members }, output.write_out)
}

fn show(reply: &MemberReply, write_out: WriteOut) -> Result<()> {
    print(&reply.render(write_out)?)
}

/// The id of the member that is meant.
async fn id_of(client: &Client, wanted: &str) -> Result<u64> {
    let list = client.member_list().await.context("asking who belongs to the cluster")?;
    Ok(find(&list.members, wanted)?.id)
}

/// Where to look when nobody knows whether a change was made.
fn in_doubt(error: Error) -> anyhow::Error {
    let certain = error.is_certain();
    let error = anyhow::Error::new(error);
    if certain { error } else { error.context("`kvraft member list` shows whether it was made") }
}

/// The command that starts the member that was added.
fn start_command(args: &AddArgs) -> Result<String> {
    let (host, port) = args.peer.rsplit_once(':').context("a peer address has a port")?;
    let client = match &args.client {
        Some(client) => client.clone(),
        None => {
            let port: u16 = port.parse().context("a peer address has a port")?;
            format!("{host}:{}", port.checked_sub(1).filter(|port| *port != 0).unwrap_or(2379))
        }
    };
    let endpoints = args.connection.endpoints().join(",");
    let mut words = vec!["server".to_owned(), "--join".to_owned(), endpoints];
    words.extend(["--name".to_owned(), args.name.clone()]);
    words.extend(["--data-dir".to_owned(), args.name.clone()]);
    for (role, address) in [("client", &client), ("peer", &args.peer)] {
        let listen = listen_address(address);
        words.extend([format!("--listen-{role}"), listen.clone()]);
        if listen != *address {
            words.extend([format!("--advertise-{role}"), address.clone()]);
        }
    }
    if args.learner {
        words.push("--learner".to_owned());
    }
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    Ok(format!("kvraft {}", words.join(" ")))
}

/// Where a server listens that is reached there: names are for others, itself it takes any.
fn listen_address(address: &str) -> String {
    match (address.parse::<std::net::SocketAddr>(), address.rsplit_once(':')) {
        (Err(_), Some((_, port))) => format!("0.0.0.0:{port}"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests;
