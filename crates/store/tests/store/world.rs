//! A workload over a whole data directory and a model of what must survive it.

use bytes::Bytes;
use kvraft_base::{
    Checkpoint, ClusterId, Disk, Entry, EntryKind, HardState, Index, META_APPLIED, MemberId,
    Members, Position, Prng, Records, TableId, TableOp, Term, Write, WriteId, Writer,
};
use kvraft_store::{Identity, Import, Opened, Options, Table, format, open};

use crate::disk::TestDisk;

pub(crate) const OPTIONS: Options =
    Options { segment_size_bytes: 4096, cache_size_bytes: 1024 * 1024, quick_repair_from_bytes: 0 };

pub(crate) fn identity() -> Identity {
    let members = Members::new([MemberId(1), MemberId(2), MemberId(3)]).unwrap();
    Identity { cluster: ClusterId(77), member: MemberId(1), members }
}

pub(crate) fn formatted() -> TestDisk {
    let disk = TestDisk::new();
    format(&disk, &identity()).unwrap();
    disk
}

pub(crate) fn opened(disk: &TestDisk) -> Opened {
    open(disk, &OPTIONS, None).unwrap()
}

pub(crate) fn entry(term: u64, index: u64, size: usize) -> Entry {
    let mut payload = format!("{index}@{term} ").into_bytes();
    payload.resize(size.max(payload.len()), b'.');
    Entry::new(Term(term), Index(index), EntryKind::Command, payload.into())
}

pub(crate) fn configuration(term: u64, index: u64, members: &Members) -> Entry {
    Entry::new(Term(term), Index(index), EntryKind::Config, members.encode())
}

pub(crate) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let vote = Some(MemberId(vote)).filter(|id| *id != MemberId::ZERO);
    HardState { term: Term(term), vote, commit: Index(commit) }
}

pub(crate) fn write(hard_state: HardState, truncate: Option<u64>, entries: Vec<Entry>) -> Write {
    Write { id: WriteId(1), hard_state, truncate_from: truncate.map(Index), entries }
}

/// A checkpoint that sets one row per given entry.
pub(crate) fn checkpoint(entries: &[Entry]) -> Checkpoint {
    let applied = entries.last().unwrap().position();
    let mut ops: Vec<TableOp> = entries.iter().map(row).collect();
    ops.push(applied_row(applied));
    Checkpoint { applied, ops }
}

fn row(entry: &Entry) -> TableOp {
    let key = Bytes::copy_from_slice(&entry.index.0.to_be_bytes());
    TableOp::Put { table: TableId::Records, key, value: entry.payload.clone() }
}

pub(crate) fn applied_row(applied: Position) -> TableOp {
    let mut value = Writer::new();
    value.u64(applied.term.0).u64(applied.index.0);
    let key = Bytes::from_static(META_APPLIED);
    TableOp::Put { table: TableId::Meta, key, value: value.finish() }
}

/// Keys and values.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// All rows of a table.
pub(crate) fn rows(records: &dyn Records) -> Rows {
    let mut rows = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    };
    records.scan(TableId::Records, &[], None, visit).unwrap();
    rows
}

/// The log and the hard state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) hard_state: HardState,
    /// Before the first entry.
    pub(crate) start: Position,
    pub(crate) log: Vec<Entry>,
}

/// What the directory may hold after a crash.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// From the last that is durable to the last that was begun.
    pub(crate) moments: Vec<Moment>,
    /// Likewise; position and rows.
    pub(crate) tables: Vec<(Position, Rows)>,
    /// Tables from this one on came by snapshot and need the log that was begun for it.
    pub(crate) snapshot: Option<Position>,
}

impl Model {
    pub(crate) fn new() -> Self {
        let start =
            Moment { hard_state: HardState::default(), start: Position::ZERO, log: Vec::new() };
        Self { moments: vec![start], tables: vec![(Position::ZERO, Vec::new())], snapshot: None }
    }

    pub(crate) fn now(&self) -> &Moment {
        self.moments.last().unwrap()
    }

