//! `kvraft log DIR`: what a server's journal holds, one line an entry, damaged parts named.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use kvraft_base::{Entry, EntryKind, Position};
use kvraft_server::RealDisk;
use kvraft_store::DumpItem;

/// Print a server's log: one line an entry, damaged parts named
///
/// Reads only, and takes no lock: it works while the server runs. Ends with 1 when a part is
/// damaged.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kvraft log ./data/server-1/data
  kvraft log ./data/server-1/data | tail -n 1
      25. Term=1, Index=25, Entry=Put(k12,val12)")]
pub(crate) struct LogArgs {
    /// The server's data directory
    dir: PathBuf,
}

/// Prints it.
pub(crate) fn run(args: &LogArgs) -> Result<ExitCode> {
    let disk = RealDisk::inspect(&args.dir)?;
    let mut printer = Printer::new(BufWriter::new(io::stdout().lock()));
    kvraft_store::dump(&disk, &mut |item| printer.take(&item))
        .with_context(|| format!("cannot read the log in {}", args.dir.display()))?;
    printer.finish()
}

/// Writes lines until nobody reads them.
struct Printer<W> {
    out: W,
    /// The last item that was not readable. It is damage if a batch is missing where it stands, and
    /// else the rest of a file's earlier life, or what was just being written.
    unreadable: Option<String>,
    /// Number of the last batch.
    batch_last: Option<u64>,
    /// Where the log is after the last batch.
    last: Position,
    damaged_count: u64,
    failed: Option<io::Error>,
}

impl<W: Write> Printer<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            unreadable: None,
            batch_last: None,
            last: Position::ZERO,
            damaged_count: 0,
            failed: None,
        }
    }

    fn take(&mut self, item: &DumpItem) {
        match item {
            DumpItem::Segment { path, prev, reset, .. } => {
                let gap = self.batch_last.is_some() && !reset && *prev != self.last;
                self.end_part(gap, path);
                if self.batch_last.is_none() || *reset {
                    self.last = *prev;
                }
            }
            DumpItem::Batch { path, sequence, truncate_from, prev, .. } => {
                let expected = self.batch_last.map(|last| last + 1);
                let gap = expected.is_some_and(|expected| expected != *sequence);
                let unknown = expected.is_none() && self.unreadable.is_some();
                self.end_part(gap || unknown, path);
                self.batch_last = Some(*sequence);
                if let Some(first) = truncate_from {
                    self.line(&format!("(entries from index {first} on are replaced)"));
                    self.last = *prev;
                }
            }
            DumpItem::Entry { entry, .. } => {
                self.last = Position::new(entry.term, entry.index);
                self.line(&describe(entry));
            }
            DumpItem::Unreadable { path, offset, size_bytes, detail } => {
                let text = format!("{path} at offset {offset}, {size_bytes} bytes: {detail}");
                self.unreadable.get_or_insert(text);
            }
        }
    }

    /// Names what was not readable, if something is missing there.
    fn end_part(&mut self, gap: bool, next: &str) {
        let unreadable = self.unreadable.take();
        if gap {
            self.damaged_count += 1;
            let text = unreadable.unwrap_or_else(|| format!("batches are missing before {next}"));
            self.line(&format!("DAMAGED: {text}"));
        }
    }

    fn line(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{text}").err();
        }
    }

    fn finish(mut self) -> Result<ExitCode> {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
        match self.failed {
            // Whoever read it has seen enough.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            Some(error) => return Err(error).context("cannot write the log"),
            None => {}
        }
        if self.damaged_count == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("{} damaged parts", self.damaged_count);
        Ok(ExitCode::FAILURE)
    }
}

fn describe(entry: &Entry) -> String {
    let text = match entry.kind {
        EntryKind::Noop => "No-Op".to_owned(),
        EntryKind::Command => kvraft_kv::describe(&entry.payload),
        EntryKind::Config => "Config".to_owned(),
    };
    format!("{}. Term={}, Index={}, Entry={text}", entry.index, entry.term, entry.index)
}
