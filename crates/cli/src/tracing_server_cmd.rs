//! `kvraft tracing-server`: gathers what nodes record, until a signal asks it to stop.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use kvraft_server::{Collector, CollectorConfig, LogFormat};

use crate::{config_file, signals::Stop};

/// Gather the traces of all nodes into two files
///
/// Servers that have `tracing-server` in their configuration send what they do; it is written as
/// JSON lines and for ShiViz, each node under its own vector clock. The files are begun anew at
/// every start. They are at most a second behind, and whole after a clean stop.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft tracing-server
  kvraft tracing-server --config config/tracing_server.toml
  kvraft cluster -n 3 --set tracing-server=127.0.0.1:23000
  kvraft trace check trace_output.log
  kvraft trace convert --to shiviz trace_output.log -o shiviz.log")]
pub(crate) struct TracingServerArgs {
    /// Read the configuration from here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where nodes are listened for [default: 127.0.0.1:23000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The trace as JSON lines [default: trace_output.log]
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// The trace for ShiViz [default: shiviz_output.log]
    #[arg(long, value_name = "FILE")]
    shiviz_output_file: Option<PathBuf>,
}

/// Runs until a signal; ends with 0 after a clean stop.
pub(crate) async fn run(args: TracingServerArgs) -> Result<ExitCode> {
    let config = resolve(args)?;
    kvraft_server::start_logs(LogFormat::Text, "info")?;
    let mut stop = Stop::listen();
    let mut collector = Collector::start(config.clone()).await?;
    println!("tracing server on {}", collector.local_address());
    tokio::select! {
        failed = collector.failed() => failed?,
        _ = stop.asked() => {}
    }
    let count = collector.stop().await?;
    let (json, shiviz) = (config.output_file.display(), config.shiviz_output_file.display());
    println!("{count} records in {json} and {shiviz}");
    Ok(ExitCode::SUCCESS)
}

/// Flags win over the file.
fn resolve(args: TracingServerArgs) -> Result<CollectorConfig> {
    let mut config: CollectorConfig = config_file::read(args.config.as_deref())?;
    config.listen = args.listen.unwrap_or(config.listen);
    config.output_file = args.output_file.unwrap_or(config.output_file);
    config.shiviz_output_file = args.shiviz_output_file.unwrap_or(config.shiviz_output_file);
    Ok(config)
}
