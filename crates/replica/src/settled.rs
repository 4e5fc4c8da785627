//! The settled part of the machine's state: the table, or in a replay what was read from it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
};

use bytes::Bytes;
use kvraft_base::{Damage, Records, RowVisitor, TableId};
use kvraft_store::{TableReader, TableView};

/// What one read of the table has found.
pub(crate) type Row = Option<Bytes>;

/// Reads the settled state, and keeps what it has read while it is listened to.
#[derive(Debug)]
pub(crate) struct Settled {
    source: Source,
    is_listened_to: Cell<bool>,
    heard: RefCell<Vec<Row>>,
}

#[derive(Debug)]
enum Source {
    /// One view of the table, opened when it is first read after a checkpoint. What is newer than
    /// the view is in the overlay.
    Table(TableReader, OnceCell<Box<TableView>>),
    /// What was read, in order.
    Recording(RefCell<VecDeque<Row>>),
}

impl Settled {
    pub(crate) fn new(reader: TableReader) -> Self {
        Self::of(Source::Table(reader, OnceCell::new()))
    }

    /// Without a table: what reads are to find is told by [`Settled::expect`].
    pub(crate) fn recorded() -> Self {
        Self::of(Source::Recording(RefCell::default()))
    }

    fn of(source: Source) -> Self {
        Self { source, is_listened_to: Cell::new(false), heard: RefCell::default() }
    }

    /// Another table has taken the place of the old one.
    pub(crate) fn replace(&mut self, reader: TableReader) {
        self.source = Source::Table(reader, OnceCell::new());
    }

    /// The table; none in a replay.
    pub(crate) fn reader(&self) -> Option<&TableReader> {
        match &self.source {
            Source::Table(reader, _) => Some(reader),
            Source::Recording(_) => None,
        }
    }

    /// A checkpoint has left the overlay: the next read needs a newer view.
    pub(crate) fn refresh(&mut self) {
        if let Source::Table(_, view) = &mut self.source {
            *view = OnceCell::new();
        }
    }

    /// Whether what is read from now on is kept.
    pub(crate) fn listen(&self, on: bool) {
        self.is_listened_to.set(on);
    }

    /// What was read while it was listened to.
    pub(crate) fn take_heard(&mut self) -> Vec<Row> {
        std::mem::take(self.heard.get_mut())
    }

    /// In a replay: what the next reads find.
    pub(crate) fn expect(&mut self, rows: Vec<Row>) {
        if let Source::Recording(expected) = &mut self.source {
            *expected.get_mut() = rows.into();
        }
    }

    /// In a replay: how many rows were expected to be read and were not.
    pub(crate) fn unread_count(&self) -> usize {
        match &self.source {
            Source::Table(..) => 0,
            Source::Recording(rows) => rows.borrow().len(),
        }
    }

    fn find(&self, table: TableId, key: &[u8]) -> Result<Row, Damage> {
        match &self.source {
            Source::Table(reader, view) => view_of(reader, view)?.read(table, key),
            Source::Recording(rows) => rows.borrow_mut().pop_front().ok_or_else(unrecorded),
        }
    }
}

fn view_of<'a>(
    reader: &TableReader,
    view: &'a OnceCell<Box<TableView>>,
) -> Result<&'a TableView, Damage> {
    if view.get().is_none() {
        let opened = Box::new(reader.view()?);
        return Ok(view.get_or_init(|| opened));
    }
    Ok(view.get().expect("looked at above"))
}

fn unrecorded() -> Damage {
    Damage::Lost { what: "recording".into(), detail: "it lacks a row that is read".into() }
}

impl Records for Settled {
    fn read(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Damage> {
        let row = self.find(table, key)?;
        if self.is_listened_to.get() {
            self.heard.borrow_mut().push(row.clone());
        }
        Ok(row)
    }

    fn scan(
        &self,
        table: TableId,
        first: &[u8],
        end: Option<&[u8]>,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), Damage> {
        match &self.source {
            Source::Table(reader, view) => view_of(reader, view)?.scan(table, first, end, visit),
            // Applying an entry never scans.
            Source::Recording(_) => Err(unrecorded()),
        }
    }
}
