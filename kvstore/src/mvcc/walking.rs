//! The changes between two revisions, in order: of few keys by what became of each of them, of many by the records in the
//! order that they were written in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::history::{History, Slot};
use super::{Change, Fields, KeyRange, Keys, Kv, Rev};
use crate::backend::{Backend, BackendError, Reader, Table};

/// How much is found at once, about: a revision is not split.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub changes: usize,
    pub bytes: usize,
}

impl Limit {
    pub const NONE: Self = Self {
        changes: usize::MAX,
        bytes: usize::MAX,
    };
}

/// A change as it was recorded, on a walk through all of them.
pub struct Recorded<'a> {
    pub rev: Rev,
    deleted: bool,
    body: Body<'a>,
    keys: &'a Keys,
    tables: &'a Reader<'a>,
}

enum Body<'a> {
    OnDisk(&'a [u8]),
    InMemory(&'a Kv),
}

impl Recorded<'_> {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match &self.body {
            Body::OnDisk(message) => Fields::read(message).unwrap_or_default().key,
            Body::InMemory(kv) => kv.key(),
        }
    }

    /// The change itself; with `prev`, with what it replaced, where that is not compacted.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn change(&self, prev: bool) -> Result<Change, BackendError> {
        let (keys, tables) = (self.keys, self.tables);
        let kv = match &self.body {
            Body::OnDisk(message) => Kv::read(message)
                .ok_or_else(|| tables.damaged("a revision's record is no key-value"))?,
            Body::InMemory(kv) => (*kv).clone(),
        };
        let before = keys.index.get(kv.key()).filter(|_| prev);
        let before = before.and_then(|history| {
            let number = history.before(self.rev).checked_sub(1)?;
            history.slot(number)
        });
        let prev = keys.load_before(tables, before)?;
        Ok(Change::new(kv, self.deleted, prev))
    }
}

impl Keys {
    /// Whether the range has no more than `most` keys, those included that were deleted and are not forgotten.
    #[must_use]
    pub fn has_few(&self, range: &KeyRange, most: usize) -> bool {
        self.histories(range).take(most + 1).count() <= most
    }

    /// The changes of a range of few keys from revision `from` to `to`, both included, in order; with `prev`, each with
    /// what it replaced, where that is not compacted. Returns the revision that was reached, too.
    ///
    /// # Errors
    /// When an older value can't be read from disk.
    pub fn changes(
        &self,
        backend: &Backend,
        range: &KeyRange,
        (from, to): (i64, i64),
        prev: bool,
        limit: Limit,
    ) -> Result<(Vec<Change>, i64), BackendError> {
        let tables = backend.reader()?;
        let first = Rev { main: from, sub: 0 };
        let mut keys: Vec<(&[u8], &History)> = self.histories(range).collect();
        keys.retain(|(_, history)| history.newest.main >= from);
        // The next change of each key, the first of all on top.
        let mut next = BinaryHeap::with_capacity(keys.len());
        let add = |next: &mut BinaryHeap<_>, key: usize, number| {
            let slot = keys[key].1.slot(number).filter(|slot| slot.main <= to);
            next.extend(slot.map(|slot| Reverse((slot.rev(), key, number))));
        };
        for (at, (_, history)) in keys.iter().enumerate() {
            add(&mut next, at, history.before(first));
        }
        let (mut changes, mut bytes, mut begun) = (Vec::new(), 0, None);
        while let Some(Reverse((rev, at, number))) = next.pop() {
            let full = changes.len() >= limit.changes || bytes >= limit.bytes;
            if full && begun.is_some_and(|revision| revision < rev.main) {
                return Ok((changes, rev.main - 1));
            }
            begun = Some(rev.main);
            let (key, history) = keys[at];
            let deleted = history.slot(number).is_some_and(|slot| slot.tombstone);
            let before = number.checked_sub(1).filter(|_| prev);
            let prev = self.load_before(&tables, before.and_then(|n| history.slot(n)))?;
            let kv = if deleted {
                Kv::new(&Fields {
                    key,
                    mod_revision: rev.main,
                    ..Default::default()
                })
            } else {
                self.load_one(&tables, rev)?
            };
            let change = Change::new(kv, deleted, prev);
            bytes += change.size();
            changes.push(change);
            add(&mut next, at, number + 1);
        }
        Ok((changes, to))
    }

    /// Visit the changes of all keys from `from` on in their order, until `visit` says false.
    ///
    /// # Errors
    /// When a record can't be read, or those of `visit`.
    pub fn walk(
        &self,
        backend: &Backend,
        from: Rev,
        mut visit: impl FnMut(&Recorded<'_>) -> Result<bool, BackendError>,
    ) -> Result<(), BackendError> {
        let tables = backend.reader()?;
        // All before the first that waits in memory is on disk.
        let held = self.pending.front().map(|pending| pending.rev);
        if held.is_none_or(|held| from < held) {
            let (begin, end) = (from.encode(), held.map(Rev::encode));
            let span = (begin.as_slice(), end.as_deref());
            let through = tables.between(Table::Revisions, span, |key, value| {
                let rev = Rev::decode(key);
                let (Some(rev), Some((flag, message))) = (rev, value.split_first()) else {
                    return Err(tables.damaged("a revision's record is too short"));
                };
                visit(&Recorded {
                    rev,
                    deleted: *flag != 0,
                    body: Body::OnDisk(message),
                    keys: self,
                    tables: &tables,
                })
            })?;
            if !through {
                return Ok(());
            }
        }
        let begin = self.pending.partition_point(|pending| pending.rev < from);
        for pending in self.pending.range(begin..) {
            let goes_on = visit(&Recorded {
                rev: pending.rev,
                deleted: pending.deleted,
                body: Body::InMemory(&pending.kv),
                keys: self,
                tables: &tables,
            })?;
            if !goes_on {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What a change replaced, if it is known and was no deletion.
    fn load_before(
        &self,
        tables: &Reader<'_>,
        before: Option<Slot>,
    ) -> Result<Option<Kv>, BackendError> {
        let slot = before.filter(|slot| !slot.tombstone);
        slot.map(|slot| self.load_one(tables, slot.rev()))
            .transpose()
    }
}
