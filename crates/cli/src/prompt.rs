//! `kvraft client`: a prompt that stays connected.
//!
//! Why: to see a cluster live through the death of its leader. A change that was under way is sent
//! again to the next leader under the same operation number, and is done once.
//!
//! Invariants:
//! - all changes of a prompt belong to one session, and are numbered from 1;
//! - read from a script (standard input is no terminal) it prints results only, goes on after an
//!   error, and then exits non-zero.

mod editor;
mod pipelined;
mod settings;

use std::{
    ffi::OsString, io::IsTerminal as _, num::NonZeroUsize, os::unix::ffi::OsStringExt as _,
    path::PathBuf, time::Duration,
};

use anyhow::{Result, bail};
use clap::Parser;
use futures::StreamExt as _;
use kvraft_client::{Builder, Client, EndpointId};

use self::{
    editor::{Editor, Line, Printer},
    pipelined::Pipelined,
    settings::Settings,
};
use crate::{
    connection::{Connection, Output, WriteOut, parse_address, print},
    kv_commands::{
        CompactOptions, DelOptions, GetOptions, PutOptions, Reply, Sections, compact_with,
        del_with, get_with, put_with, status_with, txn_with, words,
    },
};

/// How often the prompt looks who leads.
const LEADER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a command may take before the prompt says that it is still trying.
const PATIENCE: Duration = Duration::from_secs(1);

/// Talk to a cluster at a prompt that survives its leader
///
/// Changes belong to a session and are numbered, so that one whose answer was lost is sent again
/// and still done once. Type `help` there for the commands; Tab completes, arrows recall.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft client
  kvraft client --endpoints 127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383
  echo 'get color' | kvraft client
  kvraft client --config config/client.toml --ch-capacity 8 < script
  kvraft client --no-session               for a plain etcd")]
pub(crate) struct ClientArgs {
    /// Send changes without a session: for a plain etcd, and not sent again when in doubt
    #[arg(long)]
    no_session: bool,
    /// Read the configuration from here; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Start puts and gets of one key without waiting for their results, at most so many at a
    /// time; results are printed under the operation's number
    #[arg(long, value_name = "COUNT")]
    ch_capacity: Option<NonZeroUsize>,
    /// Ask nothing before all servers have joined
    #[arg(long)]
    wait_for_all: bool,
    /// Record what this client does, at this tracing server
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, conflicts_with = "no_session")]
    tracing_server: Option<String>,
    /// This client's name in traces: one word [default: client1]
    #[arg(long, value_name = "NAME")]
    tracing_identity: Option<String>,
    /// Where typed lines are kept [default: ~/.kvraft_history]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// One line at the prompt.
#[derive(clap::Parser, Debug)]
#[command(no_binary_name = true, name = "", help_template = "{subcommands}")]
enum Command {
    /// Write a key: put KEY VALUE
    Put(PutOptions),
    /// Read a key or a range: `get KEY [RANGE_END]`
    Get(GetOptions),
    /// Delete a key or a range: `del KEY [RANGE_END]`
    Del(DelOptions),
    /// Compare, then do one of two lists; asks for each part
    Txn,
    /// Forget what the store was before a revision
    Compact(CompactOptions),
    /// Ask each server how it is
    Status,
    /// Look who leads
    Leader,
    /// Which session this is and which operation was its last
    Session,
    /// Leave
    #[command(alias = "quit")]
    Exit,
}

/// A prompt and what it talks to.
struct Prompt {
    client: Client,
    write_out: WriteOut,
    editor: Editor,
    is_terminal: bool,
    failed_count: u64,
    /// Of a prompt that does not wait for results.
    pipelined: Option<Pipelined>,
}

