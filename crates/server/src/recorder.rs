//! Records what this server does for the tracing server, when tracing is on.
//!
//! Why here: the lanes know nothing of tracing. What they say anyway, frames to peers and typed
//! events, is turned into actions at the edge, and frames get a token on their way out.
//!
//! Invariants:
//! - nobody ever waits for the tracing server: what is recorded goes into a bounded buffer, and
//!   what finds no room there is counted and not recorded. It takes no tick of the clock either, so
//!   that a full buffer leaves no hole in the trace;
//! - what is in the buffer stays there until the tracing server says that it has it, and is sent
//!   again over a new connection: a server that lives on loses nothing but what found no room;
//! - before the tracing server has said where this server's clock stands no token goes out, so
//!   that nobody can know of a record under a number that changes.
//!
//! What it lacks: heartbeats and what keeps reads right are not recorded, since they would be most
//! of a trace; what is still in the buffer when the process is killed is lost.

mod describe;
mod sender;
pub(crate) mod wire;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kvraft_base::{MemberId, limits};
use kvraft_raft::{Event, Membership};
use kvraft_replica::Frame;
use kvraft_trace::{
    action::Action, clock::VectorClock, record::Record, token::Token, tracer::Tracer,
};
use tokio::sync::Notify;

pub(crate) use describe::{GetSeen, PutSeen};
pub(crate) use sender::send_records;

/// What a server that traces holds; cheap to share.
pub(crate) struct Recorder {
    me: MemberId,
    /// What belongs to no client's trace belongs to this one.
    own_trace: u64,
    state: Mutex<State>,
    /// Something is there to be sent.
    filled: Notify,
}

struct State {
    tracer: Tracer,
    /// Whether the tracing server has said where the clock stands.
    is_started: bool,
    /// Highest number under which somebody knows of a record of an earlier life.
    known_by_others: u64,
    waiting: VecDeque<Record>,
    waiting_size_bytes: usize,
    lost_count: u64,
    /// The token that came last from each peer: a frame without room is offered again.
    last_tokens: BTreeMap<MemberId, Bytes>,
    /// Who was there when this server started.
    first_members: Option<Vec<u64>>,
    /// What this server has said to each peer of its own log, by the trace.
    told: describe::Matched,
    /// What each peer has said of its log, by the trace.
    heard: describe::Matched,
}

/// Bytes of records that wait for the tracing server, at most: some seconds of a busy server.
const BUFFER_SIZE_BYTES_MAX: usize = 16 << 20;

/// What a record takes beside its text.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// A frame with a token begins like this; no other frame does.
const KIND_TRACED: u8 = 0xf5;

impl Recorder {
    /// `own_trace` names this life of the server.
    pub(crate) fn new(identity: &str, me: MemberId, own_trace: u64) -> Arc<Self> {
        Self::begin(identity, me, own_trace, &Action::ServerStart { server_id: me.0 })
    }

    /// That of a coordinator.
    pub(crate) fn of_coordinator(identity: &str, own_trace: u64) -> Arc<Self> {
        Self::begin(identity, MemberId::ZERO, own_trace, &Action::CoordStart {})
    }

    fn begin(identity: &str, me: MemberId, own_trace: u64, first: &Action) -> Arc<Self> {
        let state = State {
            tracer: Tracer::new(identity),
            is_started: false,
            known_by_others: 0,
            waiting: VecDeque::new(),
            waiting_size_bytes: 0,
            lost_count: 0,
            last_tokens: BTreeMap::new(),
            first_members: None,
            told: describe::Matched::default(),
            heard: describe::Matched::default(),
        };
        let recorder =
            Arc::new(Self { me, own_trace, state: Mutex::new(state), filled: Notify::new() });
        recorder.with(|state| {
            state.put(|tracer| tracer.create_trace(own_trace));
            state.record(own_trace, first);
        });
        recorder
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records something, in one piece.
    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let done = what(&mut self.state());
        self.filled.notify_one();
        done
    }

