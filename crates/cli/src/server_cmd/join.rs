//! `kvraft server --join`: a new server becomes a member of a running cluster before it starts.
//!
//! Who it is, it learns from the cluster: it finds itself in the list of members by its peer
//! address, where `member add` or an earlier attempt has put it, or else adds itself. What was
//! added and not started costs nothing but a learner that does not answer, so an attempt that was
//! cut short is simply made again.
//!
//! Invariants:
//! - a member that may have voted is never started on an empty directory, since it would not know
//!   (Raft §5.2). One with a name has been started before, and is refused. One without may have
//!   been, too, and have lost its data before it could say its name: if it is a voter, it is
//!   replaced by a new member, and if it is a learner, nobody has counted on it;
//! - every attempt is bounded, and says what it waits for.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use kvraft_base::{ClusterId, MemberId};
use kvraft_client::{
    Client, Error, NewMember,
    proto::etcdserverpb::{Member, ResponseHeader},
};
use kvraft_server::{JoinInfo, ServerConfig};

use crate::member_cmd::without_scheme;

/// How long a cluster may take to answer and to add a member.
const JOIN_TIME_MAX: Duration = Duration::from_secs(60);

/// Wait between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long one request may take, with its own attempts at all endpoints.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

/// This server's place in a cluster.
struct Place {
    cluster: u64,
    member: u64,
    members: Vec<Member>,
}

/// What an attempt without a place has come to.
enum Setback {
    /// Time may help.
    Passing(anyhow::Error),
    /// Asking again brings the same.
    Lasting(anyhow::Error),
}

/// Gives a server that has no data yet its place in the cluster that these endpoints serve.
pub(super) async fn join(
    config: &mut ServerConfig,
    endpoints: &[String],
    as_learner: bool,
) -> Result<()> {
    let info = config.own_info();
    let Some(peer) = info.peer_addresses.into_iter().next() else {
        bail!(
            "nobody can reach peers at {}: say where with --advertise-peer HOST:PORT",
            config.listen_peer
        );
    };
    // What cannot be started must not be added.
    for address in [config.listen_client, config.listen_peer] {
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    }
    let client = Client::builder().endpoints(endpoints).request_timeout(REQUEST_TIME_MAX);
    let client = client.build().context("--join")?;
    let kind = if as_learner { NewMember::Learner } else { NewMember::LearnerToPromote };
    let own = Own { name: info.name, peer, kind };
    let place = place(&client, &own).await.with_context(|| {
        format!("joining the cluster at {} as {}", endpoints.join(","), own.peer)
    })?;
    eprintln!("joining cluster {:x} as member {:x}", place.cluster, place.member);
    config.cluster = ClusterId(place.cluster);
    // What is advertised stands under the id that was only a guess.
    let id = MemberId(place.member);
    config.members.iter_mut().filter(|own| own.id == config.member).for_each(|own| own.id = id);
    config.member = id;
    config.join = Some(JoinInfo::from_list(&place.members)?);
    Ok(())
}

/// Who wants to join.
struct Own {
    name: String,
    peer: String,
    kind: NewMember,
}

