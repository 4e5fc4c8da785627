//! Every state that a single server has been seen in, and what each event did to it.
//!
//! Why: the group has far more states than its servers have. Each server state is run through the
//! production code once for each event; from then on the step of the group is a look-up.
//!
//! Invariants:
//! - numbers are given in order of discovery and never change their meaning;
//! - two servers have one number only if their normal forms are equal.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use kvraft_base::{Entry, Index, MemberId};
use kvraft_raft::{AppendOutcome, Body, Message, RoleName};

use crate::{
    bounds::Bounds,
    names::{self, AS_IS, MIRRORED, TO_LEFT, TO_RIGHT},
    node::{Effect, Local, Look, ME, Node, RIGHT},
    rules::Rule,
    tree::Tree,
};

/// A server's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// A message as its receiver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u32);

/// One thing that happens to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A message arrives.
    Receive(MessageId),
    /// Something else.
    Local(Local),
}

/// Digests of something as it is and as its mirror image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// As it is.
    pub as_is: u64,
    /// With the right and the left neighbour exchanged.
    pub mirrored: u64,
}

/// What is known of a server's state.
#[derive(Debug)]
pub(crate) struct NodeRecord {
    /// The production value with its disk.
    node: Node,
    /// What rules look at.
    pub look: Look,
    /// Stands for the normal form.
    pub digest: Digest,
}

/// What is known of a message.
#[derive(Debug)]
pub(crate) struct MessageRecord {
    /// The message, in the receiver's names.
    pub message: Message,
    /// Stands for it.
    pub digest: Digest,
}

/// What an event does to a server's state.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The state afterwards.
    pub node: NodeId,
    /// What it sent, and whether to the right neighbour.
    pub sent: Vec<(bool, MessageId)>,
    /// Votes that became known: term, and whom, in its own names.
    pub votes: Vec<(u64, u64)>,
    /// A rule that it broke.
    pub broken: Option<Rule>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    nodes: Vec<Arc<NodeRecord>>,
    node_ids: HashMap<(u64, u64), NodeId>,
    messages: Vec<Arc<MessageRecord>>,
    message_ids: HashMap<Message, MessageId>,
    outcomes: HashMap<(NodeId, Event), Arc<Outcome>>,
}

/// [`Tables`] that grow while they are used.
#[derive(Debug)]
pub(crate) struct Table {
    bounds: Bounds,
    tables: RwLock<Tables>,
}

impl Table {
    /// Knows only the server that has never run. Its number is returned.
    #[must_use]
    pub(crate) fn new(bounds: Bounds) -> (Self, NodeId) {
        let mut tables = Tables::default();
        let fresh = tables.node_id(Node::fresh(&bounds));
        (Self { bounds, tables: RwLock::new(tables) }, fresh)
    }

    /// What is known so far.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().expect("no step panics while it holds the lock")
    }

    /// What `event` does to a server in this state.
    pub(crate) fn outcome(&self, id: NodeId, event: Event) -> Arc<Outcome> {
        let (record, message) = {
            let tables = self.read();
            if let Some(outcome) = tables.outcomes.get(&(id, event)) {
                return Arc::clone(outcome);
            }
            let message = match event {
                Event::Receive(message) => Some(Arc::clone(&tables.messages[message.index()])),
                Event::Local(_) => None,
            };
            (Arc::clone(&tables.nodes[id.index()]), message)
        };
        let effect = match (event, &message) {
            (Event::Receive(_), Some(record_of)) => {
                record.node.receive(&self.bounds, &record_of.message)
            }
            (Event::Local(local), _) => record.node.happen(&self.bounds, local),
            (Event::Receive(_), None) => unreachable!("the message of a receipt was looked up"),
        };
        let pointless = effect.broken.is_none()
            && message.is_some_and(|record| is_refused(&record.message, &effect));
        let mut tables = self.tables.write().expect("no step panics while it holds the lock");
        let outcome = if pointless {
            Outcome { node: id, sent: Vec::new(), votes: Vec::new(), broken: None }
        } else {
            tables.learn(id, &record, effect)
        };
        let outcome = Arc::new(outcome);
        tables.outcomes.insert((id, event), Arc::clone(&outcome));
        outcome
    }
}

impl Tables {
    /// What is known of a server's state.
    #[must_use]
    pub(crate) fn node(&self, id: NodeId) -> &NodeRecord {
        &self.nodes[id.index()]
    }

    /// What is known of a message.
    #[must_use]
    pub(crate) fn message(&self, id: MessageId) -> &MessageRecord {
        &self.messages[id.index()]
    }

    /// How many server states, messages and steps of a server are known.
    #[must_use]
    pub(crate) fn counts(&self) -> [usize; 3] {
        [self.nodes.len(), self.messages.len(), self.outcomes.len()]
    }

