//! The keys as they were at a revision.

use bytes::Bytes;

use super::history::History;
use super::{KeyRange, Keys, Kv, Rev};
use crate::backend::{Backend, BackendError, Reader, Table};

impl Keys {
    pub(super) fn histories<'a>(
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
        let tables = backend.reader()?;
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
                _ => self.load_one(&tables, slot.rev()),
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

    pub(super) fn load_one(&self, tables: &Reader<'_>, rev: Rev) -> Result<Kv, BackendError> {
        if let Ok(i) = self.pending.binary_search_by_key(&rev, |p| p.rev) {
            return Ok(self.pending[i].kv.clone());
        }
        let lost = || tables.damaged(&format!("revision {}.{} is missing", rev.main, rev.sub));
        let record = tables
            .get(Table::Revisions, &rev.encode())?
            .ok_or_else(lost)?;
        let body = record.get(1..).ok_or_else(lost)?;
        Kv::read(body).ok_or_else(|| tables.damaged("a revision's record is no key-value"))
    }
}