/// Tries until the cluster has a place or time is up.
async fn place(client: &Client, own: &Own) -> Result<Place> {
    let start = Instant::now();
    loop {
        let error = match attempt(client, own).await {
            Ok(place) => return Ok(place),
            Err(Setback::Lasting(error)) => return Err(error),
            Err(Setback::Passing(error)) => error,
        };
        let Some(left) = JOIN_TIME_MAX.checked_sub(start.elapsed()) else {
            return Err(error.context(format!("gave up after {} s", JOIN_TIME_MAX.as_secs())));
        };
        eprintln!("joining: {error:#}; trying again for {} s", left.as_secs());
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn attempt(client: &Client, own: &Own) -> Result<Place, Setback> {
    let list = client.member_list().await.map_err(setback)?;
    match find_own(&list.members, own).map_err(Setback::Lasting)? {
        Some(Found::Learner(member)) => return placed(list.header, member, list.members),
        Some(Found::Voter(member)) => {
            eprintln!("joining: a new member takes the place of voter {member:x}");
            // Whatever became of an answer that was lost: the next look at the list shows it.
            client.member_remove(member).await.map_err(setback)?;
        }
        None => {}
    }
    let added = match client.member_add([&own.peer], own.kind).await {
        Ok(added) => added,
        // Perhaps it was added all the same: the next look at the list shows it.
        Err(error @ Error::Unknown { .. }) => return Err(Setback::Passing(error.into())),
        Err(error) => return Err(setback(error)),
    };
    let member = added.member.map_or(0, |member| member.id);
    placed(added.header, member, added.members)
}

fn placed(
    header: Option<ResponseHeader>,
    member: u64,
    members: Vec<Member>,
) -> Result<Place, Setback> {
    match header.map(|header| header.cluster_id) {
        Some(cluster) if cluster != 0 && member != 0 => Ok(Place { cluster, member, members }),
        _ => Err(Setback::Lasting(anyhow::anyhow!("the answer names no cluster or no member"))),
    }
}

/// The member at this server's address, which has no name yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Learner(u64),
    /// It may have voted.
    Voter(u64),
}

/// This server's place, if the list has one; an error if it must not be started at its address.
fn find_own(members: &[Member], own: &Own) -> Result<Option<Found>> {
    let is_at_home =
        |member: &&Member| member.peer_ur_ls.iter().any(|url| without_scheme(url) == own.peer);
    let Some(found) = members.iter().find(is_at_home) else {
        let namesake = |member: &&Member| !own.name.is_empty() && member.name == own.name;
        if let Some(other) = members.iter().find(namesake) {
            let peers = other.peer_ur_ls.join(",");
            bail!(
                "the name {} is that of member {:x} at {peers}: choose another",
                own.name,
                other.id
            );
        }
        return Ok(None);
    };
    if !found.name.is_empty() {
        let (id, name) = (found.id, &found.name);
        bail!(
            "member {id:x} ({name}) is at {} and has been started before, but this data directory \
             is empty: a server that has lost its data comes back as a new member, after \
             `kvraft member remove {id:x}`",
            own.peer
        );
    }
    let place = if found.is_learner { Found::Learner } else { Found::Voter };
    Ok(Some(place(found.id)))
}

/// Whether an error may pass with time.
fn setback(error: Error) -> Setback {
    let passes = match &error {
        Error::Refused { code, message } => {
            // A change is under way, or the address was added in this moment.
            *code != tonic::Code::Unimplemented
                && PASSING_REFUSALS.iter().any(|text| message.contains(text))
        }
        Error::Unavailable { .. } | Error::Unknown { .. } | Error::SessionLost { .. } => true,
        // Whatever else there may be does not go away by itself.
        _ => false,
    };
    if passes { Setback::Passing(error.into()) } else { Setback::Lasting(error.into()) }
}

const PASSING_REFUSALS: [&str; 4] =
    ["unhealthy cluster", "Peer URLs already exists", "not enough started members", "under way"];

#[cfg(test)]
mod tests {
    use kvraft_client::proto::etcdserverpb::Member;

    use super::{Found, NewMember, Own, find_own};

    fn own(name: &str, peer: &str) -> Own {
        Own { name: name.to_owned(), peer: peer.to_owned(), kind: NewMember::LearnerToPromote }
    }

    fn member(id: u64, name: &str, peer: &str) -> Member {
        let peer_ur_ls = vec![format!("http://{peer}")];
        Member { id, name: name.to_owned(), peer_ur_ls, ..Member::default() }
    }

    /// A server is the learner at its address that has no name yet, or else a new member.
    #[test]
    fn a_server_finds_itself() {
        let learner = Member { is_learner: true, ..member(2, "", "h:2") };
        let list = [member(1, "a", "h:1"), learner, member(4, "", "h:4")];
        assert_eq!(find_own(&list, &own("b", "h:2")).unwrap(), Some(Found::Learner(2)));
        assert_eq!(find_own(&list, &own("d", "h:4")).unwrap(), Some(Found::Voter(4)));
        assert_eq!(find_own(&list, &own("c", "h:3")).unwrap(), None);
        assert_eq!(find_own(&list, &own("", "h:3")).unwrap(), None);
        let error = find_own(&list, &own("x", "h:1")).unwrap_err().to_string();
        assert!(error.contains("member 1 (a)") && error.contains("empty"), "{error}");
        let error = find_own(&list, &own("a", "h:3")).unwrap_err().to_string();
        assert!(error.contains("the name a is that of member 1 at http://h:1"), "{error}");
    }
}
