//! A client's connection on which an authority that is a whole URL does no harm.
//!
//! Why: gRPC for Go before 1.29, hence `etcdctl` 3.4, sends what it dialled as HTTP/2's pseudo
//! header `:authority`. With `--endpoints=http://127.0.0.1:2379` its `endpoint status` and
//! `endpoint hashkv` send `http://127.0.0.1:2379`. That is no authority (RFC 9113 §8.3.1), and the
//! library that speaks HTTP/2 here ends such a stream with PROTOCOL_ERROR and has no setting for
//! it. etcd's own server does not look. Nothing here looks at the authority either, so the three
//! signs `://` become three that may stand in a name.
//!
//! Invariants:
//! - what is replaced has the same length, encoded and decoded: frames keep their sizes, and the
//!   header tables of both ends (RFC 7541 §4.1) stay equal;
//! - only the first header block of a connection is looked at, unless that one had to be mended;
//! - whatever is not understood is passed on as it is, for the library to judge.
//!
//! What it lacks: header blocks in CONTINUATION frames. No client needs one for its first request.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// A connection whose client may have sent a URL for an authority.
#[derive(Debug)]
pub(crate) struct Lenient<S> {
    stream: S,
    /// `None` once nothing is looked at any more.
    scan: Option<Scan>,
    /// What was looked at and not yet read; from `given` on.
    held: Vec<u8>,
    given: usize,
}

impl<S> Lenient<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, scan: Some(Scan::default()), held: Vec::new(), given: 0 }
    }

    /// Hands out what was looked at.
    fn give(&mut self, to: &mut ReadBuf<'_>) {
        let ready = self.scan.as_ref().map_or(self.held.len(), |scan| scan.passed);
        let size = (ready - self.given).min(to.remaining());
        to.put_slice(&self.held[self.given..self.given + size]);
        self.given += size;
        if self.given == self.held.len() {
            self.held = Vec::new();
            self.given = 0;
            if let Some(scan) = &mut self.scan {
                scan.passed = 0;
            }
        }
    }

    fn has_ready(&self) -> bool {
        self.given < self.scan.as_ref().map_or(self.held.len(), |scan| scan.passed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.has_ready() {
            let Some(scan) = &mut this.scan else {
                return Pin::new(&mut this.stream).poll_read(context, to);
            };
            let mut space = [0; READ_SIZE_BYTES];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            this.held.extend_from_slice(read.filled());
            if read.filled().is_empty() || scan.advance(&mut this.held) == Next::Done {
                this.scan = None;
            }
            if this.scan.is_none() && !this.has_ready() {
                return Poll::Ready(Ok(()));
            }
        }
        this.give(to);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Lenient<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

/// Whether there is more to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    More,
    Done,
}

/// Where in the client's bytes we are.
#[derive(Debug, Default)]
struct Scan {
    /// Up to here, in the held bytes, nothing will be changed any more.
    passed: usize,
    /// How much of the frame under way is still to come and is not looked at.
    skip: usize,
    preface_seen: bool,
    mended: bool,
}

impl Scan {
    /// Looks at what has come.
    fn advance(&mut self, held: &mut [u8]) -> Next {
        if !self.preface_seen {
            let size = held.len().min(PREFACE.len());
            if held[..size] != PREFACE[..size] {
                return Next::Done;
            }
            if size < PREFACE.len() {
                return Next::More;
            }
            self.preface_seen = true;
            self.passed = size;
        }
        loop {
            let skipped = self.skip.min(held.len() - self.passed);
            self.passed += skipped;
            self.skip -= skipped;
            let Some((head, rest)) = held[self.passed..].split_at_mut_checked(FRAME_HEAD_SIZE)
            else {
                return Next::More;
            };
            let size =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if head[3] != HEADERS {
                self.passed += FRAME_HEAD_SIZE;
                self.skip = size;
                continue;
            }
            if FRAME_SIZE_MAX < size {
                return Next::Done;
            }
            let Some(payload) = rest.get_mut(..size) else {
                return Next::More;
            };
            self.mended |= mend(payload, head[4]);
            if !self.mended {
                return Next::Done;
            }
            self.passed += FRAME_HEAD_SIZE + size;
        }
    }
}

/// Changes the authority of a header block if it is a URL; whether it was one.
fn mend(payload: &mut [u8], flags: u8) -> bool {
    let padding = usize::from(flags & PADDED != 0);
    let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
    let Some(block) = payload.get_mut(padding + priority..) else { return false };
    let Some((at, is_huffman)) = authority(block) else { return false };
    let (wrong, right) = if is_huffman {
        (&URL_HUFFMAN[..], &NAME_HUFFMAN[..])
    } else {
        (&URL_PLAIN[..], &NAME_PLAIN[..])
    };
    // In Huffman's code only the first bit of the sixth byte is still part of it.
    let Some(start) = block.get_mut(at..at + wrong.len()) else { return false };
    let last = wrong.len() - 1;
    let mask = if is_huffman { LAST_BYTE_MASK } else { 0xff };
    if start[..last] != wrong[..last] || start[last] & mask != wrong[last] & mask {
        return false;
    }
    start[..last].copy_from_slice(&right[..last]);
    start[last] = right[last] & mask | start[last] & !mask;
    true
}

/// Where the value of `:authority` begins, and whether it is in Huffman's code (RFC 7541 §6).
fn authority(block: &[u8]) -> Option<(usize, bool)> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        let (bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            0x20..0x40 => (5, false),
            0x00..0x20 => (4, true),
        };
        let name = number(block, &mut at, bits)?;
        if !is_literal {
            continue;
        }
        if name == 0 {
            let size = number(block, &mut at, 7)?;
            at = at.checked_add(size)?;
        }
        let is_huffman = block.get(at)? & 0x80 != 0;
        let size = number(block, &mut at, 7)?;
        if name == AUTHORITY_INDEX {
            return Some((at, is_huffman));
        }
        at = at.checked_add(size)?;
    }
    None
}

/// A number whose first byte holds `bits` of it (RFC 7541 §5.1); `at` moves behind it.
fn number(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let full = (1_usize << bits) - 1;
    let mut number = usize::from(*block.get(*at)?) & full;
    *at += 1;
    if number < full {
        return Some(number);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// As much as a client sends with its first request.
const READ_SIZE_BYTES: usize = 4 * 1024;

/// What a client of HTTP/2 says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Of frames (RFC 9113 §4.1, §6.2).
const FRAME_HEAD_SIZE: usize = 9;
const FRAME_SIZE_MAX: usize = 16 * 1024;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

/// `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY_INDEX: usize = 1;

/// `http://` and `httpB--`: of one length in plain text, and in Huffman's code (RFC 7541, appendix
/// B), where `:` and `B` have 7 bits, `/` and `-` 6, and the whole is 41 bits.
const URL_PLAIN: [u8; 7] = *b"http://";
const NAME_PLAIN: [u8; 7] = *b"httpB--";
const URL_HUFFMAN: [u8; 6] = [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x00];
const NAME_HUFFMAN: [u8; 6] = [0x9d, 0x29, 0xae, 0xea, 0xcb, 0x00];

/// Of the sixth byte of that code.
const LAST_BYTE_MASK: u8 = 0x80;

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
