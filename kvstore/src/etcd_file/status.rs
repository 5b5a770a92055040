//! What `snapshot status` tells of a file.

use super::schema::{read_rev, KEY};
use super::EtcdFileError;
use crate::bolt::{Reader, Source};
use crate::crc32c::Crc32c;

/// As `etcdctl snapshot status` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C of all buckets' names, keys and values, in order.
    pub hash: u32,
    pub revision: i64,
    /// Records of all buckets, as etcdctl 3.4 counts.
    pub total_keys: u64,
    pub total_bytes: u64,
}

/// Read a whole file, and so check every page of its trees.
///
/// # Errors
/// When a page is damaged, or a key of the keys' bucket is no revision.
pub fn status<S: Source>(reader: &Reader<S>) -> Result<Status, EtcdFileError> {
    let (mut hash, mut revision, mut total_keys) = (Crc32c::default(), 0, 0);
    for bucket in reader.buckets()? {
        hash.update(&bucket.name);
        let mut cursor = reader.cursor(&bucket)?;
        while let Some((key, value)) = cursor.next()? {
            hash.update(key);
            hash.update(value);
            total_keys += 1;
            if bucket.name == KEY.as_bytes() {
                let (rev, _) =
                    read_rev(key).map_err(|what| EtcdFileError::record(KEY, key, what))?;
                revision = rev.main;
            }
        }
    }
    Ok(Status {
        hash: hash.sum(),
        revision,
        total_keys,
        total_bytes: reader.bytes(),
    })
}
