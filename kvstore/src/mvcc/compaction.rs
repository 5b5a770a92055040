//! Forgetting what no read can see any more, slice by slice.

use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::history::{History, Slot};
use super::Keys;
use crate::backend::{Batch, Table};
use crate::measures::work;
use crate::planted::{planted, Bug};

/// Keys looked at and revisions dropped in one slice.
const SLICE_KEYS: usize = 2_000;
const SLICE_SLOTS: usize = 2_000;

/// A compaction on its way through the keys.
#[derive(Debug)]
pub(super) struct Sweep {
    revision: i64,
    /// The key that is looked at next.
    from: Box<[u8]>,
    /// When it began, for figures alone.
    since: Instant,
}

impl Sweep {
    fn begin(revision: i64) -> Self {
        Self {
            revision,
            from: Box::default(),
            since: Instant::now(),
        }
    }
}

impl Keys {
    /// Forget what no read at or after `revision` can see: [`Self::sweep`] does it.
    pub fn compact(&mut self, revision: i64) {
        if self.sweep.is_some() {
            self.next_sweep = Some(revision);
        } else {
            self.sweep = Some(Sweep::begin(revision));
        }
    }

    /// The compaction that is not done yet, if any: reads before it must end first.
    #[must_use]
    pub fn sweeping(&self) -> Option<i64> {
        self.sweep.as_ref().map(|sweep| sweep.revision)
    }

    /// Does a slice of the compaction under way.
    pub fn sweep(&mut self, batch: &mut Batch) {
        let Some(Sweep {
            revision,
            from,
            since,
        }) = self.sweep.take()
        else {
            return;
        };
        let began = Instant::now();
        let (mut keys, mut slots) = (SLICE_KEYS, SLICE_SLOTS);
        let (mut gone, mut next) = (Vec::new(), None);
        let rest = (Bound::Included(from.as_ref()), Bound::Unbounded);
        for (key, history) in self.index.range_mut::<[u8], _>(rest) {
            if keys == 0 || slots == 0 {
                next = Some(key.clone());
                break;
            }
            keys -= 1;
            let dropped = history.forget(revision, slots);
            if planted(Bug::CompactionForgetsNewest) && !dropped.is_empty() {
                batch.delete(Table::Revisions, history.newest.rev().encode());
            }
            slots -= dropped.len();
            work::COMPACTED_KEYS.fetch_add(dropped.len() as u64, Ordering::Relaxed);
            for slot in dropped {
                batch.delete(Table::Revisions, slot.rev().encode());
            }
            if slots == 0 {
                // There may be more of it.
                next = Some(key.clone());
                break;
            }
            // A deletion at the compaction's own revision stays: a watch may still begin there.
            if history.newest.tombstone && history.newest.main < revision {
                batch.delete(Table::Revisions, history.newest.rev().encode());
                work::COMPACTED_KEYS.fetch_add(1, Ordering::Relaxed);
                gone.push(key.clone());
            }
        }
        for key in gone {
            self.index.remove(&key);
        }
        work::COMPACTION_PAUSE.observe(began.elapsed());
        self.sweep = match next {
            Some(from) => Some(Sweep {
                revision,
                from,
                since,
            }),
            None => {
                work::compacted(since);
                self.next_sweep.take().map(Sweep::begin)
            }
        };
    }
}

impl History {
    /// Drops older changes that no read at or after `revision` can see, the first `most` of them.
    fn forget(&mut self, revision: i64, most: usize) -> Vec<Slot> {
        let mut gone = self.older.len();
        if self.newest.main > revision {
            gone = self.older.partition_point(|slot| slot.main <= revision);
            // The last one seen is what a read at `revision` finds, unless it is an older deletion.
            let keep_last = self.older[..gone]
                .last()
                .is_some_and(|slot| !slot.tombstone || slot.main == revision);
            gone -= usize::from(keep_last);
        }
        self.older.drain(..gone.min(most)).collect()
    }
}
