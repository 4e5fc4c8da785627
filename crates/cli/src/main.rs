//! The `kvraft` command: everything that a person does with kvraft begins here.
//!
//! Here are only the names of the commands and the way to them; each has a module of its own.

mod bench;
mod check_cmd;
mod cluster;
mod config_file;
mod connection;
mod coord_cmd;
mod kv_commands;
mod log_cmd;
mod member_cmd;
mod move_leader_cmd;
mod noop_server;
mod prompt;
mod recover_cmd;
mod replay_cmd;
mod replication_test_cmd;
mod server_cmd;
mod signals;
mod sim_cmd;
mod trace_cmd;
mod tracing_server_cmd;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};

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
    Put(kv_commands::PutArgs),
    Get(kv_commands::GetArgs),
    Del(kv_commands::DelArgs),
    Txn(kv_commands::TxnArgs),
    Compact(kv_commands::CompactArgs),
    Status(kv_commands::StatusArgs),
    Member(member_cmd::MemberArgs),
    MoveLeader(move_leader_cmd::MoveLeaderArgs),
    Client(prompt::ClientArgs),
    Bench(bench::BenchArgs),
    ReplicationTest(replication_test_cmd::ReplicationTestArgs),
    Log(log_cmd::LogArgs),
    Recover(recover_cmd::RecoverArgs),
    Replay(replay_cmd::ReplayArgs),
    Sim(sim_cmd::SimArgs),
    Check(check_cmd::CheckArgs),
    Trace(trace_cmd::TraceArgs),
    Coord(coord_cmd::CoordArgs),
    TracingServer(tracing_server_cmd::TracingServerArgs),
    Completion(CompletionArgs),
    #[command(hide = true)]
    NoopServer(noop_server::NoopServerArgs),
}

/// Print a script that teaches a shell to complete kvraft's commands
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  source <(kvraft completion bash)
  kvraft completion fish > ~/.config/fish/completions/kvraft.fish")]
struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
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
        Command::Put(args) => block_on(done(kv_commands::put(args))),
        Command::Get(args) => block_on(done(kv_commands::get(args))),
        Command::Del(args) => block_on(done(kv_commands::del(args))),
        Command::Txn(args) => block_on(done(kv_commands::txn(args))),
        Command::Compact(args) => block_on(done(kv_commands::compact(args))),
        Command::Status(args) => block_on(done(kv_commands::status(args))),
        Command::Member(args) => block_on(done(member_cmd::run(args))),
        Command::MoveLeader(args) => block_on(done(move_leader_cmd::run(args))),
        Command::Client(args) => block_on(done(prompt::run(args))),
        Command::Bench(args) => block_on(done(bench::run(args))),
        Command::ReplicationTest(args) => block_on(done(replication_test_cmd::run(args))),
        Command::Log(args) => log_cmd::run(&args),
        Command::Recover(args) => block_on(recover_cmd::run(args)),
        Command::Replay(args) => Ok(replay_cmd::run(&args)),
        Command::Sim(args) => Ok(sim_cmd::main(&args)),
        Command::Check(args) => check_cmd::run(&args),
        Command::Trace(args) => trace_cmd::run(&args),
        Command::Coord(args) => block_on(coord_cmd::run(args)),
        Command::TracingServer(args) => block_on(tracing_server_cmd::run(args)),
        Command::NoopServer(args) => block_on(noop_server::run(args)),
        Command::Completion(args) => completion(&args),
    }
}

/// A command that has only one good end.
async fn done(command: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    command.await.map(|()| ExitCode::SUCCESS)
}

fn completion(args: &CompletionArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "kvraft", &mut script);
    connection::print(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that waits for sockets, processes or signals.
fn block_on(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(command);
    // A thread that reads a terminal's input cannot be interrupted: it is not waited for.
    runtime.shutdown_background();
    outcome
}
