//! The tables as another thread reads them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use heed::types::Bytes as Raw;
use heed::{Database, Env};

use super::{BackendError, Table};

/// What views hold of an environment: it closes when none of them reads any more, and they are told to hurry.
pub(super) struct Gate {
    pub env: RwLock<Option<Env>>,
    pub closing: AtomicBool,
}

/// The tables as they are on disk at one moment, for reading on another thread while the writer goes on.
pub struct View {
    pub(super) gate: Arc<Gate>,
    pub(super) tables: [Database<Raw, Raw>; 3],
    /// What was handed to the writer before the view was asked for is on disk once this says so.
    pub(super) flushed: Mutex<Option<Receiver<()>>>,
    pub(super) path: String,
}

impl View {
    /// Whether the environment is wanted closed: who waits for something should stop.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.gate.closing.load(Ordering::Acquire)
    }

    /// The error of a view whose environment goes.
    #[must_use]
    pub fn closed(&self) -> BackendError {
        BackendError::Closed(self.path.clone())
    }

    /// A damaged record.
    #[must_use]
    pub fn damaged(&self, what: &str) -> BackendError {
        BackendError::Damaged(self.path.clone(), what.to_owned())
    }

    /// Visit some tables, one after the other, all as of one moment; waits for the writer first.
    ///
    /// # Errors
    /// LMDB's own, the visitor's, or that the environment closes.
    pub fn each(
        &self,
        tables: &[Table],
        mut visit: impl FnMut(Table, &[u8], &[u8]) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let lmdb = |source| BackendError::Lmdb {
            path: self.path.clone(),
            source,
        };
        let flushed = self
            .flushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(flushed) = flushed {
            // A writer that failed says so elsewhere.
            let _ = flushed.recv();
        }
        let gate = self.gate.env.read().map_err(|_| self.closed())?;
        let env = gate.as_ref().ok_or_else(|| self.closed())?;
        let txn = env.read_txn().map_err(lmdb)?;
        for table in tables {
            for row in self.tables[*table as usize].iter(&txn).map_err(lmdb)? {
                let (key, value) = row.map_err(lmdb)?;
                if self.is_closing() {
                    return Err(self.closed());
                }
                visit(*table, key, value)?;
            }
        }
        Ok(())
    }
}
