//! bbolt files as bytes: what etcd keeps its state in, and sends as a snapshot. Buckets of sorted keys in B+ trees of pages.
//!
//! Written whole and in order, read from untrusted files; never changed in place. Not here: what etcd puts into the
//! buckets (`etcd_file`). The format is that of bbolt 1.3 and 1.4 (file version 2), little endian.

mod page;
mod reader;
#[cfg(test)]
mod tests;
mod trailer;
mod tree;
mod writer;

pub use reader::{Bucket, Cursor, Pair, Reader, Source};
pub use trailer::{Checked, Sealed, TRAILER_BYTES};
pub use writer::{Plan, Writer};

/// Why a file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("page {page}, byte {offset}: {what}")]
    Damaged {
        page: u64,
        /// In the file.
        offset: u64,
        what: String,
    },
    #[error("this is no bbolt file, or both of its meta pages are damaged: {0}")]
    NoMeta(String),
    #[error("{0}")]
    Trailer(String),
    #[error("bucket {bucket}: {what}")]
    Unfit { bucket: String, what: String },
}
