//! Everything in a journal, for people: read-only, damaged parts named.

use kvraft_base::{Disk, Entry, HardState, Index, Position};

use crate::{
    OpenError, identity,
    journal::{self, Part, Scan, layout::HeaderFault},
};

/// One thing found in a journal, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpItem {
    /// A segment begins.
    Segment {
        /// Path of its file.
        path: String,
        /// Size of its file in bytes.
        size_bytes: u64,
        /// The log's position before it.
        prev: Position,
        /// Whether the log begins anew here.
        reset: bool,
        /// Hard state as of its creation.
        hard_state: HardState,
        /// Up to where the log was durable then.
        attested: Index,
    },
    /// A batch begins; its entries follow.
    Batch {
        /// Path of its segment.
        path: String,
        /// Where in it.
        offset: u64,
        /// Number of the batch.
        sequence: u64,
        /// Hard state as of this batch.
        hard_state: HardState,
        /// What was cut off the log before the entries.
        truncate_from: Option<Index>,
        /// What the entries follow.
        prev: Position,
        /// Up to where the log was durable before this batch.
        attested: Index,
        /// How many entries follow.
        entry_count: u32,
    },
    /// An entry.
    Entry {
        /// Path of its segment.
        path: String,
        /// Where its batch begins.
        offset: u64,
        /// The entry itself.
        entry: Entry,
    },
    /// Bytes that are not believed: torn, damaged, or left from the file's earlier life.
    Unreadable {
        /// Path of the segment.
        path: String,
        /// Where in it.
        offset: u64,
        /// How many bytes, at least.
        size_bytes: u64,
        /// What is wrong.
        detail: String,
    },
}

/// Shows everything in the journal of a data directory; changes nothing.
///
/// # Errors
/// [`OpenError`] when the directory is not ours or the disk fails. Damage is not an error here.
pub fn dump(disk: &dyn Disk, visit: &mut dyn FnMut(DumpItem)) -> Result<(), OpenError> {
    identity::read_identity(disk)?;
    for number in journal::list_segments(disk)? {
        let found = journal::scan(disk, number)?;
        dump_header(&found, visit);
        for part in found.parts {
            dump_part(&found.path, part, visit);
        }
    }
    Ok(())
}

fn dump_header(found: &Scan, visit: &mut dyn FnMut(DumpItem)) {
    let path = found.path.clone();
    let detail = match &found.header {
        Ok(header) => {
            return visit(DumpItem::Segment {
                path,
                size_bytes: found.size,
                prev: header.prev,
                reset: header.kind == journal::layout::SegmentKind::Reset,
                hard_state: header.hard_state,
                attested: header.attested,
            });
        }
        Err(HeaderFault::Damaged(detail)) => (*detail).to_owned(),
        Err(HeaderFault::Newer { needed }) => format!("needs a reader of format {needed}"),
    };
    visit(DumpItem::Unreadable { path, offset: 0, size_bytes: journal::layout::SECTOR, detail });
}

fn dump_part(path: &str, part: Part, visit: &mut dyn FnMut(DumpItem)) {
    match part {
        Part::Batch { offset, header, entries } => {
            visit(DumpItem::Batch {
                path: path.into(),
                offset,
                sequence: header.sequence,
                hard_state: header.hard_state,
                truncate_from: header.truncate_from,
                prev: header.prev,
                attested: header.attested,
                entry_count: header.entry_count,
            });
            for entry in entries {
                visit(DumpItem::Entry { path: path.into(), offset, entry });
            }
        }
        Part::Broken { offset, header, detail } => visit(DumpItem::Unreadable {
            path: path.into(),
            offset,
            size_bytes: header.padded_size(),
            detail: format!("batch {}: {detail}", header.sequence),
        }),
        Part::Unknown { offset, size } => visit(DumpItem::Unreadable {
            path: path.into(),
            offset,
            size_bytes: size,
            detail: "neither a batch nor zeroes".into(),
        }),
    }
}
