//! An open connection of any kind: a port or a socket file, with TLS or without.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// What a connection's bytes go through at last.
#[derive(Debug)]
pub enum Socket {
    Port(TcpStream),
    File(UnixStream),
}

/// A connection, as HTTP reads and writes it.
#[derive(Debug)]
pub enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Socket {
    /// The address of the other side, None where that is a file.
    pub fn peer(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Port(stream) => stream.peer_addr().ok().map(|address| address.ip()),
            Self::File(_) => None,
        }
    }

    /// Sends each small piece at once.
    pub fn set_nodelay(&self) -> Result<()> {
        match self {
            Self::Port(stream) => stream.set_nodelay(true),
            Self::File(_) => Ok(()),
        }
    }

    /// The first byte that came, which stays unread; None when the other side has closed.
    pub async fn first_byte(&self) -> Result<Option<u8>> {
        let mut byte = [0];
        let count = match self {
            Self::Port(stream) => stream.peek(&mut byte).await?,
            Self::File(stream) => loop {
                stream.readable().await?;
                match stream.try_io(tokio::io::Interest::READABLE, || peek(stream, &mut byte)) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    other => break other?,
                }
            },
        };
        Ok((count > 0).then_some(byte[0]))
    }
}

fn peek(stream: &UnixStream, into: &mut [u8]) -> Result<usize> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and no more than `into` is written.
    let count = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            into.as_mut_ptr().cast(),
            into.len(),
            libc::MSG_PEEK,
        )
    };
    usize::try_from(count).map_err(|_| std::io::Error::last_os_error())
}

/// Passes a call on to whichever stream is inside.
macro_rules! pass {
    ($self:expr, $kind:ident { $($variant:ident),+ }, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            $($kind::$variant(stream) => {
                let $inner = Pin::new(stream);
                $call
            })+
        }
    };
}

macro_rules! stream {
    ($kind:ident { $($variant:ident),+ }) => {
        impl AsyncRead for $kind {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<Result<()>> {
                pass!(self, $kind { $($variant),+ }, inner => inner.poll_read(context, into))
            }
        }

        impl AsyncWrite for $kind {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<Result<usize>> {
                pass!(self, $kind { $($variant),+ }, inner => inner.poll_write(context, bytes))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                parts: &[IoSlice<'_>],
            ) -> Poll<Result<usize>> {
                pass!(self, $kind { $($variant),+ }, inner => inner.poll_write_vectored(context, parts))
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $(Self::$variant(stream) => stream.is_write_vectored(),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
                pass!(self, $kind { $($variant),+ }, inner => inner.poll_flush(context))
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
                pass!(self, $kind { $($variant),+ }, inner => inner.poll_shutdown(context))
            }
        }
    };
}

stream!(Socket { Port, File });
stream!(Stream { Plain, Tls });
