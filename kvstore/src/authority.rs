//! Lets clients in whose `:authority` is no authority, as etcdctl 3.4's `endpoint status` sends (a whole URL).
//!
//! The HTTP/2 library resets such a stream. So the name is replaced by a shorter one on its way in; nothing here or
//! behind it uses it. A shorter name never makes the decoder's table forget before the encoder's does.

use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// A literal that enters the table, named by the static table's first row, `:authority`.
const AUTHORITY: u8 = 0x41;
const READ_BYTES: usize = 16 * 1024;

enum Mode {
    Preface,
    Frames,
    /// HTTP/1.1: bytes pass as they are.
    Plain,
}

/// A connection, as the HTTP library reads it.
pub struct Lenient<S> {
    inner: S,
    mode: Mode,
    raw: Vec<u8>,
    out: Vec<u8>,
    taken: usize,
    /// Bytes of a frame's payload that pass as they are.
    passing: usize,
    ended: bool,
}

impl<S> Lenient<S> {
    pub fn new(inner: S) -> Self {
        let (raw, out) = (Vec::new(), Vec::new());
        Self {
            inner,
            mode: Mode::Preface,
            raw,
            out,
            taken: 0,
            passing: 0,
            ended: false,
        }
    }

    /// Moves what can be judged from `raw` to `out`.
    fn digest(&mut self) {
        let mut at = 0;
        loop {
            let rest = &self.raw[at..];
            match self.mode {
                Mode::Plain => {
                    self.out.extend_from_slice(rest);
                    at += rest.len();
                }
                Mode::Preface
                    if rest.len() < PREFACE.len() && PREFACE.starts_with(rest) && !self.ended => {}
                Mode::Preface if rest.starts_with(PREFACE) => {
                    self.out.extend_from_slice(PREFACE);
                    at += PREFACE.len();
                    self.mode = Mode::Frames;
                    continue;
                }
                Mode::Preface => {
                    self.mode = Mode::Plain;
                    continue;
                }
                Mode::Frames if self.passing > 0 => {
                    let count = rest.len().min(self.passing);
                    self.out.extend_from_slice(&rest[..count]);
                    self.passing -= count;
                    at += count;
                    if count > 0 {
                        continue;
                    }
                }
                Mode::Frames if rest.len() >= FRAME_HEAD => {
                    let length = usize::from(rest[0]) << 16
                        | usize::from(rest[1]) << 8
                        | usize::from(rest[2]);
                    if rest[3] != HEADERS {
                        self.passing = FRAME_HEAD + length;
                        continue;
                    }
                    if let Some(frame) = rest.get(..FRAME_HEAD + length) {
                        at += frame.len();
                        rename(frame, &mut self.out);
                        continue;
                    }
                }
                Mode::Frames => {}
            }
            break;
        }
        self.raw.drain(..at);
        if self.ended {
            self.out.append(&mut self.raw);
        }
    }
}

/// Copies a HEADERS frame, its literal `:authority` replaced.
fn rename(frame: &[u8], out: &mut Vec<u8>) {
    let mut start = FRAME_HEAD;
    if frame[4] & PADDED != 0 {
        start += 1;
    }
    if frame[4] & PRIORITY != 0 {
        start += 5;
    }
    let Some((from, to)) = frame
        .get(start..)
        .and_then(find)
        .map(|(a, b)| (start + a, start + b))
    else {
        out.extend_from_slice(frame);
        return;
    };
    // One plain byte: no name is shorter.
    let name = [1, b'_'];
    let length = frame.len() - FRAME_HEAD - (to - from) + name.len();
    out.extend_from_slice(&[(length >> 16) as u8, (length >> 8) as u8, length as u8]);
    out.extend_from_slice(&frame[3..from]);
    out.extend_from_slice(&name);
    out.extend_from_slice(&frame[to..]);
}

/// Where the value of a literal `:authority` begins and ends, its length included (RFC 7541, section 6).
fn find(block: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let (index, next) = integer(block, at, bits)?;
        at = next;
        if bits == 7 || bits == 5 {
            continue;
        }
        if index == 0 {
            at = string(block, at)?;
        }
        let end = string(block, at)?;
        if first == AUTHORITY {
            return (end <= block.len() && end - at > 2).then_some((at, end));
        }
        at = end;
    }
    None
}

fn integer(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    let mut next = at + 1;
    if value == most {
        for shift in (0..21).step_by(7) {
            let byte = usize::from(*block.get(next)?);
            next += 1;
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value, next));
            }
        }
        return None;
    }
    Some((value, next))
}

fn string(block: &[u8], at: usize) -> Option<usize> {
    let (length, next) = integer(block, at, 7)?;
    Some(next + length)
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.taken == this.out.len() {
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            this.out.clear();
            this.taken = 0;
            let mut bytes = [0; READ_BYTES];
            let mut fresh = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut fresh))?;
            this.ended = fresh.filled().is_empty();
            this.raw.extend_from_slice(fresh.filled());
            this.digest();
        }
        let count = into.remaining().min(this.out.len() - this.taken);
        into.put_slice(&this.out[this.taken..this.taken + count]);
        this.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
