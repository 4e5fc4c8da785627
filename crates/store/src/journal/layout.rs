//! Bytes of a segment: one header sector, then batches, each at a multiple of the sector size.
//!
//! Segment header, 512 bytes: magic, format version, minimum reader version, group, cluster,
//! member, number of the segment, kind, position before it, sequence of the last batch before it,
//! attested index, hard state, configuration; zeroes; CRC-32C of all that, seeded with the
//! segment's number.
//!
//! Batch header, 96 bytes: magic, CRC-32C of the rest of the header, size and CRC-32C of the body,
//! sequence, sequence known durable, attested index, hard state, truncated from, position before
//! the first entry, count of entries, four spare bytes. The body is the entries, each with its own
//! checksum. Both CRCs are seeded with segment and offset, so what an earlier life of a recycled
//! file left behind is never believed. Batches start at a sector, so that writing one never touches
//! another's bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{
    ClusterId, DecodeError, Entry, HardState, Index, MemberId, Members, MembersDraft, Position,
    Reader, Term, Writer, checksum_seeded,
};

use crate::identity::{FORMAT_VERSION, READER_VERSION_MIN};

/// Directory of the segments.
pub(crate) const DIR: &str = "journal";
/// Alignment of batches in bytes: the unit that a disk writes or does not write.
pub(crate) const SECTOR: u64 = 512;
pub(super) const SECTOR_BYTES: usize = 512;
/// What a segment's header has left for its configuration, without its length.
const MEMBERS_BYTES_MAX: usize = SECTOR_BYTES - 105 - 4 - 4;
pub(super) const BATCH_HEADER_BYTES: usize = 96;
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"kvraftJ1");
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"kvBA");

/// How a segment relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// The log goes on after `prev`; what earlier segments hold beyond it is void.
    Continue,
    /// The log begins anew after `prev`; earlier segments are void.
    Reset,
}

/// The first sector of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    /// Also in the file's name; strictly grows.
    pub(crate) segment: u64,
    pub(crate) kind: SegmentKind,
    /// The log's last position when the segment was begun.
    pub(crate) prev: Position,
    /// The last batch of the log so far; later ones in earlier segments are void.
    pub(crate) sequence: u64,
    /// The log was durable here up to this index.
    pub(crate) attested: Index,
    pub(crate) hard_state: HardState,
    /// In force at `prev`, if that was known; without names and addresses if they do not fit.
    pub(crate) members: Option<Members>,
}

/// Why a segment's header is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged(&'static str),
    Newer { needed: u32 },
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(SECTOR_BYTES);
        writer.u64(SEGMENT_MAGIC).u32(FORMAT_VERSION).u32(READER_VERSION_MIN);
        writer.u64(0).u64(self.cluster.0).u64(self.member.0).u64(self.segment);
        writer.bool(self.kind == SegmentKind::Reset);
        self.prev.encode(&mut writer);
        writer.u64(self.sequence).u64(self.attested.0);
        write_hard_state(&mut writer, self.hard_state);
        writer.bytes(&self.members.as_ref().map_or(Bytes::new(), encode_members));
        let mut sector = writer.finish().to_vec();
        assert!(sector.len() <= SECTOR_BYTES - 4, "a header fits into its sector");
        sector.resize(SECTOR_BYTES - 4, 0);
        let sum = checksum_seeded(self.segment, &sector);
        sector.extend_from_slice(&sum.to_le_bytes());
        sector
    }

    pub(super) fn decode(segment: u64, sector: &Bytes) -> Result<Self, HeaderFault> {
        if sector.len() < SECTOR_BYTES {
            return Err(HeaderFault::Damaged("header is cut short"));
        }
        let (body, sum) = sector[..SECTOR_BYTES].split_at(SECTOR_BYTES - 4);
        if checksum_seeded(segment, body).to_le_bytes() != sum {
            return Err(HeaderFault::Damaged("header checksum mismatch"));
        }
        let mut reader = Reader::new(sector.slice(..SECTOR_BYTES - 4));
        let damaged = |_| HeaderFault::Damaged("header cannot be decoded");
        let magic = reader.u64("magic").map_err(damaged)?;
        reader.u32("format version").map_err(damaged)?;
        let needed = reader.u32("reader version").map_err(damaged)?;
        if magic != SEGMENT_MAGIC {
            return Err(HeaderFault::Damaged("not a kvraft journal segment"));
        }
        if FORMAT_VERSION < needed {
            return Err(HeaderFault::Newer { needed });
        }
        Self::decode_fields(&mut reader).map_err(damaged)
    }

    fn decode_fields(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.u64("group")?;
        let cluster = ClusterId(reader.u64("cluster")?);
        let member = MemberId(reader.u64("member")?);
        let segment = reader.u64("segment")?;
        let kind = match reader.bool("kind")? {
            true => SegmentKind::Reset,
            false => SegmentKind::Continue,
        };
        let prev = Position::decode(reader)?;
        let sequence = reader.u64("sequence")?;
        let attested = Index(reader.u64("attested")?);
        let hard_state = read_hard_state(reader)?;
        // Empty, too, in a header of a build that did not write it; what cannot be read is unknown.
        let members = reader.bytes("members").unwrap_or_default();
        let members = Some(members).filter(|it| !it.is_empty());
        let members = members.and_then(|it| Members::decode(it).ok());
        Ok(Self { cluster, member, segment, kind, prev, sequence, attested, hard_state, members })
    }
}

