//! `kvraft put|get|del|txn|compact|status`: one request each, printed as etcdctl prints it.
//!
//! Invariants:
//! - results go to standard output, errors to standard error with a non-zero exit;
//! - nothing is sent that a plain etcd server does not know.

pub(crate) mod json;
mod options;
mod reply;
mod simple;
mod txn_text;
mod words;

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, bail};
use kvraft_client::{Client, Error, proto::etcdserverpb::TxnRequest};

pub(crate) use self::{
    options::{CompactOptions, DelOptions, GetOptions, PutOptions},
    reply::Reply,
    txn_text::Sections,
    words::words,
};
use crate::connection::{Connection, Output, print};

/// Write a key
///
/// Without a value, the value is read from standard input.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft put color blue
  kvraft put color green --prev-kv
  kvraft put photo < photo.jpg
  kvraft put -- key -value-with-a-dash")]
pub(crate) struct PutArgs {
    #[command(flatten)]
    options: PutOptions,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Read a key or a range of keys
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft get color
  kvraft get color --print-value-only
  kvraft get user/ --prefix --keys-only --limit 10
  kvraft get a f                           all keys from a up to but not including f
  kvraft get '' --prefix --count-only      how many keys there are
  kvraft get color --rev 7 -w json         as it was at revision 7")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    options: GetOptions,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Delete a key or a range of keys; prints how many
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft del color
  kvraft del user/ --prefix --prev-kv")]
pub(crate) struct DelArgs {
    #[command(flatten)]
    options: DelOptions,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Compare, then do one of two lists of operations, as one
///
/// Reads from standard input: comparisons, an empty line, what to do if all hold, an empty line,
/// what to do otherwise, an empty line. A comparison is TARGET("KEY") OP "VALUE" with TARGET one of
/// value, version, create, mod, lease (or val, ver, c, m) and OP one of = != < >. An operation is
/// put, get or del with its options.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  kvraft txn <<'END'
  value(\"color\") = \"blue\"

  put color green
  get color

  put color blue

  END")]
pub(crate) struct TxnArgs {
    /// Prompt for each part, as etcdctl does
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Forget what the store was before a revision
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  kvraft compact 1200 --physical")]
pub(crate) struct CompactArgs {
    #[command(flatten)]
    options: CompactOptions,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Ask each server how it is
///
/// Prints for each: endpoint, member id, version of the program, size of its table, whether it
/// leads, whether it is a learner, term, committed index, applied index, errors, and the cluster
/// version.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  kvraft status --endpoints 127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// `kvraft put`.
pub(crate) async fn put(args: PutArgs) -> Result<()> {
    let mut options = args.options;
    if options.wants_value() {
        let mut value = Vec::new();
        std::io::stdin().read_to_end(&mut value).context("reading the value")?;
        options.set_value(value);
    }
    let reply = put_with(&args.connection.client()?, options).await?;
    print(&reply.render(args.output.write_out)?)
}

/// `kvraft get`.
pub(crate) async fn get(args: GetArgs) -> Result<()> {
    let reply = get_with(&args.connection.client()?, args.options).await?;
    print(&reply.render(args.output.write_out)?)
}

/// `kvraft del`.
pub(crate) async fn del(args: DelArgs) -> Result<()> {
    let reply = del_with(&args.connection.client()?, args.options).await?;
    print(&reply.render(args.output.write_out)?)
}

/// `kvraft txn`.
pub(crate) async fn txn(args: TxnArgs) -> Result<()> {
    let mut sections = Sections::default();
    let is_prompting = args.interactive || std::io::stdin().is_terminal();
    if is_prompting {
        println!("{}", sections.title());
    }
    for line in std::io::stdin().lines() {
        if sections.push(&line.context("reading the transaction")?)? {
            break;
        }
        if is_prompting && sections.is_at_start() {
            println!("{}", sections.title());
        }
    }
    let reply = txn_with(&args.connection.client()?, sections.finish()?).await?;
    print(&reply.render(args.output.write_out)?)
}

/// `kvraft compact`.
pub(crate) async fn compact(args: CompactArgs) -> Result<()> {
    let reply = compact_with(&args.connection.client()?, args.options).await?;
    print(&reply.render(args.output.write_out)?)
}

/// `kvraft status`.
pub(crate) async fn status(args: StatusArgs) -> Result<()> {
    let (reply, failed) = status_with(&args.connection.client()?).await?;
    print(&reply.render(args.output.write_out)?)?;
    for failure in &failed {
        eprintln!("{failure}");
    }
    if !failed.is_empty() {
        bail!("{} of {} servers did not answer", failed.len(), args.connection.endpoints().len());
    }
    Ok(())
}

/// Writes a key.
pub(crate) async fn put_with(client: &Client, options: PutOptions) -> Result<Reply> {
    Ok(Reply::Put(client.put_with(options.request()?).await?))
}

/// Reads.
pub(crate) async fn get_with(client: &Client, options: GetOptions) -> Result<Reply> {
    let show = options.show();
    Ok(Reply::Range(client.range(options.request()?).await?, show))
}

/// Deletes.
pub(crate) async fn del_with(client: &Client, options: DelOptions) -> Result<Reply> {
    Ok(Reply::Delete(client.delete_range(options.request()?).await?))
}

/// Does one of two lists.
pub(crate) async fn txn_with(client: &Client, request: TxnRequest) -> Result<Reply> {
    Ok(Reply::Txn(client.txn(request).await?))
}

/// Forgets.
pub(crate) async fn compact_with(client: &Client, options: CompactOptions) -> Result<Reply> {
    let response = client.compact(options.revision, options.physical).await?;
    Ok(Reply::Compact(response, options.revision))
}

/// Asks all servers at once; those that do not answer are told of beside the reply.
pub(crate) async fn status_with(client: &Client) -> Result<(Reply, Vec<String>)> {
    let asked = client
        .endpoints()
        .map(|(endpoint, name)| async move { (name.to_owned(), client.status(endpoint).await) });
    let mut members = Vec::new();
    let mut failed = Vec::new();
    for (endpoint, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(status) => members.push(reply::MemberStatus { endpoint, status }),
            Err(Error::Unavailable { cause, .. }) => failed.push(format!("{endpoint}: {cause}")),
            Err(error) => failed.push(format!("{endpoint}: {error}")),
        }
    }
    Ok((Reply::Status(members), failed))
}

#[cfg(test)]
mod tests;