    fn learn(&mut self, before: NodeId, record: &NodeRecord, effect: Effect) -> Outcome {
        let Effect { node, messages, broken } = effect;
        let votes = messages.iter().filter_map(vote_of).collect();
        let mut sent: Vec<(bool, MessageId)> = Vec::new();
        for message in messages.into_iter().filter(matters) {
            let right = message.to == RIGHT;
            let renaming = if right { &TO_RIGHT } else { &TO_LEFT };
            sent.push((right, self.message_id(names::message(message, renaming))));
        }
        sent.sort_unstable();
        sent.dedup();
        let same = node.is_same(&record.node);
        let node = if same { before } else { self.node_id(node) };
        Outcome { node, sent, votes, broken }
    }

    fn node_id(&mut self, node: Node) -> NodeId {
        let tree = Tree::parse(&format!("{node:?}"));
        let normal = tree.normal(&AS_IS, names::payload);
        let key = (digest(1, &normal), digest(2, &normal));
        if let Some(id) = self.node_ids.get(&key) {
            return *id;
        }
        let mirrored = tree.normal(&MIRRORED, names::payload);
        let digest = Digest { as_is: key.0, mirrored: digest(1, &mirrored) };
        let id = NodeId(u32::try_from(self.nodes.len()).expect("memory ends before 2^32 states"));
        let look = node.look();
        self.nodes.push(Arc::new(NodeRecord { node, look, digest }));
        self.node_ids.insert(key, id);
        id
    }

    fn message_id(&mut self, message: Message) -> MessageId {
        if let Some(id) = self.message_ids.get(&message) {
            return *id;
        }
        let mirrored = names::message(message.clone(), &MIRRORED);
        let digest = Digest { as_is: digest(3, &message), mirrored: digest(3, &mirrored) };
        let count = u32::try_from(self.messages.len());
        let id = MessageId(count.expect("memory ends before 2^32 messages"));
        self.messages.push(Arc::new(MessageRecord { message: message.clone(), digest }));
        self.message_ids.insert(message, id);
        id
    }
}

impl NodeId {
    fn index(self) -> usize {
        usize::try_from(self.0).expect("an index fits")
    }
}

impl MessageId {
    fn index(self) -> usize {
        usize::try_from(self.0).expect("an index fits")
    }
}

impl Look {
    /// Whether a server in this state, which may crash or not, will ignore the message now and
    /// for ever, or react only in ways that the model has other steps for.
    ///
    /// - A term on disk never goes back, so what is of an earlier term stays stale. An answer to it
    ///   only tells of the later term, which [`Local::Campaign`] needs no message for.
    /// - What says nothing new, and whose answer its sender has, changes nothing.
    /// - Answers are heard only by the candidate or leader of their term, and nobody becomes that
    ///   twice: answers are sent only after the term was durable at who asked.
    /// - A vote for somebody else makes every answer to a vote request a refusal, unless a crash
    ///   takes it away; whether a crash may is for the model to find out.
    #[must_use]
    pub(crate) fn is_deaf_to(&self, message: &Message, may_crash: bool) -> bool {
        let term = message.term.0;
        let floor = if may_crash { self.disk_term } else { self.term };
        match &message.body {
            Body::VoteAnswer { .. } => self.role != RoleName::Candidate || self.term != term,
            Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } } => {
                let knows = |(peer, known): &(MemberId, Index)| {
                    *peer == message.from && matched.index <= *known
                };
                self.role != RoleName::Leader || self.term != term || self.matched.iter().any(knows)
            }
            Body::AppendAnswer { .. } | Body::HeartbeatAnswer { .. } => {
                self.role != RoleName::Leader || self.term != term
            }
            Body::VoteRequest { .. } => {
                let refuses = self.vote.is_some_and(|vote| vote != message.from);
                term < floor || (!may_crash && term == self.term && refuses)
            }
            Body::CommitNotice { commit } => term < floor || *commit <= self.commit,
            Body::Append { prev, commit, entries } => {
                let end = entries.last().map_or(*prev, Entry::position);
                let known = self.follows
                    && (self.term, self.disk_term) == (term, term)
                    && *commit <= self.commit
                    && self.disk_holds(end);
                term < floor || known
            }
            _ => term < floor,
        }
    }
}

/// Pre-votes are granted by the model itself, and refusals change nothing but timers and terms,
/// which other steps of the model change at any time. So does being told to campaign.
fn matters(message: &Message) -> bool {
    !matches!(
        message.body,
        Body::PreVoteRequest { .. }
            | Body::PreVoteAnswer { .. }
            | Body::VoteAnswer { granted: false }
            | Body::TimeoutNow
    )
}

/// A vote request that wins no vote does nothing but raise the term, which only makes a server
/// refuse more.
fn is_refused(message: &Message, effect: &Effect) -> bool {
    matches!(message.body, Body::VoteRequest { .. })
        && effect.node.look().vote != Some(message.from)
}

fn vote_of(message: &Message) -> Option<(u64, u64)> {
    match message.body {
        Body::VoteAnswer { granted: true } => Some((message.term.0, message.to.0)),
        Body::VoteRequest { .. } => Some((message.term.0, ME.0)),
        _ => None,
    }
}

fn digest(seed: u64, value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}
