//! Certificates, keys and revocation lists out of files. Each error names its file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::RootCertStore;
use tracing::warn;

use super::{wrong, TlsError};

/// Where systems keep the authorities that they trust, as Go looks for them.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const FOR_OTHERS: u32 = 0o007;

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| {
        let words = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        TlsError(format!("open {}: {words}", path.display()))
    })
}

fn damaged(path: &Path) -> impl FnOnce(pem::Error) -> TlsError + '_ {
    move |error| TlsError(format!("{}: {error}", path.display()))
}

/// The certificates of a file, in its order; none where it has no PEM.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(damaged(path))
}

/// A certificate and what leads from it to its authority.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = certificates(path)?;
    if found.is_empty() {
        return wrong(format!(
            "tls: failed to find any PEM data in certificate input ({})",
            path.display()
        ));
    }
    Ok(found)
}

/// A private key, in PKCS#8, PKCS#1 or SEC1.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError(format!(
            "tls: failed to find any PEM data in key input ({}): an encrypted key can't be used",
            path.display()
        )),
        error => damaged(path)(error),
    })
}

/// Says it where a key may be read by everybody.
pub(super) fn warn_of_readers(path: &Path) {
    let mode = std::fs::metadata(path).map(|found| found.permissions().mode());
    if mode.is_ok_and(|mode| mode & FOR_OTHERS != 0) {
        warn!(
            path = %path.display(),
            "everybody on this machine may read a key; chmod 600 it"
        );
    }
}

/// Authorities, and the same as they stand in the file.
pub(super) struct Authorities {
    pub roots: RootCertStore,
    pub certificates: Vec<CertificateDer<'static>>,
}

/// The authorities of a file.
pub(super) fn authorities(path: &Path) -> Result<Authorities, TlsError> {
    let certificates = certificates(path)?;
    if certificates.is_empty() {
        return wrong(format!("{} holds no certificate", path.display()));
    }
    let mut roots = RootCertStore::empty();
    for one in &certificates {
        roots.add(one.clone()).map_err(|error| {
            TlsError(format!(
                "{}: a certificate is not one: {error}",
                path.display()
            ))
        })?;
    }
    Ok(Authorities {
        roots,
        certificates,
    })
}

/// The authorities that this system trusts; `SSL_CERT_FILE` names another file.
pub(super) fn system_authorities() -> Authorities {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let mut places = named
        .into_iter()
        .chain(SYSTEM_AUTHORITIES.map(std::path::PathBuf::from));
    let found = places.find_map(|path| certificates(&path).ok());
    let mut roots = RootCertStore::empty();
    // Some of a system's may be of a kind that is not understood here.
    roots.add_parsable_certificates(found.unwrap_or_default());
    Authorities {
        roots,
        certificates: Vec::new(),
    }
}

/// Revocation lists, in PEM or one in DER.
pub(super) fn revocations(
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(damaged(path))?;
    Ok(if found.is_empty() {
        vec![text.into()]
    } else {
        found
    })
}
