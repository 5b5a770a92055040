//! Reads. One of many keys is done slice by slice: what it reads is not forgotten until it is through.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{count, Store};
use crate::backend::BackendError;
use crate::errors::StoreError;
use crate::mvcc::{Change, KeyRange, Limit, Recorded, Rev};
use crate::pb::etcd::{RangeRequest, RangeResponse};
use crate::range::{Reading, SLICE_KEYS};

/// The revisions that are being read, and by how many.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<BTreeMap<i64, usize>>);

impl Pins {
    fn held(&self) -> MutexGuard<'_, BTreeMap<i64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn oldest(&self) -> Option<i64> {
        self.held().keys().next().copied()
    }
}

/// While it lives its revision is not forgotten.
struct Pin {
    pins: Arc<Pins>,
    at: i64,
}

impl Pin {
    fn new(pins: &Arc<Pins>, at: i64) -> Self {
        *pins.held().entry(at).or_default() += 1;
        let pins = Arc::clone(pins);
        Self { pins, at }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.held();
        if let Some(readers) = held.get_mut(&self.at) {
            *readers -= 1;
            if *readers == 0 {
                held.remove(&self.at);
            }
        }
    }
}

/// A read on its way, all of it at one revision.
pub struct Slices {
    reading: Reading,
    revision: i64,
    pin: Pin,
}

impl Slices {
    /// The state's revision when the read began.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The answer to what was read; the header is the caller's. May take long, on whatever thread.
    #[must_use]
    pub fn finish(self) -> RangeResponse {
        self.reading.finish()
    }
}

impl Store {
    /// Answer a read at its revision (0: now).
    ///
    /// # Errors
    /// etcd's, for a compacted or future revision.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        count(&self.counts.ranges, 1);
        crate::range::range(
            &self.keys,
            &self.backend,
            self.compacted,
            self.revision,
            request,
        )
    }

    /// Whether the range has no more than `most` keys, those included that are deleted and not forgotten.
    #[must_use]
    pub fn has_few(&self, range: &KeyRange, most: usize) -> bool {
        self.keys.has_few(range, most)
    }

    /// The changes of a range of few keys from `from` on, for a watcher that catches up: the first of them, about as many
    /// as `limit` says, and the revision that they reach.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `from` is no longer kept.
    pub fn history(
        &self,
        range: &KeyRange,
        from: i64,
        prev: bool,
        limit: Limit,
    ) -> Result<(Vec<Change>, i64), StoreError> {
        if from < self.compacted {
            return Err(StoreError::Compacted);
        }
        let span = (from, self.revision);
        let found = self.keys.changes(&self.backend, range, span, prev, limit);
        found.map_err(|e| StoreError::Internal(e.to_string()))
    }

    /// Visit the changes of all keys from `from` on in their order, until `visit` says false.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `from` is no longer kept.
    pub fn walk(
        &self,
        from: Rev,
        visit: impl FnMut(&Recorded<'_>) -> Result<bool, BackendError>,
    ) -> Result<(), StoreError> {
        if from.main < self.compacted {
            return Err(StoreError::Compacted);
        }
        let walked = self.keys.walk(&self.backend, from, visit);
        walked.map_err(|e| StoreError::Internal(e.to_string()))
    }

    /// Begin a read that goes on with [`Self::read_on`].
    ///
    /// # Errors
    /// etcd's, for a compacted or future revision.
    pub fn begin_range(&self, request: RangeRequest) -> Result<Slices, StoreError> {
        count(&self.counts.ranges, 1);
        let revision = self.revision();
        let reading = Reading::begin(request, self.compacted_revision(), revision)?;
        Ok(Slices {
            pin: Pin::new(&self.pins, reading.at()),
            reading,
            revision,
        })
    }

    /// Read a slice; whether that was the last.
    ///
    /// # Errors
    /// When an older value can't be read, or a snapshot has replaced the state that was read.
    pub fn read_on(&self, slices: &mut Slices) -> Result<bool, StoreError> {
        if !Arc::ptr_eq(&slices.pin.pins, &self.pins) {
            return Err(StoreError::Replaced);
        }
        slices
            .reading
            .read_on(&self.keys, &self.backend, SLICE_KEYS)
    }

    /// Begin a read that goes on with [`Self::stream_on`] and keeps nothing from being forgotten.
    ///
    /// # Errors
    /// etcd's, for a compacted or future revision.
    pub fn begin_stream(&self, request: RangeRequest) -> Result<Reading, StoreError> {
        count(&self.counts.ranges, 1);
        Reading::begin(request, self.compacted_revision(), self.revision())
    }

    /// Read so many keys more; whether those were the last. The state may be another one than it began with, as long as
    /// that has come as far.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] once what it reads is forgotten; when an older value can't be read.
    pub fn stream_on(&self, reading: &mut Reading, keys: usize) -> Result<bool, StoreError> {
        if reading.at() < self.compacted_revision() {
            return Err(StoreError::Compacted);
        }
        if reading.at() > self.revision() {
            return Err(StoreError::Replaced);
        }
        reading.read_on(&self.keys, &self.backend, keys)
    }
}
