//! TLS for clients and members: what certificates say of whom, from files that may be renewed at any time.
//!
//! Each side is a value that is asked for its configuration at each handshake, and looks then whether a file is another
//! one by now (`renewal`). Not here: which URLs want TLS (`address`, `listen`), sockets (`stream`).

pub mod accepting;
mod certificate;
pub mod dialing;
mod files;
mod origin;
mod renewal;
mod self_signed;
pub mod settings;
mod verify;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{ring, CryptoProvider};

pub use accepting::Acceptor;
pub use dialing::{Connector, Identity};
pub use settings::{Rules, Settings};

/// Why TLS can't be had as it was asked for; a sentence, etcd's where it has one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

fn wrong<T>(text: impl Into<String>) -> Result<T, TlsError> {
    Err(TlsError(text.into()))
}

/// The common name of a client's verified certificate, in the extensions of each request of its connection; there only
/// where clients are known by certificates (`--client-cert-auth`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonName(pub Arc<str>);

/// The settings with a certificate that is made in `dir`, for these hosts and so many years, unless it is there.
///
/// # Errors
/// When the directory can't be written.
pub fn with_own_certificate(
    settings: &Settings,
    dir: &Path,
    hosts: &[String],
    years: u32,
) -> Result<Settings, TlsError> {
    let pair = self_signed::pair(dir, hosts, years)?;
    Ok(Settings {
        cert_file: pair.cert,
        key_file: pair.key,
        ..settings.clone()
    })
}

/// What the handshakes are computed with.
fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// A mistake of the library's finding, in Go's words where users know those.
fn unusable(error: rustls::Error) -> TlsError {
    TlsError(match error {
        rustls::Error::InconsistentKeys(_) => {
            "tls: private key does not match public key".to_owned()
        }
        error => format!("tls: {error}"),
    })
}
