//! etcd's file into a state of ours. Members stay behind: they are those of the cluster that it was taken from. So are
//! alarms, but they come along, as with etcd: whoever leads first clears those that nobody is left to clear.

use std::fs::File;
use std::path::Path;

use prost::Message;

use super::schema::{
    alarm_key, kept_key, read_rev, Lease, ALARM, FINISHED_COMPACTION, KEPT, KEY, LEASE, META,
    SCHEDULED_COMPACTION,
};
use super::EtcdFileError;
use crate::alarm::Alarms;
use crate::apply::{encode_applied, LeaseEntry, Store, APPLIED};
use crate::auth::Auth;
use crate::backend::{Backend, BackendError, Batch, Table};
use crate::bolt::{Checked, Reader, Source};
use crate::pb::etcd::KeyValue;

/// Handed to the writer at once.
const BATCH_BYTES: usize = 1 << 20;
/// Users and roles are held in memory.
const MAX_KEPT_BYTES: usize = 16 << 20;

/// A snapshot's file, open.
pub type Opened = Reader<File>;

/// Open a snapshot and check its checksum; `skip_hash_check` for a copy of a data directory's file, which has none.
///
/// # Errors
/// When it can't be read, is damaged, or is no snapshot.
pub fn open(path: &Path, skip_hash_check: bool) -> Result<Opened, EtcdFileError> {
    let named = |source| EtcdFileError::File {
        path: path.display().to_string(),
        source,
    };
    let file = File::open(path).map_err(|e| named(e.into()))?;
    let checked = if skip_hash_check {
        Checked::look(&file)
    } else {
        Checked::verify(&file)
    }
    .map_err(named)?;
    Reader::open(file, checked.bytes).map_err(named)
}

/// Make the state under `dir`, which must not exist, from a snapshot. Nothing is applied in it yet. Blocks.
///
/// # Errors
/// When a record is not etcd's, or the directory can't be written.
pub fn import<S: Source>(reader: &Reader<S>, dir: &Path) -> Result<Store, EtcdFileError> {
    let buckets = reader.buckets()?;
    let mut loader = Loader::new(Backend::open(dir)?);
    for bucket in &buckets {
        let mut cursor = reader.cursor(bucket)?;
        let name = String::from_utf8_lossy(&bucket.name);
        while let Some((key, value)) = cursor.next()? {
            loader
                .take(&name, key, value)
                .map_err(|what| EtcdFileError::record(&name, key, what))?;
            if loader.batch.bytes() >= BATCH_BYTES {
                loader.hand_over()?;
            }
        }
    }
    loader.finish()?;
    Ok(Store::open(dir)?)
}

struct Loader {
    backend: Backend,
    batch: Batch,
    kept_bytes: usize,
    /// Sees to it that users and roles can be taken.
    auth: Auth,
    revision: i64,
    scheduled: i64,
    finished: i64,
}

impl Loader {
    fn new(backend: Backend) -> Self {
        Self {
            backend,
            batch: Batch::default(),
            kept_bytes: 0,
            auth: Auth::default(),
            revision: 1,
            scheduled: 0,
            finished: 0,
        }
    }

    fn take(&mut self, bucket: &str, key: &[u8], value: &[u8]) -> Result<(), String> {
        match bucket {
            KEY => self.revision_record(key, value),
            LEASE => {
                let lease = Lease::decode(value).map_err(|e| e.to_string())?;
                if key != lease.id.to_be_bytes() || lease.ttl < 1 {
                    return Err(format!(
                        "its record is of lease {:x} with a TTL of {}",
                        lease.id, lease.ttl
                    ));
                }
                let record = LeaseEntry::new(lease.ttl, lease.remaining_ttl).encode();
                self.batch.put(Table::Leases, key.to_vec(), record);
                Ok(())
            }
            META if key == SCHEDULED_COMPACTION => {
                self.scheduled = read_rev(value)?.0.main;
                Ok(())
            }
            META if key == FINISHED_COMPACTION => {
                self.finished = read_rev(value)?.0.main;
                Ok(())
            }
            ALARM => {
                Alarms::default().load(key).map_err(|e| e.to_string())?;
                self.batch.put(Table::Meta, alarm_key(key), Vec::new());
                Ok(())
            }
            _ if KEPT.contains(&bucket) => {
                self.kept_bytes += key.len() + value.len();
                if self.kept_bytes > MAX_KEPT_BYTES {
                    return Err(format!(
                        "more than {MAX_KEPT_BYTES} bytes of users and roles"
                    ));
                }
                self.auth.load(bucket, key, value)?;
                self.batch
                    .put(Table::Meta, kept_key(bucket, key), value.to_vec());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn revision_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let (rev, tombstone) = read_rev(key)?;
        let mut kv = KeyValue::decode(value).map_err(|e| e.to_string())?;
        // `etcdutl snapshot restore --bump-revision` leaves an empty record, whose key nobody can name.
        let filler = value.is_empty();
        let consistent = kv.mod_revision == rev.main && kv.create_revision <= rev.main;
        if !(tombstone || filler || (consistent && kv.version > 0)) {
            return Err(format!(
                "its record is of revision {}, created at {}, version {}",
                kv.mod_revision, kv.create_revision, kv.version
            ));
        }
        self.revision = rev.main;
        let mut record = vec![u8::from(tombstone)];
        if tombstone {
            kv.mod_revision = rev.main;
            record.extend_from_slice(&kv.encode_to_vec());
        } else {
            record.extend_from_slice(value);
        }
        self.batch.put(Table::Revisions, rev.encode(), record);
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), BackendError> {
        self.backend.write(std::mem::take(&mut self.batch));
        if self.backend.is_behind() {
            self.backend.flush()?;
        }
        Ok(())
    }

    /// Closes the state. What a compaction of etcd's left to drop is dropped when the state is open again.
    fn finish(mut self) -> Result<(), BackendError> {
        let compacted = self.finished.max(self.scheduled);
        let position = encode_applied((0, 0), self.revision.max(compacted), compacted);
        self.batch
            .put(Table::Meta, APPLIED.to_vec(), position.to_vec());
        self.hand_over()?;
        self.backend.flush()
    }
}
