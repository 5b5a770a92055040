//! What the log needs, finds and complains of.

use std::io;

use super::VERSION;
use crate::log::{Entry, HardState, SnapshotMeta};

/// What the log needs of a directory. `create`, `truncate` and `remove` are durable when they return; `append` only
/// after `sync`. An append begins at `offset`, where the last one ended; `read` may find zeros behind the last one.
/// `renew` writes bytes anew that `read` has found, and syncs them.
pub trait Disk {
    fn list(&self) -> io::Result<Vec<String>>;
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    fn create(&mut self, name: &str) -> io::Result<()>;
    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self, name: &str) -> io::Result<()>;
    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("the disk of the log is full: {0}; free some space")]
    NoSpace(io::Error),
    #[error("the log can not be read or written: {0}")]
    Io(io::Error),
    #[error(
        "the log is damaged in {file} at byte {offset}: {why}; other members hold the same data: remove this member \
         from the cluster, move its data directory away and add it again"
    )]
    Damaged {
        file: String,
        offset: u64,
        why: String,
    },
    #[error(
        "the log in {file} belongs to member {member:x} of cluster {cluster:x}, not to this one"
    )]
    Foreign {
        file: String,
        cluster: u64,
        member: u64,
    },
    #[error("{file} has format {found} of the log; this program reads format {VERSION}")]
    Version { file: String, found: u32 },
    #[error("the state ends at entry {applied} but the log begins after entry {start}; restore this member from others")]
    StateTooOld { applied: u64, start: u64 },
}

impl From<io::Error> for WalError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(error),
            _ => Self::Io(error),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub cluster: u64,
    pub member: u64,
}

/// What the log held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub hard_state: HardState,
    /// Index and term just before the first entry.
    pub start: (u64, u64),
    pub entries: Vec<Entry>,
    /// The last snapshot that was installed, if the log still shows it.
    pub snapshot: Option<SnapshotMeta>,
    /// A torn tail that was cut: file and new length.
    pub cut: Option<(String, u64)>,
}
