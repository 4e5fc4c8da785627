//! The `kvraft` command: everything that a person does with kvraft begins here.
//!
//! Here are only the names of the commands and the way to them; each has a module of its own.

mod cluster;
mod log_cmd;
mod noop_server;
mod server_cmd;
mod signals;
mod sim_cmd;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// A replicated, durable key-value store with etcd's API
#[derive(Parser, Debug)]
#[command(name = "kvraft", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Cluster(cluster::ClusterArgs),
    Server(server_cmd::ServerArgs),
    Log(log_cmd::LogArgs),
    Sim(sim_cmd::SimArgs),
    #[command(hide = true)]
    NoopServer(noop_server::NoopServerArgs),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Cluster(args) => block_on(cluster::run(args)),
        Command::Server(args) => block_on(server_cmd::run(args)),
        Command::Log(args) => log_cmd::run(&args),
        Command::Sim(args) => Ok(sim_cmd::main(&args)),
        Command::NoopServer(args) => block_on(noop_server::run(args)),
    }
}

/// Runs a command that waits for sockets, processes or signals.
fn block_on(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(command);
    // A thread that reads a terminal's input cannot be interrupted: it is not waited for.
    runtime.shutdown_background();
    outcome
}
