//! One file of a recording: a header, the state it begins with, and the turns that followed.
//!
//! Layout, little-endian; every part has a CRC-32C seeded with its place in the file:
//!
//! ```text
//! magic "kvraftfr" | u32 format version | u32 size | header | u32 checksum
//! block: u32 size | u32 checksum | u8 kind | content
//!   1 image    2 records: turns and their ends, back to back    3 end: u8 why
//! ```
//!
//! Invariant: what is behind the first block that cannot be believed is not read.

use bytes::Bytes;
use kvraft_base::{ClusterId, DecodeError, MemberId, Reader, Writer, checksum_seeded};

use super::{
    Image, ImageError,
    tape::{End, Turn, decode_end, decode_turn},
};

/// The version of the files that this program writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 3;

const MAGIC: &[u8; 8] = b"kvraftfr";
const BLOCK_HEAD_BYTES: usize = 8;
const KIND_IMAGE: u8 = 1;
const KIND_END: u8 = 3;

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The program's version: states are those of this one alone.
    pub software: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// Whose inputs these are.
    pub member: MemberId,
    /// Which life of that server.
    pub incarnation: u64,
    /// The number of the segment, over all lives.
    pub number: u64,
    /// The wall clock when it was begun, in milliseconds since 1970.
    pub wall_ms: u64,
    /// What is between this segment and the one before it.
    pub follows: Follows,
    /// What clients have written was replaced, and the machine is left out.
    pub is_redacted: bool,
}

/// What is between a segment and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The server was started.
    Start,
    /// Nothing: it goes on where that one ends.
    Nothing,
    /// So many turns that found no room, or that a snapshot was installed in.
    Gap(u64),
}

/// Why a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is full; the next one goes on.
    Full,
    /// The server was stopped.
    Stopped,
    /// Turns found no room.
    Lost,
    /// A snapshot was installed.
    Installed,
}

/// Why a file is no segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at offset {offset}: {what}")]
pub struct SegmentError {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

impl SegmentError {
    fn new(offset: usize, what: impl ToString) -> Self {
        Self { offset: offset as u64, what: what.to_string() }
    }
}

/// The first bytes of a file.
#[must_use]
pub fn header_bytes(header: &Header) -> Bytes {
    let mut inner = Writer::new();
    let (follows, gap) = match header.follows {
        Follows::Start => (0, 0),
        Follows::Nothing => (1, 0),
        Follows::Gap(count) => (2, count),
    };
    inner
        .bytes(header.software.as_bytes())
        .u64(header.cluster.0)
        .u64(header.member.0)
        .u64(header.incarnation)
        .u64(header.number)
        .u64(header.wall_ms)
        .u8(follows)
        .u64(gap)
        .bool(header.is_redacted);
    let mut writer = Writer::new();
    writer.raw(MAGIC).u32(FORMAT_VERSION).bytes(inner.as_slice());
    writer.u32(checksum_seeded(0, inner.as_slice()));
    writer.finish()
}

/// The block that a segment begins with.
#[must_use]
pub fn image_block(image: &Image) -> Vec<u8> {
    let mut block = vec![KIND_IMAGE];
    block.extend_from_slice(&image.encode());
    block
}

/// The first byte of a block of turns: bytes of a [`super::Tape`] follow it.
pub const KIND_RECORDS: u8 = 2;

/// The block of these bytes of a [`super::Tape`].
#[must_use]
pub fn records_block(records: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(records.len() + 1);
    block.push(KIND_RECORDS);
    block.extend_from_slice(records);
    block
}

/// The last block.
#[must_use]
pub fn end_block(cut: Cut) -> Vec<u8> {
    let why = match cut {
        Cut::Full => 1,
        Cut::Stopped => 2,
        Cut::Lost => 3,
        Cut::Installed => 4,
    };
    vec![KIND_END, why]
}

/// What stands before a block that is written at `offset`.
///
/// # Panics
/// With a block of 4 GiB or more: whoever records writes long before.
#[must_use]
pub fn seal_block(offset: u64, block: &[u8]) -> [u8; BLOCK_HEAD_BYTES] {
    let size = u32::try_from(block.len()).expect("blocks are bounded");
    let mut head = [0; BLOCK_HEAD_BYTES];
    head[..4].copy_from_slice(&size.to_le_bytes());
    head[4..].copy_from_slice(&checksum_seeded(offset, block).to_le_bytes());
    head
}

/// A turn and what came of it.
#[derive(Debug)]
pub struct Step {
    /// What went in.
    pub turn: Turn,
    /// What came of it; `None` when the server ended in it.
    pub end: Option<End>,
    /// The block that it is in, by its offset in the file.
    pub offset: u64,
}

/// A file, read and checked.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What it says of itself.
    pub header: Header,
    image: Bytes,
    image_offset: usize,
    records: Vec<(usize, Bytes)>,
    /// Why it ends; `None`: the server ended without a word, or still runs.
    pub cut: Option<Cut>,
    /// Where the file cannot be believed any more, and what is wrong there. At the end of the file
    /// of a server that was killed, or whose machine lost power, that is as it has to be.
    pub torn: Option<SegmentError>,
}

