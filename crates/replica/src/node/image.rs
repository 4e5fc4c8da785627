//! The node as a recording carries it.

use kvraft_kv::Redaction;
use kvraft_raft::Output;

use super::Node;

impl Node {
    /// A copy that does the same from here on, with zeroes for payloads that nothing looks into.
    /// `None` in the moment between the table's being replaced and the machine's taking it over:
    /// the new state is on its way, and not here.
    pub(crate) fn image(&mut self) -> Option<Self> {
        if self.installed.is_some() {
            return None;
        }
        Some(Self {
            options: self.options,
            me: self.me,
            incarnation: self.incarnation,
            raft: self.raft.thinned(),
            bootstrap: self.bootstrap.clone(),
            output: Output::default(),
            waiting: self.waiting.clone(),
            forwards: self.forwards.clone(),
            attempt_count: self.attempt_count,
            led_by: self.led_by,
            unreachable: self.unreachable.clone(),
            parked_retry_at: self.parked_retry_at,
            member_io: self.member_io.clone(),
            version_io: self.version_io.clone(),
            outgoing_snapshots: self.outgoing_snapshots.clone(),
            pace: self.pace.thinned(),
            importing: self.importing,
            installing: self.installing,
            installed: None,
            checkpoint: self.checkpoint,
            checkpoint_previous: self.checkpoint_previous,
            released_upto: self.released_upto,
            frames_refused: self.frames_refused,
        })
    }

    /// A copy that was read is about to run.
    pub(crate) fn thaw(&mut self) {
        self.raft.thaw();
    }

    /// Takes what clients have written out of a copy. Every field is named, so that a new one is
    /// thought of.
    pub(crate) fn redact(&mut self, redaction: Redaction) {
        let Self {
            options: _,
            me: _,
            incarnation: _,
            raft,
            bootstrap: _,
            output: _,
            waiting,
            forwards: _,
            attempt_count: _,
            led_by: _,
            unreachable: _,
            parked_retry_at: _,
            member_io: _,
            version_io: _,
            outgoing_snapshots: _,
            // A copy holds zeroes for what is in parts of snapshots.
            pace: _,
            importing: _,
            installing: _,
            installed: _,
            checkpoint: _,
            checkpoint_previous: _,
            released_upto: _,
            frames_refused: _,
        } = self;
        raft.replace_commands(&mut |payload| redaction.command(payload));
        waiting.redact(redaction);
    }
}
