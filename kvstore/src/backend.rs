//! The LMDB writer behind memory: a thread that commits what was applied, batch by batch, each with its applied index.

mod view;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heed::types::Bytes as Raw;
use heed::{Database, Env, EnvOpenOptions, RwTxn};

use view::Gate;
pub use view::View;

/// LMDB's address space: a reservation, not memory; larger than any quota.
const MAP_BYTES: usize = 64 << 30;
/// Batches that may wait for the writer before applying waits too.
const QUEUE: usize = 1024;
/// How long changes are gathered for one commit: its syncs would delay those of the log, which clients wait for.
const GATHER: Duration = Duration::from_millis(100);
/// Changes that are committed at once; more memory than theirs is not held.
const MOST_CHANGES: usize = 10_000;
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
    #[error("{0} is being closed or replaced")]
    Closed(String),
}

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Revision (8 + 4 bytes, big endian) -> tombstone flag and encoded KeyValue.
    Revisions,
    /// Lease id -> granted TTL.
    Leases,
    /// Members, configuration, applied index.
    Meta,
}

/// What one turn of applying changed, in its order: a record may be put, deleted and put again in one turn.
#[derive(Debug, Default)]
pub struct Batch {
    changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    pub applied: u64,
    pub revision: i64,
}

impl Batch {
    /// Set a record.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((table, key, Some(value)));
    }

    /// Remove a record.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.changes.push((table, key, None));
    }
}

enum Order {
    Write(Batch),
    Flush(SyncSender<()>),
}

/// How far the writer has come; read without waiting.
#[derive(Debug, Default)]
pub struct Progress {
    applied: AtomicU64,
    revision: AtomicI64,
    failure: Mutex<Option<String>>,
}

/// The environment, open for reading, and its writer thread.
pub struct Backend {
    env: Env,
    gate: Arc<Gate>,
    tables: [Database<Raw, Raw>; 3],
    orders: Option<SyncSender<Order>>,
    progress: Arc<Progress>,
    writer: Option<JoinHandle<()>>,
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
        std::fs::create_dir_all(dir).map_err(|source| BackendError::Io {
            path: path.clone(),
            source,
        })?;
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
        txn.commit().map_err(lmdb)?;
        let progress = Arc::new(Progress::default());
        let (orders, inbox) = mpsc::sync_channel(QUEUE);
        let writer = {
            let (env, progress) = (env.clone(), Arc::clone(&progress));
            std::thread::Builder::new()
                .name("kv-backend".into())
                .spawn(move || write_behind(&env, &tables, &inbox, &progress))
                .map_err(|source| BackendError::Io {
                    path: path.clone(),
                    source,
                })?
        };
        let gate = Arc::new(Gate {
            env: RwLock::new(Some(env.clone())),
            closing: AtomicBool::new(false),
        });
        Ok(Self {
            env,
            gate,
            tables,
            orders: Some(orders),
            progress,
            writer: Some(writer),
            path,
        })
    }

    /// Hand a batch to the writer; waits only when it is [`QUEUE`] batches behind.
    pub fn write(&self, batch: Batch) {
        if let Some(orders) = &self.orders {
            // The receiver is gone only when the writer failed, and `failure` tells that.
            let _ = orders.send(Order::Write(batch));
        }
    }

    /// Wait until all that was handed over is synced.
    pub fn flush(&self) {
        if let Some(wait) = self.flushing() {
            let _ = wait.recv();
        }
    }

    fn flushing(&self) -> Option<Receiver<()>> {
        let (done, wait) = mpsc::sync_channel(1);
        let orders = self.orders.as_ref()?;
        orders.send(Order::Flush(done)).ok().map(|()| wait)
    }

    /// A view of the tables with at least all that was handed over until now.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            gate: Arc::clone(&self.gate),
            tables: self.tables,
            flushed: Mutex::new(self.flushing()),
            path: self.path.clone(),
        }
    }

    /// What was read at opening is on disk already.
    pub fn opened_at(&self, applied: u64, revision: i64) {
        self.progress.revision.store(revision, Ordering::Release);
        self.progress.applied.store(applied, Ordering::Release);
    }

    /// The applied index that is synced.
    #[must_use]
    pub fn durable_applied(&self) -> u64 {
        self.progress.applied.load(Ordering::Acquire)
    }

    /// The revision up to which records can be read here.
    #[must_use]
    pub fn durable_revision(&self) -> i64 {
        self.progress.revision.load(Ordering::Acquire)
    }

    /// What stopped the writer, if anything did: the member must stop too.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.progress
            .failure
            .lock()
            .map_or_else(|e| e.into_inner().clone(), |f| f.clone())
    }

    /// Bytes that the tables take on disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.env.real_disk_size().unwrap_or(0)
    }

    /// Read one record.
    ///
    /// # Errors
    /// LMDB's own.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let txn = self.env.read_txn().map_err(|source| self.lmdb(source))?;
        let value = self.tables[table as usize]
            .get(&txn, key)
            .map_err(|source| self.lmdb(source))?;
        Ok(value.map(<[u8]>::to_vec))
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

    fn lmdb(&self, source: heed::Error) -> BackendError {
        BackendError::Lmdb {
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.gate.closing.store(true, Ordering::Release);
        self.orders = None;
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

fn write_behind(
    env: &Env,
    tables: &[Database<Raw, Raw>; 3],
    inbox: &Receiver<Order>,
    progress: &Progress,
) {
    while let Ok(first) = inbox.recv() {
        let (mut batches, mut waiting, mut changes) = (Vec::new(), Vec::new(), 0);
        let end = Instant::now() + GATHER;
        let mut next = Some(first);
        while let Some(order) = next.take() {
            match order {
                Order::Write(batch) => {
                    changes += batch.changes.len();
                    batches.push(batch);
                }
                Order::Flush(done) => waiting.push(done),
            }
            // Who waits for a flush, or for room in the queue after a long commit, is not kept waiting.
            next = if changes >= MOST_CHANGES {
                None
            } else if waiting.is_empty() {
                let left = end.saturating_duration_since(Instant::now());
                inbox.recv_timeout(left).ok()
            } else {
                inbox.try_recv().ok()
            };
        }
        if let Some(last) = batches.last() {
            let (applied, revision) = (last.applied, last.revision);
            let result = env
                .write_txn()
                .and_then(|txn| commit(txn, tables, &batches));
            if let Err(error) = result {
                if let Ok(mut failure) = progress.failure.lock() {
                    *failure = Some(error.to_string());
                }
                return;
            }
            progress.revision.store(revision, Ordering::Release);
            progress.applied.store(applied, Ordering::Release);
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn commit(
    mut txn: RwTxn<'_>,
    tables: &[Database<Raw, Raw>; 3],
    batches: &[Batch],
) -> Result<(), heed::Error> {
    for batch in batches {
        for (table, key, value) in &batch.changes {
            let table = tables[*table as usize];
            match value {
                Some(value) => table.put(&mut txn, key, value)?,
                None => {
                    table.delete(&mut txn, key)?;
                }
            }
        }
    }
    txn.commit()
}
