//! A snapshot as etcd makes and takes it: our state into etcd's buckets, and back. With it one moves in and out.
//!
//! Not here: pages and checksums (`bolt`), and what members send each other (`snapshot`).

mod export;
mod hash;
#[cfg(test)]
mod hash_tests;
mod import;
mod schema;
mod status;
#[cfg(test)]
mod tests;

pub use export::{write, Head};
pub use hash::{hash_all, hash_keys, HashError, KeysHash};
pub use import::{import, open, Opened};
pub(crate) use schema::{
    alarm_key, kept_key, read_alarm_key, read_kept_key, AUTH, AUTH_ENABLED, AUTH_REVISION,
    AUTH_ROLES, AUTH_USERS,
};
pub use status::{status, Status};

use crate::backend::BackendError;
use crate::bolt::BoltError;

/// Why a snapshot can't be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum EtcdFileError {
    #[error("{0}")]
    State(#[from] BackendError),
    #[error("{0}")]
    Bolt(#[from] BoltError),
    #[error("{path}: {source}")]
    File { path: String, source: BoltError },
    /// A bucket's record that is not etcd's.
    #[error("bucket {bucket}, key {key}: {what}")]
    Record {
        bucket: String,
        key: String,
        what: String,
    },
    #[error("{0}")]
    Refused(String),
}

impl EtcdFileError {
    fn record(bucket: &str, key: &[u8], what: impl Into<String>) -> Self {
        Self::Record {
            bucket: bucket.to_owned(),
            key: key.escape_ascii().to_string(),
            what: what.into(),
        }
    }
}
