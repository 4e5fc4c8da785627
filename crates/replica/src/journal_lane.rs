//! The journal's lane: one fsync per turn, then "durable up to here".

use kvraft_base::WriteId;
use kvraft_store::Journal;

use crate::hop::{Fatal, Hop, JournalIn, NodeIn, Now};

/// Keeps the log on disk. The disk answers like a peer: `Write` in, `Durable` out, in order.
///
/// Invariant: `Durable(id)` is sent only after an fsync that covers every write up to `id`.
#[derive(Debug)]
pub struct JournalLane {
    journal: Journal,
    /// Set at the first failure; from then on nothing is touched any more.
    failed: bool,
}

impl JournalLane {
    /// A lane on an opened journal.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        Self { journal, failed: false }
    }

    /// One turn over everything that has arrived. Consecutive writes share one fsync.
    pub fn step(&mut self, _now: Now, inbox: &mut Vec<JournalIn>, out: &mut Vec<Hop>) {
        let mut unsynced: Option<WriteId> = None;
        for input in inbox.drain(..) {
            if self.failed {
                return;
            }
            if let Err(fatal) = self.handle(input, &mut unsynced, out) {
                self.fail(fatal, out);
            }
        }
        if !self.failed
            && let Err(fatal) = self.sync(&mut unsynced, out)
        {
            self.fail(fatal, out);
        }
    }

    fn fail(&mut self, fatal: Fatal, out: &mut Vec<Hop>) {
        self.failed = true;
        out.push(Hop::Fatal(fatal));
    }

    fn handle(
        &mut self,
        input: JournalIn,
        unsynced: &mut Option<WriteId>,
        out: &mut Vec<Hop>,
    ) -> Result<(), Fatal> {
        match input {
            JournalIn::Write(write) => {
                self.journal.append(&write).map_err(Fatal::Journal)?;
                *unsynced = Some(write.id);
            }
            JournalIn::Release(upto) => {
                self.sync(unsynced, out)?;
                let released = self.journal.release(upto).map_err(Fatal::Journal)?;
                out.push(Hop::Node(NodeIn::Released(released)));
            }
            JournalIn::Reset { position, members } => {
                self.sync(unsynced, out)?;
                let hard_state = self.journal.hard_state();
                self.journal.reset(position, hard_state, members).map_err(Fatal::Journal)?;
                out.push(Hop::Node(NodeIn::ResetDone(position)));
            }
            JournalIn::Fetch(fetch) => {
                let read =
                    self.journal.read(fetch.prev, fetch.first, fetch.last, fetch.size_bytes_max);
                // A range that cannot be believed is as good as gone: the follower gets a snapshot.
                let entries = read.unwrap_or_default();
                out.push(Hop::Node(NodeIn::Fetched { id: fetch.id, entries }));
            }
        }
        Ok(())
    }

    fn sync(&mut self, unsynced: &mut Option<WriteId>, out: &mut Vec<Hop>) -> Result<(), Fatal> {
        let Some(write) = unsynced.take() else {
            return Ok(());
        };
        self.journal.sync().map_err(Fatal::Journal)?;
        out.push(Hop::Node(NodeIn::Durable(write)));
        Ok(())
    }
}
