//! What a new server is told by the cluster that it joins.
//!
//! Why: its data directory needs a configuration before it has heard a leader, to know whom to dial
//! and whom to believe that they are its peers.
//!
//! Invariant: whatever the cluster says, the new server stands among the learners of its own first
//! configuration. By that one, which is not of the log, a learner never campaigns and counts no
//! votes, so that a list which is out of date by now can do no harm; that it votes, the server
//! learns from the log.

use kvraft_base::{MemberId, MemberInfo, Members, MembersDraft, MembersError, limits};
use kvraft_proto::etcdserverpb as pb;

use super::ConfigError;

/// The cluster that a new server joins, as one of the cluster's members has listed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinInfo {
    /// The newest committed configuration that is known. This server need not be in it.
    pub members: Members,
}

impl JoinInfo {
    /// From the answer to `MemberList` or `MemberAdd`. Peer addresses stand there as URLs. In the
    /// middle of a change the list may name more voters than a configuration has; those with the
    /// highest ids are kept. Any would do: the rest is learnt from the log.
    ///
    /// # Errors
    /// [`ConfigError::Join`] when that is no configuration.
    pub fn from_list(list: &[pb::Member]) -> Result<Self, ConfigError> {
        let mut draft = MembersDraft::default();
        for member in list {
            let id = MemberId(member.id);
            let info = MemberInfo {
                name: member.name.clone(),
                peer_addresses: without_scheme(&member.peer_ur_ls),
                client_addresses: without_scheme(&member.client_ur_ls),
            };
            draft.infos.insert(id, info);
            draft.id_max = draft.id_max.max(id);
            if member.is_learner {
                draft.learners.insert(id, false);
            } else {
                draft.voters.insert(id);
            }
        }
        while limits::VOTERS_MAX < draft.voters.len() {
            let earliest = draft.voters.pop_first();
            earliest.and_then(|id| draft.infos.remove(&id));
        }
        Ok(Self { members: draft.finish().map_err(ConfigError::Join)? })
    }

    /// What the data directory of member `id` is made with.
    ///
    /// # Errors
    /// [`ConfigError::Join`] when nobody else votes.
    pub fn first_members(&self, id: MemberId) -> Result<Members, ConfigError> {
        let mut draft = self.members.draft();
        draft.voters.remove(&id);
        if draft.voters.is_empty() {
            return Err(ConfigError::Join(MembersError::NoVoters));
        }
        draft.voters_outgoing.clear();
        // A voter to be takes a learner's place. Where the other learners are, the log tells it.
        draft.learners.remove(&id);
        while limits::LEARNERS_MAX <= draft.learners.len() {
            draft.learners.pop_first();
        }
        draft.learners.insert(id, false);
        draft.id_max = draft.id_max.max(id);
        let MembersDraft { voters, learners, infos, .. } = &mut draft;
        infos.retain(|id, _| voters.contains(id) || learners.contains_key(id));
        draft.finish().map_err(ConfigError::Join)
    }
}

fn without_scheme(urls: &[String]) -> Vec<String> {
    let strip = |url: &String| url.strip_prefix("http://").unwrap_or(url).to_owned();
    urls.iter().map(strip).collect()
}
