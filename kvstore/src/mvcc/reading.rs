//! The keys as they were at a revision, and the changes between two.

use bytes::Bytes;

use super::history::{History, Slot};
use super::{Change, Fields, KeyRange, Keys, Kv, Rev};
use crate::backend::{Backend, BackendError, Table};

impl Keys {
    fn histories<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> Box<dyn Iterator<Item = (&'a [u8], &'a History)> + 'a> {
        match range {
            KeyRange::One(key) => Box::new(
                self.index
                    .get(key.as_ref())
                    .map(|h| (key.as_ref(), h))
                    .into_iter(),
            ),
            _ => match range.bounds() {
                Some(bounds) => {
                    let found = self.index.range::<[u8], _>(bounds);
                    Box::new(found.map(|(key, history)| (key.as_ref(), history)))
                }
                None => Box::new(std::iter::empty()),
            },
        }
    }

    /// Visit what the range held at revision `at` in key order, `most` keys of it at most, or until `visit` says false;
    /// the slot is read only when `visit` loads it. Returns the key to go on at, None when there are no more.
    ///
    /// # Errors
    /// When an older value can't be read from disk.
    pub fn each_at(
        &self,
        backend: &Backend,
        range: &KeyRange,
        at: i64,
        most: usize,
        mut visit: impl FnMut(&dyn Fn() -> Result<Kv, BackendError>) -> Result<bool, BackendError>,
    ) -> Result<Option<Bytes>, BackendError> {
        let (mut left, mut goes_on) = (most, true);
        for (key, history) in self.histories(range) {
            if left == 0 || !goes_on {
                return Ok(Some(Bytes::copy_from_slice(key)));
            }
            left -= 1;
            let Some(slot) = history.at(at).filter(|slot| !slot.tombstone) else {
                continue;
            };
            let load = || match &history.value {
                Some(kv) if slot.rev() == history.newest.rev() => Ok(kv.clone()),
                _ => self.load_one(backend, slot.rev()),
            };
            goes_on = visit(&load)?;
        }
        Ok(None)
    }

    /// The newest keys of a range, in order.
    pub fn newest_in<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a Kv> + 'a {
        self.histories(range)
            .filter_map(|(_, history)| history.value.as_ref())
    }

    fn load_one(&self, backend: &Backend, rev: Rev) -> Result<Kv, BackendError> {
        if let Ok(i) = self.pending.binary_search_by_key(&rev, |(r, _)| *r) {
            return Ok(self.pending[i].1.clone());
        }
        let lost = || backend.damaged(&format!("revision {}.{} is missing", rev.main, rev.sub));
        let record = backend
            .get(Table::Revisions, &rev.encode())?
            .ok_or_else(lost)?;
        let body = record.get(1..).ok_or_else(lost)?;
        Kv::read(body).ok_or_else(|| backend.damaged("a revision's record is no key-value"))
    }

    /// The changes of a range from revision `from` to `to`, both included, in order; with `prev`, each with what it
    /// replaced, where that is not compacted. Of more than `most` bytes only the first revisions come. Returns the
    /// revision that was reached, too.
    ///
    /// # Errors
    /// When an older value can't be read from disk.
    pub fn changes(
        &self,
        backend: &Backend,
        range: &KeyRange,
        (from, to): (i64, i64),
        prev: bool,
        most: usize,
    ) -> Result<(Vec<Change>, i64), BackendError> {
        let mut found: Vec<(Slot, &[u8], Option<Slot>)> = Vec::new();
        for (key, history) in self.histories(range) {
            // Most keys did not change in a slice: it must not cost what their whole histories do.
            if history.newest.main < from {
                continue;
            }
            let begin = history.older.partition_point(|slot| slot.main < from);
            let (earlier, older) = history.older.split_at(begin);
            let mut before = earlier.last().copied();
            for slot in older.iter().chain(std::iter::once(&history.newest)) {
                if slot.main > to {
                    break;
                }
                found.push((*slot, key, before));
                before = Some(*slot);
            }
        }
        found.sort_by_key(|(slot, ..)| slot.rev());
        let (mut changes, mut bytes, mut begun) = (Vec::new(), 0, None);
        for (slot, key, before) in found {
            if bytes >= most && begun.is_some_and(|revision| revision < slot.main) {
                return Ok((changes, slot.main - 1));
            }
            begun = Some(slot.main);
            let prev = match before {
                Some(b) if prev && !b.tombstone => Some(self.load_one(backend, b.rev())?),
                _ => None,
            };
            let kv = if slot.tombstone {
                Kv::new(&Fields {
                    key,
                    mod_revision: slot.main,
                    ..Default::default()
                })
            } else {
                self.load_one(backend, slot.rev())?
            };
            let change = Change::new(kv, slot.tombstone, prev);
            bytes += change.size();
            changes.push(change);
        }
        Ok((changes, to))
    }
}
