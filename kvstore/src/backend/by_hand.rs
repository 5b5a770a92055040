//! Tables without a thread that writes: what was handed over is committed when their owner says so. For the simulation,
//! where the only clock is its own and a crash may come between any two commits.

use std::cell::Cell;

use super::{Backend, BackendError};

thread_local! {
    static BY_HAND: Cell<bool> = const { Cell::new(false) };
}

/// Tables that this thread opens from now on are written by hand: by [`Backend::write_first`], and whenever a flush or a
/// view is asked for. What is not committed when they are closed is lost, as at a crash.
pub fn write_by_hand() {
    BY_HAND.set(true);
}

pub(super) fn is_by_hand() -> bool {
    BY_HAND.get()
}

impl Backend {
    /// Commits the first `most` of the batches that wait, all or none of them; how many there were.
    ///
    /// # Errors
    /// LMDB's own.
    pub fn write_first(&self, most: usize) -> Result<usize, BackendError> {
        let Some(writer) = &self.by_hand else {
            return Ok(0);
        };
        let taken = self.queue.take_first(most);
        let committed = writer.commit(&taken.batches);
        committed.map_err(|source| self.lmdb(source))?;
        writer.note(&taken);
        Ok(taken.batches.len())
    }

    /// Commits all that waits, where that is done by hand.
    pub(super) fn commit_by_hand(&self) -> Result<(), BackendError> {
        self.write_first(usize::MAX).map(|_| ())
    }
}
