//! The thread that commits what was applied, batch by batch, each with its applied index.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use heed::types::Bytes as Raw;
use heed::{Database, Env, RoTxn};
use tokio::sync::Notify;

use super::queue::{Gathered, Queue};
use super::{Table, MAX_QUEUED_BYTES};
use crate::measures::BACKEND_COMMIT;
use crate::space::{available, is_full};

/// What a change takes beside its key and value, about.
const CHANGE_BYTES: usize = 64;
/// Pause before a commit is tried again that found no room on the disk.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// LMDB says "input/output error" of a write that was cut short; on a disk with less room than this it was full.
const NEARLY_FULL_BYTES: u64 = 4 << 20;

/// What one turn of applying changed, in its order: a record may be put, deleted and put again in one turn.
#[derive(Debug, Default)]
pub struct Batch {
    changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    bytes: usize,
    pub applied: u64,
    pub revision: i64,
}

impl Batch {
    /// Set a record.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len() + CHANGE_BYTES;
        self.changes.push((table, key, Some(value)));
    }

    /// Remove a record.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.bytes += key.len() + CHANGE_BYTES;
        self.changes.push((table, key, None));
    }

    /// How many records it changes.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// The memory that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How far the writer has come; read without waiting.
#[derive(Debug, Default)]
pub(super) struct Progress {
    applied: AtomicU64,
    revision: AtomicI64,
    queued: AtomicU64,
    used: AtomicU64,
    full: AtomicBool,
    failure: Mutex<Option<String>>,
    pub room: Arc<Notify>,
}

impl Progress {
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    pub fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    pub fn reached(&self, applied: u64, revision: i64) {
        self.revision.store(revision, Ordering::Release);
        self.applied.store(applied, Ordering::Release);
    }

    pub fn queued(&self, bytes: usize) {
        self.queued.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    pub fn is_behind(&self) -> bool {
        self.queued.load(Ordering::Acquire) > MAX_QUEUED_BYTES
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn uses(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Whether a commit waits for room on the disk.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    pub fn found_full(&self, full: bool) {
        if self.full.swap(full, Ordering::AcqRel) != full {
            self.room.notify_one();
        }
    }

    fn committed(&self, bytes: usize) {
        let bytes = bytes as u64;
        let before = self.queued.fetch_sub(bytes, Ordering::AcqRel);
        if before > MAX_QUEUED_BYTES && before - bytes <= MAX_QUEUED_BYTES {
            self.room.notify_one();
        }
    }

    pub fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn failed(&self, error: &heed::Error) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        self.room.notify_one();
    }
}

/// However the writer ends, nobody waits for it any longer.
struct Ended<'a>(&'a Queue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The thread's own: what it writes to, and whom it tells.
pub(super) struct Writer {
    pub queue: Arc<Queue>,
    pub env: Env,
    pub tables: [Database<Raw, Raw>; 3],
    pub dir: PathBuf,
    pub progress: Arc<Progress>,
}

impl Writer {
    /// Ends when the queue is closed, or a commit failed.
    pub fn run(&self) {
        let _ended = Ended(&self.queue);
        while let Some(mut all) = self.queue.next() {
            while let Err(error) = self.commit(&all.batches) {
                if !self.found_full(&error) {
                    return self.progress.failed(&error);
                }
                self.progress.found_full(true);
                all.waiting.clear();
                if !self.queue.refuse_flushes() {
                    return;
                }
                std::thread::sleep(FULL_PAUSE);
            }
            self.progress.found_full(false);
            self.note(&all);
            for done in all.waiting {
                // Who gave up waiting needs no word.
                let _ = done.send(());
            }
        }
    }

    fn found_full(&self, error: &heed::Error) -> bool {
        let heed::Error::Io(error) = error else {
            return false;
        };
        let cut_short = error.raw_os_error() == Some(libc::EIO);
        let room = || available(&self.dir).unwrap_or(u64::MAX);
        is_full(error) || cut_short && room() < NEARLY_FULL_BYTES
    }

    /// Tells how far it has come with these.
    pub fn note(&self, committed: &Gathered) {
        if let Some(last) = committed.batches.last() {
            self.progress.reached(last.applied, last.revision);
            self.progress.committed(committed.bytes);
        }
    }

    /// Writes these in one transaction.
    pub fn commit(&self, batches: &[Batch]) -> Result<(), heed::Error> {
        if batches.is_empty() {
            return Ok(());
        }
        let mut txn = self.env.write_txn()?;
        for batch in batches {
            for (table, key, value) in &batch.changes {
                let table = self.tables[*table as usize];
                match value {
                    Some(value) => table.put(&mut txn, key, value)?,
                    None => {
                        table.delete(&mut txn, key)?;
                    }
                }
            }
        }
        let used = used(&self.tables, &txn)?;
        let began = Instant::now();
        txn.commit()?;
        BACKEND_COMMIT.observe(began.elapsed());
        self.progress.uses(used);
        Ok(())
    }
}

/// Bytes of the pages that hold something; what was deleted leaves pages that are used again, in a file as long as before.
pub(super) fn used(tables: &[Database<Raw, Raw>; 3], txn: &RoTxn<'_>) -> Result<u64, heed::Error> {
    let mut bytes = 0;
    for table in tables {
        let stat = table.stat(txn)?;
        let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
        bytes += pages as u64 * u64::from(stat.page_size);
    }
    Ok(bytes)
}
