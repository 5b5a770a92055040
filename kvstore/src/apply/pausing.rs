//! What waits while the tables behind are copied: sweeps all the time, and changes for the end of it.

use super::Store;
use crate::backend::{Backend, BackendError, Batch};
use crate::planted::{planted, Bug};

/// Bytes of changes that wait before applying waits too.
const MAX_PARKED_BYTES: usize = 64 << 20;

/// Whether, and what, waits.
#[derive(Debug, Default)]
pub(super) struct Pause {
    sweeps: bool,
    parked: Option<Vec<Batch>>,
    bytes: usize,
}

impl Pause {
    pub fn holds_sweeps(&self) -> bool {
        self.sweeps
    }

    pub fn is_long(&self) -> bool {
        self.bytes > MAX_PARKED_BYTES
    }
}

impl Store {
    /// Nothing is swept from now on.
    pub fn hold_sweeps(&mut self) {
        self.pause.sweeps = true;
    }

    /// Changes wait in memory from now on, so that what is on disk stays as it is once it is flushed; the entry that it
    /// has then.
    pub fn park(&mut self) -> u64 {
        self.pause.parked.get_or_insert_default();
        self.applied.0
    }

    /// Goes on as before, with `fresh` in the place of the tables if there is one; returns those.
    pub fn resume(&mut self, fresh: Option<Backend>) -> Option<Backend> {
        let old = fresh.map(|fresh| std::mem::replace(&mut self.backend, fresh));
        let parked = std::mem::take(&mut self.pause).parked;
        for batch in parked.into_iter().flatten() {
            if planted(Bug::ParkedLost) {
                continue;
            }
            self.backend.write(batch);
        }
        // Who waited for the old tables looks again.
        old.as_ref().unwrap_or(&self.backend).room().notify_one();
        old
    }

    /// What is under the directory may not be what is open: nothing may follow.
    pub fn tear(&mut self, error: &BackendError) {
        self.broken.get_or_insert(error.to_string());
        self.backend.room().notify_one();
    }

    /// Whether somebody reads the tables as of an earlier moment.
    #[must_use]
    pub fn is_viewed(&self) -> bool {
        self.backend.is_viewed()
    }

    /// Where the tables are written by hand: writes the changes of the first `most` turns that wait, in one commit; how
    /// many there were.
    ///
    /// # Errors
    /// When it fails.
    pub fn write_first(&self, most: usize) -> Result<usize, BackendError> {
        self.backend.write_first(most)
    }

    pub(super) fn give(&mut self, batch: Batch) {
        match &mut self.pause.parked {
            Some(parked) => {
                self.pause.bytes += batch.bytes();
                parked.push(batch);
            }
            None => self.backend.write(batch),
        }
    }
}
