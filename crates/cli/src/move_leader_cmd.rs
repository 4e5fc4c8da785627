//! `kvraft move-leader`: another server leads, without an election that anyone has to wait for.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kvraft_client::{Client, EndpointId, proto::etcdserverpb::Member};

use crate::{
    connection::{Connection, Output, print},
    member_cmd::{MemberReply, find},
};

/// How long the old leader may take to say who leads now.
const LEADER_KNOWN_TIME_MAX: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Hand leadership to another server
///
/// Finds the leader by itself, through any endpoint. Without a name or an id the leader chooses the
/// voter that is the most up to date.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft move-leader
  kvraft move-leader b
  kvraft move-leader 8e9e05c52164694d")]
pub(crate) struct MoveLeaderArgs {
    /// Who is to lead: id in hexadecimal, name, or peer address [default: the leader chooses]
    member: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(crate) async fn run(args: MoveLeaderArgs) -> Result<()> {
    let connection = &args.connection;
    let client = connection.client()?;
    let members = client.member_list().await.context("asking who belongs to the cluster")?.members;
    let target = match &args.member {
        Some(wanted) => find(&members, wanted)?.id,
        None => 0,
    };
    let (client, leader) = find_leader(connection, client, &members).await?;
    let from = member_id(&client, leader).await?;
    let moved = client.move_leader(leader, target).await;
    let moved = moved.with_context(|| match &args.member {
        Some(wanted) => format!("moving leadership to {wanted}"),
        None => "moving leadership".to_owned(),
    })?;
    let to = if target == 0 { next_leader(&client, leader, from).await? } else { target };
    let reply = MemberReply::LeaderMoved { header: moved.header, from, to };
    print(&reply.render(args.output.write_out)?)
}

/// The leader, among the endpoints or where the members say that it is.
async fn find_leader(
    connection: &Connection,
    client: Client,
    members: &[Member],
) -> Result<(Client, EndpointId)> {
    if let Some(leader) = client.find_leader().await {
        return Ok((client, leader));
    }
    let urls: Vec<String> = members.iter().flat_map(|one| one.client_ur_ls.clone()).collect();
    if !urls.is_empty() {
        let client = connection.client_of(&urls)?;
        if let Some(leader) = client.find_leader().await {
            return Ok((client, leader));
        }
    }
    bail!("no leader was found, neither among the endpoints nor among the members' addresses")
}

async fn member_id(client: &Client, endpoint: EndpointId) -> Result<u64> {
    let status = client.status(endpoint).await.context("asking the leader how it is")?;
    Ok(status.header.map_or(0, |header| header.member_id))
}

/// Whom the old leader follows now.
async fn next_leader(client: &Client, old: EndpointId, from: u64) -> Result<u64> {
    let known = async {
        loop {
            if let Ok(status) = client.status(old).await
                && ![0, from].contains(&status.leader)
            {
                return status.leader;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let known = tokio::time::timeout(LEADER_KNOWN_TIME_MAX, known).await;
    known.context("leadership was handed over, but the old leader does not know yet to whom")
}
