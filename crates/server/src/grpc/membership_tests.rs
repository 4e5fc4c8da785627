//! etcd's checks, case by case.

use kvraft_base::{MemberId, MemberInfo, Members, MembersDraft};
use kvraft_raft::{Refusal, TransferError};
use tonic::{Code, Status};

use super::{View, not_transferred, peer_addresses};
use crate::config::MemberConfig;

/// Voters 1 to `voters` and a learner 9, of whom `unnamed` have never started.
fn members(voters: u64, unnamed: &[u64]) -> Members {
    let mut draft = MembersDraft {
        voters: (1..=voters).map(MemberId).collect(),
        learners: [(MemberId(9), false)].into(),
        id_max: MemberId(9),
        ..MembersDraft::default()
    };
    for id in draft.voters.iter().copied().chain([MemberId(9)]) {
        let name = if unnamed.contains(&id.0) { String::new() } else { format!("m{id}") };
        let info =
            MemberInfo { name, peer_addresses: vec![format!("h{id}:1")], ..Default::default() };
        draft.infos.insert(id, info);
    }
    draft.finish().unwrap()
}

/// What a server that does not reach these is told.
fn check(
    members: &Members,
    down: &[u64],
    rule: impl Fn(&View<'_>) -> Result<(), Status>,
) -> Result<(), (Code, String)> {
    let reaches = |id: MemberId| !down.contains(&id.0);
    let view = View { members, configured: &[], reaches: &reaches };
    rule(&view).map_err(|status| (status.code(), status.message().to_owned()))
}

fn error(code: Code, text: &str) -> Result<(), (Code, String)> {
    Err((code, format!("etcdserver: {text}")))
}

const NOT_ENOUGH: &str = "re-configuration failed due to not enough started members";

/// A majority that has started must remain, and one that runs, unless who goes does not run.
#[test]
fn removal_leaves_a_majority() {
    let remove = |id| move |view: &View<'_>| view.check_remove(MemberId(id));
    assert_eq!(check(&members(3, &[]), &[], remove(1)), Ok(()));
    assert_eq!(check(&members(3, &[]), &[2], remove(2)), Ok(()));
    let unhealthy = error(Code::Unavailable, "unhealthy cluster");
    assert_eq!(check(&members(3, &[]), &[2], remove(1)), unhealthy);
    assert_eq!(check(&members(5, &[]), &[2], remove(1)), Ok(()));
    assert_eq!(check(&members(5, &[]), &[2, 3], remove(1)), unhealthy);
    let not_enough = error(Code::FailedPrecondition, NOT_ENOUGH);
    assert_eq!(check(&members(1, &[]), &[], remove(1)), not_enough);
    assert_eq!(check(&members(2, &[2]), &[2], remove(1)), not_enough);
    assert_eq!(check(&members(2, &[2]), &[2], remove(2)), Ok(()));
    assert_eq!(check(&members(3, &[]), &[1, 2, 3], remove(9)), Ok(()));
    let unknown = error(Code::NotFound, "member not found");
    assert_eq!(check(&members(3, &[]), &[], remove(7)), unknown);
}

/// Nobody is added while a voter is away, and no voter to a cluster that might then stand still.
#[test]
fn additions_need_a_healthy_cluster() {
    let add = |is_learner| move |view: &View<'_>| view.check_add(is_learner);
    assert_eq!(check(&members(3, &[]), &[], add(false)), Ok(()));
    assert_eq!(check(&members(1, &[]), &[], add(false)), Ok(()));
    let unhealthy = error(Code::Unavailable, "unhealthy cluster");
    assert_eq!(check(&members(3, &[]), &[3], add(false)), unhealthy);
    assert_eq!(check(&members(3, &[]), &[3], add(true)), unhealthy);
    let not_enough = error(Code::FailedPrecondition, NOT_ENOUGH);
    assert_eq!(check(&members(2, &[2]), &[], add(false)), not_enough);
    assert_eq!(check(&members(2, &[2]), &[], add(true)), Ok(()));
}

/// Only learners are promoted.
#[test]
fn promotion_is_for_learners() {
    let promote = |id| move |view: &View<'_>| view.check_promote(MemberId(id));
    assert_eq!(check(&members(3, &[]), &[], promote(9)), Ok(()));
    let voter = error(Code::FailedPrecondition, "can only promote a learner member");
    assert_eq!(check(&members(3, &[]), &[], promote(1)), voter);
    let unknown = error(Code::NotFound, "member not found");
    assert_eq!(check(&members(3, &[]), &[], promote(7)), unknown);
    let not_enough = error(Code::FailedPrecondition, NOT_ENOUGH);
    assert_eq!(check(&members(3, &[1, 2, 3]), &[], promote(9)), not_enough);
}

/// Two members never listen at one address; a member may keep its own.
#[test]
fn addresses_are_one_members_only() {
    let taken = |id: u64, address: &'static str| {
        move |view: &View<'_>| view.check_addresses(MemberId(id), &[address.to_owned()])
    };
    let exists = error(Code::FailedPrecondition, "Peer URLs already exists");
    assert_eq!(check(&members(3, &[]), &[], taken(0, "h2:1")), exists);
    assert_eq!(check(&members(3, &[]), &[], taken(2, "h2:1")), Ok(()));
    assert_eq!(check(&members(3, &[]), &[], taken(0, "new:1")), Ok(()));
}

