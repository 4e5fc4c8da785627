//! Tables under redb's own commits, on a disk that loses power, whose processes are killed, that
//! lies after a failed sync, and that loses writes.
//!
//! Groups of checksums are small in these tests, so that a table of some hundred blocks has many:
//! it grows and shrinks over their borders.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use kvraft_base::{DiskError, DiskErrorKind, DiskFile, Prng};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    blocks::{Backend, Blocks},
    sums::SECTOR_BYTES,
};

type Sector = [u8; SECTOR_BYTES];

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Box<Sector>),
    Len(usize),
}

/// One file: what reads see, and what is on the disk.
#[derive(Debug, Default)]
struct Platter {
    cache: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<Change>,
    /// What the last sync replaced.
    previous: Vec<Change>,
    /// So many changes succeed, and nothing after them.
    fuse: Option<u64>,
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Of what was not synced any sectors are there, each as one of its writes left it.
    Power,
    /// The machine goes on.
    Kill,
    /// A sync has failed and marked clean what it has not written.
    FalseClean,
}

#[derive(Clone, Debug, Default)]
struct File(Arc<Mutex<Platter>>);

fn sector(bytes: &[u8], index: usize) -> Option<Box<Sector>> {
    let start = index * SECTOR_BYTES;
    let bytes: Sector = bytes.get(start..start + SECTOR_BYTES)?.try_into().expect("a sector");
    Some(Box::new(bytes))
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Len(len) => bytes.resize(*len, 0),
        Change::Write(index, new) => {
            let start = index * SECTOR_BYTES;
            // What was written beyond an end that came later is gone.
            if let Some(old) = bytes.get_mut(start..start + SECTOR_BYTES) {
                old.copy_from_slice(&**new);
            }
        }
    }
}

impl Platter {
    fn is_dead(&self) -> bool {
        self.fuse == Some(0)
    }

    fn burn(&mut self) -> Result<(), DiskError> {
        self.fuse = self.fuse.map(|left| left.saturating_sub(1));
        if self.is_dead() { Err(failed()) } else { Ok(()) }
    }

    /// Of each sector's writes a drawn number has reached the disk; of the lengths all or some.
    fn keep_some(&mut self, prng: &mut Prng, loses_lengths: bool) {
        let mut writes: BTreeMap<usize, u64> = BTreeMap::new();
        for change in &self.pending {
            if let Change::Write(index, _) = change {
                *writes.entry(*index).or_default() += 1;
            }
        }
        let rarity = prng.between(1, 8);
        let kept = |count: u64, prng: &mut Prng| match prng.below(rarity + 1) {
            0 => 0,
            1 => count,
            _ => prng.below(count + 1),
        };
        let mut left: BTreeMap<usize, u64> =
            writes.into_iter().map(|(index, count)| (index, kept(count, prng))).collect();
        let lengths = self.pending.iter().filter(|it| matches!(it, Change::Len(_))).count() as u64;
        let mut lengths_left = if loses_lengths { prng.below(lengths + 1) } else { lengths };
        for change in std::mem::take(&mut self.pending) {
            let left = match &change {
                Change::Len(_) => &mut lengths_left,
                Change::Write(index, _) => left.get_mut(index).expect("it was counted"),
            };
            if 0 < *left {
                *left -= 1;
                apply(&mut self.durable, &change);
            }
        }
    }

    fn end(&mut self, end: End, prng: &mut Prng) {
        match end {
            End::Power => {
                self.keep_some(prng, true);
                self.cache.clone_from(&self.durable);
            }
            End::Kill => {}
            End::FalseClean => self.keep_some(prng, false),
        }
    }
}

fn failed() -> DiskError {
    let (kind, path, detail) = (DiskErrorKind::Failed, "table".into(), "dead".into());
    DiskError { kind, operation: "change", path, detail }
}

impl File {
    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
}

impl DiskFile for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let platter = self.lock();
        let start = usize::try_from(offset).unwrap();
        if platter.is_dead() {
            return Err(failed());
        }
        buffer.copy_from_slice(platter.cache.get(start..start + buffer.len()).ok_or_else(failed)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut platter = self.lock();
        let first = usize::try_from(offset).unwrap() / SECTOR_BYTES;
        for (index, bytes) in (first..).zip(bytes.chunks_exact(SECTOR_BYTES)) {
            platter.burn()?;
            let change = Change::Write(index, Box::new(bytes.try_into().unwrap()));
            apply(&mut platter.cache, &change);
            platter.pending.push(change);
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.lock().cache.len() as u64)
    }

    fn set_len(&self, size: u64) -> Result<(), DiskError> {
        let mut platter = self.lock();
        platter.burn()?;
        let change = Change::Len(usize::try_from(size).unwrap());
        apply(&mut platter.cache, &change);
        platter.pending.push(change);
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        let mut platter = self.lock();
        platter.burn()?;
        let pending = std::mem::take(&mut platter.pending);
        let before = platter.durable.clone();
        for change in &pending {
            apply(&mut platter.durable, change);
        }
        let written = pending.iter().filter_map(|change| match change {
            Change::Write(index, _) => Some((*index, sector(&before, *index)?)),
            Change::Len(_) => None,
        });
        let replaced: BTreeMap<_, _> = written.collect();
        platter.previous = replaced.into_iter().map(|(at, old)| Change::Write(at, old)).collect();
        Ok(())
    }
}

const ROWS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("rows");
const KEY_COUNT: u64 = 400;
/// The row that tells one commit from another.
const COMMIT: u64 = KEY_COUNT;

type Rows = BTreeMap<u64, Vec<u8>>;

