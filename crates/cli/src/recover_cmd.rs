//! `kvraft recover`: when a majority is lost for good, one server goes on alone.
//!
//! Invariants:
//! - the cluster that the directory belongs to is not changed before the directory's lock is held,
//!   the other servers were looked for, and a person, or `--yes`, has agreed. Opening it repairs it
//!   as every start does: a torn end is cut, an interrupted step is ended;
//! - as long as a quorum answers, it is refused: the cluster can go on by itself;
//! - whatever interrupts it, the directory is the old one or the new one, and the same command ends
//!   it.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use kvraft_base::{ClusterId, MemberId};
use kvraft_client::Client;
use kvraft_replica::{Survey, force_new_cluster, survey};
use kvraft_server::{RealDisk, probe_peer};
use kvraft_store::Options;

use crate::{cluster::new_cluster_id, connection::print, server_cmd::parse_id};

/// How long one server may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Make one surviving server a cluster of its own, when a majority is lost for good
///
/// Works on a data directory whose server does not run. Keys, revisions and sessions stay; the
/// members become this server alone, under another cluster id, so that servers of the old cluster
/// are refused. Add servers with `kvraft server --join` then.
#[derive(clap::Args, Debug)]
#[command(after_help = "What it means:
  - what the other servers had and this one lacks is lost, even if it was acknowledged
  - what this server has and was not committed may count as committed from now on
  - the other servers' data directories must never be started with this one again

Choose the server whose last entry has the highest Term and, among equals, the highest Index:
`kvraft log DIR | tail -n 1` shows the last entry of each.

Examples:
  kvraft recover --force-new-cluster --data-dir ./data/server-1/data
  kvraft recover --force-new-cluster --data-dir ./data --endpoints 10.0.0.2:2379,10.0.0.3:2379")]
