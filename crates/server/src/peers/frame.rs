//! What travels between peers: the greeting and sealed frames, as bytes.
//!
//! Every WebSocket message is one binary frame: a CRC-32C, then the payload. The checksum is seeded
//! with the frame's number on its connection, so a frame that is lost, repeated or out of place is
//! seen like a flipped bit. Number 0 in each direction is the greeting and its answer.
//!
//! ```text
//! frame    u32 crc32c(number, payload) | payload
//! HELLO    u32 magic "kvrp" | u32 protocol min | u32 protocol max | u64 cluster | u64 from |
//!          u64 to
//!          | u64 incarnation | u8 lane | u64 features
//!          | u32 count | count times: u32 length | host:port       from protocol 2 on
//!          | u8 reads by lease: 0, or 1 and u64 election timeout in ns | u32 drift in ppm
//!                                                                  from protocol 3 on
//!                                                  (later versions append; ignored here)
//! answer   u8 0 | u32 protocol | u64 incarnation | u64 features         welcome
//!          u8 1 | u32 length | text                                     refused
//!          u8 2 | u64 incarnation             a later process of this member is connected
//!          u8 3 | u64 index      the dialer was removed; only to those who speak protocol 2
//! ```
//! All numbers are little-endian.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{
    ClusterId, DecodeError, Index, MemberId, Reader, Writer, checksum_seeded,
    limits::{FRAME_SIZE_BYTES_MAX, MEMBER_ADDRESSES_MAX, MEMBER_TEXT_SIZE_BYTES_MAX},
};

/// Oldest protocol that this build speaks.
pub(super) const PROTOCOL_MIN: u32 = 1;
/// Newest protocol that this build speaks.
pub(super) const PROTOCOL_MAX: u32 = PROTOCOL_LEASE;
/// The protocol in which a dialer says where it can be reached, and understands that it was
/// removed.
pub(super) const PROTOCOL_MEMBERS: u32 = 2;
/// The protocol in which a dialer says whether reads are answered by lease, and on what terms.
pub(super) const PROTOCOL_LEASE: u32 = 3;
/// Optional abilities; none yet.
pub(super) const FEATURES: u64 = 0;

const MAGIC: u32 = u32::from_le_bytes(*b"kvrp");

/// Bytes in front of every payload.
const SEAL_SIZE: usize = 4;

/// Greatest WebSocket message: the greatest payload and its checksum.
pub(super) const MESSAGE_SIZE_BYTES_MAX: usize = FRAME_SIZE_BYTES_MAX + SEAL_SIZE;

/// Which of the two connections to a peer a frame takes, so that bulk never delays heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats, appends, reads, forwarded requests.
    Control,
    /// Snapshot chunks and catch-up.
    Bulk,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    /// Number on the wire, and place in arrays by lane.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Bulk => 1,
        }
    }

    /// Name for logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Bulk => "bulk",
        }
    }
}

/// The first frame of a connection: who is there and what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) protocol_min: u32,
    pub(super) protocol_max: u32,
    pub(super) cluster: ClusterId,
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    pub(super) incarnation: u64,
    pub(super) lane: Lane,
    pub(super) features: u64,
    /// Where the dialer can be reached: for those who do not know it yet. Never anything before
    /// [`PROTOCOL_MEMBERS`].
    pub(super) addresses: Vec<String>,
    /// On what terms reads are answered by lease, if they are. Nothing before [`PROTOCOL_LEASE`].
    pub(super) lease: Option<LeaseTerms>,
}

/// What all servers of a cluster must have in common when reads are answered by lease: how long
/// the others are loyal to a leader, and how much of that the clocks may take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// The election timeout.
    pub election_timeout: Duration,
    /// Greatest difference in rate between two clocks, in parts per million.
    pub drift_ppm_max: u32,
}

impl LeaseTerms {
    /// As the settings are called.
    pub(super) fn describe(terms: Option<Self>) -> String {
        match terms {
            None => "lease-reads = false".to_owned(),
            Some(Self { election_timeout, drift_ppm_max }) => format!(
                "lease-reads = true, election-timeout = {election_timeout:?} and \
                 clock-drift-max = {drift_ppm_max}"
            ),
        }
    }
}

/// Why a greeting was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    #[error(
        "protocol versions {min} to {max} are offered, this server speaks {PROTOCOL_MIN} to {PROTOCOL_MAX}"
    )]
    Version { min: u32, max: u32 },
    #[error("malformed greeting: {0}")]
    Malformed(#[from] DecodeError),
}

impl Hello {
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u32(MAGIC);
        writer.u32(self.protocol_min);
        writer.u32(self.protocol_max);
        writer.u64(self.cluster.0);
        writer.u64(self.from.0);
        writer.u64(self.to.0);
        writer.u64(self.incarnation);
        writer.u8(self.lane.number());
        writer.u64(self.features);
        if PROTOCOL_MEMBERS <= self.protocol_max {
            writer.count(self.addresses.len());
            for address in &self.addresses {
                writer.bytes(address.as_bytes());
            }
        }
        if PROTOCOL_LEASE <= self.protocol_max {
            encode_lease(&mut writer, self.lease);
        }
        writer.finish()
    }

    /// Reads a greeting; fields behind the last known one belong to later versions.
    pub(super) fn decode(bytes: Bytes) -> Result<Self, HelloError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32("magic")?;
        if magic != MAGIC {
            return Err(DecodeError::Unknown { what: "magic", value: u64::from(magic) }.into());
        }
        let (min, max) = (reader.u32("protocol min")?, reader.u32("protocol max")?);
        if max < PROTOCOL_MIN || PROTOCOL_MAX < min {
            // The rest may have another shape.
            return Err(HelloError::Version { min, max });
        }
        Ok(Self {
            protocol_min: min,
            protocol_max: max,
            cluster: ClusterId(reader.u64("cluster")?),
            from: MemberId(reader.u64("from")?),
            to: MemberId(reader.u64("to")?),
            incarnation: reader.u64("incarnation")?,
            lane: match reader.u8("lane")? {
                0 => Lane::Control,
                1 => Lane::Bulk,
                other => {
                    let value = u64::from(other);
                    return Err(DecodeError::Unknown { what: "lane", value }.into());
                }
            },
            features: reader.u64("features")?,
            addresses: match max {
                PROTOCOL_MEMBERS.. => decode_addresses(&mut reader)?,
                _ => Vec::new(),
            },
            lease: match max {
                PROTOCOL_LEASE.. => decode_lease(&mut reader)?,
                _ => None,
            },
        })
    }
}

