//! What the tracing server knows of every node.

use std::{collections::BTreeMap, io, sync::Arc};

use kvraft_trace::{
    action::Action,
    clock::{CLOCK_NODES_MAX, Identity, VectorClock},
    record::Record,
    tracer::Tracer,
};

use super::rubbish;

/// Records for the files, in order.
pub(super) type Batch = Vec<Record>;

/// All nodes that have ever come.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<Identity, Node>,
    session_last: u64,
}

#[derive(Debug, Default)]
struct Node {
    /// That of its last record.
    clock: VectorClock,
    /// Which connection speaks for it: the latest.
    session: u64,
    /// Highest number under which another node knows of a record of it.
    known_by_others: u64,
}

/// Records that are stood in for at most: a killed node can have had no more in its buffer.
const FILLED_MAX: u64 = 100_000;

impl Nodes {
    /// A node has come: its connection's number, and where its clock goes on.
    pub(super) fn welcome(&mut self, identity: &str) -> io::Result<(u64, VectorClock)> {
        if CLOCK_NODES_MAX <= self.nodes.len() && !self.nodes.contains_key(identity) {
            return Err(rubbish("too many nodes have come already"));
        }
        self.session_last += 1;
        let node = self.nodes.entry(identity.into()).or_default();
        node.session = self.session_last;
        let mut clock = node.clock.clone();
        let own = clock.get(identity);
        // What others say of it is believed within what a killed node can have had in its buffer.
        let known = node.known_by_others.max(own);
        let bound = if own == 0 { known } else { own.saturating_add(FILLED_MAX) };
        clock.set(&identity.into(), known.min(bound));
        Ok((self.session_last, clock))
    }

    /// Takes what a node has sent: what of it is new, with what stands in for lost records, and the
    /// number up to which all is taken.
    pub(super) fn take(
        &mut self,
        identity: &str,
        session: u64,
        records: Vec<Record>,
    ) -> io::Result<(Batch, u64)> {
        let node = self.nodes.get_mut(identity).expect("it has been welcomed");
        if node.session != session {
            return Err(rubbish("another process has come under this name"));
        }
        let mut batch = Vec::with_capacity(records.len());
        for record in records {
            if *record.identity != *identity {
                return Err(rubbish("a node speaks for itself only"));
            }
            let (own, last) = (record.own(), node.clock.get(identity));
            if own == 0 || own == u64::MAX {
                return Err(rubbish("a record has no number"));
            }
            if own <= last {
                continue;
            }
            if last != 0 {
                node.fill(identity, own, &mut batch);
            }
            node.clock = record.clock.clone();
            batch.push(record);
        }
        let own = node.clock.get(identity);
        self.learn(&batch);
        Ok((batch, own))
    }

    /// Notes what these records know of other nodes.
    fn learn(&mut self, batch: &[Record]) {
        for (identity, count) in batch.iter().flat_map(|record| record.clock.iter()) {
            if let Some(node) = self.nodes.get_mut(identity) {
                node.known_by_others = node.known_by_others.max(count);
            }
        }
    }
}

impl Node {
    /// Stands in for the records between the last one and `next`.
    fn fill(&self, identity: &str, next: u64, batch: &mut Batch) {
        let missing = next - self.clock.get(identity) - 1;
        if FILLED_MAX < missing {
            // A hole that the verifier names.
            return;
        }
        let mut tracer = Tracer::resume(Arc::from(identity), self.clock.clone());
        for _ in 0..missing {
            batch.push(tracer.record(0, &Action::RecordsLost { count: 1 }));
        }
    }
}
