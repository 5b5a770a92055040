//! One number for the whole state, to compare members by.

use bytes::Bytes;

use super::Store;
use crate::backend::BackendError;
use crate::mvcc::{KeyRange, Limit};

impl Store {
    /// A hash of keys, values, revisions, leases, alarms, users and roles: equal on members that applied the same entries.
    ///
    /// # Errors
    /// When an older value can't be read.
    pub fn hash(&self) -> Result<u32, BackendError> {
        let mut hasher = crc32fast::Hasher::new();
        let all = KeyRange::From(Bytes::new());
        let from = self.compacted.max(1);
        for kv in self.keys.newest_in(&all) {
            hasher.update(kv.encoded());
        }
        let span = (from, self.revision);
        let (changes, _) = self
            .keys
            .changes(&self.backend, &all, span, false, Limit::NONE)?;
        for change in changes {
            hasher.update(&[u8::from(change.deleted)]);
            hasher.update(change.kv.encoded());
        }
        let mut leases: Vec<_> = self.leases().collect();
        leases.sort_unstable();
        for (id, ttl) in leases {
            hasher.update(&id.to_be_bytes());
            hasher.update(&ttl.to_be_bytes());
        }
        for alarm in self.alarms.list(0) {
            hasher.update(&crate::alarm::encode(&alarm));
        }
        for record in self.auth.records() {
            hasher.update(&record);
        }
        hasher.update(&self.revision.to_be_bytes());
        hasher.update(&self.compacted.to_be_bytes());
        Ok(hasher.finalize())
    }
}
