//! Keys by revision: an ordered index with the newest values in memory, older ones in LMDB behind.
//!
//! No revision is decided here: callers say at which one a change happens.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::backend::{Backend, BackendError, Batch, Table};
use crate::pb::etcd::KeyValue;

/// A change's place: the transaction's revision, and its number within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rev {
    pub main: i64,
    pub sub: u32,
}

impl Rev {
    /// The key of its record on disk; byte order is revision order.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(12);
        key.extend_from_slice(&self.main.to_be_bytes());
        key.extend_from_slice(&self.sub.to_be_bytes());
        key
    }

    fn decode(key: &[u8]) -> Option<Self> {
        let (main, sub) = (
            key.get(..8)?.try_into().ok()?,
            key.get(8..12)?.try_into().ok()?,
        );
        Some(Self {
            main: i64::from_be_bytes(main),
            sub: u32::from_be_bytes(sub),
        })
    }
}

/// A change's place and kind, in 16 bytes: there is one for each revision of each key.
#[derive(Debug, Clone, Copy)]
struct Slot {
    main: i64,
    sub: u32,
    tombstone: bool,
}

impl Slot {
    fn rev(&self) -> Rev {
        Rev {
            main: self.main,
            sub: self.sub,
        }
    }
}

#[derive(Debug)]
struct History {
    newest: Slot,
    /// None when the newest change deleted the key.
    value: Option<Arc<KeyValue>>,
    older: Vec<Slot>,
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A range of keys in etcd's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    One(Bytes),
    /// From the first, up to and without the second.
    Span(Bytes, Bytes),
    From(Bytes),
}

impl KeyRange {
    /// `range_end` empty: the key alone; a single zero byte: all keys from `key` on; else the half-open interval.
    #[must_use]
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key.clone()),
            [0] => Self::From(key.clone()),
            _ => Self::Span(key.clone(), range_end.clone()),
        }
    }

    /// Whether `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_ref() == key,
            Self::Span(from, to) => from.as_ref() <= key && key < to.as_ref(),
            Self::From(from) => from.as_ref() <= key,
        }
    }

    fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::One(one) => Some((Bound::Included(one), Bound::Included(one))),
            Self::Span(from, to) if from < to => Some((Bound::Included(from), Bound::Excluded(to))),
            Self::Span(..) => None,
            Self::From(from) => Some((Bound::Included(from), Bound::Unbounded)),
        }
    }
}

/// One change of one key, with what was there before.
#[derive(Debug, Clone)]
pub struct Change {
    /// For a deletion only key and `mod_revision` are set.
    pub kv: Arc<KeyValue>,
    pub deleted: bool,
    pub prev: Option<Arc<KeyValue>>,
}

