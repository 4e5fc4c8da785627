//! Who takes part in a world: changes that are asked for, and what must be so of configurations.

use kvraft_base::{Entry, EntryKind, Index, MemberId, Members, Ticket};
use kvraft_raft::{Change, Input, Membership};

use crate::world::World;

impl World {
    /// Asks for another leader.
    pub(crate) fn transfer(&mut self, id: MemberId, to: Option<MemberId>) {
        let ticket = Ticket(self.ticket());
        self.turn(id, vec![Input::Transfer { ticket, to }]);
    }

    /// Asks for other members.
    pub(crate) fn change(&mut self, id: MemberId, changes: Vec<Change>) -> u64 {
        let ticket = self.ticket();
        self.turn(id, vec![Input::ChangeMembers { ticket: Ticket(ticket), changes }]);
        ticket
    }

    /// What a machine that has applied everything up to `index` knows.
    pub(crate) fn members_at(&self, index: Index) -> Members {
        let mut entries = self.rules.committed.range(..=index).rev().map(|(_, entry)| entry);
        let last = entries.find(|entry| entry.kind == EntryKind::Config);
        last.map_or_else(|| self.members.clone(), decode_members)
    }

    pub(crate) fn on_members(&mut self, id: MemberId, membership: &Membership) {
        let Membership { index, members, committed } = membership;
        let text = format!("{members}{}", if *committed { " committed" } else { "" });
        let node = self.node(id);
        if node.members_told != text {
            let line = format!("{id}: members {text} at {index}");
            node.members_told = text;
            self.trace.push(line);
        }
    }

    /// The last configuration in the log is in force, committed or not (Raft §6).
    pub(crate) fn check_members(&mut self, id: MemberId, members: &Members) {
        let node = self.node(id);
        let journal = node.journal();
        let last = journal.entries.iter().rfind(|entry| entry.kind == EntryKind::Config);
        if let Some(entry) = last
            && node.installing.is_none()
        {
            assert_eq!(decode_members(entry), *members, "the last configuration is in force");
        }
        node.members.clone_from(members);
    }
}

pub(crate) fn decode_members(entry: &Entry) -> Members {
    Members::decode(entry.payload.clone()).expect("configurations in a log are whole")
}
