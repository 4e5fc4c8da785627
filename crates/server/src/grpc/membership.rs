//! Which changes of members are refused before they reach the leader, with etcd's codes and texts,
//! and how members look to clients.
//!
//! Why at the edge: consensus has rules of its own and refuses what breaks them. These here keep a
//! person from an accident, such as removing the server without which there is no majority. Like
//! etcd's they look at what the asked server sees at this moment, and promise nothing about the
//! next.

use kvraft_base::{MemberId, MemberRole, Members, MembersError, limits};
use kvraft_proto::etcdserverpb as pb;
use kvraft_raft::{ChangeError, Refusal, TransferError};
use tonic::Status;

use crate::config::MemberConfig;

/// What a rule looks at.
pub(super) struct View<'a> {
    /// The configuration that is to be changed.
    pub(super) members: &'a Members,
    /// What the server's own configuration says of members, for those of which the cluster's says
    /// nothing.
    pub(super) configured: &'a [MemberConfig],
    /// Whether the asked server has a connection to a member, or is it.
    pub(super) reaches: &'a dyn Fn(MemberId) -> bool,
}

impl View<'_> {
    /// A member as clients see it.
    pub(super) fn describe(&self, id: MemberId) -> pb::Member {
        let configured = || self.configured.iter().find(|member| member.id == id);
        let info = match self.members.info(id) {
            Some(info) => info.clone(),
            None => configured().map(MemberConfig::info).unwrap_or_default(),
        };
        pb::Member {
            id: id.0,
            name: info.name,
            peer_ur_ls: urls(&info.peer_addresses),
            client_ur_ls: urls(&info.client_addresses),
            is_learner: self.members.role(id) == Some(MemberRole::Learner),
        }
    }

    /// All members, in order of id.
    pub(super) fn list(&self) -> Vec<pb::Member> {
        self.members.ids().into_iter().map(|id| self.describe(id)).collect()
    }

    /// Nobody but member `id` listens there.
    pub(super) fn check_addresses(&self, id: MemberId, addresses: &[String]) -> Result<(), Status> {
        let others = self.list().into_iter().filter(|member| member.id != id.0);
        let mut taken = others.flat_map(|member| member.peer_ur_ls);
        if taken.any(|url| urls(addresses).contains(&url)) {
            return Err(Status::failed_precondition("etcdserver: Peer URLs already exists"));
        }
        Ok(())
    }

    /// All voters are connected. For a voter, moreover, those that have started are a majority of
    /// all voters with the new one, which has not.
    pub(super) fn check_add(&self, is_learner: bool) -> Result<(), Status> {
        let (voters, started) = self.count(|_| true);
        // The first voter beside a single one: a cluster of two could not begin otherwise.
        if !is_learner && started < quorum(voters + 1) && (voters, started) != (1, 1) {
            return Err(not_enough_started());
        }
        self.voters().all(|id| (self.reaches)(id)).then_some(()).ok_or_else(unhealthy)
    }

    /// Of the voters that remain a majority has started and, unless this one is down itself, is
    /// connected.
    pub(super) fn check_remove(&self, id: MemberId) -> Result<(), Status> {
        match self.members.role(id) {
            None => return Err(not_found()),
            Some(MemberRole::Learner) => return Ok(()),
            Some(_) => {}
        }
        let (others, started) = self.count(|other| other != id);
        if started < quorum(others) {
            return Err(not_enough_started());
        }
        let running = self.voters().filter(|other| *other != id && (self.reaches)(*other)).count();
        if (self.reaches)(id) && running < quorum(others) {
            return Err(unhealthy());
        }
        Ok(())
    }

    /// Only a learner, and only if those that have started, itself among them, are a majority of
    /// all voters with it.
    pub(super) fn check_promote(&self, id: MemberId) -> Result<(), Status> {
        match self.members.role(id) {
            None => return Err(not_found()),
            Some(MemberRole::Learner) => {}
            Some(_) => return Err(not_a_learner()),
        }
        let (voters, started) = self.count(|_| true);
        if started + 1 < quorum(voters + 1) {
            return Err(not_enough_started());
        }
        Ok(())
    }

    /// It is a member.
    pub(super) fn check_member(&self, id: MemberId) -> Result<(), Status> {
        self.members.contains(id).then_some(()).ok_or_else(not_found)
    }

    /// It could lead.
    pub(super) fn check_successor(&self, id: MemberId) -> Result<(), Status> {
        let is_voter = self.members.voters().contains(&id);
        let bad = || Status::failed_precondition("etcdserver: bad leader transferee");
        is_voter.then_some(()).ok_or_else(bad)
    }

    fn voters(&self) -> impl Iterator<Item = MemberId> {
        self.members.voters().iter().copied()
    }

    /// How many of these voters there are, and how many have ever started: such a one has a name.
    fn count(&self, is_counted: impl Fn(MemberId) -> bool) -> (usize, usize) {
        let counted: Vec<_> = self.voters().filter(|id| is_counted(*id)).collect();
        let has_started = |id: &&MemberId| !self.describe(**id).name.is_empty();
        (counted.len(), counted.iter().filter(has_started).count())
    }
}

