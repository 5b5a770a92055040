//! Compactions: begun by an entry, and done slice by slice while other entries come.

use std::sync::Arc;

use tokio::sync::Notify;

use super::Store;
use crate::errors::StoreError;
use crate::pb::etcd::CompactionResponse;

impl Store {
    pub(super) fn compact(&mut self, revision: i64) -> Result<CompactionResponse, StoreError> {
        if revision <= self.compacted {
            return Err(StoreError::Compacted);
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        self.compacted = revision;
        self.keys.compact(revision);
        Ok(CompactionResponse { header: None })
    }

    /// Whether a slice of a compaction can be done now.
    #[must_use]
    pub fn can_sweep(&self) -> bool {
        let readable = |revision| self.pins.oldest().is_none_or(|at| at >= revision);
        let held = self.pause.holds_sweeps() || self.is_behind();
        self.keys.sweeping().is_some_and(readable) && !held
    }

    /// Do a slice of the compaction under way, if there is one and no read needs what it takes.
    pub fn sweep(&mut self) {
        if self.can_sweep() {
            self.keys.sweep(&mut self.batch);
            self.hand_over();
            if self.keys.sweeping().is_none() {
                self.swept.notify_waiters();
            }
        }
    }

    /// Whether a compaction is not done yet; [`Self::swept`] tells when it is.
    #[must_use]
    pub fn is_sweeping(&self) -> bool {
        self.keys.sweeping().is_some()
    }

    /// Notified when all compactions are done.
    #[must_use]
    pub fn swept(&self) -> Arc<Notify> {
        Arc::clone(&self.swept)
    }
}
