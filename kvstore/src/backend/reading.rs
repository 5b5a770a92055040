//! The tables as of the last commit, read in place by the thread that applies.

use std::ops::Bound;

use heed::{RoTxn, WithTls};

use super::{Backend, BackendError, Table};

/// One moment of the tables. A thread has one of these at a time; while it lives, pages that are written anew take other
/// places.
pub struct Reader<'b> {
    backend: &'b Backend,
    txn: RoTxn<'b, WithTls>,
}

impl Backend {
    /// Begin to read.
    ///
    /// # Errors
    /// LMDB's own.
    pub fn reader(&self) -> Result<Reader<'_>, BackendError> {
        let txn = self.env.read_txn().map_err(|source| self.lmdb(source))?;
        Ok(Reader { backend: self, txn })
    }
}

impl Reader<'_> {
    /// One record.
    ///
    /// # Errors
    /// LMDB's own.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, BackendError> {
        let found = self.backend.tables[table as usize].get(&self.txn, key);
        found.map_err(|source| self.backend.lmdb(source))
    }

    /// Visit the records from one key on and up to another, without that, in the order of their keys, until `visit` says
    /// false; whether it never did.
    ///
    /// # Errors
    /// LMDB's own, or the visitor's.
    pub fn between(
        &self,
        table: Table,
        (from, to): (&[u8], Option<&[u8]>),
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, BackendError>,
    ) -> Result<bool, BackendError> {
        let range = (
            Bound::Included(from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let rows = self.backend.tables[table as usize].range(&self.txn, &range);
        for row in rows.map_err(|source| self.backend.lmdb(source))? {
            let (key, value) = row.map_err(|source| self.backend.lmdb(source))?;
            if !visit(key, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A damaged record, named by the environment's path.
    #[must_use]
    pub fn damaged(&self, what: &str) -> BackendError {
        self.backend.damaged(what)
    }
}
