//! What a client records of itself, if a tracing server is configured.
//!
//! Invariants:
//! - nothing waits for the tracing server, except [`Client::close`], for a moment;
//! - what is asked is recorded once, however often it is tried; each try has a token of its own;
//! - a client that does not trace sends no tokens and records nothing.
//!
//! What it lacks: operations other than puts and gets of one key.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
};

use kvraft_base::{ClientId, OpId};
use kvraft_proto::METADATA_TRACE;
use kvraft_recorder::{Outbox, send_records, text};
use kvraft_trace::{action::Action, token::Token};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};
use tonic::metadata::MetadataMap;

/// The recording side of a client.
#[derive(Debug)]
pub(crate) struct Traced {
    /// Its name in traces.
    identity: String,
    outbox: Arc<Outbox>,
    /// Everything that this client does belongs to this trace.
    trace: u64,
    stopping: watch::Sender<bool>,
    sending: Mutex<Option<JoinHandle<()>>>,
}

/// What a trace says of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    key: String,
    /// Of a put.
    value: Option<String>,
}

impl Told {
    pub(crate) fn put(key: &[u8], value: &[u8]) -> Self {
        Self { key: text(key), value: Some(text(value)) }
    }

    pub(crate) fn get(key: &[u8]) -> Self {
        Self { key: text(key), value: None }
    }
}

impl Traced {
    /// Begins, as `identity`, and sends to `address` from now on.
    pub(crate) fn start(identity: &str, address: String, runtime: &Handle) -> Self {
        let outbox = Arc::new(Outbox::new(identity));
        // A trace's number is below 2^63, as there.
        let trace = RandomState::new().build_hasher().finish() >> 1;
        let (stopping, stop) = watch::channel(false);
        let sending = runtime.spawn(send_records(Arc::clone(&outbox), address, stop));
        outbox.with(|buffer| buffer.create_trace(trace));
        let identity = identity.to_owned();
        let sending = Mutex::new(Some(sending));
        let traced = Self { identity, outbox, trace, stopping, sending };
        traced.record(&Action::KvslibStart { client_id: traced.identity.clone() });
        traced
    }

    fn record(&self, action: &Action) {
        self.outbox.with(|buffer| buffer.record(self.trace, action));
    }

    /// An operation is asked for, for the first time.
    pub(crate) fn on_asked(&self, told: &Told, number: (ClientId, OpId)) {
        let (client_id, op_id) = (number.0.0.to_string(), number.1.0);
        let key = told.key.clone();
        self.record(&match told.value.clone() {
            Some(value) => Action::Put { client_id, op_id, key, value },
            None => Action::Get { client_id, op_id, key },
        });
    }

    /// A request leaves, with a token if the clock is known.
    pub(crate) fn on_sent(&self, metadata: &mut MetadataMap) {
        if let Some(token) = self.token().and_then(|token| token.parse().ok()) {
            metadata.insert(METADATA_TRACE, token);
        }
    }

    /// An answer has come, with a token if its server traces.
    pub(crate) fn on_answer(&self, metadata: &MetadataMap) {
        self.take_token(metadata.get(METADATA_TRACE).and_then(|value| value.to_str().ok()));
    }

    /// Waits until tokens are given, which needs the tracing server.
    pub(crate) async fn gives_tokens(&self) {
        self.outbox.gives_tokens().await;
    }

    /// A token for a message that leaves, in base64, if the clock is known.
    pub(crate) fn token(&self) -> Option<String> {
        self.outbox.with(|buffer| buffer.token(self.trace)).map(|token| token.to_base64())
    }

    /// What a message has brought, in base64. A bad token is as good as none.
    pub(crate) fn take_token(&self, token: Option<&str>) {
        if let Some(token) = token.and_then(|token| Token::from_base64(token).ok()) {
            self.outbox.with(|buffer| buffer.receive(&token));
        }
    }

    /// An operation has its result; `value` is what was read, if there was anything.
    pub(crate) fn on_result(&self, told: &Told, number: (ClientId, OpId), value: Option<&[u8]>) {
        let (client_id, op_id) = (Some(number.0.0.to_string()), number.1.0);
        let key = told.key.clone();
        let value = value.map(text).unwrap_or_default();
        self.record(&match &told.value {
            Some(_) => Action::PutResultRecvd { op_id, key, client_id },
            None => Action::GetResultRecvd { op_id, key, value, client_id },
        });
    }

    /// Somebody asks who leads.
    pub(crate) fn on_leader_asked(&self) {
        self.record(&Action::LeaderReq { client_id: self.identity.clone() });
    }

    /// The answer.
    pub(crate) fn on_leader_told(&self, server_id: u64) {
        let client_id = self.identity.clone();
        self.record(&Action::LeaderResRecvd { client_id, server_id });
    }

    /// Another server leads now.
    pub(crate) fn on_leader_changed(&self, server_id: u64) {
        let client_id = self.identity.clone();
        self.record(&Action::LeaderNodeUpdateRecvd { client_id, server_id });
    }

    /// The client stops. Waits until everything is sent, for a second at most.
    pub(crate) async fn stop(&self) {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Closed before.
        let Some(sending) = sending else { return };
        self.record(&Action::KvslibStop { client_id: self.identity.clone() });
        self.stopping.send_replace(true);
        // It gives up by itself.
        drop(sending.await);
    }
}
