//! Configurations as the logs have them: which one is in force where, who counts by it, and how one
//! follows another.
//!
//! Why not by what servers say of themselves: a server that counts by the wrong configuration says
//! so with conviction. Here each configuration is read from its entry when that is appended, and a
//! server's is the last one in the log that it has asked to be written.
//!
//! Invariant: a truncation needs no code here. A configuration is looked up by position, and what
//! is cut is at no position of the log any more.

use std::sync::Arc;

use kvraft_base::{Entry, EntryKind, Index, MemberId, Members, Position, Term, Write};
use kvraft_raft::{RoleName, Status};

use super::{Checks, Held, steps::check_step};
use crate::cluster::{asks::ConfigStep, mirror::Mirror, violation::Check};

/// Behind every log.
const INDEX_END: Index = Index(u64::MAX);

/// A configuration and the index of its entry; 0 for one that stands before the log.
pub(crate) type Configured = (Index, Arc<Members>);

impl Checks {
    /// The last configuration that everybody agreed on, and its entry.
    pub(crate) fn agreed_members(&self) -> Configured {
        let mut latest = self.configurations.iter().rev();
        let found = latest.find(|((index, term), _)| self.is_agreed(Position::new(*term, *index)));
        match found {
            Some(((index, _), members)) => (*index, Arc::clone(members)),
            None => {
                let first = self.held.values().next().expect("a cluster has servers");
                (Index::ZERO, Arc::clone(&first.bootstrap))
            }
        }
    }

    /// Whether the entry at this position is in the one log.
    pub(crate) fn is_agreed(&self, position: Position) -> bool {
        self.agreed_at(position.index).is_some_and(|agreed| agreed.term == position.term)
    }

    /// Every configuration that is in force somewhere or may come to be: the last agreed one, and
    /// whatever stands behind it in any log.
    pub(crate) fn possible_members(&self) -> Vec<Arc<Members>> {
        let (agreed, members) = self.agreed_members();
        let after = self.configurations.range((agreed.next(), Term::ZERO)..);
        let base = self.agreed_at(agreed).map(|entry| Position::new(entry.term, agreed));
        let held = after.filter(|((index, term), _)| {
            let position = Position::new(*term, *index);
            // A log without the agreed one is not the future.
            let has = |mirror: &Mirror| {
                mirror.has_entry(position) && base.is_none_or(|base| mirror.holds(base))
            };
            let mut logs = self.held.values().filter(|held| !held.is_lost);
            logs.any(|held| has(&held.durable) || has(&held.written))
        });
        std::iter::once(members).chain(held.map(|(_, members)| Arc::clone(members))).collect()
    }

    /// The configuration in force in the log that a server decides by.
    pub(crate) fn members_of(&self, server: MemberId) -> Configured {
        self.configuration_before(&self.held(server).written, server, INDEX_END)
    }

    /// The last configuration of a log before `end`.
    fn configuration_before(&self, log: &Mirror, server: MemberId, end: Index) -> Configured {
        let earlier = self.configurations.range(..(end, Term::ZERO)).rev();
        let mut in_log = earlier.filter(|((index, term), _)| {
            if log.base().index < *index {
                return log.has_entry(Position::new(*term, *index));
            }
            self.is_agreed(Position::new(*term, *index))
        });
        match in_log.next() {
            Some(((index, _), members)) => (*index, Arc::clone(members)),
            None => (Index::ZERO, Arc::clone(&self.held(server).bootstrap)),
        }
    }

    /// The deciding lane has taken a turn and asks for `writes`. Returns the configurations that it
    /// has appended, with the one before each.
    pub(crate) fn on_turn(
        &mut self,
        status: &Status,
        term_at_commit: Option<Term>,
        writes: &[&Write],
    ) -> Vec<ConfigStep> {
        if !status.muted {
            self.held_mut(status.id).durable_once = None;
        }
        let before = self.members_of(status.id);
        let mut appended = Vec::new();
        for write in writes {
            self.held_mut(status.id).written.on_synced(write);
            for entry in write.entries.iter().filter(|entry| entry.kind == EntryKind::Config) {
                if let Some(members) = self.on_configuration(status.id, entry) {
                    appended.push((entry.position(), members));
                }
            }
        }
        let after = self.members_of(status.id);
        self.cut_count += u64::from(after.0 < before.0);
        self.check_counting(status, term_at_commit, [&before.1, &after.1]);
        self.check_own_term(status, term_at_commit);
        self.check_in_force(status, &after);
        // Who stood still may find in one turn that its entry is committed, change the members and
        // step down: at the end of the turn it leads no more.
        let own = |term: &Term| appended.iter().any(|(position, _)| position.term == *term);
        self.settled_terms.extend(term_at_commit.filter(own));
        let steps = appended.into_iter().map(|(position, next)| {
            let before = self.check_change(status.id, position, &next);
            ConfigStep { position, before, next }
        });
        steps.collect()
    }

