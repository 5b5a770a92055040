//! Answers to reads: revision, limit, sort order and filters, as etcd's `applyRange` has them.

use std::sync::Arc;

use bytes::Bytes;

use crate::backend::{Backend, BackendError};
use crate::errors::StoreError;
use crate::mvcc::{KeyRange, Keys};
use crate::pb::etcd::range_request::{SortOrder, SortTarget};
use crate::pb::etcd::{KeyValue, RangeRequest, RangeResponse};

/// Read `request` from `keys`; the header is the caller's.
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
    if request.range_end.is_empty() && at == current {
        return Ok(one(keys, request));
    }
    let wanted = KeyRange::new(&request.key, &request.range_end);
    let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    let natural = target == SortTarget::Key && order != SortOrder::Descend;
    let limit = usize::try_from(request.limit).unwrap_or(0);
    // Only where nothing is sorted or filtered can reading stop at the limit; counting goes on, without values.
    let most = if natural && !filters(request) && limit > 0 {
        limit + 1
    } else {
        usize::MAX
    };
    let (mut count, mut found) = (0i64, Vec::new());
    keys.each_at(backend, &wanted, at, |load| {
        count += 1;
        if !request.count_only && found.len() < most {
            found.push(load()?);
        }
        Ok(true)
    })
    .map_err(|e: BackendError| StoreError::Internal(e.to_string()))?;
    found.retain(|kv| passes(kv, request));
    if !natural {
        sort(&mut found, target, order == SortOrder::Descend);
    }
    let more = limit > 0 && found.len() > limit;
    if more {
        found.truncate(limit);
    }
    let kvs = found
        .into_iter()
        .map(|kv| shown(&kv, request.keys_only))
        .collect();
    Ok(RangeResponse {
        header: None,
        kvs,
        more,
        count,
    })
}

fn one(keys: &Keys, request: &RangeRequest) -> RangeResponse {
    let found = keys.newest(&request.key);
    let kvs = found.filter(|kv| !request.count_only && passes(kv, request));
    RangeResponse {
        header: None,
        kvs: kvs
            .map(|kv| shown(kv, request.keys_only))
            .into_iter()
            .collect(),
        more: false,
        count: i64::from(found.is_some()),
    }
}

fn filters(request: &RangeRequest) -> bool {
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

fn sort(found: &mut [Arc<KeyValue>], target: SortTarget, descend: bool) {
    match target {
        SortTarget::Key => found.sort_by(|a, b| a.key.cmp(&b.key)),
        SortTarget::Version => found.sort_by_key(|kv| kv.version),
        SortTarget::Create => found.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => found.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => found.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if descend {
        found.reverse();
    }
}

fn shown(kv: &KeyValue, keys_only: bool) -> KeyValue {
    let mut kv = kv.clone();
    if keys_only {
        kv.value = Bytes::new();
    }
    kv
}
