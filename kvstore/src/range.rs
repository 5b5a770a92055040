//! Answers to reads: revision, limit, sort order and filters, as etcd's `applyRange` has them; in slices where many keys
//! are read.

use crate::backend::{Backend, BackendError};
use crate::errors::StoreError;
use crate::mvcc::{KeyRange, Keys, Kv};
use crate::pb::etcd::range_request::{SortOrder, SortTarget};
use crate::pb::etcd::{KeyValue, RangeRequest, RangeResponse};

/// Keys looked at in one slice, and bytes of values taken.
pub const SLICE_KEYS: usize = 1_000;
const SLICE_BYTES: usize = 1 << 20;

/// A read on its way through the keys, all of it at one revision.
pub struct Reading {
    request: RangeRequest,
    at: i64,
    left: Option<KeyRange>,
    count: i64,
    found: Vec<Kv>,
    /// Found and handed out before it was through.
    taken: usize,
    most: usize,
    target: SortTarget,
    descends: bool,
}

impl Reading {
    /// # Errors
    /// etcd's, for a compacted or future revision.
    pub fn begin(request: RangeRequest, compacted: i64, current: i64) -> Result<Self, StoreError> {
        if request.revision > current {
            return Err(StoreError::FutureRevision);
        }
        let at = if request.revision <= 0 {
            current
        } else {
            request.revision
        };
        if at < compacted {
            return Err(StoreError::Compacted);
        }
        let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
        let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
        let descends = order == SortOrder::Descend;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        // Only where no order is asked for, or that of the keys, and nothing is filtered, can reading stop at the limit;
        // counting goes on, without values. A target without an order sorts just what was read, as in etcd.
        let stops = order == SortOrder::None || (target == SortTarget::Key && !descends);
        let most = if stops && !filters(&request) && limit > 0 {
            limit + 1
        } else {
            usize::MAX
        };
        Ok(Self {
            left: Some(KeyRange::new(&request.key, &request.range_end)),
            at,
            count: 0,
            found: Vec::new(),
            taken: 0,
            most,
            target,
            descends,
            request,
        })
    }

    /// The revision that it reads.
    #[must_use]
    pub fn at(&self) -> i64 {
        self.at
    }

    /// Reads on, `keys` of them at most; whether it is through.
    ///
    /// # Errors
    /// When an older value can't be read from disk.
    pub fn read_on(
        &mut self,
        keys: &Keys,
        backend: &Backend,
        most_keys: usize,
    ) -> Result<bool, StoreError> {
        let Some(wanted) = self.left.take() else {
            return Ok(true);
        };
        let (counts_only, mut bytes) = (self.request.count_only, 0);
        let next = keys
            .each_at(backend, &wanted, self.at, most_keys, |load| {
                self.count += 1;
                if !counts_only && self.taken + self.found.len() < self.most {
                    let kv = load()?;
                    bytes += kv.encoded().len();
                    self.found.push(kv);
                }
                Ok(bytes < SLICE_BYTES || most_keys == usize::MAX)
            })
            .map_err(|e: BackendError| StoreError::Internal(e.to_string()))?;
        self.left = next.map(|key| wanted.from(key));
        Ok(self.left.is_none())
    }

    /// What was found since this was last called, where nothing is to be sorted or filtered; [`Self::finish`] has the rest.
    pub fn take(&mut self) -> Vec<KeyValue> {
        let found = std::mem::take(&mut self.found);
        let limit = usize::try_from(self.request.limit).unwrap_or(0);
        let room = if limit > 0 {
            limit.saturating_sub(self.taken)
        } else {
            usize::MAX
        };
        self.taken += found.len();
        let mut kvs: Vec<_> = found.iter().take(room).map(Kv::message).collect();
        if self.request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        kvs
    }

    /// The answer, in its order, without what was taken; the header is the caller's.
    #[must_use]
    pub fn finish(self) -> RangeResponse {
        let request = &self.request;
        let messages = self.found.iter().map(Kv::message);
        let mut kvs: Vec<_> = messages.filter(|kv| passes(kv, request)).collect();
        if self.target != SortTarget::Key || self.descends {
            sort(&mut kvs, self.target, self.descends);
        }
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && self.taken + kvs.len() > limit;
        if more {
            kvs.truncate(limit.saturating_sub(self.taken));
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        RangeResponse {
            header: None,
            kvs,
            more,
            count: self.count,
        }
    }
}

/// Read `request` from `keys` at once; the header is the caller's.
///
/// # Errors
/// etcd's, for a compacted or future revision.
pub fn range(
    keys: &Keys,
    backend: &Backend,
    compacted: i64,
    current: i64,
    request: &RangeRequest,
) -> Result<RangeResponse, StoreError> {
    if request.range_end.is_empty() && (request.revision <= 0 || request.revision == current) {
        return Ok(one(keys, request));
    }
    let mut reading = Reading::begin(request.clone(), compacted, current)?;
    reading.read_on(keys, backend, usize::MAX)?;
    Ok(reading.finish())
}

fn one(keys: &Keys, request: &RangeRequest) -> RangeResponse {
    let found = keys.newest(&request.key);
    let shown = found.filter(|_| !request.count_only).map(Kv::message);
    let mut kvs: Vec<_> = shown.filter(|kv| passes(kv, request)).into_iter().collect();
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    RangeResponse {
        header: None,
        kvs,
        more: false,
        count: i64::from(found.is_some()),
    }
}

/// Whether what is found depends on its revisions.
pub fn filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(kv: &KeyValue, request: &RangeRequest) -> bool {
    let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
    within(
        kv.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        kv.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

/// Keys that are equal by the target stay in the keys' order, downwards too, as in etcd.
fn sort(found: &mut [KeyValue], target: SortTarget, descend: bool) {
    found.sort_by(|a, b| {
        let order = match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if descend {
            order.reverse()
        } else {
            order
        }
    });
}
