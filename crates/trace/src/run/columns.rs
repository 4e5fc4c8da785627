//! Columns of numbers, as small as a general compressor then needs them.
//!
//! Numbers are written seven bits a byte, least significant first, the high bit set on all bytes
//! but the last (LEB128). Differences are first folded so that small ones of either sign are small
//! numbers: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.

use std::collections::BTreeMap;

/// The greatest number that is written; a greater one is written as this one. A browser's numbers
/// are exact up to 2^53, and the folded difference of two of these is still below that.
pub(super) const NUMBER_MAX: u64 = (1 << 52) - 1;

/// A column that is being written.
#[derive(Debug, Default)]
pub(super) struct Column {
    pub(super) bytes: Vec<u8>,
    /// Numbers written.
    pub(super) count: usize,
    /// The number before, by whom it is of.
    before: BTreeMap<u16, u64>,
}

impl Column {
    /// One byte.
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
        self.count += 1;
    }

    /// A number as it is.
    pub(super) fn plain(&mut self, number: u64) {
        self.put(number.min(NUMBER_MAX));
    }

    fn put(&mut self, mut rest: u64) {
        while 0x7f < rest {
            self.bytes.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
            rest >>= 7;
        }
        self.bytes.push(u8::try_from(rest).expect("at most seven bits are left"));
        self.count += 1;
    }

    /// A number as its difference from the one before it of the same `owner`, 0 at first.
    pub(super) fn difference(&mut self, owner: u16, number: u64) {
        let number = number.min(NUMBER_MAX);
        let before = self.before.insert(owner, number).unwrap_or(0);
        let folded =
            if before <= number { (number - before) << 1 } else { ((before - number) << 1) - 1 };
        self.put(folded);
    }
}

/// A column that is being read.
#[derive(Debug)]
pub(super) struct ColumnReader<'a> {
    bytes: &'a [u8],
    before: BTreeMap<u16, u64>,
}

impl<'a> ColumnReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, before: BTreeMap::new() }
    }

    /// The next byte; `None` at the end.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    /// The next number; `None` at the end, or if it is no number below 2^56.
    pub(super) fn plain(&mut self) -> Option<u64> {
        let mut number = 0;
        for place in 0..8 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// The next number of `owner`, from its difference.
    pub(super) fn difference(&mut self, owner: u16) -> Option<u64> {
        let folded = self.plain()?;
        let before = self.before.get(&owner).copied().unwrap_or(0);
        let number = if folded & 1 == 0 {
            before.checked_add(folded >> 1)?
        } else {
            before.checked_sub((folded >> 1) + 1)?
        };
        self.before.insert(owner, number);
        Some(number)
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written is read back, at every size and step.
    #[test]
    fn numbers_read_back() {
        let numbers = [0, 1, 127, 128, 5, 16_384, 3, 1 << 40, 7, NUMBER_MAX, 0, NUMBER_MAX - 1];
        let mut plain = Column::default();
        let mut difference = Column::default();
        for (number, owner) in numbers.into_iter().zip([0, 1].into_iter().cycle()) {
            plain.plain(number);
            difference.difference(owner, number);
        }
        let mut read = ColumnReader::new(&plain.bytes);
        assert!(numbers.iter().all(|number| read.plain() == Some(*number)));
        let mut read = ColumnReader::new(&difference.bytes);
        for (number, owner) in numbers.into_iter().zip([0, 1].into_iter().cycle()) {
            assert_eq!(read.difference(owner), Some(number));
        }
        assert_eq!((read.plain(), plain.count), (None, numbers.len()));
    }

    /// What was never written is refused, not guessed.
    #[test]
    fn rubbish_is_refused() {
        assert_eq!(ColumnReader::new(&[0x80]).plain(), None);
        assert_eq!(ColumnReader::new(&[0xff; 9]).plain(), None);
        assert_eq!(ColumnReader::new(&[1]).difference(0), None, "nothing is below 0");
        assert_eq!(ColumnReader::new(&[1, 2]).take(3), None);
    }
}
