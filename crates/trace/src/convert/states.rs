//! What servers' states are, as far as the actions of a trace say.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    action::{Action, AppendRequest, Entry},
    run::{Change, LogEntry, NodeId, Power, Role},
};

/// All servers of a trace.
#[derive(Debug, Default)]
pub(super) struct States {
    /// Nodes by the ids that servers have in actions.
    ids: BTreeMap<u64, NodeId>,
    servers: BTreeMap<NodeId, Server>,
    /// Where operations are in the log.
    indexes: BTreeMap<(String, u64), u64>,
}

#[derive(Debug, Default)]
struct Server {
    term: u64,
    commit: u64,
    leader: Option<NodeId>,
    role: Option<Role>,
    /// Terms by index: without holes.
    log: BTreeMap<u64, u64>,
}

impl States {
    /// This node is called that in actions.
    pub(super) fn learn(&mut self, id: u64, node: NodeId) {
        self.ids.insert(id, node);
    }

    /// Where an operation is in the log.
    pub(super) fn index_of(&self, client: &str, operation: u64) -> Option<u64> {
        self.indexes.get(&(client.to_owned(), operation)).copied()
    }

    /// What an action changes at its node.
    pub(super) fn changes(&mut self, node: NodeId, action: &Action) -> Vec<Change> {
        let mut changes = Vec::new();
        let server = self.servers.entry(node).or_default();
        match action {
            Action::ServerStart { .. } => {
                *server = Server { log: std::mem::take(&mut server.log), ..Server::default() };
                changes.push(Change::Power(Power::Up));
            }
            Action::BecameLeader { term, .. } => {
                server.set_term(term.unwrap_or(server.term), &mut changes);
                server.set_role(Role::Leader, &mut changes);
                server.set_leader(Some(node), &mut changes);
            }
            Action::BecameFollower { term, leader_id, .. } => {
                server.set_term(term.unwrap_or(server.term), &mut changes);
                server.set_role(Role::Follower, &mut changes);
                let leader = leader_id.and_then(|id| self.ids.get(&id)).copied();
                server.set_leader(leader, &mut changes);
            }
            Action::BecamePreCandidate { term, .. } => {
                server.set_term(*term, &mut changes);
                server.set_role(Role::PreCandidate, &mut changes);
            }
            Action::BecameCandidate { term, .. } => {
                server.set_term(*term, &mut changes);
                server.set_role(Role::Candidate, &mut changes);
            }
            Action::AppendEntriesRequestSent(request) => {
                server.set_term(request.term, &mut changes);
                server.set_role(Role::Leader, &mut changes);
                server.append(request, &mut changes);
                self.place(&request.entries);
            }
            Action::AppendEntriesRequestRecvd(request) if server.term <= request.term => {
                server.set_term(request.term, &mut changes);
                server.set_leader(self.ids.get(&request.leader_id).copied(), &mut changes);
                server.append(request, &mut changes);
            }
            Action::CommitAdvanced { index, .. } => server.set_commit(*index, &mut changes),
            Action::LogTruncated { first_index, .. } => server.cut(*first_index, &mut changes),
            Action::SnapshotInstalled { index, .. } => {
                server.log.clear();
                changes.push(Change::LogFirst(index + 1));
                server.set_commit(*index, &mut changes);
            }
            _ => {}
        }
        changes
    }

    fn place(&mut self, entries: &[Entry]) {
        for entry in entries {
            let info = &entry.command.client_info;
            if !info.client_id.is_empty() {
                self.indexes.insert((info.client_id.clone(), info.op_id), entry.index);
            }
        }
    }
}

impl Server {
    fn set_term(&mut self, term: u64, changes: &mut Vec<Change>) {
        if self.term != term {
            self.term = term;
            changes.push(Change::Term(term));
        }
    }

    fn set_role(&mut self, role: Role, changes: &mut Vec<Change>) {
        if self.role.replace(role) != Some(role) {
            changes.push(Change::Role(role));
        }
    }

    fn set_leader(&mut self, leader: Option<NodeId>, changes: &mut Vec<Change>) {
        if self.leader != leader {
            self.leader = leader;
            changes.push(Change::Leader(leader));
        }
    }

    fn set_commit(&mut self, commit: u64, changes: &mut Vec<Change>) {
        if self.commit < commit {
            self.commit = commit;
            changes.push(Change::Commit(commit));
        }
    }

    fn cut(&mut self, from: u64, changes: &mut Vec<Change>) {
        if !self.log.split_off(&from).is_empty() {
            changes.push(Change::LogCut { from });
        }
    }

    /// A leader sends only what it has; a follower takes what fits to what it has.
    fn append(&mut self, request: &AppendRequest, changes: &mut Vec<Change>) {
        let prev = (request.prev_log_index, request.prev_log_term);
        let begins = self.log.is_empty();
        let fits = prev.0 == 0 || self.log.get(&prev.0) == Some(&prev.1);
        if !begins && !fits {
            return;
        }
        for entry in &request.entries {
            if self.log.get(&entry.index) == Some(&entry.term) {
                continue;
            }
            self.cut(entry.index, changes);
            let last = self.log.last_key_value().map(|(index, _)| *index);
            match last {
                None if entry.index != 1 => changes.push(Change::LogFirst(entry.index)),
                Some(last) if Some(entry.index) != last.checked_add(1) => return,
                _ => {}
            }
            self.log.insert(entry.index, entry.term);
            changes.push(Change::LogAppend(shown(entry)));
        }
        let last = self.log.last_key_value().map_or(prev.0, |(index, _)| *index);
        self.set_commit(request.leader_commit.min(last), changes);
    }
}

/// As KVRaft (Go) prints entries.
fn shown(entry: &Entry) -> LogEntry {
    let command = &entry.command;
    let text: Arc<str> = match command.kind {
        0 => "No-Op".into(),
        1 => format!("Put({},{})", command.key, command.val).into(),
        2 => format!("Get({})", command.key).into(),
        3 => format!("Delete({})", command.key).into(),
        5 => "Members".into(),
        _ => "Command".into(),
    };
    let key = command.key.as_str().into();
    LogEntry { index: entry.index, term: entry.term, text, key }
}