fn open(file: &File) -> Result<Database, String> {
    // As when a data directory is opened.
    file.sync().map_err(|error| error.to_string())?;
    let blocks =
        Blocks::open(Box::new(file.clone()), "table").map_err(|error| error.to_string())?;
    let mut builder = Database::builder();
    builder.set_cache_size(256 * 1024);
    let opened = builder.create_with_backend(Backend(Arc::new(blocks)));
    opened.map_err(|error| error.to_string())
}

fn rows(database: &Database) -> Result<Rows, redb::Error> {
    let table = database.begin_read()?.open_table(ROWS)?;
    let rows = table.iter()?.map(|row| row.map(|(key, value)| (key.value(), value.value().into())));
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Changes a few rows, or many, or deletes nearly all.
fn change(rows: &mut Rows, number: u64, prng: &mut Prng) {
    match prng.below(8) {
        0 => rows.retain(|_, _| prng.chance(1, 10)),
        kind => {
            let (count, size_max) = if kind == 1 { (200, 3000) } else { (8, 9000) };
            for _ in 0..prng.between(1, count) {
                let size = usize::try_from(prng.between(1, size_max)).unwrap();
                rows.insert(prng.below(KEY_COUNT), vec![number.to_le_bytes()[0]; size]);
            }
        }
    }
    rows.insert(COMMIT, number.to_le_bytes().into());
}

fn commit(database: &Database, from: &Rows, to: &Rows, quick: bool) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(quick);
    {
        let mut table = transaction.open_table(ROWS)?;
        for key in from.keys().filter(|key| !to.contains_key(key)) {
            table.remove(key)?;
        }
        for (key, value) in to.iter().filter(|(key, value)| from.get(key) != Some(*value)) {
            table.insert(key, value.as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

/// A new table, and the rows of its first commit.
fn created(file: &File) -> Rows {
    let rows = Rows::from([(COMMIT, vec![0])]);
    commit(&open(file).unwrap(), &Rows::new(), &rows, false).unwrap();
    file.sync().unwrap();
    rows
}

/// However processes end, at any change, the next one finds all rows of the last commit that was
/// acknowledged, or of the one that was under way.
#[test]
fn what_was_committed_is_there_whatever_happens() {
    let mut commit_count = 0;
    for seed in 0..40 {
        let mut prng = Prng::new(seed);
        let file = File::default();
        let mut acknowledged = created(&file);
        let mut under_way = None;
        for life in 0..8 {
            let fuse = [Some(prng.between(1, 60)), Some(prng.between(1, 4000)), None];
            file.lock().fuse = *prng.pick(&fuse).unwrap();
            let opened = open(&file);
            assert!(
                opened.is_ok() || file.lock().is_dead(),
                "seed {seed}, life {life}: {opened:?}"
            );
            if let Ok(database) = opened {
                let found = rows(&database);
                if let Ok(found) = found {
                    let is_known = found == acknowledged || Some(&found) == under_way.as_ref();
                    assert!(is_known, "seed {seed}, life {life}: {:?}", found.get(&COMMIT));
                    (acknowledged, under_way) = (found, None);
                } else {
                    assert!(file.lock().is_dead(), "seed {seed}, life {life}: {found:?}");
                }
                for _ in 0..prng.below(8) {
                    commit_count += 1;
                    let mut next = acknowledged.clone();
                    change(&mut next, commit_count, &mut prng);
                    if file.lock().is_dead() {
                        break;
                    }
                    let done = commit(&database, &acknowledged, &next, prng.chance(1, 2));
                    if done.is_err() {
                        assert!(file.lock().is_dead(), "seed {seed}, life {life}: {done:?}");
                        under_way = Some(next);
                        break;
                    }
                    acknowledged = next;
                }
                if prng.chance(1, 2) {
                    file.lock().fuse = Some(0);
                }
            }
            let mut platter = file.lock();
            platter.fuse = None;
            platter.end(*prng.pick(&[End::Power, End::Kill, End::FalseClean]).unwrap(), &mut prng);
        }
    }
    assert!(500 < commit_count, "{commit_count}");
}

/// A disk has lost some of what its last sync wrote: the rows are those of some commit, or none can
/// be read; nothing panics.
#[test]
fn lost_writes_show_no_rows_that_never_were() {
    let mut outcomes = BTreeMap::new();
    for seed in 0..150 {
        let mut prng = Prng::new(seed);
        let file = File::default();
        let mut states = vec![created(&file)];
        let database = open(&file).unwrap();
        for number in 1..=prng.between(1, 6) {
            let last = states.last().unwrap();
            let mut next = last.clone();
            change(&mut next, number, &mut prng);
            commit(&database, last, &next, prng.chance(1, 2)).unwrap();
            states.push(next);
        }
        if prng.chance(1, 2) {
            file.lock().fuse = Some(0);
        }
        drop(database);
        let mut platter = file.lock();
        platter.fuse = None;
        platter.end(End::Power, &mut prng);
        for _ in 0..prng.between(1, 8) {
            if let Some(lost) = prng.pick(&platter.previous).cloned() {
                apply(&mut platter.durable, &lost);
            }
        }
        platter.cache = platter.durable.clone();
        drop(platter);
        let outcome = match open(&file).map(|database| rows(&database)) {
            Err(_) => "refused",
            Ok(Err(_)) => "not read",
            Ok(Ok(rows)) if Some(&rows) == states.last() => "the last",
            Ok(Ok(rows)) => {
                assert!(states.contains(&rows), "seed {seed}: {:?}", rows.get(&COMMIT));
                "an earlier one"
            }
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    assert!(["refused", "the last"].iter().all(|it| outcomes.contains_key(it)), "{outcomes:?}");
}