/// The keys.
#[derive(Default)]
pub struct Keys {
    index: BTreeMap<Bytes, History>,
    /// Values not yet synced to LMDB, in revision order.
    pending: VecDeque<(Rev, Arc<KeyValue>)>,
    live: usize,
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
            let kv = KeyValue::decode(body).map_err(|e| backend.damaged(&e.to_string()))?;
            keys.insert(rev, *flag != 0, Arc::new(kv));
            Ok(())
        })?;
        Ok(keys)
    }

    fn insert(&mut self, rev: Rev, tombstone: bool, kv: Arc<KeyValue>) -> Option<Arc<KeyValue>> {
        let slot = Slot {
            main: rev.main,
            sub: rev.sub,
            tombstone,
        };
        let value = (!tombstone).then(|| Arc::clone(&kv));
        match self.index.get_mut(&kv.key) {
            Some(history) => {
                let older = std::mem::replace(&mut history.newest, slot);
                history.older.push(older);
                let prev = std::mem::replace(&mut history.value, value);
                self.live = self.live + usize::from(!tombstone) - usize::from(prev.is_some());
                prev
            }
            None => {
                self.live += usize::from(!tombstone);
                self.index.insert(
                    kv.key.clone(),
                    History {
                        newest: slot,
                        value,
                        older: Vec::new(),
                    },
                );
                None
            }
        }
    }

    fn record(&mut self, rev: Rev, deleted: bool, kv: &Arc<KeyValue>, batch: &mut Batch) {
        let mut value = Vec::with_capacity(1 + kv.encoded_len());
        value.push(u8::from(deleted));
        value.extend_from_slice(&kv.encode_to_vec());
        batch.put(Table::Revisions, rev.encode(), value);
        if !deleted {
            self.pending.push_back((rev, Arc::clone(kv)));
        }
    }

    /// Set a key at `rev`.
    pub fn put(
        &mut self,
        rev: Rev,
        key: &[u8],
        value: Bytes,
        lease: i64,
        batch: &mut Batch,
    ) -> Change {
        let prev = self.newest(key).cloned();
        let (create_revision, version, shared) = match &prev {
            Some(kv) => (kv.create_revision, kv.version + 1, kv.key.clone()),
            None => (rev.main, 1, self.shared_key(key)),
        };
        let kv = Arc::new(KeyValue {
            key: shared,
            create_revision,
            mod_revision: rev.main,
            version,
            // Of its own memory, like the key: each value would keep all that came in its entry.
            value: Bytes::copy_from_slice(&value),
            lease,
        });
        self.record(rev, false, &kv, batch);
        self.insert(rev, false, Arc::clone(&kv));
        Change {
            kv,
            deleted: false,
            prev,
        }
    }

    /// A key of its own memory: what a request carries would keep the whole request alive.
    fn shared_key(&self, key: &[u8]) -> Bytes {
        self.index
            .get_key_value(key)
            .map_or_else(|| Bytes::copy_from_slice(key), |(k, _)| k.clone())
    }

    /// Delete a key at `rev`; None when it was not there.
    pub fn delete(&mut self, rev: Rev, key: &[u8], batch: &mut Batch) -> Option<Change> {
        let prev = Arc::clone(self.newest(key)?);
        let kv = Arc::new(KeyValue {
            key: prev.key.clone(),
            mod_revision: rev.main,
            ..Default::default()
        });
        self.record(rev, true, &kv, batch);
        self.insert(rev, true, Arc::clone(&kv));
        Some(Change {
            kv,
            deleted: true,
            prev: Some(prev),
        })
    }

    /// The newest value of a key.
    #[must_use]
    pub fn newest(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
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

    fn histories<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> Box<dyn Iterator<Item = (&'a Bytes, &'a History)> + 'a> {
        match range {
            KeyRange::One(key) => Box::new(self.index.get_key_value(key).into_iter()),
            _ => match range.bounds() {
                Some(bounds) => Box::new(self.index.range::<[u8], _>(bounds)),
                None => Box::new(std::iter::empty()),
            },
        }
    }

    /// Visit what the range held at revision `at` in key order, until `visit` says false; the slot is read only
    /// when `visit` loads it.
    ///
    /// # Errors
    /// When an older value can't be read from disk.
    pub fn each_at(
        &self,
        backend: &Backend,
        range: &KeyRange,
        at: i64,
        mut visit: impl FnMut(
            &dyn Fn() -> Result<Arc<KeyValue>, BackendError>,
        ) -> Result<bool, BackendError>,
    ) -> Result<(), BackendError> {
        for (_, history) in self.histories(range) {
            let Some(slot) = history.at(at).filter(|slot| !slot.tombstone) else {
                continue;
            };
            let load = || match &history.value {
                Some(kv) if slot.rev() == history.newest.rev() => Ok(Arc::clone(kv)),
                _ => self.load_one(backend, slot.rev()),
            };
            if !visit(&load)? {
                break;
            }
        }
        Ok(())
    }

    /// The newest keys of a range, in order.
    pub fn newest_in<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> + 'a {
        self.histories(range)
            .filter_map(|(_, history)| history.value.as_ref())
    }

    fn load_one(&self, backend: &Backend, rev: Rev) -> Result<Arc<KeyValue>, BackendError> {
        if let Ok(i) = self.pending.binary_search_by_key(&rev, |(r, _)| *r) {
            return Ok(Arc::clone(&self.pending[i].1));
        }
        let lost = || backend.damaged(&format!("revision {}.{} is missing", rev.main, rev.sub));
        let record = backend
            .get(Table::Revisions, &rev.encode())?
            .ok_or_else(lost)?;
        let body = record.get(1..).ok_or_else(lost)?;
        KeyValue::decode(body)
            .map(Arc::new)
            .map_err(|e| backend.damaged(&e.to_string()))
    }

    /// The changes of a range from revision `from` to `to`, both included, in order; with `prev`, each with what it
    /// replaced, where that is not compacted.
    ///
    /// # Errors
    /// When an older value can't be read from disk.
    pub fn changes(
        &self,
        backend: &Backend,
        range: &KeyRange,
        (from, to): (i64, i64),
        prev: bool,
    ) -> Result<Vec<Change>, BackendError> {
        let mut found: Vec<(Slot, &Bytes, Option<Slot>)> = Vec::new();
        for (key, history) in self.histories(range) {
            let slots = history.older.iter().chain(std::iter::once(&history.newest));
            let mut before: Option<Slot> = None;
            for slot in slots {
                if (from..=to).contains(&slot.main) {
                    found.push((*slot, key, before));
                }
                before = Some(*slot);
            }
        }
        found.sort_by_key(|(slot, ..)| slot.rev());
        found
            .into_iter()
            .map(|(slot, key, before)| {
                let prev = match before {
                    Some(b) if prev && !b.tombstone => Some(self.load_one(backend, b.rev())?),
                    _ => None,
                };
                let kv = if slot.tombstone {
                    Arc::new(KeyValue {
                        key: key.clone(),
                        mod_revision: slot.main,
                        ..Default::default()
                    })
                } else {
                    self.load_one(backend, slot.rev())?
                };
                Ok(Change {
                    kv,
                    deleted: slot.tombstone,
                    prev,
                })
            })
            .collect()
    }

    /// Forget what no read at or after `revision` can see.
    pub fn compact(&mut self, revision: i64, batch: &mut Batch) {
        let drop =
            |slot: &Slot, batch: &mut Batch| batch.delete(Table::Revisions, slot.rev().encode());
        self.index.retain(|_, history| {
            if history.newest.main <= revision {
                history.older.drain(..).for_each(|slot| drop(&slot, batch));
                // A deletion at the compaction's own revision stays: a watch may still begin there.
                if history.newest.tombstone && history.newest.main < revision {
                    drop(&history.newest, batch);
                    return false;
                }
                return true;
            }
            let seen = history.older.partition_point(|slot| slot.main <= revision);
            // The last one seen is what a read at `revision` finds, unless it is an older deletion.
            let keep_last = history.older[..seen]
                .last()
                .is_some_and(|slot| !slot.tombstone || slot.main == revision);
            let gone = seen - usize::from(keep_last);
            history
                .older
                .drain(..gone)
                .for_each(|slot| drop(&slot, batch));
            true
        });
    }

    /// Values up to this revision can be read from disk now.
    pub fn synced(&mut self, revision: i64) {
        while self
            .pending
            .front()
            .is_some_and(|(rev, _)| rev.main <= revision)
        {
            self.pending.pop_front();
        }
    }
}

impl History {
    fn at(&self, revision: i64) -> Option<Slot> {
        if self.newest.main <= revision {
            return Some(self.newest);
        }
        let seen = self.older.partition_point(|slot| slot.main <= revision);
        seen.checked_sub(1).map(|i| self.older[i])
    }
}
