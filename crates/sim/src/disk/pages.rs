//! The bytes of a file in pages that copies of it share, until one of them writes.
//!
//! A simulated run copies its disks often, to try losses of power on, and almost nothing of a copy
//! is ever written: so a copy costs a pointer for each page, and what was before a write is kept by
//! keeping its page.
//!
//! Invariants:
//! - there are as many places as the size needs pages;
//! - a place without a page is all zeroes, and so is what a page has beyond the size.

use std::sync::Arc;

/// Unit of what is shared, and of the system's cache: what a write makes dirty and a sync writes.
pub(super) const PAGE_SIZE_BYTES: usize = 4096;

/// One page's bytes; cheap to clone.
pub(super) type Page = Arc<[u8; PAGE_SIZE_BYTES]>;

const ZEROES: [u8; PAGE_SIZE_BYTES] = [0; PAGE_SIZE_BYTES];

/// What a file, or a place without a page, has there.
pub(super) fn content(page: Option<&Page>) -> &[u8; PAGE_SIZE_BYTES] {
    page.map_or(&ZEROES, |page| page)
}

/// The bytes of a place, to be written: a page of its own from now on.
pub(super) fn content_mut(place: &mut Option<Page>) -> &mut [u8; PAGE_SIZE_BYTES] {
    Arc::make_mut(place.get_or_insert_with(|| Arc::new(ZEROES)))
}

/// One file's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    places: Vec<Option<Page>>,
    size: usize,
}

impl Pages {
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The page that begins at `number` pages from the start.
    pub(super) fn page(&self, number: usize) -> Option<&Page> {
        self.places.get(number)?.as_ref()
    }

    /// Another page, whole, which has zeroes beyond the size.
    pub(super) fn set_page(&mut self, number: usize, page: Option<Page>) {
        if let Some(place) = self.places.get_mut(number) {
            *place = page;
        }
    }

    /// Whether both hold the same: at once for pages that they share.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.size == other.size
            && self.places.iter().zip(&other.places).all(|(left, right)| match (left, right) {
                (Some(left), Some(right)) if Arc::ptr_eq(left, right) => true,
                (None, None) => true,
                _ => content(left.as_ref()) == content(right.as_ref()),
            })
    }

    /// False, and nothing is read, when there are fewer bytes.
    pub(super) fn read_at(&self, offset: usize, buffer: &mut [u8]) -> bool {
        if offset.checked_add(buffer.len()).is_none_or(|end| self.size < end) {
            return false;
        }
        let mut rest = buffer;
        let mut at = offset;
        while !rest.is_empty() {
            let start = at % PAGE_SIZE_BYTES;
            let count = rest.len().min(PAGE_SIZE_BYTES - start);
            let (piece, after) = rest.split_at_mut(count);
            match self.page(at / PAGE_SIZE_BYTES) {
                Some(page) => piece.copy_from_slice(&page[start..start + count]),
                None => piece.fill(0),
            }
            (at, rest) = (at + count, after);
        }
        true
    }

    /// The same into a buffer that is not there yet: no byte is set twice.
    pub(super) fn read_vec(&self, offset: usize, size: usize) -> Option<Vec<u8>> {
        let end = offset.checked_add(size).filter(|end| *end <= self.size)?;
        let mut bytes = Vec::with_capacity(size);
        let mut at = offset;
        while at < end {
            let start = at % PAGE_SIZE_BYTES;
            let count = (end - at).min(PAGE_SIZE_BYTES - start);
            let page = content(self.page(at / PAGE_SIZE_BYTES));
            bytes.extend_from_slice(&page[start..start + count]);
            at += count;
        }
        Some(bytes)
    }

    /// Writes, and grows as far as that needs.
    pub(super) fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.resize(self.size.max(offset + bytes.len()));
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let start = at % PAGE_SIZE_BYTES;
            let (piece, after) = rest.split_at(rest.len().min(PAGE_SIZE_BYTES - start));
            write_piece(&mut self.places[at / PAGE_SIZE_BYTES], start, piece);
            (at, rest) = (at + piece.len(), after);
        }
    }

    /// Cuts the end off, or grows by zeroes.
    pub(super) fn resize(&mut self, size: usize) {
        if size == self.size {
            return;
        }
        self.places.resize(size.div_ceil(PAGE_SIZE_BYTES), None);
        let border = size % PAGE_SIZE_BYTES;
        if size < self.size
            && 0 < border
            && let Some(last) = self.places.last_mut()
            && content(last.as_ref())[border..] != ZEROES[border..]
        {
            content_mut(last)[border..].fill(0);
        }
        self.size = size;
    }
}

/// Writes into one place. A page that is written whole, and shared, is not copied before.
fn write_piece(place: &mut Option<Page>, start: usize, piece: &[u8]) {
    if let Ok(whole) = <&[u8; PAGE_SIZE_BYTES]>::try_from(piece) {
        match place.as_mut().and_then(Arc::get_mut) {
            Some(own) => *own = *whole,
            None => *place = Some(Arc::new(*whole)),
        }
    } else {
        content_mut(place)[start..start + piece.len()].copy_from_slice(piece);
    }
}