impl Segment {
    /// Reads a file.
    ///
    /// # Errors
    /// [`SegmentError`] when it has no header and no state to begin with.
    pub fn read(file: &Bytes) -> Result<Self, SegmentError> {
        let (header, mut offset) = read_header(file)?;
        let image = read_block(file, offset)?;
        if image.first() != Some(&KIND_IMAGE) {
            return Err(SegmentError::new(offset, "it does not begin with a state"));
        }
        let image_offset = offset;
        offset += BLOCK_HEAD_BYTES + image.len();
        let mut segment = Self {
            header,
            image: image.slice(1..),
            image_offset,
            records: Vec::new(),
            cut: None,
            torn: None,
        };
        while segment.cut.is_none() && offset < file.len() {
            match read_block(file, offset) {
                Ok(block) => {
                    segment.add(offset, &block);
                    offset += BLOCK_HEAD_BYTES + block.len();
                }
                Err(error) => segment.torn = Some(error),
            }
            if segment.torn.is_some() {
                break;
            }
        }
        Ok(segment)
    }

    fn add(&mut self, offset: usize, block: &Bytes) {
        let cut = match block.get(..2) {
            Some([KIND_END, 1]) => Some(Cut::Full),
            Some([KIND_END, 2]) => Some(Cut::Stopped),
            Some([KIND_END, 3]) => Some(Cut::Lost),
            Some([KIND_END, 4]) => Some(Cut::Installed),
            _ => None,
        };
        if cut.is_some() {
            self.cut = cut;
        } else if block.first() == Some(&KIND_RECORDS) {
            self.records.push((offset, block.slice(1..)));
        } else {
            self.torn = Some(SegmentError::new(offset, "a block of an unknown kind"));
        }
    }

    /// The state that it begins with.
    ///
    /// # Errors
    /// [`SegmentError`] when it is of another version.
    pub fn image(&self) -> Result<Image, SegmentError> {
        Image::decode(&self.image)
            .map_err(|error: ImageError| SegmentError::new(self.image_offset, error))
    }

    /// The bytes of that state.
    #[must_use]
    pub fn image_bytes(&self) -> &[u8] {
        &self.image
    }

    /// Bytes of all turns: how much work is in it.
    #[must_use]
    pub fn records_size_bytes(&self) -> u64 {
        self.records.iter().map(|(_, block)| block.len() as u64).sum()
    }

    /// Its turns, in order.
    #[must_use]
    pub fn steps(&self) -> Steps {
        let (offset, reader) = (0, Reader::new(Bytes::new()));
        Steps { blocks: self.records.clone().into_iter(), offset, reader, is_over: false }
    }
}

