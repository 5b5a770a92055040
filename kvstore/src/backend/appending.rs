//! Records added behind all others, so that pages get full: how a copy of the tables is made.
//!
//! Only while nothing is handed to the writer of the same environment.

use heed::PutFlags;

use super::{Backend, BackendError, Table};
use crate::space::is_full;

/// Bytes of records in one commit, about.
const COMMIT_BYTES: usize = 16 << 20;

/// A record to add.
pub type Row<'r> = Result<(&'r [u8], &'r [u8]), BackendError>;

impl Backend {
    /// Add records behind those that a table has; how many. Blocks.
    ///
    /// # Errors
    /// When one can't be read, is not behind the last, or finds no room.
    pub fn append<'r>(
        &self,
        table: Table,
        rows: impl Iterator<Item = Row<'r>>,
    ) -> Result<u64, BackendError> {
        let mut rows = rows.peekable();
        let mut added = 0;
        while rows.peek().is_some() {
            added += self.commit_some(table, &mut rows, false)?;
        }
        Ok(added)
    }

    /// Put these in the place of all that a table has. They are few. Blocks.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn replace<'r>(
        &self,
        table: Table,
        rows: impl Iterator<Item = Row<'r>>,
    ) -> Result<(), BackendError> {
        let mut rows = rows.peekable();
        self.commit_some(table, &mut rows, true)?;
        self.append(table, rows).map(|_| ())
    }

    fn commit_some<'r>(
        &self,
        table: Table,
        rows: &mut impl Iterator<Item = Row<'r>>,
        clear: bool,
    ) -> Result<u64, BackendError> {
        let failed = |source| self.not_written(source);
        let mut txn = self.env.write_txn().map_err(failed)?;
        let table = self.tables[table as usize];
        if clear {
            table.clear(&mut txn).map_err(failed)?;
        }
        let (mut added, mut bytes) = (0, 0);
        while bytes < COMMIT_BYTES {
            let Some(row) = rows.next() else { break };
            let (key, value) = row?;
            let put = table.put_with_flags(&mut txn, PutFlags::APPEND, key, value);
            put.map_err(failed)?;
            added += 1;
            bytes += key.len() + value.len();
        }
        let used = super::used(&self.tables, &txn).map_err(failed)?;
        txn.commit().map_err(failed)?;
        self.progress.uses(used);
        Ok(added)
    }

    fn not_written(&self, source: heed::Error) -> BackendError {
        match &source {
            heed::Error::Io(error) if is_full(error) => BackendError::Full(self.path.clone()),
            _ => self.lmdb(source),
        }
    }

    /// Whether anybody reads these tables as of an earlier moment.
    #[must_use]
    pub fn is_viewed(&self) -> bool {
        self.gate.env.try_write().is_err()
    }
}