/// All of a configuration if it fits, or else only who takes part.
fn encode_members(members: &Members) -> Bytes {
    let whole = members.encode();
    if whole.len() <= MEMBERS_BYTES_MAX {
        return whole;
    }
    let bare = MembersDraft { infos: BTreeMap::new(), ..members.draft() };
    bare.finish().expect("names and addresses are optional").encode()
}

/// What stands before the entries of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) body_size: u32,
    pub(crate) body_sum: u32,
    /// Grows by one from batch to batch.
    pub(crate) sequence: u64,
    /// Batches up to this one were durable before this one was written.
    pub(crate) synced: u64,
    /// The log, as this batch leaves it before its entries, was durable up to this index once.
    pub(crate) attested: Index,
    pub(crate) hard_state: HardState,
    /// What [`kvraft_base::Write::truncate_from`] said; for people, `prev` is what counts.
    pub(crate) truncate_from: Option<Index>,
    /// What the entries follow; the log beyond it is void.
    pub(crate) prev: Position,
    pub(crate) entry_count: u32,
}

impl BatchHeader {
    /// Bytes it takes in the file.
    pub(crate) fn padded_size(&self) -> u64 {
        (BATCH_HEADER_BYTES as u64 + u64::from(self.body_size)).next_multiple_of(SECTOR)
    }

    /// Index of the last entry, or of `prev` if there are none.
    pub(crate) fn last(&self) -> Index {
        Index(self.prev.index.0.saturating_add(self.entry_count.into()))
    }

    fn encode(&self, place: u64) -> Bytes {
        let mut writer = Writer::with_capacity(BATCH_HEADER_BYTES);
        writer.u32(self.body_size).u32(self.body_sum);
        writer.u64(self.sequence).u64(self.synced).u64(self.attested.0);
        write_hard_state(&mut writer, self.hard_state);
        writer.u64(self.truncate_from.map_or(0, |index| index.0));
        self.prev.encode(&mut writer);
        writer.u32(self.entry_count).u32(0);
        let fields = writer.finish();
        let mut header = Writer::with_capacity(BATCH_HEADER_BYTES);
        header.u32(BATCH_MAGIC).u32(checksum_seeded(place, &fields)).raw(&fields);
        assert!(header.len() == BATCH_HEADER_BYTES, "the body begins where it is looked for");
        header.finish()
    }

    fn decode(place: u64, bytes: &Bytes) -> Option<Self> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return None;
        }
        let mut reader = Reader::new(bytes.slice(..BATCH_HEADER_BYTES));
        if reader.u32("magic").ok()? != BATCH_MAGIC {
            return None;
        }
        let sum = reader.u32("header checksum").ok()?;
        if sum != checksum_seeded(place, &bytes[8..BATCH_HEADER_BYTES]) {
            return None;
        }
        Self::decode_fields(&mut reader).ok()
    }

    fn decode_fields(reader: &mut Reader) -> Result<Self, DecodeError> {
        let body_size = reader.u32("body size")?;
        let body_sum = reader.u32("body checksum")?;
        let sequence = reader.u64("sequence")?;
        let synced = reader.u64("synced")?;
        let attested = Index(reader.u64("attested")?);
        let hard_state = read_hard_state(reader)?;
        let truncate_from = Some(Index(reader.u64("truncate from")?)).filter(|i| 0 < i.0);
        let prev = Position::decode(reader)?;
        let entry_count = reader.u32("entry count")?;
        Ok(Self {
            body_size,
            body_sum,
            sequence,
            synced,
            attested,
            hard_state,
            truncate_from,
            prev,
            entry_count,
        })
    }
}

