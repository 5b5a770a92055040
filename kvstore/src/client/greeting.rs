//! Connections that count as open only once the member has answered the HTTP/2 preface (RFC 9113, 3.4), as grpc-go's do.
//! A kernel accepts connections for a member that does not serve yet: what is sent there may be carried out or not, and
//! a write must not be sent again after that. So nothing is sent before the member's settings have come.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result as IoResult};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::address::{Address, Place};
use crate::dial;
use crate::stream::Stream;
use crate::tls;

const CONNECT_WAIT: Duration = Duration::from_millis(500);
const HANDSHAKE_WAIT: Duration = Duration::from_secs(2);
const GREETING_WAIT: Duration = Duration::from_secs(1);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A SETTINGS frame that sets nothing; hyper's own comes after it.
const NO_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const HEADER: usize = 9;
/// What a peer may send before it has read our settings (RFC 9113's smallest limit).
const MAX_FRAME: usize = 16_384;
/// Frames that a member sends before it acknowledges, at most.
const MAX_FRAMES: usize = 16;

/// No connection: nothing of any request was sent.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct NotConnected {
    text: String,
    /// Nobody listens there, as its machine says; or it is not whom it should be.
    pub refused: bool,
}

/// Whether a channel is connected, and for the how-manieth time: odd while it is.
#[derive(Debug, Clone, Default)]
pub struct Line(Arc<AtomicU64>);

impl Line {
    /// Differs from an earlier even value only if there was a connection since.
    pub fn state(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn turn(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Opens connections for one channel.
#[derive(Clone)]
pub struct Connector {
    pub line: Line,
    pub address: Arc<Address>,
    pub tls: Option<Arc<tls::Connector>>,
}

type Opening = Pin<Box<dyn Future<Output = Result<TokioIo<Greeted>, NotConnected>> + Send>>;

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Greeted>;
    type Error = NotConnected;
    type Future = Opening;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Opening {
        let Self { line, address, tls } = self.clone();
        Box::pin(async move {
            let opened = open(&address, tls.as_deref()).await;
            let (stream, ahead) = opened.map_err(|error| NotConnected {
                text: format!("{}: {}", named(&address), reason(&error)),
                refused: error.kind() == ErrorKind::ConnectionRefused || is_of_tls(&error),
            })?;
            line.turn();
            Ok(TokioIo::new(Greeted {
                stream,
                ahead,
                unsaid: PREFACE.len(),
                line,
            }))
        })
    }
}

async fn open(address: &Address, tls: Option<&tls::Connector>) -> IoResult<(Stream, Bytes)> {
    let socket = timed(CONNECT_WAIT, dial::connect(address), "no connection").await?;
    let secured = dial::secure(address, tls, socket);
    let stream = timed(HANDSHAKE_WAIT, secured, "no TLS handshake").await?;
    timed(GREETING_WAIT, greet(stream), "it does not serve").await
}

/// An address, as an error names it.
fn named(address: &Address) -> String {
    match &address.place {
        Place::Port { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Place::Port { host, port } => format!("{host}:{port}"),
        Place::Socket(path) => path.display().to_string(),
    }
}

fn of_tls(error: &Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Certificates are not what they should be: another try would end alike.
fn is_of_tls(error: &Error) -> bool {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    matches!(
        of_tls(error),
        Some(InvalidCertificate(_) | AlertReceived(_))
    )
}

/// Why there is no connection, with what to do where that is known.
fn reason(error: &Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError};
    match of_tls(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is signed by an authority that is not trusted here; name that authority's certificate \
             (--cacert)"
                .to_owned()
        }
        Some(rustls::Error::AlertReceived(Alert::CertificateRequired)) => {
            "it asks for a client certificate (--cert, --key)".to_owned()
        }
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS".to_owned(),
        _ => error.to_string(),
    }
}

async fn timed<T>(
    wait: Duration,
    what: impl Future<Output = IoResult<T>>,
    late: &str,
) -> IoResult<T> {
    timeout(wait, what).await.unwrap_or_else(|_| {
        let text = format!("{late} within {} ms", wait.as_millis());
        Err(Error::new(ErrorKind::TimedOut, text))
    })
}

/// Says the preface; returns the frames that came, but for the acknowledgement of ours, which hyper would not expect.
async fn greet(mut stream: Stream) -> IoResult<(Stream, Bytes)> {
    stream.write_all(&[PREFACE, &NO_SETTINGS].concat()).await?;
    stream.flush().await?;
    let (mut frames, mut settings, mut acknowledged) = (Vec::new(), false, false);
    for _ in 0..MAX_FRAMES {
        let mut head = [0; HEADER];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if length > MAX_FRAME {
            break;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        match (head[3] == SETTINGS, head[4] & ACK == ACK) {
            (true, true) => acknowledged = true,
            (is_settings, _) => {
                settings |= is_settings;
                frames.extend_from_slice(&head);
                frames.extend_from_slice(&body);
            }
        }
        if settings && acknowledged {
            return Ok((stream, frames.into()));
        }
    }
    Err(Error::new(
        ErrorKind::InvalidData,
        "it does not speak HTTP/2",
    ))
}

/// A connection whose preface is said already.
pub struct Greeted {
    stream: Stream,
    /// Came with the greeting and is not read yet.
    ahead: Bytes,
    /// Bytes of hyper's preface that are still to be swallowed.
    unsaid: usize,
    line: Line,
}

impl Drop for Greeted {
    fn drop(&mut self) {
        self.line.turn();
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<IoResult<usize>> {
        if self.unsaid == 0 {
            return Pin::new(&mut self.stream).poll_write(context, data);
        }
        let count = self.unsaid.min(data.len());
        self.unsaid -= count;
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        if self.unsaid == 0 {
            return Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        }
        let first = parts.iter().find(|part| !part.is_empty());
        self.poll_write(context, first.map_or(&[], |part| part))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
