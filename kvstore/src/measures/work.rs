//! How long the long works of a member took: compactions, hashes, snapshots, defragmentation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Histogram;

/// Slices of compactions, for which the state waits, and whole ones.
pub static COMPACTION_PAUSE: Histogram = Histogram::of_milliseconds(1_000, 13);
pub static COMPACTION_TOTAL: Histogram = Histogram::of_milliseconds(100_000, 14);
/// Revisions that compactions dropped.
pub static COMPACTED_KEYS: AtomicU64 = AtomicU64::new(0);
/// When the last one ended, in seconds since 1970; 0 before the first.
pub static COMPACTED_AT: AtomicU64 = AtomicU64::new(0);
/// Sums of the whole state, and of the keys up to a revision.
pub static HASH: Histogram = Histogram::new(10_000, 15);
pub static HASH_REV: Histogram = Histogram::new(10_000, 15);
/// Snapshots that were sent, to clients and members, and those that came from members and were laid on the disk.
pub static SNAPSHOT: Histogram = Histogram::new(10_000, 17);
pub static SNAPSHOT_SAVE: Histogram = Histogram::new(100_000, 10);
pub static DEFRAGMENTATION: Histogram = Histogram::new(100_000, 13);
pub static DEFRAGMENTING: AtomicU64 = AtomicU64::new(0);

/// Notes that a compaction that began then is done.
pub fn compacted(since: Instant) {
    COMPACTION_TOTAL.observe(since.elapsed());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.unwrap_or(Duration::ZERO).as_secs();
    COMPACTED_AT.store(seconds, Ordering::Relaxed);
}

/// A defragmentation that is under way until this goes.
#[derive(Debug)]
pub struct Defragmenting(Instant);

impl Defragmenting {
    pub fn begin() -> Self {
        DEFRAGMENTING.store(1, Ordering::Relaxed);
        Self(Instant::now())
    }

    /// It came to its end.
    pub fn done(self) {
        DEFRAGMENTATION.observe(self.0.elapsed());
    }
}

impl Drop for Defragmenting {
    fn drop(&mut self) {
        DEFRAGMENTING.store(0, Ordering::Relaxed);
    }
}
