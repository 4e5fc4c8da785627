//! Copies of a disk as it is at the moments that matter most, for the world to try losses of power
//! on without losing any: where a name has just come, changed or gone, or a file has just become
//! shorter, and what has to be durable before is, or is not; and before a file of another size is
//! synced.

use std::sync::{Arc, Mutex};

use super::{Platter, SimDisk, lock};

/// So many copies, by what they were or will be made at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exposures {
    /// Changes of names.
    pub(crate) names: usize,
    /// Files that became shorter, and syncs of files whose size has changed.
    pub(crate) sizes: usize,
}

/// Copies that were made, and how many may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Film {
    copies: Vec<Platter>,
    made: Exposures,
    most: Exposures,
}

impl SimDisk {
    /// The next moments of each kind leave a copy of the disk each, so many of them.
    pub(crate) fn load_film(&self, most: Exposures) {
        lock(&self.platter).film = Film { most, ..Film::default() };
    }

    /// The copies that were made, in order, and at what. None is made any more.
    pub(crate) fn take_film(&self) -> (Vec<Self>, Exposures) {
        let film = std::mem::take(&mut lock(&self.platter).film);
        (film.copies.into_iter().map(Self::of).collect(), film.made)
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
    /// A name has changed, which a loss of power may undo, or not.
    pub(super) fn expose_name(&mut self) {
        if self.film.made.names < self.film.most.names {
            self.film.made.names += 1;
            self.keep_copy();
        }
    }

    /// A file became shorter, or is about to be synced at another size.
    pub(super) fn expose_size(&mut self) {
        if self.film.made.sizes < self.film.most.sizes {
            self.film.made.sizes += 1;
            self.keep_copy();
        }
    }

    fn keep_copy(&mut self) {
        let copy = self.copy();
        self.film.copies.push(copy);
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
