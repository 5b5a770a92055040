//! Keys by revision: an ordered index with the newest values in memory, older ones in LMDB behind.
//!
//! No revision is decided here: callers say at which one a change happens.

mod change;
mod compaction;
mod history;
mod key_range;
mod kv;
mod reading;
mod walking;

use std::collections::{BTreeMap, VecDeque};

use crate::backend::{Backend, BackendError, Batch, Table};
pub use change::Change;
use compaction::Sweep;
pub use history::Rev;
use history::{History, Slot};
pub use key_range::KeyRange;
pub use kv::{Fields, Kv};
pub use walking::{Limit, Recorded};

/// A change whose record is not yet on disk.
struct Pending {
    rev: Rev,
    deleted: bool,
    kv: Kv,
}

impl Pending {
    /// A change whose record is in `batch` from now on.
    fn new(rev: Rev, deleted: bool, kv: &Kv, batch: &mut Batch) -> Self {
        let mut value = Vec::with_capacity(1 + kv.encoded().len());
        value.push(u8::from(deleted));
        value.extend_from_slice(kv.encoded());
        batch.put(Table::Revisions, rev.encode(), value);
        let kv = kv.clone();
        Self { rev, deleted, kv }
    }
}

/// The keys.
#[derive(Default)]
pub struct Keys {
    index: BTreeMap<Box<[u8]>, History>,
    /// What is not yet synced to LMDB, in revision order.
    pending: VecDeque<Pending>,
    live: usize,
    sweep: Option<Sweep>,
    /// The compaction whose sweep comes after the one under way.
    next_sweep: Option<i64>,
}

impl Keys {
    /// Read every record back; `newest` is told each live key-value at the end of loading.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn load(backend: &Backend) -> Result<Self, BackendError> {
        let mut keys = Self::default();
        backend.each(Table::Revisions, |key, value| {
            let rev =
                Rev::decode(key).ok_or_else(|| backend.damaged("a revision's key is too short"))?;
            let (flag, body) = value
                .split_first()
                .ok_or_else(|| backend.damaged("a revision's record is empty"))?;
            let kv = Kv::read(body)
                .ok_or_else(|| backend.damaged("a revision's record is no key-value"))?;
            keys.insert(rev, *flag != 0, kv);
            Ok(())
        })?;
        Ok(keys)
    }

    fn insert(&mut self, rev: Rev, tombstone: bool, kv: Kv) {
        let newest = Slot {
            main: rev.main,
            sub: rev.sub,
            tombstone,
        };
        let key = kv.key();
        let value = (!tombstone).then(|| kv.clone());
        self.live += usize::from(!tombstone);
        match self.index.get_mut(key) {
            Some(history) => {
                let older = std::mem::replace(&mut history.newest, newest);
                history.older.push(older);
                let prev = std::mem::replace(&mut history.value, value);
                self.live -= usize::from(prev.is_some());
            }
            None => {
                let older = Vec::new();
                let history = History {
                    newest,
                    value,
                    older,
                };
                self.index.insert(key.into(), history);
            }
        }
    }

    /// Set a key at `rev`.
    pub fn put(
        &mut self,
        rev: Rev,
        key: &[u8],
        value: &[u8],
        lease: i64,
        batch: &mut Batch,
    ) -> Change {
        let prev = self.newest(key).cloned();
        let (create_revision, version) = match prev.as_ref().map(Kv::fields) {
            Some(was) => (was.create_revision, was.version + 1),
            None => (rev.main, 1),
        };
        let kv = Kv::new(&Fields {
            key,
            create_revision,
            mod_revision: rev.main,
            version,
            value,
            lease,
        });
        self.pending.push_back(Pending::new(rev, false, &kv, batch));
        self.insert(rev, false, kv.clone());
        Change::new(kv, false, prev)
    }

    /// Delete a range, each key that is there at the next place that `next` tells; what was done, in the keys' order.
    pub fn delete_range(
        &mut self,
        range: &KeyRange,
        mut next: impl FnMut() -> Rev,
        batch: &mut Batch,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(bounds) = range.bounds() else {
            return changes;
        };
        // There may be very many, and all else waits: each is looked for once.
        for (key, history) in self.index.range_mut::<[u8], _>(bounds) {
            let Some(prev) = history.value.take() else {
                continue;
            };
            let rev = next();
            let kv = Kv::new(&Fields {
                key,
                mod_revision: rev.main,
                ..Default::default()
            });
            let newest = Slot {
                main: rev.main,
                sub: rev.sub,
                tombstone: true,
            };
            let older = std::mem::replace(&mut history.newest, newest);
            history.older.push(older);
            self.pending.push_back(Pending::new(rev, true, &kv, batch));
            changes.push(Change::new(kv, true, Some(prev)));
        }
        self.live -= changes.len();
        changes
    }

    /// Delete a key at `rev`; None when it was not there.
    pub fn delete(&mut self, rev: Rev, key: &[u8], batch: &mut Batch) -> Option<Change> {
        let prev = self.newest(key)?.clone();
        let kv = Kv::new(&Fields {
            key,
            mod_revision: rev.main,
            ..Default::default()
        });
        self.pending.push_back(Pending::new(rev, true, &kv, batch));
        self.insert(rev, true, kv.clone());
        Some(Change::new(kv, true, Some(prev)))
    }

    /// The newest value of a key.
    #[must_use]
    pub fn newest(&self, key: &[u8]) -> Option<&Kv> {
        self.index.get(key)?.value.as_ref()
    }

    /// Keys that exist now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no key exists now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Values up to this revision can be read from disk now.
    pub fn synced(&mut self, revision: i64) {
        while self
            .pending
            .front()
            .is_some_and(|pending| pending.rev.main <= revision)
        {
            self.pending.pop_front();
        }
    }
}
