//! Waiting to be asked to stop.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT (Ctrl-C) and SIGTERM.
pub(crate) struct Stop {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Stop {
    /// From here on the signals no longer end the process by themselves.
    pub(crate) fn listen() -> Self {
        // Without a handler the signal keeps its default effect, which is an end as well.
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
        }
    }

    /// Resolves at the next of them, with its name.
    pub(crate) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            () = next(&mut self.interrupt) => "interrupt",
            () = next(&mut self.terminate) => "SIGTERM",
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

/// Resolves at the first SIGINT or SIGTERM.
pub(crate) async fn interrupted() {
    Stop::listen().asked().await;
}