    /// Something that belongs to no message.
    pub(crate) fn on_action(&self, action: &Action) {
        self.with(|state| state.record(self.own_trace, action));
    }

    /// A token in base64, for a message that is no frame.
    pub(crate) fn give_token(&self) -> Option<String> {
        Some(self.with(|state| state.token(self.own_trace))?.to_base64())
    }

    /// A message that is no frame has brought this. A bad token is as good as none.
    pub(crate) fn take_token(&self, token: &str) {
        if let Ok(token) = Token::from_base64(token) {
            self.with(|state| state.receive(&token));
        }
    }

    /// What goes to a peer instead of this frame.
    pub(crate) fn on_frame_sent(&self, to: MemberId, frame: Bytes) -> Bytes {
        let actions = describe::sent(self.me, to, &frame, &mut self.state().told);
        if actions.is_empty() {
            return frame;
        }
        let token = self.with(|state| {
            actions.iter().for_each(|action| state.record(self.own_trace, action));
            let token = state.token(self.own_trace);
            if token.is_none() {
                state.told.forget(to);
            }
            token
        });
        match token {
            Some(token) => wrap(&token.encode(), frame),
            None => frame,
        }
    }

    /// A frame has come, with its token if it had one.
    pub(crate) fn on_frame_received(&self, from: MemberId, token: Option<Bytes>, frame: &Bytes) {
        let Some(token) = token else { return };
        // Peers are believed no more than anybody else: a bad token is as good as none.
        let Ok(read) = Token::decode(&token) else { return };
        self.with(|state| {
            if state.last_tokens.insert(from, token.clone()) == Some(token) {
                return;
            }
            state.receive(&read);
            for action in describe::received(self.me, from, frame, &read, &mut state.heard) {
                state.record(read.trace_id, &action);
            }
        });
    }

    /// Something happened to this server's consensus.
    pub(crate) fn on_event(&self, event: &Event) {
        let actions = describe::event(self.me, event);
        if !actions.is_empty() {
            self.with(|state| {
                actions.iter().for_each(|action| state.record(self.own_trace, action));
            });
        }
    }

    /// Other members are in force, or the first ones.
    pub(crate) fn on_members(&self, membership: &Membership) {
        let members: Vec<u64> = membership.members.ids().into_iter().map(|id| id.0).collect();
        let (server_id, index) = (self.me.0, membership.index.0);
        self.with(|state| {
            let first = state.first_members.get_or_insert_with(|| members.clone());
            if *first != members {
                state.first_members = Some(members.clone());
                let action = Action::MembersChanged { server_id, index, members };
                state.record(self.own_trace, &action);
            }
        });
    }

    /// A client's request has come, with a token in base64 if its client traces. Returns the trace
    /// that it belongs to.
    pub(crate) fn on_request(&self, token: Option<&str>, action: &Action) -> u64 {
        let token = token.and_then(|token| Token::from_base64(token).ok());
        self.with(|state| {
            if let Some(token) = &token {
                state.receive(token);
            }
            let trace = token.map_or(self.own_trace, |token| token.trace_id);
            state.record(trace, action);
            trace
        })
    }

    /// A request is answered; what goes with the answer, in base64.
    pub(crate) fn on_answer(&self, trace: u64, action: &Action) -> Option<String> {
        self.with(|state| {
            state.record(trace, action);
            // Only who traces wants to hear of it.
            let token = (trace != self.own_trace).then(|| state.token(trace))??;
            Some(token.to_base64())
        })
    }

    /// How many things were not recorded for want of room.
    pub(crate) fn lost_count(&self) -> u64 {
        self.state().lost_count
    }
}

impl State {
    /// Makes a record, if there is room for it.
    fn put(&mut self, make: impl FnOnce(&mut Tracer) -> Record) {
        if BUFFER_SIZE_BYTES_MAX <= self.waiting_size_bytes {
            self.lost_count += 1;
            return;
        }
        let record = make(&mut self.tracer);
        self.waiting_size_bytes += size_bytes(&record);
        self.waiting.push_back(record);
    }

