//! `kvraft replication-test`: what KVRaft (Go) tested its log replication with, against a running
//! cluster: ten puts, ten gets, and a key that was missing.
//!
//! Invariant: every line that says "Passed" was checked; the first that does not hold ends the
//! command with an error.

use std::{io::IsTerminal as _, num::NonZeroUsize};

use anyhow::{Context as _, Result, bail, ensure};
use kvraft_client::{OpId, Outcome, Pipeline, Results};

use crate::connection::{Connection, parse_address, print};

/// Put and get some keys through a running cluster, and check what comes back
///
/// Writes the keys 1 to 10 and 1000, which must be free to be overwritten; deletes 1000 first.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  kvraft replication-test --endpoints 127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383")]
pub(crate) struct ReplicationTestArgs {
    /// Record what this client does, at this tracing server
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    tracing_server: Option<String>,
    /// This client's name in traces: one word
    #[arg(long, value_name = "NAME", default_value = "client1")]
    tracing_identity: String,
    #[command(flatten)]
    connection: Connection,
}

/// A key that nobody has put.
const MISSING: &str = "1000";

/// Operations, one after the other.
struct Test {
    pipeline: Pipeline,
    results: Results,
}

/// Runs to the end, or to what does not hold.
pub(crate) async fn run(args: ReplicationTestArgs) -> Result<()> {
    let mut builder = args.connection.patient().exactly_once();
    if let Some(address) = args.tracing_server {
        builder = builder.trace_to(address, args.tracing_identity);
    }
    let client = builder.connect().await?;
    client.delete(MISSING).await?;
    let (pipeline, results) = client.pipeline(NonZeroUsize::MIN).await?;
    let mut test = Test { pipeline, results };
    let outcome = test.run().await;
    test.pipeline.stop().await;
    // A session that cannot be given back expires by itself.
    drop(client.close().await);
    outcome
}

impl Test {
    async fn run(&mut self) -> Result<()> {
        for key in 1..=10_u32 {
            self.put(&key.to_string(), &(key * 10).to_string()).await?;
        }
        for key in 1..=10_u32 {
            self.get(&key.to_string(), &(key * 10).to_string()).await?;
        }
        self.get(MISSING, "").await?;
        self.put(MISSING, "10000").await?;
        self.get(MISSING, "10000").await
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<()> {
        let op = self.pipeline.put(key.to_owned(), value.to_owned()).await?;
        match self.outcome(op).await? {
            Outcome::Put(_) => say(&format!("Test 1 Put Passed with key={key}, val={value} ")),
            other => bail!("a put brought {other:?}"),
        }
    }

    /// A missing key reads as the empty text.
    async fn get(&mut self, key: &str, expected: &str) -> Result<()> {
        let op = self.pipeline.get(key.to_owned()).await?;
        let Outcome::Get(found) = self.outcome(op).await? else { bail!("a get brought no value") };
        let got = found.map(|record| record.value).unwrap_or_default();
        let got = String::from_utf8_lossy(&got);
        ensure!(got == expected, "Test 1 Get Failed: expected value: {expected}, got {got}");
        say(&format!("Test 1 Get Passed: expected value: {expected}, got {got} "))
    }

    async fn outcome(&mut self, op: OpId) -> Result<Outcome> {
        let completed = self.results.recv().await.context("the results have ended")?;
        ensure!(completed.op == op, "the result of {} came under {}", op.0, completed.op.0);
        Ok(completed.result?)
    }
}

/// Green, as there.
fn say(line: &str) -> Result<()> {
    let line = match std::io::stdout().is_terminal() {
        true => format!("\x1b[32m{line}\x1b[0m\n"),
        false => format!("{line}\n"),
    };
    print(line.as_bytes())
}
