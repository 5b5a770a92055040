//! The tables on disk, in LMDB: opened and read here; written by a thread of their own (`writer`), behind memory.

mod appending;
mod by_hand;
mod queue;
mod reading;
mod view;
mod writer;

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use heed::types::Bytes as Raw;
use heed::{Database, Env, EnvOpenOptions};
use tokio::sync::Notify;

use crate::disk::{make_directory, sync_directory};
pub use by_hand::write_by_hand;
use queue::Queue;
pub use reading::Reader;
use view::Gate;
pub use view::{Held, View};
pub use writer::Batch;
use writer::{used, Progress, Writer};

/// LMDB's address space: a reservation, not memory; larger than any quota.
const MAP_BYTES: usize = 64 << 30;
/// Bytes of changes that wait for the writer before applying waits too.
const MAX_QUEUED_BYTES: u64 = 64 << 20;
/// Pause before it is asked again whether the writer may be handed more.
const BEHIND_PAUSE: Duration = Duration::from_millis(2);
/// LMDB's file of locks and readers, and the length that it gives it.
const LOCK_FILE: &str = "lock.mdb";
const LOCK_BYTES: libc::off_t = 8 << 10;
/// The layout of the tables; a larger one on disk is refused.
const LAYOUT: u8 = 1;

/// Why the state on disk can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("{path}: {source}")]
    Lmdb { path: String, source: heed::Error },
    #[error("{path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
    #[error("{0} was written by a newer program (layout {1}, this one reads {LAYOUT}): install the newer one")]
    Newer(String, u8),
    #[error(
        "{0} is damaged: {1}; restore this member from a snapshot, or remove it and add it anew"
    )]
    Damaged(String, String),
    #[error("the disk of {0} is full: free some space")]
    Full(String),
    #[error("{0} is being closed or replaced")]
    Closed(String),
}

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Revision (8 + 4 bytes, big endian) -> tombstone flag and encoded KeyValue.
    Revisions,
    /// Lease id -> granted TTL, and what was left at its last checkpoint (`LeaseEntry`).
    Leases,
    /// Members, configuration, applied index.
    Meta,
}

/// The environment, open for reading, and its writer thread.
pub struct Backend {
    env: Env,
    gate: Arc<Gate>,
    tables: [Database<Raw, Raw>; 3],
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    writer: Option<JoinHandle<()>>,
    /// In the place of that thread.
    by_hand: Option<Writer>,
    path: String,
}

impl Backend {
    /// Open or make the tables under `dir`.
    ///
    /// # Errors
    /// When the directory can't be used or holds a newer layout.
    pub fn open(dir: &Path) -> Result<Self, BackendError> {
        let path = dir.display().to_string();
        let lmdb = |source| BackendError::Lmdb {
            path: path.clone(),
            source,
        };
        let io = |source| BackendError::Io {
            path: path.clone(),
            source,
        };
        make_directory(dir).map_err(io)?;
        reserve_lock(dir)?;
        // SAFETY: the member's data directory is locked by its process, so no other process changes the map.
        let env = unsafe {
            EnvOpenOptions::new()
                .map_size(MAP_BYTES)
                .max_dbs(4)
                .open(dir)
        }
        .map_err(lmdb)?;
        let mut txn = env.write_txn().map_err(lmdb)?;
        let mut make = |name| env.create_database(&mut txn, Some(name)).map_err(lmdb);
        let tables: [Database<Raw, Raw>; 3] = [make("revisions")?, make("leases")?, make("meta")?];
        match tables[2]
            .get(&txn, b"layout")
            .map_err(lmdb)?
            .map(|v| v.first().copied().unwrap_or(0))
        {
            None => tables[2]
                .put(&mut txn, b"layout", &[LAYOUT])
                .map_err(lmdb)?,
            Some(layout) if layout > LAYOUT => return Err(BackendError::Newer(path, layout)),
            Some(_) => {}
        }
        let progress = Arc::new(Progress::default());
        progress.uses(used(&tables, &txn).map_err(lmdb)?);
        txn.commit().map_err(lmdb)?;
        // The last commit may be in the system's memory only: who made it was killed before it was synced.
        env.force_sync().map_err(lmdb)?;
        // LMDB syncs its file, and not that there is one.
        sync_directory(dir).map_err(io)?;
        let queue = Arc::new(Queue::default());
        let writer = Writer {
            queue: Arc::clone(&queue),
            env: env.clone(),
            tables,
            // The directory itself may be moved to another name.
            dir: dir.parent().unwrap_or(dir).to_owned(),
            progress: Arc::clone(&progress),
        };
        let (writer, by_hand) = if by_hand::is_by_hand() {
            (None, Some(writer))
        } else {
            let thread = std::thread::Builder::new()
                .name("kv-backend".into())
                .spawn(move || writer.run())
                .map_err(|source| BackendError::Io {
                    path: path.clone(),
                    source,
                })?;
            (Some(thread), None)
        };
        let gate = Arc::new(Gate {
            env: RwLock::new(Some(env.clone())),
            closing: AtomicBool::new(false),
        });
        Ok(Self {
            env,
            gate,
            tables,
            queue,
            progress,
            writer,
            by_hand,
            path,
        })
    }

