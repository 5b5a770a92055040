//! The tables as another thread reads them.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use heed::types::Bytes as Raw;
use heed::{Database, Env, RoTxn, WithTls};

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
        self.hold(|held| {
            tables
                .iter()
                .try_for_each(|table| held.each(*table, |key, value| visit(*table, key, value)))
        })
    }

    /// Do something with the tables of one moment, as often as wanted; waits for the writer first.
    ///
    /// # Errors
    /// LMDB's own, or that of `work`.
    pub fn hold<T, E: From<BackendError>>(
        &self,
        work: impl FnOnce(&Held<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let flushed = self
            .flushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(flushed) = flushed {
            // A writer that failed, or found the disk full, says so elsewhere; then this is what was there before.
            let _ = flushed.recv();
        }
        let gate = self.gate.env.read().map_err(|_| self.closed())?;
        let env = gate.as_ref().ok_or_else(|| self.closed())?;
        let txn = env.read_txn().map_err(|source| self.lmdb(source))?;
        let held = Held { view: self, txn };
        work(&held)
    }

    fn lmdb(&self, source: heed::Error) -> BackendError {
        BackendError::Lmdb {
            path: self.path.clone(),
            source,
        }
    }
}

/// The tables of one moment.
pub struct Held<'v> {
    view: &'v View,
    txn: RoTxn<'v, WithTls>,
}

/// A record's key and value, or why it can't be read.
type Row<'h> = Result<(&'h [u8], &'h [u8]), BackendError>;

impl Held<'_> {
    /// Visit a table in the order of its keys.
    ///
    /// # Errors
    /// LMDB's own, the visitor's, or that the environment closes.
    pub fn each<E: From<BackendError>>(
        &self,
        table: Table,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let rows = self.view.tables[table as usize].iter(&self.txn);
        for row in rows.map_err(|source| self.view.lmdb(source))? {
            let (key, value) = self.row(row)?;
            visit(key, value)?;
        }
        Ok(())
    }

    /// One record.
    ///
    /// # Errors
    /// LMDB's own.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, BackendError> {
        let found = self.view.tables[table as usize].get(&self.txn, key);
        found.map_err(|source| self.view.lmdb(source))
    }

    /// The records whose keys are before `end`, in the order of their keys.
    ///
    /// # Errors
    /// LMDB's own; those of a row may also say that the environment closes.
    pub fn before<'h>(
        &'h self,
        table: Table,
        end: &'h [u8],
    ) -> Result<impl Iterator<Item = Row<'h>> + 'h, BackendError> {
        let range = (Bound::Unbounded, Bound::Excluded(end));
        let rows = self.view.tables[table as usize].range(&self.txn, &range);
        let rows = rows.map_err(|source| self.view.lmdb(source))?;
        Ok(rows.map(|row| self.row(row)))
    }

    /// The records whose keys are behind `start`, in the order of their keys.
    ///
    /// # Errors
    /// LMDB's own; those of a row may also say that the environment closes.
    pub fn after<'h>(
        &'h self,
        table: Table,
        start: &'h [u8],
    ) -> Result<impl Iterator<Item = Row<'h>> + 'h, BackendError> {
        // LMDB looks for no empty key.
        let from = if start.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(start)
        };
        let range = (from, Bound::Unbounded);
        let rows = self.view.tables[table as usize].range(&self.txn, &range);
        let rows = rows.map_err(|source| self.view.lmdb(source))?;
        Ok(rows.map(|row| self.row(row)))
    }

    /// The records that [`Self::before`] gives, the last first.
    ///
    /// # Errors
    /// LMDB's own; those of a row may also say that the environment closes.
    pub fn back_from<'h>(
        &'h self,
        table: Table,
        end: &'h [u8],
    ) -> Result<impl Iterator<Item = Row<'h>> + 'h, BackendError> {
        let range = (Bound::Unbounded, Bound::Excluded(end));
        let rows = self.view.tables[table as usize].rev_range(&self.txn, &range);
        let rows = rows.map_err(|source| self.view.lmdb(source))?;
        Ok(rows.map(|row| self.row(row)))
    }

    fn row<'h>(&self, row: heed::Result<(&'h [u8], &'h [u8])>) -> Row<'h> {
        if self.view.is_closing() {
            return Err(self.view.closed());
        }
        row.map_err(|source| self.view.lmdb(source))
    }

    /// A table's last key.
    ///
    /// # Errors
    /// LMDB's own.
    pub fn last_key(&self, table: Table) -> Result<Option<&[u8]>, BackendError> {
        let last = self.view.tables[table as usize].last(&self.txn);
        let last = last.map_err(|source| self.view.lmdb(source))?;
        Ok(last.map(|(key, _)| key))
    }

    /// A damaged record.
    #[must_use]
    pub fn damaged(&self, what: &str) -> BackendError {
        self.view.damaged(what)
    }
}
