//! Who belongs to the cluster, and who leads it: looking and changing.
//!
//! Invariants:
//! - a change of members is sent once: when its fate is unknown, [`Error::Unknown`] says so, and
//!   [`Client::member_list`] shows what became of it;
//! - sessions do not cover these changes, and their numbers are not sent along.

use kvraft_proto::{
    METADATA_PROMOTE,
    etcdserverpb::{
        MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse,
        cluster_client::ClusterClient, maintenance_client::MaintenanceClient,
    },
};
use kvraft_session::{EndpointId, Kind};
use tonic::{Request, metadata::MetadataValue};

use crate::{client::Client, error::Error};

/// What a new member is at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewMember {
    /// It votes at once. Until it has caught up, it counts as one that has failed.
    Voter,
    /// It receives everything and does not vote.
    Learner,
    /// It becomes a voter by itself as soon as it is in step. Only kvraft servers know this; for an
    /// etcd it stays a learner.
    LearnerToPromote,
}

impl Client {
    /// Who belongs to the cluster, as a majority knows it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn member_list(&self) -> Result<MemberListResponse, Error> {
        let rpc = |channel, request| async move {
            ClusterClient::new(channel).member_list(request).await
        };
        self.call(Kind::Repeatable, MemberListRequest { linearizable: true }, rpc).await
    }

    /// Adds a member that other servers will reach at these addresses: `host:port` or
    /// `http://host:port`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn member_add<I, S>(
        &self,
        peer_addresses: I,
        kind: NewMember,
    ) -> Result<MemberAddResponse, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let is_learner = kind != NewMember::Voter;
        let request = MemberAddRequest { peer_ur_ls: urls(peer_addresses), is_learner };
        let rpc = |channel, mut request: Request<MemberAddRequest>| async move {
            if kind == NewMember::LearnerToPromote {
                let yes = MetadataValue::from_static("true");
                request.metadata_mut().insert(METADATA_PROMOTE, yes);
            }
            ClusterClient::new(channel).member_add(request).await
        };
        self.call(Kind::Once, request, rpc).await
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn member_promote(&self, id: u64) -> Result<MemberPromoteResponse, Error> {
        let rpc = |channel, request| async move {
            ClusterClient::new(channel).member_promote(request).await
        };
        self.call(Kind::Once, MemberPromoteRequest { id }, rpc).await
    }

    /// Removes a member for ever.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn member_remove(&self, id: u64) -> Result<MemberRemoveResponse, Error> {
        let rpc = |channel, request| async move {
            ClusterClient::new(channel).member_remove(request).await
        };
        self.call(Kind::Once, MemberRemoveRequest { id }, rpc).await
    }

    /// Tells the others where a member is reached from now on: as [`Client::member_add`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn member_update<I, S>(
        &self,
        id: u64,
        peer_addresses: I,
    ) -> Result<MemberUpdateResponse, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let request = MemberUpdateRequest { id, peer_ur_ls: urls(peer_addresses) };
        let rpc = |channel, request| async move {
            ClusterClient::new(channel).member_update(request).await
        };
        self.call(Kind::Once, request, rpc).await
    }

    /// Asks this very server, which must lead, to hand leadership to the member `target`; with 0 it
    /// chooses one itself, if it is a kvraft server.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn move_leader(
        &self,
        endpoint: EndpointId,
        target: u64,
    ) -> Result<MoveLeaderResponse, Error> {
        let mut client = MaintenanceClient::new(self.inner.server(endpoint).channel());
        let request = MoveLeaderRequest { target_id: target };
        self.inner.ask(endpoint, client.move_leader(request)).await
    }
}

/// As etcd wants addresses of peers: with a scheme.
fn urls<I, S>(addresses: I) -> Vec<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    let url = |address: &str| match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    addresses.into_iter().map(|address| url(address.as_ref())).collect()
}
