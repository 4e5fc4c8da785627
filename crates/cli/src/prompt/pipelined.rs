//! Puts and gets that the prompt starts and does not wait for.
//!
//! Invariant: what is started before any other command has ended before that command begins.

use std::num::NonZeroUsize;

use anyhow::Result;
use kvraft_client::{
    Client, Closed, Completed, OpId, Outcome, Pipeline, Results, proto::etcdserverpb::PutRequest,
};
use tokio::{sync::watch, task::JoinHandle};

/// Operations under way, and who prints their results.
pub(super) struct Pipelined {
    pipeline: Pipeline,
    last: OpId,
    /// How many results were printed, and how many of them were failures.
    printed: watch::Receiver<(u64, u64)>,
    printing: JoinHandle<()>,
}

impl Pipelined {
    /// At most `capacity` operations are under way; those of a terminal have their results in
    /// colour.
    pub(super) async fn start(
        client: &Client,
        capacity: NonZeroUsize,
        is_terminal: bool,
    ) -> Result<Self> {
        let (pipeline, results) = client.pipeline(capacity).await?;
        let (count, printed) = watch::channel((0, 0));
        let printing = tokio::spawn(print_all(results, count, is_terminal));
        Ok(Self { pipeline, last: OpId::ZERO, printed, printing })
    }

    pub(super) async fn put(&mut self, request: PutRequest) -> Result<(), Closed> {
        self.last = self.pipeline.put_with(request).await?;
        Ok(())
    }

    pub(super) async fn get(&mut self, key: bytes::Bytes) -> Result<(), Closed> {
        self.last = self.pipeline.get(key).await?;
        Ok(())
    }

    /// Waits until all results are printed.
    pub(super) async fn drain(&mut self) {
        let last = self.last.0;
        // Who prints ends after the pipeline only.
        drop(self.printed.wait_for(|(count, _)| last <= *count).await);
    }

    /// Waits for all results; how many were failures.
    pub(super) async fn end(self) -> u64 {
        self.pipeline.stop().await;
        drop(self.printing.await);
        self.printed.borrow().1
    }
}

async fn print_all(mut results: Results, count: watch::Sender<(u64, u64)>, is_coloured: bool) {
    while let Some(completed) = results.recv().await {
        let has_failed = completed.result.is_err();
        let line = line(&completed);
        match (has_failed, is_coloured) {
            (false, false) => println!("{line}"),
            // Cyan and purple, as there.
            (false, true) => println!("\x1b[36m{line}\x1b[0m"),
            (true, false) => eprintln!("{line}"),
            (true, true) => eprintln!("\x1b[35m{line}\x1b[0m"),
        }
        count.send_modify(|(all, failed)| {
            *all += 1;
            *failed += u64::from(has_failed);
        });
    }
}

/// As KVRaft (Go) prints it: the operation's number, and what it brought.
pub(super) fn line(completed: &Completed) -> String {
    let op = completed.op.0;
    match &completed.result {
        Ok(Outcome::Get(Some(record))) => {
            format!("Result: {{{op} {}}}", String::from_utf8_lossy(&record.value))
        }
        // There, no key is the empty text.
        Ok(Outcome::Get(None)) => format!("Result: {{{op} }}"),
        Ok(_) => format!("Result: {{{op} OK}}"),
        Err(error) => format!("error: operation {op}: {error}"),
    }
}
