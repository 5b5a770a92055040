//! One number for the whole state, to compare members by.

use bytes::Bytes;

use super::Store;
use crate::backend::BackendError;
use crate::mvcc::KeyRange;
use crate::pb::etcd::KeyValue;

impl Store {
    /// A hash of keys, values, revisions and leases: equal on members that applied the same entries.
    ///
    /// # Errors
    /// When an older value can't be read.
    pub fn hash(&self) -> Result<u32, BackendError> {
        let mut hasher = crc32fast::Hasher::new();
        let all = KeyRange::From(Bytes::new());
        let from = self.compacted.max(1);
        for kv in self.keys.newest_in(&all) {
            hash_kv(&mut hasher, kv);
        }
        for change in self
            .keys
            .changes(&self.backend, &all, (from, self.revision), false)?
        {
            hasher.update(&[u8::from(change.deleted)]);
            hash_kv(&mut hasher, &change.kv);
        }
        let mut leases: Vec<_> = self.leases().collect();
        leases.sort_unstable();
        for (id, ttl) in leases {
            hasher.update(&id.to_be_bytes());
            hasher.update(&ttl.to_be_bytes());
        }
        hasher.update(&self.revision.to_be_bytes());
        hasher.update(&self.compacted.to_be_bytes());
        Ok(hasher.finalize())
    }
}

fn hash_kv(hasher: &mut crc32fast::Hasher, kv: &KeyValue) {
    hasher.update(&prost::Message::encode_to_vec(kv));
}