/// The bytes of a batch at its place, padded to whole sectors; fills in size and checksum.
pub(super) fn encode_batch(
    segment: u64,
    offset: u64,
    header: &mut BatchHeader,
    entries: &[Entry],
) -> Vec<u8> {
    let place = place(segment, offset);
    let mut body = Writer::with_capacity(entries.iter().map(Entry::size_bytes).sum());
    for entry in entries {
        entry.encode(&mut body);
    }
    header.body_size = u32::try_from(body.len()).expect("a batch is bounded far below 4 GiB");
    header.body_sum = checksum_seeded(place, body.as_slice());
    let mut bytes = header.encode(place).to_vec();
    bytes.extend_from_slice(body.as_slice());
    bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
    bytes
}

/// Bytes that a batch of these entries takes.
pub(super) fn batch_size(entries: &[Entry]) -> u64 {
    let body: usize = entries.iter().map(Entry::size_bytes).sum();
    (BATCH_HEADER_BYTES as u64 + body as u64).next_multiple_of(SECTOR)
}

/// What is found where a batch should begin.
pub(super) enum Parsed {
    /// A batch, whole.
    Batch(BatchHeader, Vec<Entry>),
    /// A believed header, but a body that is not.
    Broken(BatchHeader, &'static str),
    /// No batch.
    Nothing,
}

/// Reads the batch that begins at the front of `bytes`, which lie at `offset`.
pub(super) fn parse_batch(segment: u64, offset: u64, bytes: &Bytes) -> Parsed {
    let place = place(segment, offset);
    let Some(header) = BatchHeader::decode(place, bytes) else { return Parsed::Nothing };
    let end = BATCH_HEADER_BYTES + header.body_size as usize;
    // With its padding: a file may end anywhere after a loss of power, and what reads this batch
    // later, or writes it once more, takes whole sectors.
    if (bytes.len() as u64) < header.padded_size() {
        return Parsed::Broken(header, "batch is cut short");
    }
    let body = bytes.slice(BATCH_HEADER_BYTES..end);
    if checksum_seeded(place, &body) != header.body_sum {
        return Parsed::Broken(header, "batch checksum mismatch");
    }
    match decode_entries(&header, body) {
        Some(entries) => Parsed::Batch(header, entries),
        None => Parsed::Broken(header, "entries do not match the batch header"),
    }
}

fn decode_entries(header: &BatchHeader, body: Bytes) -> Option<Vec<Entry>> {
    let mut reader = Reader::new(body);
    let mut entries = Vec::new();
    let mut index = header.prev.index;
    for _ in 0..header.entry_count {
        let entry = Entry::decode(&mut reader).ok()?;
        if Some(entry.index.0) != index.0.checked_add(1) {
            return None;
        }
        index = entry.index;
        entries.push(entry);
    }
    reader.finish().ok()?;
    Some(entries)
}

/// Seed of the checksums of what lies at `offset` of `segment`. Different places have different
/// seeds as long as offsets stay below 2^40, a tebibyte.
fn place(segment: u64, offset: u64) -> u64 {
    segment.rotate_left(40) ^ offset
}

/// Path of a segment.
pub(crate) fn segment_path(segment: u64) -> String {
    format!("{DIR}/{segment:016x}.seg")
}

/// Path of a segment that is being made.
pub(super) fn temp_path(segment: u64) -> String {
    format!("{DIR}/{segment:016x}.new")
}

/// Path of a released segment that waits to be used again.
pub(super) fn spare_path(segment: u64) -> String {
    format!("{DIR}/{segment:016x}.old")
}

/// Path of the segment of a refounded directory, until that counts.
pub(super) fn refounded_path(segment: u64) -> String {
    format!("{DIR}/{segment:016x}.refound")
}

/// The number in a segment's file name.
pub(crate) fn segment_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

fn write_hard_state(writer: &mut Writer, state: HardState) {
    writer.u64(state.term.0).u64(state.vote.map_or(0, |id| id.0)).u64(state.commit.0);
}

fn read_hard_state(reader: &mut Reader) -> Result<HardState, DecodeError> {
    let term = Term(reader.u64("hard state term")?);
    let vote = Some(MemberId(reader.u64("vote")?)).filter(|id| *id != MemberId::ZERO);
    Ok(HardState { term, vote, commit: Index(reader.u64("commit")?) })
}