    fn record(&mut self, trace: u64, action: &Action) {
        self.put(|tracer| tracer.record(trace, action));
    }

    /// `None` while the clock is not known, or there is no room.
    fn token(&mut self, trace: u64) -> Option<Token> {
        if !self.is_started {
            return None;
        }
        let mut made = None;
        self.put(|tracer| {
            let (token, record) = tracer.generate_token(trace);
            made = Some(token);
            record
        });
        made
    }

    fn receive(&mut self, token: &Token) {
        let own = token.clock.get(self.tracer.identity());
        if !self.is_started {
            self.known_by_others = self.known_by_others.max(own);
        }
        if BUFFER_SIZE_BYTES_MAX <= self.waiting_size_bytes {
            // What is known goes on even where its record is lost.
            self.tracer.merge(&token.clock);
        }
        self.put(|tracer| tracer.receive_token(token));
    }

    /// The tracing server has this server's records up to `clock`. Records of this life that were
    /// made before anybody knew where the clock stands are counted on from there.
    fn start(&mut self, clock: &VectorClock) {
        if self.is_started {
            return;
        }
        self.is_started = true;
        let identity = Arc::clone(self.tracer.identity());
        let base = clock.get(&identity).max(self.known_by_others);
        let mut last = clock.clone();
        last.merge(self.tracer.clock());
        last.set(&identity, base.saturating_add(self.tracer.clock().get(&identity)));
        for record in &mut self.waiting {
            let own = base.saturating_add(record.own());
            record.clock.merge(clock);
            record.clock.set(&identity, own);
        }
        // Their clocks have grown.
        self.waiting_size_bytes = self.waiting.iter().map(size_bytes).sum();
        self.tracer = Tracer::resume(identity, last);
    }

    /// The tracing server has all records up to this number.
    fn taken(&mut self, own: u64) {
        while self.waiting.front().is_some_and(|record| record.own() <= own) {
            let record = self.waiting.pop_front().expect("there is a first one");
            self.waiting_size_bytes -= size_bytes(&record);
        }
    }
}

fn size_bytes(record: &Record) -> usize {
    RECORD_OVERHEAD_BYTES + record.body.len() + 32 * record.clock.len()
}

/// A frame with a token before it; without, if it would become too large.
fn wrap(token: &[u8], frame: Bytes) -> Bytes {
    let size = 3 + token.len() + frame.len();
    let Some(token_size) =
        u16::try_from(token.len()).ok().filter(|_| size <= limits::FRAME_SIZE_BYTES_MAX)
    else {
        return frame;
    };
    let mut wrapped = Vec::with_capacity(size);
    wrapped.push(KIND_TRACED);
    wrapped.extend_from_slice(&token_size.to_le_bytes());
    wrapped.extend_from_slice(token);
    wrapped.extend_from_slice(&frame);
    wrapped.into()
}

/// Takes the token off a frame that has one. Also where tracing is off: who sends may trace.
pub(crate) fn unwrap(frame: Bytes) -> (Option<Bytes>, Bytes) {
    if frame.first() != Some(&KIND_TRACED) {
        return (None, frame);
    }
    let size = match frame.get(1..3) {
        Some(size) => 3 + usize::from(u16::from_le_bytes([size[0], size[1]])),
        None => return (None, Bytes::new()),
    };
    if frame.len() < size {
        // What is empty is refused by whoever decodes it.
        return (None, Bytes::new());
    }
    (Some(frame.slice(3..size)), frame.slice(size..))
}

/// What a frame of consensus is, where it matters here.
fn decode(frame: &Bytes) -> Option<Frame> {
    Frame::decode(frame.clone()).ok()
}

#[cfg(test)]
#[path = "recorder/tests.rs"]
mod tests;