    /// Notes the configuration of an entry; returns it if nobody had it before.
    fn on_configuration(&mut self, server: MemberId, entry: &Entry) -> Option<Arc<Members>> {
        let position = (entry.index, entry.term);
        let Ok(members) = Members::decode(entry.payload.clone()) else {
            let detail = format!("server {server} appends a wrong one at {}", entry.position());
            self.fail(Check::OneChangeAtATime, detail);
            return None;
        };
        if let Some(known) = self.configurations.get(&position) {
            if **known != members {
                let detail = format!("{} is {known} and {members}", entry.position());
                self.fail(Check::CommittedNeverChanges, detail);
            }
            return None;
        }
        let members = Arc::new(members);
        self.configurations.insert(position, Arc::clone(&members));
        Some(members)
    }

    /// Whoever takes more as committed than anybody before must have counted a quorum. In one turn
    /// it may have counted before and after it appended a configuration.
    fn check_counting(
        &mut self,
        status: &Status,
        term_at_commit: Option<Term>,
        in_force: [&Arc<Members>; 2],
    ) {
        if status.commit <= self.counted {
            return;
        }
        self.counted = status.commit;
        let Some(term) = term_at_commit else { return };
        let position = Position::new(term, status.commit);
        self.looks.quorums += 1;
        let holds = |id| {
            self.held.get(&id).is_some_and(|held| {
                let once = held.durable_once.as_ref();
                held.durable.holds(position) || once.is_some_and(|once| once.holds(position))
            })
        };
        if !in_force.iter().any(|members| members.is_quorum(holds)) {
            let on: Vec<_> = self.held.keys().filter(|id| holds(**id)).collect();
            let detail = format!(
                "server {} commits {position}, on the disks of {on:?}; in force is {}",
                status.id, in_force[1]
            );
            self.fail(Check::CommittedIsDurable, detail);
        }
    }

    fn check_own_term(&mut self, status: &Status, term_at_commit: Option<Term>) {
        if status.role != RoleName::Leader {
            self.commits.remove(&status.id);
            return;
        }
        if term_at_commit == Some(status.term) {
            self.settled_terms.insert(status.term);
        }
        let now = (status.term, status.commit);
        let before = self.commits.insert(status.id, now);
        let advanced = before.is_some_and(|(term, commit)| term == now.0 && commit < now.1);
        if advanced
            && let Some(term) = term_at_commit
            && term != status.term
        {
            self.fail(
                Check::CommitsOwnTerm,
                format!(
                    "leader {} of term {} commits {}@{term} by counting",
                    status.id, status.term, status.commit
                ),
            );
        }
    }

    /// A server decides by the last configuration of its log; a hollow one, too, unless it knows of
    /// none, and then by none. Between the two halves of an install the log is not what it decides
    /// by.
    fn check_in_force(&mut self, status: &Status, (index, members): &Configured) {
        let held = self.held(status.id);
        let knows_none = status.hollow && status.membership.index == Index::ZERO;
        if knows_none || status.last != held.written.last() {
            return;
        }
        self.looks.configurations += 1;
        // The journal of a hollow server need not have all names and addresses.
        let same = if status.hollow { takes_part_alike } else { Members::eq };
        if !same(&status.membership.members, members) {
            let detail = format!(
                "server {} counts by {}, its log has {members} at {index}",
                status.id, status.membership.members
            );
            self.fail(Check::MembersWhenAppended, detail);
        }
    }

    /// A leader has appended a configuration. Returns the one before it.
    fn check_change(
        &mut self,
        server: MemberId,
        position: Position,
        members: &Arc<Members>,
    ) -> Arc<Members> {
        let log = &self.held(server).written;
        let (index, before) = self.configuration_before(log, server, position.index);
        if self.counted < index {
            let counted = self.counted;
            let detail = format!(
                "server {server} appends {members} at {position} after {before} at {index}, \
                 committed is {counted}"
            );
            self.fail(Check::OneChangeAtATime, detail);
        }
        if !self.settled_terms.contains(&position.term) {
            let detail = format!(
                "server {server} appends {members} at {position} and has committed nothing of \
                 its term"
            );
            self.fail(Check::ChangeAfterOwnCommit, detail);
        }
        if let Err((check, detail)) = check_step(&before, members) {
            self.fail(check, format!("server {server} at {position}: {detail}"));
        }
        before
    }

    /// Who leads has the votes of a quorum, and may not know that it was removed. A learner may
    /// lead, to hand its log on.
    pub(super) fn check_election(&mut self, server: MemberId, term: Term) {
        let (_, members) = self.members_of(server);
        self.looks.elections += 1;
        let votes = |id| id == server || self.votes.get(&(id, term)) == Some(&server);
        if !members.is_quorum(votes) {
            let voters: Vec<_> = members.ids().into_iter().filter(|id| votes(*id)).collect();
            let detail = format!("server {server} leads term {term} by {voters:?} of {members}");
            self.fail(Check::ElectedByQuorum, detail);
        }
        let Held { written, durable, .. } = self.held(server);
        let known = durable.hard_state().commit.next();
        let (index, known) = self.configuration_before(written, server, known);
        if !known.contains(server) && !members.contains(server) {
            let detail = format!(
                "server {server} leads term {term} though removed; it knows that {known} at \
                 {index} is committed, and has {members}"
            );
            self.fail(Check::RemovedNeverLeads, detail);
        }
    }
}

/// Whether the same servers take part in the same way.
fn takes_part_alike(a: &Members, b: &Members) -> bool {
    (a.voters(), a.voters_outgoing(), a.learners())
        == (b.voters(), b.voters_outgoing(), b.learners())
}