    fn begin_write(&mut self, write: &Write) {
        let mut next = self.now().clone();
        next.hard_state = write.hard_state;
        if let Some(from) = write.truncate_from {
            next.log.retain(|entry| entry.index < from);
        }
        next.log.extend(write.entries.clone());
        self.moments.push(next);
    }

    fn settle_writes(&mut self) {
        self.moments.drain(..self.moments.len() - 1);
    }

    fn settle_tables(&mut self) {
        self.tables.drain(..self.tables.len() - 1);
    }

    /// Checks an opened directory against what it may be; then that is what it is.
    pub(crate) fn check(&mut self, opened: &Opened, context: &str) {
        let recovered = &opened.recovered;
        let read = rows(&opened.table.reader());
        let table =
            self.tables.iter().rposition(|table| *table == (recovered.applied, read.clone()));
        let table = table.unwrap_or_else(|| panic!("{context}: table at {}", recovered.applied));
        let by_snapshot = Some(recovered.applied) == self.snapshot;
        assert!(recovered.attested <= recovered.last.index, "{context}: muted: {recovered:?}");
        let log = self.log_of(opened);
        let fits = |moment: &Moment| {
            let kept = moment.log.iter().filter(|entry| recovered.released.index < entry.index);
            moment.hard_state == recovered.hard_state
                && kept.eq(log.iter())
                && (!by_snapshot || moment.start == recovered.applied)
                && moment.start <= recovered.released
        };
        let found = self.moments.iter().rposition(fits);
        let found = found.unwrap_or_else(|| {
            let brief = |moment: &Moment| {
                let log: Vec<Position> = moment.log.iter().map(Entry::position).collect();
                format!("{:?} {} {log:?}\n", moment.hard_state, moment.start)
            };
            let found: Vec<Position> = log.iter().map(Entry::position).collect();
            let allowed: String = self.moments.iter().map(brief).collect();
            panic!(
                "{context}: {:?} {} {found:?} {:?} is none of\n{allowed}",
                recovered.hard_state, recovered.released, recovered.notes
            )
        });
        self.moments = vec![self.moments[found].clone()];
        self.tables = vec![self.tables[table].clone()];
    }

    fn log_of(&self, opened: &Opened) -> Vec<Entry> {
        let (released, last) = (opened.recovered.released, opened.recovered.last);
        if released.index == last.index {
            return Vec::new();
        }
        let first = released.index.next();
        opened.journal.read(released, first, last.index, usize::MAX).unwrap().unwrap()
    }
}

type Failed = Box<dyn std::error::Error>;

/// Runs the same steps every time; stops where the disk fails, with the model as of then.
pub(crate) fn run(disk: &TestDisk, snapshot: &[Bytes], model: &mut Model) -> Result<(), Failed> {
    let mut at = open(disk, &OPTIONS, None)?;
    let mut prng = Prng::new(5);
    let mut settled = Index::ZERO;
    for turn in 0..30_u64 {
        append(&mut at, model, &mut prng, turn)?;
        if turn % 3 != 1 {
            at.journal.sync()?;
            model.settle_writes();
        }
        if turn % 5 == 4 {
            at.journal.sync()?;
            model.settle_writes();
            let release = settled;
            settled = settle(&mut at, model)?;
            at.journal.release(release)?;
        }
    }
    at.journal.sync()?;
    model.settle_writes();
    install(disk, &mut at, snapshot, model)?;
    for turn in 30..35 {
        append(&mut at, model, &mut prng, turn)?;
        at.journal.sync()?;
        model.settle_writes();
    }
    settle(&mut at, model)?;
    Ok(())
}

