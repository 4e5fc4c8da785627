//! Whom a server speaks to while its configuration may be undone, and what it believes of itself.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use kvraft_base::{Index, MemberId, MemberInfo, MembersDraft};
use kvraft_raft::Membership;

use super::{ServerEdge, is_member};
use crate::config::ServerConfig;

const ME: MemberId = MemberId(1);

/// These voters, each at an address that names it.
fn membership(index: u64, voters: &[u64], committed: bool) -> Membership {
    let ids: Vec<_> = voters.iter().copied().map(MemberId).collect();
    let info = |id: &MemberId| {
        let peer_addresses = vec![format!("m{}:1", id.0)];
        (*id, MemberInfo { peer_addresses, ..MemberInfo::default() })
    };
    let draft = MembersDraft {
        voters: ids.iter().copied().collect(),
        id_max: MemberId(4),
        infos: ids.iter().map(info).collect(),
        ..MembersDraft::default()
    };
    let members = Arc::new(draft.finish().unwrap());
    Membership { index: Index(index), members, committed }
}

fn edge() -> ServerEdge {
    let at: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let config = ServerConfig { member: ME, ..ServerConfig::alone(PathBuf::new(), at, at) };
    ServerEdge::new(&config, None, Arc::new(|_| {}))
}

/// Who leaves by a change that is not committed stays a peer, and who comes by it is one already.
#[test]
fn a_change_that_may_be_undone_takes_nobody_away() {
    let edge = edge();
    let peers = || edge.peers_of(&edge.board.members().borrow());
    let ids = || peers().addresses.into_keys().map(|id| id.0).collect::<Vec<_>>();
    edge.board.set_first_members(&membership(0, &[1, 2, 3], true));
    assert_eq!(peers().settled, None);
    edge.board.set_members(&membership(5, &[1, 2, 3], true), false);
    edge.board.set_members(&membership(7, &[1, 2, 4], false), false);
    assert_eq!(ids(), [1, 2, 3, 4]);
    assert_eq!(peers().settled, Some(Index(5)));
    assert_eq!(peers().addresses[&MemberId(3)], ["m3:1"]);
    edge.board.set_members(&membership(7, &[1, 2, 4], true), false);
    assert_eq!(ids(), [1, 2, 4]);
    assert_eq!(peers().settled, Some(Index(7)));
}

/// A server that begins with a change in its log that may be undone knows of nobody that is gone,
/// and says where it is even if that change removes it.
#[test]
fn what_was_before_a_restart_is_not_known() {
    let edge = edge();
    edge.board.set_first_members(&membership(7, &[2, 3], false));
    let peers = edge.peers_of(&edge.board.members().borrow());
    assert_eq!(peers.settled, None);
    assert_eq!(peers.addresses[&ME], ["127.0.0.1:1"]);
}

/// Only a configuration that is as new as the removal speaks against it.
#[test]
fn a_removal_is_checked_against_what_is_known() {
    let with = membership(7, &[1, 2], true);
    let told = |known: Option<&Membership>, index| is_member(known, ME, Index(index));
    assert!(told(Some(&with), 7) && told(Some(&with), 3));
    assert!(!told(Some(&with), 8));
    assert!(!told(Some(&membership(7, &[2, 3], true)), 3));
    assert!(!told(None, 3));
}
