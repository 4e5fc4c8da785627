//! A server tells the cluster how it is called and where it serves clients.
//!
//! Why: whoever added it knows only where it listens for peers, and whoever asks any member for the
//! list wants to find all of them.
//!
//! Invariants:
//! - only this server's own name and client addresses are changed, and a peer address that nobody
//!   has told; where peers dial it is for whoever administers the cluster to say;
//! - nothing is asked for that is so already, and only what differs is: this server may know the
//!   rest as it was long ago.
//!
//! What it lacks: a name or an address that is taken back. Without one in the configuration the
//! cluster keeps the last.

use std::{sync::Arc, time::Duration};

use kvraft_base::{MemberId, MemberInfo};
use kvraft_raft::{Change, InfoUpdate, Membership};
use kvraft_replica::{ClientRequest, Outcome};
use tokio::sync::watch;

use crate::{board::Board, driver::Driver};

/// After a refusal: another change is under way, or somebody has just become leader.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Runs until the server stops.
pub(crate) async fn publish(
    driver: Arc<Driver>,
    board: Arc<Board>,
    me: MemberId,
    own: MemberInfo,
    mut stopping: watch::Receiver<bool>,
) {
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => {}
        () = keep_published(&driver, &board, me, &own) => {}
    }
}

async fn keep_published(driver: &Driver, board: &Board, me: MemberId, own: &MemberInfo) {
    let (mut led, mut members) = (board.led(), board.members());
    loop {
        let wanted = wanted(members.borrow_and_update().in_force(), me, own);
        let is_led = *led.borrow_and_update();
        match wanted {
            Some(info) if is_led => {
                let change = Change::Update { id: me, info };
                let pending = driver.request(0, |_| ClientRequest::ChangeMembers(vec![change]));
                let outcome = match pending {
                    Ok(pending) => pending.outcome().await.map(|reply| reply.outcome),
                    Err(_) => None,
                };
                if !matches!(outcome, Some(Outcome::Changed(Ok(_)))) {
                    tracing::debug!("could not tell the cluster of this server: {outcome:?}");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
            _ => {
                let changed = tokio::select! {
                    changed = led.changed() => changed,
                    changed = members.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// What the cluster should know of this server, when it knows something else.
fn wanted(membership: &Membership, me: MemberId, own: &MemberInfo) -> Option<InfoUpdate> {
    if !membership.members.contains(me) {
        return None;
    }
    let known = membership.members.info(me).cloned().unwrap_or_default();
    let name = if !own.name.is_empty() {
        own.name.clone()
    } else if known.name.is_empty() {
        format!("server-{me}")
    } else {
        known.name.clone()
    };
    let (clients, peers) = (&own.client_addresses, &own.peer_addresses);
    let tell_clients = !clients.is_empty() && *clients != known.client_addresses;
    let tell_peers = !peers.is_empty() && known.peer_addresses.is_empty();
    let update = InfoUpdate {
        name: (name != known.name).then_some(name),
        peer_addresses: None,
        client_addresses: tell_clients.then(|| clients.clone()),
        peer_addresses_if_none: tell_peers.then(|| peers.clone()),
    };
    let mut info = known.clone();
    update.apply(&mut info);
    (info != known && info.fits()).then_some(update)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kvraft_base::{Index, MemberId, MemberInfo, MembersDraft};
    use kvraft_raft::{InfoUpdate, Membership};

    use super::wanted;

    const ME: MemberId = MemberId(2);

    fn info(name: &str, peer: &str, client: &str) -> MemberInfo {
        let list = |text: &str| match text {
            "" => Vec::new(),
            text => vec![text.to_owned()],
        };
        MemberInfo {
            name: name.to_owned(),
            peer_addresses: list(peer),
            client_addresses: list(client),
        }
    }

    /// A configuration in which this server is known like that.
    fn known(info: MemberInfo) -> Membership {
        let draft = MembersDraft {
            voters: [MemberId(1), ME].into(),
            id_max: ME,
            infos: [(ME, info)].into(),
            ..MembersDraft::default()
        };
        let members = Arc::new(draft.finish().unwrap());
        Membership { index: Index(5), members, committed: true }
    }

    /// Name and client addresses are this server's to say, its peer address only if nobody has.
    #[test]
    fn only_what_differs_is_published() {
        let own = info("b", "b:2380", "b:2379");
        let wanted = |known: Membership, own: &MemberInfo| wanted(&known, ME, own);
        assert_eq!(wanted(known(own.clone()), &own), None);
        let update = |name: &str, peer: &str, client: &str| {
            let told = info(name, peer, client);
            Some(InfoUpdate {
                name: Some(told.name).filter(|name| !name.is_empty()),
                peer_addresses: None,
                client_addresses: Some(told.client_addresses).filter(|list| !list.is_empty()),
                peer_addresses_if_none: Some(told.peer_addresses).filter(|list| !list.is_empty()),
            })
        };
        assert_eq!(wanted(known(info("", "x:1", "")), &own), update("b", "", "b:2379"));
        assert_eq!(wanted(known(info("b", "x:1", "y:2")), &own), update("", "", "b:2379"));
        assert_eq!(wanted(known(info("", "", "")), &own), update("b", "b:2380", "b:2379"));
        let untold = info("", "b:2380", "");
        assert_eq!(wanted(known(own.clone()), &untold), None);
        assert_eq!(wanted(known(info("", "x:1", "y:2")), &untold), update("server-2", "", ""));
        let mut gone = known(MemberInfo::default());
        let draft =
            MembersDraft { voters: [MemberId(1)].into(), id_max: ME, ..MembersDraft::default() };
        gone.members = Arc::new(draft.finish().unwrap());
        assert_eq!(wanted(gone, &own), None);
    }
}