fn append(at: &mut Opened, model: &mut Model, prng: &mut Prng, turn: u64) -> Result<(), Failed> {
    let now = model.now();
    let last = now.log.last().map_or(now.start, Entry::position);
    let applied = model.tables.last().unwrap().0.index.0;
    let truncate = (turn % 4 == 3 && applied + 1 < last.index.0).then_some(last.index.0);
    let term = now.hard_state.term.0 + u64::from(truncate.is_some() || turn == 0);
    let first = truncate.unwrap_or(last.index.0 + 1);
    let count = prng.below(4);
    let sizes =
        (first..first + count).map(|index| (index, usize::try_from(prng.below(900)).unwrap()));
    let entries: Vec<Entry> = sizes.map(|(index, size)| entry(term, index, size)).collect();
    let commit = applied.max(now.hard_state.commit.0);
    let write = write(hard_state(term, 1 + term % 3, commit), truncate, entries);
    model.begin_write(&write);
    Ok(at.journal.append(&write)?)
}

/// Settles everything durable into the table.
fn settle(at: &mut Opened, model: &mut Model) -> Result<Index, Failed> {
    let (applied, rows) = model.tables.last().unwrap().clone();
    let log: Vec<Entry> =
        model.now().log.iter().filter(|entry| applied.index < entry.index).cloned().collect();
    if log.is_empty() {
        return Ok(applied.index);
    }
    let checkpoint = checkpoint(&log);
    let mut next = rows;
    next.extend(
        log.iter().map(|entry| (entry.index.0.to_be_bytes().to_vec(), entry.payload.to_vec())),
    );
    model.tables.push((checkpoint.applied, next));
    at.table.commit(&checkpoint)?;
    model.settle_tables();
    Ok(checkpoint.applied.index)
}

/// Where the snapshot of the workload is.
pub(crate) const SNAPSHOT: Position = Position { term: Term(9), index: Index(1000) };

fn install(
    disk: &TestDisk,
    at: &mut Opened,
    chunks: &[Bytes],
    model: &mut Model,
) -> Result<(), Failed> {
    let kept = HardState { term: Term(9), vote: None, commit: SNAPSHOT.index };
    let learned = write(HardState { commit: Index::ZERO, ..kept }, None, Vec::new());
    model.begin_write(&learned);
    at.journal.append(&learned)?;
    at.journal.sync()?;
    model.settle_writes();
    let mut import = Import::begin(disk, SNAPSHOT)?;
    for chunk in chunks {
        import.push(chunk.clone())?;
    }
    model.snapshot = Some(SNAPSHOT);
    model.tables.push((SNAPSHOT, snapshot_rows()));
    model.moments.push(Moment { hard_state: kept, start: SNAPSHOT, log: Vec::new() });
    import.install()?;
    model.settle_tables();
    at.table = Table::open(disk, &OPTIONS)?;
    at.journal.reset(SNAPSHOT, kept, None)?;
    model.settle_writes();
    Ok(())
}

fn snapshot_rows() -> Rows {
    snapshot_entries()
        .iter()
        .map(|entry| (entry.index.0.to_be_bytes().to_vec(), entry.payload.to_vec()))
        .collect()
}

fn snapshot_entries() -> Vec<Entry> {
    (991..=1000).map(|index| entry(9, index, 100)).collect()
}

/// The chunks of the snapshot that the workload installs.
pub(crate) fn snapshot() -> Vec<Bytes> {
    let disk = formatted();
    let mut at = opened(&disk);
    at.table.commit(&checkpoint(&snapshot_entries())).unwrap();
    let mut export = at.table.export().unwrap();
    std::iter::from_fn(|| export.next_chunk(300).unwrap()).collect()
}

/// Checks that a directory opens to something the model allows, and that a new entry stays.
pub(crate) fn check_and_use(disk: &TestDisk, model: &mut Model, context: &str) -> TestDisk {
    let mut at = open(disk as &dyn Disk, &OPTIONS, None)
        .unwrap_or_else(|error| panic!("{context}: cannot be opened: {error}"));
    model.check(&at, context);
    let now = model.now();
    let last = now.log.last().map_or(now.start, Entry::position);
    let last = last.max(at.recovered.released);
    let next = entry(now.hard_state.term.0.max(last.term.0), last.index.0 + 1, 10);
    let write = write(now.hard_state, None, vec![next]);
    model.begin_write(&write);
    at.journal.append(&write).unwrap();
    at.journal.sync().unwrap();
    model.settle_writes();
    disk.crash(crate::disk::Loss::All)
}
