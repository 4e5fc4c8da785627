//! Copies of a disk as it is at the moments that matter most, for the world to try losses of power
//! on without losing any: where a name has just come, changed or gone, or a file has just become
//! shorter, and what has to be durable before is, or is not; and before a file of another size is
//! synced.

use std::sync::{Arc, Mutex};

use super::{Platter, SimDisk, lock};

/// Copies that were made, and how many more may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Film {
    copies: Vec<Platter>,
    left: usize,
    /// Sizes count, too.
    with_sizes: bool,
}

impl SimDisk {
    /// The next so many changes of names leave a copy of the disk each; with `with_sizes` syncs of
    /// files whose size has changed do so, too.
    pub(crate) fn load_film(&self, count: usize, with_sizes: bool) {
        lock(&self.platter).film = Film { copies: Vec::new(), left: count, with_sizes };
    }

    /// The copies that were made. None is made any more.
    pub(crate) fn take_film(&self) -> Vec<Self> {
        let film = std::mem::take(&mut lock(&self.platter).film);
        film.copies.into_iter().map(Self::of).collect()
    }

    /// Another disk, equal to what this one is now, with nothing armed.
    pub(crate) fn copy(&self) -> Self {
        Self::of(lock(&self.platter).copy())
    }

    /// A process that starts now finds the same on another copy of the same disk, byte for byte,
    /// and nothing that a loss of power may undo on either.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        lock(&self.platter).is_same(&lock(&other.platter))
    }

    fn of(platter: Platter) -> Self {
        let cycle = platter.cycle;
        Self { platter: Arc::new(Mutex::new(platter)), cycle }
    }
}

impl Platter {
    /// Something has changed that a loss of power may undo, or not.
    pub(super) fn expose(&mut self) {
        if 0 < self.film.left {
            let copy = self.copy();
            self.film.left -= 1;
            self.film.copies.push(copy);
        }
    }

    /// A file is about to be synced.
    pub(super) fn expose_size(&mut self, has_new_size: bool) {
        if has_new_size && self.film.with_sizes {
            self.expose();
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let both = self.files.iter().zip(&other.files);
        let mut both = both.map(|((left_id, left), (right_id, right))| {
            let is_shared = Arc::ptr_eq(&left.image, &right.image) && !left.image.is_dirty();
            left_id == right_id && (is_shared || left.image.is_same(&right.image))
        });
        self.names.is_same(&other.names)
            && self.files.len() == other.files.len()
            && both.all(|is_same| is_same)
    }

    fn copy(&mut self) -> Self {
        let film = std::mem::take(&mut self.film);
        let mut copy = self.clone();
        self.film = film;
        (copy.fuse, copy.capacity_bytes) = (None, None);
        (copy.sync_failure, copy.write_failure, copy.read_failure) = (None, None, None);
        copy.mend_sectors();
        copy
    }
}
