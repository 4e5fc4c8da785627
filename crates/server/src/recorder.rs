//! Records what this server does for the tracing server, when tracing is on.
//!
//! Why here: the lanes know nothing of tracing. What they say anyway, frames to peers and typed
//! events, is turned into actions at the edge, and frames get a token on their way out.
//!
//! Invariant: a trace that waits for nobody and has no hole, as `kvraft-recorder` promises.
//!
//! What it lacks: heartbeats and what keeps reads right are not recorded, since they would be most
//! of a trace.

mod describe;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kvraft_base::{MemberId, limits};
use kvraft_raft::{Event, Membership};
use kvraft_recorder::{Buffer, Outbox};
use kvraft_replica::Frame;
use kvraft_trace::{action::Action, token::Token};

pub(crate) use describe::{GetSeen, PutSeen};
pub(crate) use kvraft_recorder::{send_records, wire};

/// What a server that traces holds; cheap to share.
pub(crate) struct Recorder {
    me: MemberId,
    /// What belongs to no client's trace belongs to this one.
    own_trace: u64,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
}

/// What was said before, by which it is known what is new.
#[derive(Default)]
struct State {
    /// The token that came last from each peer: a frame without room is offered again.
    last_tokens: BTreeMap<MemberId, Bytes>,
    /// Who was there when this server started.
    first_members: Option<Vec<u64>>,
    /// What this server has said to each peer of its own log, by the trace.
    told: describe::Matched,
    /// What each peer has said of its log, by the trace.
    heard: describe::Matched,
}

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
        let (outbox, state) = (Arc::new(Outbox::new(identity)), Mutex::new(State::default()));
        let recorder = Arc::new(Self { me, own_trace, outbox, state });
        recorder.with(|buffer| {
            buffer.create_trace(own_trace);
            buffer.record(own_trace, first);
        });
        recorder
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records something, in one piece.
    fn with<T>(&self, what: impl FnOnce(&mut Buffer) -> T) -> T {
        self.outbox.with(what)
    }

    /// Its clock and its records, for whoever carries them to the tracing server.
    pub(crate) fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox)
    }

    /// Waits until tokens are given, which needs the tracing server.
    pub(crate) async fn gives_tokens(&self) {
        self.outbox.gives_tokens().await;
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
        let token = self.with(|buffer| {
            actions.iter().for_each(|action| buffer.record(self.own_trace, action));
            buffer.token(self.own_trace)
        });
        match token {
            Some(token) => wrap(&token.encode(), frame),
            None => {
                self.state().told.forget(to);
                frame
            }
        }
    }

    /// A frame has come, with its token if it had one.
    pub(crate) fn on_frame_received(&self, from: MemberId, token: Option<Bytes>, frame: &Bytes) {
        let Some(token) = token else { return };
        // Peers are believed no more than anybody else: a bad token is as good as none.
        let Ok(read) = Token::decode(&token) else { return };
        let mut state = self.state();
        if state.last_tokens.insert(from, token.clone()) == Some(token) {
            return;
        }
        self.with(|buffer| {
            buffer.receive(&read);
            for action in describe::received(self.me, from, frame, &read, &mut state.heard) {
                buffer.record(read.trace_id, &action);
            }
        });
    }

    /// Something happened to this server's consensus.
    pub(crate) fn on_event(&self, event: &Event) {
        let actions = describe::event(self.me, event);
        if !actions.is_empty() {
            self.with(|buffer| {
                actions.iter().for_each(|action| buffer.record(self.own_trace, action));
            });
        }
    }

    /// Other members are in force, or the first ones.
    pub(crate) fn on_members(&self, membership: &Membership) {
        let members: Vec<u64> = membership.members.ids().into_iter().map(|id| id.0).collect();
        let (server_id, index) = (self.me.0, membership.index.0);
        let mut state = self.state();
        let first = state.first_members.get_or_insert_with(|| members.clone());
        if *first != members {
            first.clone_from(&members);
            let action = Action::MembersChanged { server_id, index, members };
            self.with(|buffer| buffer.record(self.own_trace, &action));
        }
    }

    /// A client's request has come, with a token in base64 if its client traces. Returns the trace
    /// that it belongs to.
    pub(crate) fn on_request(&self, token: Option<&str>, action: &Action) -> u64 {
        let token = token.and_then(|token| Token::from_base64(token).ok());
        self.with(|buffer| {
            if let Some(token) = &token {
                buffer.receive(token);
            }
            let trace = token.map_or(self.own_trace, |token| token.trace_id);
            buffer.record(trace, action);
            trace
        })
    }

    /// A request is answered; what goes with the answer, in base64.
    pub(crate) fn on_answer(&self, trace: u64, action: &Action) -> Option<String> {
        self.with(|buffer| {
            buffer.record(trace, action);
            // Only who traces wants to hear of it.
            let token = (trace != self.own_trace).then(|| buffer.token(trace))??;
            Some(token.to_base64())
        })
    }
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
