//! Opening a connection to where an address says, with TLS where that says so.

use std::io::{Error, Result};

use http::Uri;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::Endpoint;

use crate::address::{Address, Place};
use crate::stream::{Socket, Stream};
use crate::tls::Connector;

/// The host that a socket file's server is taken for, as in gRPC.
const HERE: &str = "localhost";

/// Connects, without a word yet.
pub async fn connect(address: &Address) -> Result<Socket> {
    match &address.place {
        Place::Port { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // Without it a small request waits for the last one's acknowledgement.
            stream.set_nodelay(true)?;
            Ok(Socket::Port(stream))
        }
        Place::Socket(path) => UnixStream::connect(path).await.map(Socket::File),
    }
}

/// Makes a connection one with TLS where the address asks for that.
pub async fn secure(address: &Address, tls: Option<&Connector>, socket: Socket) -> Result<Stream> {
    if !address.secure {
        return Ok(Stream::Plain(socket));
    }
    let tls = tls.ok_or_else(|| Error::other("no TLS is set up on this side"))?;
    tls.connect(address.host().unwrap_or(HERE), socket).await
}

/// What HTTP calls an address; None where that is no host.
pub fn endpoint(address: &Address) -> Option<Endpoint> {
    let scheme = if address.secure { "https" } else { "http" };
    let authority = match &address.place {
        Place::Port { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Place::Port { host, port } => format!("{host}:{port}"),
        Place::Socket(_) => HERE.to_owned(),
    };
    let uri = Uri::builder().scheme(scheme).authority(authority);
    Some(Endpoint::from(uri.path_and_query("/").build().ok()?))
}