fn encode_lease(writer: &mut Writer, lease: Option<LeaseTerms>) {
    writer.u8(u8::from(lease.is_some()));
    if let Some(LeaseTerms { election_timeout, drift_ppm_max }) = lease {
        // Over 500 years are all the same.
        writer.u64(u64::try_from(election_timeout.as_nanos()).unwrap_or(u64::MAX));
        writer.u32(drift_ppm_max);
    }
}

fn decode_lease(reader: &mut Reader) -> Result<Option<LeaseTerms>, DecodeError> {
    match reader.u8("reads by lease")? {
        0 => Ok(None),
        1 => Ok(Some(LeaseTerms {
            election_timeout: Duration::from_nanos(reader.u64("election timeout")?),
            drift_ppm_max: reader.u32("drift")?,
        })),
        other => Err(DecodeError::Unknown { what: "reads by lease", value: u64::from(other) }),
    }
}

fn decode_addresses(reader: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let count = reader.count("addresses", 4)?;
    let too_large = |value: usize, limit: usize| DecodeError::TooLarge {
        what: "address",
        value: value as u64,
        limit: limit as u64,
    };
    if MEMBER_ADDRESSES_MAX < count {
        return Err(too_large(count, MEMBER_ADDRESSES_MAX));
    }
    let mut addresses = Vec::new();
    for _ in 0..count {
        let bytes = reader.bytes("address")?;
        if MEMBER_TEXT_SIZE_BYTES_MAX < bytes.len() {
            return Err(too_large(bytes.len(), MEMBER_TEXT_SIZE_BYTES_MAX));
        }
        let unknown = |_| DecodeError::Unknown { what: "address", value: bytes.len() as u64 };
        addresses.push(std::str::from_utf8(&bytes).map_err(unknown)?.to_owned());
    }
    Ok(addresses)
}

/// What the accepting side says to a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome { protocol: u32, incarnation: u64, features: u64 },
    Refused { reason: String },
    Superseded { incarnation: u64 },
    Removed { index: Index },
    OtherTerms { reason: String },
}

impl Answer {
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        match self {
            Self::Welcome { protocol, incarnation, features } => {
                writer.u8(0);
                writer.u32(*protocol);
                writer.u64(*incarnation);
                writer.u64(*features);
            }
            Self::Refused { reason } => {
                writer.u8(1);
                writer.bytes(reason.as_bytes());
            }
            Self::Superseded { incarnation } => {
                writer.u8(2);
                writer.u64(*incarnation);
            }
            Self::Removed { index } => {
                writer.u8(3);
                writer.u64(index.0);
            }
            Self::OtherTerms { reason } => {
                writer.u8(4);
                writer.bytes(reason.as_bytes());
            }
        }
        writer.finish()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8("answer")? {
            0 => Ok(Self::Welcome {
                protocol: reader.u32("protocol")?,
                incarnation: reader.u64("incarnation")?,
                features: reader.u64("features")?,
            }),
            1 => Ok(Self::Refused { reason: decode_reason(&mut reader)? }),
            2 => Ok(Self::Superseded { incarnation: reader.u64("incarnation")? }),
            3 => Ok(Self::Removed { index: Index(reader.u64("index")?) }),
            4 => Ok(Self::OtherTerms { reason: decode_reason(&mut reader)? }),
            other => Err(DecodeError::Unknown { what: "answer", value: u64::from(other) }),
        }
    }
}

fn decode_reason(reader: &mut Reader) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&reader.bytes("reason")?).into_owned())
}

/// Puts the checksum in front of a payload.
pub(super) fn seal(number: u64, payload: &[u8]) -> Bytes {
    assert!(payload.len() <= FRAME_SIZE_BYTES_MAX, "oversized frames are refused by send");
    let mut frame = Vec::with_capacity(SEAL_SIZE + payload.len());
    frame.extend_from_slice(&checksum_seeded(number, payload).to_le_bytes());
    frame.extend_from_slice(payload);
    Bytes::from(frame)
}

/// Checks a frame and yields its payload, shared.
pub(super) fn unseal(number: u64, frame: Bytes) -> Result<Bytes, DecodeError> {
    let mut reader = Reader::new(frame);
    let expected = reader.u32("checksum")?;
    let payload = reader.rest();
    if payload.len() > FRAME_SIZE_BYTES_MAX {
        let (value, limit) = (payload.len() as u64, FRAME_SIZE_BYTES_MAX as u64);
        return Err(DecodeError::TooLarge { what: "frame", value, limit });
    }
    if checksum_seeded(number, &payload) != expected {
        return Err(DecodeError::Checksum { what: "frame" });
    }
    Ok(payload)
}