pub(crate) struct RecoverArgs {
    /// Give up the old cluster: the only kind of recovery that there is
    #[arg(long, required = true)]
    force_new_cluster: bool,
    /// The surviving server's data directory
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where else servers of the old cluster may still answer: host:port, beside the addresses that
    /// the data directory knows
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// The new cluster's id [default: drawn]
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    cluster_id: Option<u64>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) async fn run(args: RecoverArgs) -> Result<ExitCode> {
    let directory = &args.data_dir;
    let named = || format!("data directory {}", directory.display());
    let identity = kvraft_server::read_identity(directory).with_context(named)?;
    ensure!(identity.is_some(), "{} is no data directory of kvraft", directory.display());
    let disk = RealDisk::open(directory)?;
    let options = Options::default();
    let found = survey(&disk, &options).with_context(named)?;
    // One that has lost a part of its log would wait for a peer to repair it, and has none.
    if found.is_alone() && found.is_whole() {
        let text = format!("{} is a cluster of its own already.\n", directory.display());
        print(format!("{text}{}", next_steps(&found)).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = ClusterId(args.cluster_id.unwrap_or_else(new_cluster_id));
    ensure!(
        cluster != found.cluster,
        "--cluster-id {cluster:#x} is the old cluster's: take another"
    );
    let reached = reach(&found, &args.endpoints).await?;
    refuse_if_quorum(&found, &reached)?;
    print(plan(directory, &found, &reached).as_bytes())?;
    if !args.yes && !confirmed()? {
        bail!("the cluster was not changed");
    }
    let done = force_new_cluster(&disk, &options, cluster).with_context(named)?;
    let text = format!(
        "{} is a cluster of its own now; its log ends at {}.\n{}",
        directory.display(),
        done.last,
        next_steps(&done)
    );
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Which members of the old cluster answer, beside this one.
async fn reach(found: &Survey, endpoints: &[String]) -> Result<BTreeSet<MemberId>> {
    let others = || found.members.ids().into_iter().filter(|id| *id != found.member);
    let mut clients: BTreeSet<String> = endpoints.iter().cloned().collect();
    let mut peers = Vec::new();
    for (id, info) in others().filter_map(|id| Some((id, found.members.info(id)?))) {
        clients.extend(info.client_addresses.iter().cloned());
        peers.extend(info.peer_addresses.iter().map(|address| (id, address.clone())));
    }
    let has_address = |id: &MemberId| peers.iter().any(|(known, _)| known == id);
    let homeless: Vec<String> =
        others().filter(|id| !has_address(id)).map(|id| format!("{:x}", id.0)).collect();
    if !homeless.is_empty() && endpoints.is_empty() {
        bail!(
            "the data directory does not know where members {} are: say with --endpoints where \
             they would answer",
            homeless.join(", ")
        );
    }
    let asked = clients.iter().map(|address| answering_member(address, found.cluster));
    let answered = join_all(asked).await;
    let mut reached: BTreeSet<MemberId> = BTreeSet::new();
    for answer in answered {
        reached.extend(answer?);
    }
    let probes = peers.iter().map(|(id, address)| async move {
        let patience = ANSWER_TIME_MAX;
        probe_peer(address, found.cluster, found.member, *id, patience).await.then_some(*id)
    });
    reached.extend(join_all(probes).await.into_iter().flatten());
    reached.remove(&found.member);
    Ok(reached)
}

/// Which member of `cluster` answers clients there; an error if that is no address.
async fn answering_member(address: &str, cluster: ClusterId) -> Result<Option<MemberId>> {
    let client = Client::builder()
        .endpoints([address])
        .connect_timeout(ANSWER_TIME_MAX)
        .request_timeout(ANSWER_TIME_MAX)
        .build()?;
    let (endpoint, _) = client.endpoints().next().context("one endpoint was given")?;
    let header = client.status(endpoint).await.ok().and_then(|status| status.header);
    let ours = header.filter(|header| header.cluster_id == cluster.0);
    Ok(ours.map(|header| MemberId(header.member_id)))
}

/// As long as a quorum can be had, nothing must be given up.
fn refuse_if_quorum(found: &Survey, reached: &BTreeSet<MemberId>) -> Result<()> {
    let can_vote = |id| reached.contains(&id) || (id == found.member && found.is_whole());
    ensure!(
        !found.members.is_quorum(can_vote),
        "refused: {} answer{}, and with this server that is a quorum of cluster {:x}: start this \
         server as always, and the cluster goes on without any loss",
        names(found, reached.iter().copied()),
        if reached.len() == 1 { "s" } else { "" },
        found.cluster.0
    );
    Ok(())
}

/// What will be done, and what it means.
fn plan(directory: &Path, found: &Survey, reached: &BTreeSet<MemberId>) -> String {
    let mut text = format!(
        "{} is of member {} of cluster {:x}.\nIts log ends at {} and is known to be committed up \
         to {}.\n",
        directory.display(),
        names(found, [found.member].into_iter()),
        found.cluster.0,
        found.last,
        found.commit,
    );
    text.push_str(&others(found, reached));
    text.push_str(
        "\nThis makes it a cluster of its own, of this server alone, with another cluster id:\n\
         - what the other servers had and this one lacks is lost, even if it was acknowledged;\n\
         - what this server has and was not committed may count as committed from now on;\n\
         - the other servers' data directories must never be started with this one again.\n",
    );
    if !found.is_whole() {
        text.push_str(&format!(
            "- the log is DAMAGED: entries after {} up to {} were here once and are lost.\n",
            found.last.index, found.attested
        ));
    }
    text
}

/// Who belonged to the old cluster beside this server, and who of them answers.
fn others(found: &Survey, reached: &BTreeSet<MemberId>) -> String {
    if found.is_alone() {
        return "It was the only member already, and has lost a part of its log.\n".to_owned();
    }
    let others = found.members.ids().into_iter().filter(|id| *id != found.member);
    let were = format!("The other members were {}.\n", names(found, others));
    if reached.is_empty() {
        return format!("{were}None of them answers.\n");
    }
    let (answer, them) = if reached.len() == 1 { ("answers", "it") } else { ("answer", "them") };
    let reached = names(found, reached.iter().copied());
    format!(
        "{were}Still {answer}: {reached}. That is no quorum. Stop {them} before you go on, or clients \
         will find two clusters.\n"
    )
}

/// `1 (a), 2 (b)`.
fn names(found: &Survey, ids: impl Iterator<Item = MemberId>) -> String {
    let name = |id: MemberId| match found.members.info(id) {
        Some(info) if !info.name.is_empty() => format!("{:x} ({})", id.0, info.name),
        _ => format!("{:x}", id.0),
    };
    ids.map(name).collect::<Vec<_>>().join(", ")
}

/// Asks whoever sits at the terminal.
fn confirmed() -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("the cluster was not changed: say --yes if that is what you want");
    }
    print!("\nType yes to do it: ");
    std::io::stdout().flush().context("asking")?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).context("reading the answer")?;
    Ok(answer.trim() == "yes")
}

fn next_steps(found: &Survey) -> String {
    let (cluster, member) = (found.cluster.0, found.member.0);
    format!(
        "It is member {member:x} of cluster {cluster:x}.\n\nStart it as before, with \
         --cluster-id {cluster:#x} (in its settings file: cluster = {cluster:#x}).\nAdd servers \
         with empty data directories with `kvraft server --join ENDPOINTS`.\n"
    )
}
