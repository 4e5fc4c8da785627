//! The node's part in snapshots: those that leave, and the one that replaces this server's state.

use kvraft_base::{Instant, MemberId, Members, Position, Term};
use kvraft_raft::{Body, Input, Message};

use super::Node;
use crate::{
    frame::{Frame, SEQ_INSTALLED, SnapshotChunk},
    hop::{Hop, Now, PeerLane, TableIn},
    outgoing::send,
    snapshots::Due,
};

impl Node {
    // To followers.

    /// Ends what is over, repeats what is overdue, and sends what may leave by now.
    pub(super) fn tend_snapshots(&mut self, now: Instant, out: &mut Vec<Hop>) {
        self.end_finished_snapshots(now, out);
        for due in self.outgoing_snapshots.due(now, |peer| self.pace.is_waiting(peer)) {
            match due {
                Due::Resend(to) => out.push(Hop::Table(TableIn::ExportResend { to })),
                Due::GiveUp(to) => {
                    out.push(Hop::Table(TableIn::ExportClose { to }));
                    self.raft.step(now, Input::SnapshotReport { to, position: None });
                }
            }
        }
        while let Some((to, chunk)) = self.pace.pop(now) {
            self.outgoing_snapshots.on_sent(to, &chunk, now);
            send(to, PeerLane::Bulk, &Frame::SnapshotChunk(chunk), out);
        }
    }

    /// A transfer ends when raft no longer waits for it: the follower has caught up, or this server
    /// is not its leader any more.
    fn end_finished_snapshots(&mut self, now: Instant, out: &mut Vec<Hop>) {
        if self.outgoing_snapshots.deadline() == Instant::NEVER {
            return;
        }
        let status = self.raft.status();
        for (to, position) in self.outgoing_snapshots.peers() {
            let progress = status.peers.iter().find(|peer| peer.id == to);
            let caught_up = position.zip(progress).is_some_and(|(p, peer)| p.index <= peer.matched);
            if caught_up || progress.is_none() {
                let position = position.filter(|_| caught_up);
                self.outgoing_snapshots.end(to, position, now);
                self.pace.forget(to);
                out.push(Hop::Table(TableIn::ExportClose { to }));
                self.raft.step(now, Input::SnapshotReport { to, position });
            }
        }
    }

    /// Lets go of the journal after the snapshots of those who are in step and sent what is in
    /// memory, or are followers no more. The second alone is not enough: it may get lost on the
    /// way. Nor is the first, which looks at what the log was a moment ago.
    pub(super) fn tend_tails(&mut self, now: Instant) {
        if !self.outgoing_snapshots.has_tails() {
            return;
        }
        let status = self.raft.status();
        self.outgoing_snapshots.tend_tails(now, |peer| {
            let progress = status.peers.iter().find(|progress| progress.id == peer)?;
            let needs_no_more = self.raft.is_in_step(peer) && !self.raft.is_catching_up(peer);
            (!needs_no_more).then_some(progress.matched)
        });
    }

    // From the leader.

    pub(super) fn on_chunk(
        &mut self,
        now: Now,
        from: MemberId,
        chunk: SnapshotChunk,
        out: &mut Vec<Hop>,
    ) {
        let notice = Message {
            from,
            to: self.me,
            term: chunk.term,
            body: Body::SnapshotNotice { position: chunk.position },
        };
        self.raft.step(now.instant, Input::Receive(notice));
        if self.installing == Some(chunk.position) {
            // It was asked whether this server is still there: all was taken, and takes its time.
            let taken = Frame::SnapshotTaken { position: chunk.position, seq: chunk.seq };
            return send(from, PeerLane::Bulk, &taken, out);
        }
        if self.installing.is_none() && chunk.position.index <= self.checkpoint.index {
            // The sender has not heard that nothing is missing here any more.
            return self.tell_installed(from, chunk.position, out);
        }
        // A late beginning of an older one would take the place of what has arrived of a newer one,
        // whose beginning is not sent again.
        let is_late = self.importing.is_some_and(|(term, position)| {
            (chunk.term, chunk.position.index) < (term, position.index)
        });
        let expected = self.raft.expects_snapshot(from, chunk.term, chunk.position);
        if expected && !is_late && self.installing.is_none() {
            self.importing = Some((chunk.term, chunk.position));
            out.push(Hop::Table(TableIn::Import { from, chunk }));
        }
    }

    /// Has the table throw away what it has received once nobody will install it: this server has
    /// got its entries otherwise, or hears another leader. What was sent before in this turn goes
    /// too: all of that is of this snapshot, or of one that it had superseded.
    pub(super) fn drop_unwanted_import(&mut self, out: &mut Vec<Hop>) {
        let Some((term, position)) = self.importing else { return };
        if self.installing.is_none() && !self.raft.wants_snapshot(term, position) {
            self.importing = None;
            out.push(Hop::Table(TableIn::ImportDrop));
        }
    }

    pub(super) fn on_import_ready(
        &mut self,
        now: Instant,
        from: MemberId,
        term: Term,
        position: Position,
        out: &mut Vec<Hop>,
    ) {
        if self.installing.is_some() {
            return; // A repeated last chunk.
        }
        if self.raft.expects_snapshot(from, term, position) {
            self.installing = Some(position);
            self.importing = self.importing.filter(|newer| *newer != (term, position));
            self.raft.step(now, Input::SnapshotInstalling { position });
            let log_kept = self.raft.keeps_log(position);
            out.push(Hop::Table(TableIn::Install { position, log_kept }));
        }
    }

    /// Table, journal and machine now hold the snapshot; a crash on the way here is rolled forward
    /// by recovery. Only now may the leader be answered.
    pub(super) fn on_reloaded(
        &mut self,
        now: Now,
        position: Position,
        members: Option<Members>,
        out: &mut Vec<Hop>,
    ) {
        assert_eq!(self.installing, Some(position), "the machine reloads only on request");
        self.installing = None;
        let members = members.unwrap_or_else(|| self.bootstrap.clone());
        self.waiting.on_snapshot(position.index, out);
        self.checkpoint = position;
        self.checkpoint_previous = position;
        self.released_upto = position.index;
        self.raft.step(now.instant, Input::SnapshotInstalled { position, members });
        if let Some(leader) = self.raft.leader() {
            self.tell_installed(leader, position, out);
        }
    }

    fn tell_installed(&self, leader: MemberId, position: Position, out: &mut Vec<Hop>) {
        let installed = Frame::SnapshotTaken { position, seq: SEQ_INSTALLED };
        send(leader, PeerLane::Bulk, &installed, out);
    }
}
