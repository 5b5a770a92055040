//! How far what is on disk is behind what is applied, and how much that is.

use std::sync::Arc;

use tokio::sync::Notify;

use super::Store;
use crate::backend::BackendError;
use crate::errors::StoreError;

impl Store {
    /// The entry up to which the state is on disk; the log before it may go.
    #[must_use]
    pub fn durable_index(&self) -> u64 {
        self.backend.durable_applied()
    }

    /// Whether applying should wait, since what is on disk lags far behind; [`Self::room`] tells when to go on.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.backend.is_behind() || self.pause.is_long()
    }

    /// Notified when the writer behind memory was behind and is no longer, finds the disk full or no longer full, or
    /// fails.
    #[must_use]
    pub fn room(&self) -> Arc<Notify> {
        self.backend.room()
    }

    /// Wait until everything applied is on disk.
    ///
    /// # Errors
    /// When it is full or fails.
    pub fn flush(&self) -> Result<(), BackendError> {
        self.backend.flush()
    }

    /// What stopped the writer behind memory or made an entry's reads fail, if anything did: the member must stop.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.broken.clone().or_else(|| self.backend.failure())
    }

    pub(crate) fn broke(&mut self, error: StoreError) -> StoreError {
        self.broken.get_or_insert(error.to_string());
        error
    }

    /// Whether what was applied waits for room on the disk; the log has it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.backend.is_full()
    }

    /// Bytes on disk that hold something: what the quota is about.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.backend.used()
    }

    /// Bytes on disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.backend.size()
    }
}