    /// Hand a batch to the writer. Never waits: who has more asks [`Self::is_behind`] first, or waits in [`Self::keep_up`].
    pub fn write(&self, batch: Batch) {
        self.progress.queued(batch.bytes());
        // It is closed only when the writer failed, and `failure` tells that.
        self.queue.push(batch);
    }

    /// Whether so much waits for the writer that no more should come; [`Self::room`] tells when that is over.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.progress.is_behind()
    }

    /// Notified when the writer was behind and is no longer, finds the disk full or no longer full, or fails.
    #[must_use]
    pub fn room(&self) -> Arc<Notify> {
        Arc::clone(&self.progress.room)
    }

    /// Wait until the writer may be handed more. Blocks.
    ///
    /// # Errors
    /// When the disk is full, or the writer failed.
    pub fn keep_up(&self) -> Result<(), BackendError> {
        loop {
            if self.is_full() || self.failure().is_some() {
                return Err(self.stuck());
            }
            if !self.is_behind() {
                return Ok(());
            }
            std::thread::sleep(BEHIND_PAUSE);
        }
    }

    /// Wait until all that was handed over is synced.
    ///
    /// # Errors
    /// When the disk is full, or the writer failed.
    pub fn flush(&self) -> Result<(), BackendError> {
        if self.by_hand.is_some() {
            return self.commit_by_hand();
        }
        match self.queue.flush().map(|wait| wait.recv()) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.stuck()),
        }
    }

    /// Why the writer does not go on.
    fn stuck(&self) -> BackendError {
        match self.failure() {
            Some(why) => self.damaged(&why),
            None => BackendError::Full(self.path.clone()),
        }
    }

    /// A view of the tables with at least all that was handed over until now.
    #[must_use]
    pub fn view(&self) -> View {
        let flushed = if self.by_hand.is_some() {
            // As a writer that fails, what can't be committed is told elsewhere.
            let _ = self.commit_by_hand();
            None
        } else {
            self.queue.flush()
        };
        View {
            gate: Arc::clone(&self.gate),
            tables: self.tables,
            flushed: Mutex::new(flushed),
            path: self.path.clone(),
        }
    }

    /// What was read at opening is on disk already.
    pub fn opened_at(&self, applied: u64, revision: i64) {
        self.progress.reached(applied, revision);
    }

    /// The applied index that is synced.
    #[must_use]
    pub fn durable_applied(&self) -> u64 {
        self.progress.applied()
    }

    /// The revision up to which records can be read here.
    #[must_use]
    pub fn durable_revision(&self) -> i64 {
        self.progress.revision()
    }

    /// What stopped the writer, if anything did: the member must stop too.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.progress.failure()
    }

    /// Whether what was handed over waits for room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.progress.is_full()
    }

    /// Bytes of the tables that hold something, as of the last commit.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.progress.used()
    }

    /// Bytes that the tables take on disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.env.real_disk_size().unwrap_or(0)
    }

    /// Visit every record of a table in the order of its keys.
    ///
    /// # Errors
    /// LMDB's own, or the visitor's.
    pub fn each(
        &self,
        table: Table,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let txn = self.env.read_txn().map_err(|source| self.lmdb(source))?;
        for row in self.tables[table as usize]
            .iter(&txn)
            .map_err(|source| self.lmdb(source))?
        {
            let (key, value) = row.map_err(|source| self.lmdb(source))?;
            visit(key, value)?;
        }
        Ok(())
    }

    /// A damaged record, named by this environment's path.
    #[must_use]
    pub fn damaged(&self, what: &str) -> BackendError {
        BackendError::Damaged(self.path.clone(), what.to_owned())
    }

    /// For a write transaction of a test's own, which keeps the writer from committing.
    #[cfg(test)]
    pub(crate) fn env(&self) -> Env {
        self.env.clone()
    }

    /// As when the writer finds no room; until it has written again.
    #[cfg(test)]
    pub(crate) fn find_full(&self) {
        self.progress.found_full(true);
    }

    fn lmdb(&self, source: heed::Error) -> BackendError {
        BackendError::Lmdb {
            path: self.path.clone(),
            source,
        }
    }
}

/// Gives the lock file its room: LMDB maps it as a hole, and on a full disk the first touch of a hole ends the process.
fn reserve_lock(dir: &Path) -> Result<(), BackendError> {
    let path = dir.display().to_string();
    let reserved = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK_FILE))
        .and_then(|file| {
            // SAFETY: the descriptor is open; the call touches no memory.
            match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, LOCK_BYTES) } {
                0 => Ok(()),
                code => Err(std::io::Error::from_raw_os_error(code)),
            }
        });
    reserved.map_err(|source| {
        if crate::space::is_full(&source) {
            BackendError::Full(path)
        } else {
            BackendError::Io { path, source }
        }
    })
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.gate.closing.store(true, Ordering::Release);
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        // Waits for who still reads: LMDB must not be opened again before all of it is closed.
        *self
            .gate
            .env
            .write()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }
}