/// Reads and carries out lines until the end.
pub(crate) async fn run(args: ClientArgs) -> Result<()> {
    let is_terminal = std::io::stdin().is_terminal();
    let history = is_terminal
        .then(|| args.history.or_else(|| Some(std::env::home_dir()?.join(".kvraft_history"))))
        .flatten();
    let settings = Settings::read(args.config.as_deref())?;
    let connection = args.connection.or(settings.connection());
    let builder = connection.patient();
    let builder = if args.no_session { builder } else { builder.exactly_once() };
    let builder = match args.tracing_server.or(settings.tracing_server) {
        Some(address) if !args.no_session => {
            let name = args.tracing_identity.or(settings.tracing_identity);
            builder.trace_to(address, name.unwrap_or_else(|| "client1".to_owned()))
        }
        _ => builder,
    };
    let waits_for_all = args.wait_for_all || settings.wait_for_all;
    let client = connected(builder, connection.has_coordinator(), waits_for_all).await?;
    let pipelined = match args.ch_capacity.or(settings.ch_capacity) {
        Some(capacity) => Some(Pipelined::start(&client, capacity, is_terminal).await?),
        None => None,
    };
    let mut editor = Editor::new(history)?;
    let leader = client.find_leader().await;
    let watching = is_terminal.then(|| {
        println!("{} Type help for the commands.", leader_text(&client, leader));
        tokio::spawn(watch(client.clone(), leader, editor.printer()))
    });
    let write_out = args.output.write_out;
    let mut prompt = Prompt { client, write_out, editor, is_terminal, failed_count: 0, pipelined };
    let outcome = prompt.talk().await;
    if let Some(pipelined) = prompt.pipelined.take() {
        prompt.failed_count += pipelined.end().await;
    }
    if let Some(watching) = watching {
        watching.abort();
    }
    // A session that cannot be given back expires by itself.
    let brief = Duration::from_secs(3);
    let _closed = tokio::time::timeout(brief, prompt.client.close()).await;
    outcome?;
    if !is_terminal && 0 < prompt.failed_count {
        bail!("{} commands failed", prompt.failed_count);
    }
    Ok(())
}

/// Without a coordinator nothing is waited for that was not asked for: a prompt is of use without a
/// leader, too.
async fn connected(builder: Builder, has_coordinator: bool, waits_for_all: bool) -> Result<Client> {
    if has_coordinator {
        let builder = if waits_for_all { builder.wait_for_all() } else { builder };
        return Ok(builder.connect().await?);
    }
    let client = builder.build()?;
    if waits_for_all {
        client.wait_for_all().await?;
    }
    Ok(client)
}