/// Addresses as `host:port` from what clients send, in order: `http` only, no path.
pub(super) fn peer_addresses(urls: &[String]) -> Result<Vec<String>, Status> {
    let bad = || Status::invalid_argument("etcdserver: given member URLs are invalid");
    let mut addresses: Vec<String> =
        urls.iter().map(|url| peer_address(url)).collect::<Option<_>>().ok_or_else(bad)?;
    addresses.sort();
    addresses.dedup();
    let count = addresses.len();
    (1..=limits::MEMBER_ADDRESSES_MAX).contains(&count).then_some(addresses).ok_or_else(bad)
}

fn peer_address(url: &str) -> Option<String> {
    let address = url.trim().strip_prefix("http://")?;
    let (host, port) = address.rsplit_once(':')?;
    let has_host = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    let is_plain = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    let fits = address.len() <= limits::MEMBER_TEXT_SIZE_BYTES_MAX;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0);
    (has_host && is_plain && fits && port.is_some()).then(|| address.to_owned())
}

fn urls(addresses: &[String]) -> Vec<String> {
    addresses.iter().map(|address| format!("http://{address}")).collect()
}

fn quorum(count: usize) -> usize {
    kvraft_base::majority(count)
}

/// Why a change was refused by the leader; `None` when it may be asked for again at once, since
/// that will be over soon.
pub(super) fn refused(refusal: Refusal) -> Option<Status> {
    let too_many = |members: MembersError| match members {
        MembersError::TooManyLearners(_) => {
            Status::failed_precondition("etcdserver: too many learner members in cluster")
        }
        MembersError::NoVoters => not_enough_started(),
        other => Status::failed_precondition(format!("kvraft: {other}")),
    };
    Some(match refusal {
        Refusal::Change(error) => match error {
            ChangeError::IdReused { .. } | ChangeError::AlreadyMember(_) => return None,
            ChangeError::UnknownMember(_) => not_found(),
            ChangeError::NotALearner(_) => not_a_learner(),
            ChangeError::NotInStep(_) => Status::failed_precondition(
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            ChangeError::Impossible(members) => too_many(members),
            ChangeError::Empty
            | ChangeError::TooMany(_)
            | ChangeError::Repeated(_)
            | ChangeError::NotAVoter(_) => Status::failed_precondition(format!("kvraft: {error}")),
        },
        Refusal::Busy => Status::resource_exhausted("etcdserver: too many requests"),
        Refusal::TooLarge => Status::invalid_argument("etcdserver: request is too large"),
        Refusal::NotLeader { .. }
        | Refusal::Muted
        | Refusal::LeaderChanged
        | Refusal::ChangePending { .. }
        | Refusal::TermNotCommitted
        | Refusal::Transferring { .. } => return None,
        Refusal::Unsupported | Refusal::Transfer(_) => {
            Status::internal(format!("kvraft: {refusal}"))
        }
    })
}

/// How a wish that `to`, or anybody else, should lead ends when it was refused; `None` when it may
/// be asked for again at once.
pub(super) fn not_transferred(
    to: Option<MemberId>,
    refusal: Refusal,
) -> Option<Result<(), Status>> {
    Some(Err(match refusal {
        // Somebody else had the same wish.
        Refusal::NotLeader { leader: Some(leader) } if to.is_none_or(|to| to == leader) => {
            return Some(Ok(()));
        }
        Refusal::NotLeader { leader: Some(_) } => not_leader(),
        // Who leads now has not been heard yet.
        Refusal::NotLeader { leader: None } => return None,
        Refusal::Transfer(TransferError::Behind(_) | TransferError::Pending(_)) => return None,
        Refusal::Transfer(TransferError::Failed(_)) => transfer_too_long(),
        Refusal::Transfer(TransferError::NotAVoter(_)) => {
            Status::failed_precondition("etcdserver: bad leader transferee")
        }
        other => Status::unavailable(format!("kvraft: {other}")),
    }))
}

pub(super) fn not_leader() -> Status {
    Status::failed_precondition("etcdserver: not leader")
}

pub(super) fn transfer_too_long() -> Status {
    Status::unavailable("etcdserver: request timed out, leader transfer took too long")
}

fn not_found() -> Status {
    Status::not_found("etcdserver: member not found")
}

fn not_a_learner() -> Status {
    Status::failed_precondition("etcdserver: can only promote a learner member")
}

fn not_enough_started() -> Status {
    Status::failed_precondition(
        "etcdserver: re-configuration failed due to not enough started members",
    )
}

fn unhealthy() -> Status {
    Status::unavailable("etcdserver: unhealthy cluster")
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
