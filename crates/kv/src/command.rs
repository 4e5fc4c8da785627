//! The envelope around a request in the log.
//!
//! ```text
//! offset  size  field
//!      0     1  format version (1)
//!      1     1  kind of request
//!      2     8  time_ms
//!     10     8  origin: member
//!     18     8  origin: incarnation
//!     26     8  origin: ticket
//!     34     1  1 if a session follows
//!     35    24  session: client, op, acked
//!      …   4+n  user
//!      …     8  auth_revision
//!      …     …  request
//! ```
//! Little-endian, fixed width. `time_ms` has a fixed offset so that [`stamp`] can replace it.

use bytes::{Bytes, BytesMut};
use kvraft_base::{ClientId, DecodeError, MemberId, OpId, Reader, Ticket, Writer};

use crate::{request::Request, request_codec::KIND_RAISE_VERSION};

/// Who waits for the outcome of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The server that proposed it; 0 is nobody.
    pub member: MemberId,
    /// Which life of that server: a ticket means nothing after a restart.
    pub incarnation: u64,
    /// Which of its waiting requests.
    pub ticket: Ticket,
}

/// Which operation of which session a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionOp {
    /// The session.
    pub client: ClientId,
    /// The operation, from 1 upwards; the same when retried.
    pub op: OpId,
    /// The client has received the results of all operations up to and with this one.
    pub acked: OpId,
}

/// A request on its way through the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// Who waits for the outcome.
    pub origin: Origin,
    /// Wall clock of the leader that appended it, in milliseconds since 1970. Moves the replicated
    /// clock forward, never back.
    pub time_ms: u64,
    /// Set when the client wants it done exactly once.
    pub session: Option<SessionOp>,
    /// Who asks; empty without auth. In the format for auth, not yet looked at.
    pub user: Bytes,
    /// Revision of the auth store at which it was allowed. Not yet looked at.
    pub auth_revision: u64,
    /// What to do.
    pub request: Request,
}

/// The fixed part of the envelope, readable even if the request is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    kind: u8,
    pub(crate) time_ms: u64,
    pub(crate) origin: Origin,
}

impl Header {
    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let version = reader.u8("command version")?;
        if version != VERSION {
            return Err(DecodeError::Unknown {
                what: "command version",
                value: u64::from(version),
            });
        }
        let kind = reader.u8("command kind")?;
        let time_ms = reader.u64("command time")?;
        let origin = Origin {
            member: MemberId(reader.u64("origin member")?),
            incarnation: reader.u64("origin incarnation")?,
            ticket: Ticket(reader.u64("origin ticket")?),
        };
        Ok(Self { kind, time_ms, origin })
    }
}

impl Command {
    /// A command without session, user and auth.
    #[must_use]
    pub fn new(origin: Origin, time_ms: u64, request: Request) -> Self {
        Self { origin, time_ms, session: None, user: Bytes::new(), auth_revision: 0, request }
    }

    /// The payload of a log entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer
            .u8(VERSION)
            .u8(self.request.kind())
            .u64(self.time_ms)
            .u64(self.origin.member.0)
            .u64(self.origin.incarnation)
            .u64(self.origin.ticket.0)
            .bool(self.session.is_some());
        if let Some(session) = self.session {
            writer.u64(session.client.0).u64(session.op.0).u64(session.acked.0);
        }
        writer.bytes(&self.user).u64(self.auth_revision);
        self.request.encode_body(&mut writer);
        writer.finish()
    }

    /// Reads a payload back; byte strings are shared with it.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let header = Header::decode(&mut reader)?;
        let session = if reader.bool("session flag")? {
            Some(SessionOp {
                client: ClientId(reader.u64("session client")?),
                op: OpId(reader.u64("session op")?),
                acked: OpId(reader.u64("session acked")?),
            })
        } else {
            None
        };
        let user = reader.bytes("user")?;
        let auth_revision = reader.u64("auth revision")?;
        let request = Request::decode_body(header.kind, &mut reader)?;
        reader.finish()?;
        let Header { time_ms, origin, .. } = header;
        Ok(Self { origin, time_ms, session, user, auth_revision, request })
    }
}

/// The same command with another time: a leader stamps what a follower forwarded with its own
/// clock.
///
/// # Errors
/// [`DecodeError`] when the payload is not a command of this version, or none that a client may
/// give; only the fixed part is read.
pub fn stamp(payload: &Bytes, time_ms: u64) -> Result<Bytes, DecodeError> {
    let header = Header::decode(&mut Reader::new(payload.clone()))?;
    if header.kind == KIND_RAISE_VERSION {
        let (what, value) = ("kind of a client's command", u64::from(header.kind));
        return Err(DecodeError::Unknown { what, value });
    }
    let mut bytes = BytesMut::from(payload.as_ref());
    bytes[TIME_OFFSET..TIME_OFFSET + 8].copy_from_slice(&time_ms.to_le_bytes());
    Ok(bytes.freeze())
}

const VERSION: u8 = 1;
const TIME_OFFSET: usize = 2;
/// What [`Header`] reads: everything before the session.
pub(crate) const ENVELOPE_SIZE_BYTES: usize = 34;