impl Prompt {
    async fn talk(&mut self) -> Result<()> {
        loop {
            let text = match self.editor.read("kvraft> ").await? {
                Line::Text(text) if text.trim().is_empty() || text.starts_with('#') => continue,
                Line::Text(text) => text,
                Line::Cancelled => continue,
                Line::End => return Ok(()),
            };
            match self.obey(&text).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.failed_count += 1;
                    eprintln!("error: {error:#}");
                }
            }
        }
    }

    /// Carries out one line; false means leave.
    async fn obey(&mut self, text: &str) -> Result<bool> {
        let words = words(text)?.into_iter().map(OsString::from_vec);
        let command = match Command::try_parse_from(words) {
            Ok(command) => command,
            Err(error) if !error.use_stderr() => {
                print(error.to_string().as_bytes())?;
                return Ok(true);
            }
            Err(error) => bail!("{}", first_line(&error.to_string())),
        };
        let Some(command) = self.start(command).await? else { return Ok(true) };
        let client = self.client.clone();
        let reply = match command {
            Command::Exit => return Ok(false),
            Command::Leader => {
                let leader = client.find_leader().await;
                println!("{}", leader_text(&client, leader));
                return Ok(true);
            }
            Command::Session => {
                println!("{}", session_text(&client));
                return Ok(true);
            }
            Command::Status => {
                let (reply, failed) = status_with(&client).await?;
                print(&reply.render(self.write_out)?)?;
                if !failed.is_empty() {
                    bail!("{}", failed.join("\n       "));
                }
                return Ok(true);
            }
            Command::Put(options) => self.patiently(put_with(&client, options)).await?,
            Command::Get(options) => self.patiently(get_with(&client, options)).await?,
            Command::Del(options) => self.patiently(del_with(&client, options)).await?,
            Command::Compact(options) => self.patiently(compact_with(&client, options)).await?,
            Command::Txn => match self.read_txn().await? {
                Some(request) => self.patiently(txn_with(&client, request)).await?,
                None => return Ok(true),
            },
        };
        print(&reply.render(self.write_out)?)?;
        Ok(true)
    }

    /// Starts what need not be waited for. Gives back what must, when all before it has ended.
    async fn start(&mut self, command: Command) -> Result<Option<Command>> {
        let Some(pipelined) = &mut self.pipelined else { return Ok(Some(command)) };
        match command {
            Command::Put(options) => pipelined.put(options.request()?).await?,
            Command::Get(options) if options.is_plain() => {
                pipelined.get(options.request()?.key).await?;
            }
            command => {
                pipelined.drain().await;
                return Ok(Some(command));
            }
        }
        Ok(None)
    }

    /// Waits for a reply and says so when it takes long; Ctrl-C gives up waiting.
    async fn patiently(&self, reply: impl Future<Output = Result<Reply>>) -> Result<Reply> {
        let mut reply = std::pin::pin!(reply);
        let mut ticks = tokio::time::interval(PATIENCE);
        ticks.reset();
        loop {
            tokio::select! {
                reply = &mut reply => return reply,
                _ = tokio::signal::ctrl_c(), if self.is_terminal => {
                    bail!("given up; a change that was sent may still be made");
                }
                _ = ticks.tick() => {
                    if self.is_terminal {
                        let asked = self.client.preferred();
                        eprintln!("no answer yet, asking {asked}, {}", session_text(&self.client));
                    }
                }
            }
        }
    }

    /// Reads the three parts of a transaction; `None` if it was cancelled.
    async fn read_txn(&mut self) -> Result<Option<kvraft_client::proto::etcdserverpb::TxnRequest>> {
        let mut sections = Sections::default();
        let mut failure = None;
        loop {
            if sections.is_at_start() && self.is_terminal {
                println!("{}  (an empty line ends this part)", sections.title());
            }
            let is_over = match self.editor.read("...> ").await? {
                Line::Cancelled => return Ok(None),
                Line::End => true,
                Line::Text(line) => match sections.push(&line) {
                    Ok(is_over) => is_over,
                    // At a terminal the line can be typed again; the rest of a script would be
                    // taken for commands, so it is read to the end of the transaction.
                    Err(error) if self.is_terminal => {
                        eprintln!("error: {error:#}");
                        false
                    }
                    Err(error) => {
                        failure = failure.or(Some(error));
                        false
                    }
                },
            };
            match (is_over, failure.take()) {
                (true, Some(error)) => return Err(error),
                (true, None) => return sections.finish().map(Some),
                (false, earlier) => failure = earlier,
            }
        }
    }
}

/// Says when the leader changes, above the line that is being typed.
async fn watch(client: Client, leader: Option<EndpointId>, printer: Option<Printer>) {
    let mut changes = std::pin::pin!(client.leader_changes(leader, LEADER_CHECK_INTERVAL));
    let Some(mut printer) = printer else { return };
    while let Some(leader) = changes.next().await {
        printer.print(format!("{}\n", leader_text(&client, leader)));
    }
}

fn leader_text(client: &Client, leader: Option<EndpointId>) -> String {
    let name = client.endpoints().find(|(endpoint, _)| Some(*endpoint) == leader);
    match name {
        Some((_, name)) => format!("{name} leads."),
        None => "No leader among the endpoints.".to_owned(),
    }
}

fn session_text(client: &Client) -> String {
    match client.session() {
        Some((session, op)) => format!("session {session}, last operation {op}"),
        None => "no session yet".to_owned(),
    }
}

/// The first line of what clap says, without its "error: ".
fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line)
}

#[cfg(test)]
mod tests;