/// What the cluster does not say of a member is taken from the configuration.
#[test]
fn configuration_fills_in() {
    let members = Members::new([MemberId(1)]).unwrap();
    let configured = [MemberConfig {
        id: MemberId(1),
        name: String::new(),
        peer: "h1:1".into(),
        client: "h1:2".into(),
    }];
    let view = View { members: &members, configured: &configured, reaches: &|_| true };
    let member = view.describe(MemberId(1));
    assert_eq!(member.name, "server-1");
    assert_eq!(member.peer_ur_ls, ["http://h1:1"]);
    assert_eq!(member.client_ur_ls, ["http://h1:2"]);
    assert!(!member.is_learner);
}

/// Whoever is asked to hand over to somebody that leads by now has nothing left to do.
#[test]
fn a_transfer_that_somebody_else_has_made_is_done() {
    let to = MemberId(2);
    let end = |refusal| {
        let end = not_transferred(Some(to), refusal)?;
        Some(end.map_err(|status| status.message().to_owned()))
    };
    assert_eq!(end(Refusal::NotLeader { leader: Some(to) }), Some(Ok(())));
    assert_eq!(end(Refusal::NotLeader { leader: None }), None);
    let anybody = not_transferred(None, Refusal::NotLeader { leader: Some(to) });
    assert!(matches!(anybody, Some(Ok(()))));
    let other = end(Refusal::NotLeader { leader: Some(MemberId(3)) });
    assert_eq!(other, Some(Err("etcdserver: not leader".to_owned())));
    assert_eq!(end(Refusal::Transfer(TransferError::Behind(to))), None);
}

/// URLs are http, with a host, a port and nothing else.
#[test]
fn urls_are_checked() {
    let read = |urls: &[&str]| {
        peer_addresses(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>())
            .map_err(|status| (status.code(), status.message().to_owned()))
    };
    assert_eq!(read(&["http://b:2", " http://a:1", "http://b:2"]).unwrap(), ["a:1", "b:2"]);
    assert_eq!(read(&["http://[::1]:2380"]).unwrap(), ["[::1]:2380"]);
    let long = format!("http://{}:1", "x".repeat(300));
    for bad in [
        "",
        "a:1",
        "https://a:1",
        "http://a",
        "http://a:",
        "http://:1",
        "http://a:1/",
        "ftp://a:1",
        "http://a:x",
        "http://a:0",
        "http://a b:1",
        "http://::1:1",
        "http://u@h:1",
        &long,
    ] {
        let error = read(&[bad]).expect_err(bad);
        let text = "etcdserver: given member URLs are invalid".to_owned();
        assert_eq!(error, (Code::InvalidArgument, text), "{bad}");
    }
    assert!(read(&[]).is_err());
}
