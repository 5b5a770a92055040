//! Sockets that are listened on, and who comes in through one: with TLS, without, or either way as the first byte says.

use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixSocket};

use crate::address::{resolve, Address, Place};
use crate::config::ConfigError;
use crate::stream::{Socket, Stream};
use crate::tls::{Acceptor, CommonName};

/// Who may connect to a socket file: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// Connections that may wait for a socket file's acceptance, as std has it for ports.
const BACKLOG: u32 = 4096;
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(10);

enum Listener {
    Port(TcpListener, SocketAddr),
    File(UnixListener, SocketFile),
}

/// A socket's file, which goes with its listener.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have taken it away already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What is spoken at a door.
#[derive(Clone, Default)]
pub(super) struct Entry {
    plain: bool,
    tls: Option<Arc<Acceptor>>,
}

/// A socket that is listened on.
pub struct Door {
    listener: Listener,
    pub(super) entry: Entry,
}

/// Opens the doors of some listen URLs, one for URLs that differ in nothing but TLS; an error names the URL.
pub fn bind(
    urls: &[String],
    tls: Option<&Arc<Acceptor>>,
) -> std::result::Result<Vec<Door>, ConfigError> {
    let mut doors: Vec<Door> = Vec::new();
    for url in urls {
        let address = Address::parse(url)?;
        let failed = |e: Error| ConfigError(format!("can't listen on {url}: {e}"));
        if address.secure && tls.is_none() {
            return Err(failed(Error::other("there is no certificate")));
        }
        for place in places(url, &address.place)? {
            let known = doors.iter().position(|door| door.listener.is_at(&place));
            let at = known.map_or_else(
                || {
                    let listener = place.listen()?;
                    doors.push(Door {
                        listener,
                        entry: Entry::default(),
                    });
                    Ok(doors.len() - 1)
                },
                Ok,
            );
            let entry = &mut doors[at.map_err(failed)?].entry;
            if address.secure {
                entry.tls = tls.cloned();
            } else {
                entry.plain = true;
            }
        }
    }
    Ok(doors)
}

/// Where exactly to listen.
enum Spot {
    Port(SocketAddr),
    File(PathBuf),
}

fn places(url: &str, place: &Place) -> std::result::Result<Vec<Spot>, ConfigError> {
    Ok(match place {
        Place::Port { host, port } => {
            let found = resolve(url, host, *port)?;
            found.into_iter().map(Spot::Port).collect()
        }
        Place::Socket(path) => vec![Spot::File(path.clone())],
    })
}

impl Spot {
    fn listen(&self) -> Result<Listener> {
        match self {
            Self::Port(address) => {
                let socket = StdListener::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(Listener::Port(TcpListener::from_std(socket)?, *address))
            }
            Self::File(path) => {
                make_room(path)?;
                let socket = UnixSocket::new_stream()?;
                socket.bind(path)?;
                let file = SocketFile(path.clone());
                // Nobody can connect before it listens.
                std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE))?;
                Ok(Listener::File(socket.listen(BACKLOG)?, file))
            }
        }
    }
}

/// Removes the socket file of a server that is gone, and nothing else.
fn make_room(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(Error::new(
            ErrorKind::AlreadyExists,
            "there is a file, and it is no socket",
        )),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => Err(Error::new(
            ErrorKind::AddrInUse,
            "another process listens there",
        )),
        Ok(_) => std::fs::remove_file(path),
    }
}

impl Listener {
    fn is_at(&self, spot: &Spot) -> bool {
        match (self, spot) {
            // Port 0 is another port each time.
            (Self::Port(_, mine), Spot::Port(other)) => mine == other && mine.port() != 0,
            (Self::File(_, mine), Spot::File(other)) => mine.0 == *other,
            _ => false,
        }
    }
}

impl Door {
    /// The address of a port.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        match &self.listener {
            Listener::Port(listener, _) => listener.local_addr(),
            Listener::File(..) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// The next connection, as the kernel hands it over.
    pub(super) async fn accept(&self) -> Result<Socket> {
        match &self.listener {
            Listener::Port(listener, _) => listener.accept().await.map(|(it, _)| Socket::Port(it)),
            Listener::File(listener, _) => listener.accept().await.map(|(it, _)| Socket::File(it)),
        }
    }
}

impl Entry {
    /// A connection that may speak HTTP, and whose it is; None when it is not let in.
    pub async fn admit(&self, socket: Socket) -> Option<(Stream, Option<CommonName>)> {
        let Some(tls) = &self.tls else {
            return Some((Stream::Plain(socket), None));
        };
        if self.plain {
            let first = tokio::time::timeout(FIRST_BYTE_WAIT, socket.first_byte()).await;
            if first.ok()?.ok()?? != HANDSHAKE {
                return Some((Stream::Plain(socket), None));
            }
        }
        tls.accept(socket).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_file_is_for_owner_and_group_and_goes_with_its_door() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.sock");
        let urls = [format!("unix://{}", path.display())];
        // What a server that was killed has left.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let doors = bind(&urls, None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let text = bind(&urls, None).err().unwrap().to_string();
        assert!(text.contains("another process listens there"), "{text}");
        drop(doors);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        let text = bind(&urls, None).err().unwrap().to_string();
        assert!(text.contains("it is no socket"), "{text}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_url_with_tls_needs_a_certificate() {
        let urls = ["https://127.0.0.1:0".to_owned()];
        let text = bind(&urls, None).err().unwrap().to_string();
        assert!(text.contains("there is no certificate"), "{text}");
    }
}