/// The turns of a segment.
#[derive(Debug)]
pub struct Steps {
    blocks: std::vec::IntoIter<(usize, Bytes)>,
    offset: usize,
    reader: Reader,
    is_over: bool,
}

impl Steps {
    /// True when there is nothing more. An end may stand in the block after its turn's.
    fn fill(&mut self) -> bool {
        while self.reader.remaining() == 0 {
            let Some((offset, block)) = self.blocks.next() else {
                return true;
            };
            self.offset = offset;
            self.reader = Reader::new(block);
        }
        false
    }

    fn read(&mut self) -> Result<Step, DecodeError> {
        let offset = self.offset as u64;
        let turn = decode_turn(&mut self.reader)?;
        let end = if self.fill() { None } else { Some(decode_end(&mut self.reader)?) };
        Ok(Step { turn, end, offset })
    }
}

impl Iterator for Steps {
    type Item = Result<Step, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over || self.fill() {
            return None;
        }
        let step = self.read().map_err(|error| SegmentError::new(self.offset, error));
        self.is_over = step.is_err();
        Some(step)
    }
}

fn read_header(file: &Bytes) -> Result<(Header, usize), SegmentError> {
    let at = |offset: usize| move |error: DecodeError| SegmentError::new(offset, error);
    let mut reader = Reader::new(file.clone());
    let magic = reader.take("magic", MAGIC.len()).map_err(at(0))?;
    if magic != MAGIC.as_slice() {
        return Err(SegmentError::new(0, "it is no recording of kvraft"));
    }
    let version = reader.u32("format version").map_err(at(8))?;
    if version != FORMAT_VERSION {
        let what = format!("it is of format {version}; this program reads {FORMAT_VERSION}");
        return Err(SegmentError::new(8, what));
    }
    let inner = reader.bytes("header").map_err(at(12))?;
    let found = reader.u32("checksum of the header").map_err(at(16 + inner.len()))?;
    if found != checksum_seeded(0, &inner) {
        return Err(SegmentError::new(16, "the header is damaged"));
    }
    let size = file.len() - reader.remaining();
    Ok((decode_header(inner).map_err(at(16))?, size))
}

fn decode_header(inner: Bytes) -> Result<Header, DecodeError> {
    let mut reader = Reader::new(inner);
    let software = reader.bytes("software")?;
    let mut header = Header {
        software: String::from_utf8_lossy(&software).into_owned(),
        cluster: ClusterId(reader.u64("cluster")?),
        member: MemberId(reader.u64("member")?),
        incarnation: reader.u64("incarnation")?,
        number: reader.u64("segment number")?,
        wall_ms: reader.u64("wall clock")?,
        follows: Follows::Start,
        is_redacted: false,
    };
    let (follows, gap) = (reader.u8("what it follows")?, reader.u64("gap")?);
    header.follows = match follows {
        0 => Follows::Start,
        1 => Follows::Nothing,
        2 => Follows::Gap(gap),
        other => {
            let value = u64::from(other);
            return Err(DecodeError::Unknown { what: "what it follows", value });
        }
    };
    header.is_redacted = reader.bool("redacted")?;
    reader.finish()?;
    Ok(header)
}

fn read_block(file: &Bytes, offset: usize) -> Result<Bytes, SegmentError> {
    let torn = |what: &str| SegmentError::new(offset, what);
    let mut reader = Reader::new(file.slice(offset.min(file.len())..));
    let size = reader.u32("size of a block").map_err(|_| torn("the file ends in a block"))?;
    let found = reader.u32("checksum of a block").map_err(|_| torn("the file ends in a block"))?;
    let size = usize::try_from(size).map_err(|_| torn("a block larger than memory"))?;
    let block = reader.take("block", size).map_err(|_| torn("the file ends in a block"))?;
    if found != checksum_seeded(offset as u64, &block) {
        return Err(torn("the checksum of a block does not match"));
    }
    Ok(block)
}
