//! `kvstore.tls.Tls` for the native client.

use std::path::PathBuf;

use pyo3::prelude::*;

use kvstore::tls::Identity;

/// A client's certificates, by the attributes of Python's value.
#[derive(FromPyObject)]
pub struct Tls {
    cacert: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    insecure_skip_verify: bool,
    server_name: String,
}

impl From<Tls> for Identity {
    fn from(given: Tls) -> Self {
        Self {
            cacert: given.cacert,
            cert: given.cert,
            key: given.key,
            insecure_skip_verify: given.insecure_skip_verify,
            server_name: Some(given.server_name).filter(|name| !name.is_empty()),
        }
    }
}
