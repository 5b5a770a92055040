//! What a request must satisfy before it is proposed (etcd's `v3rpc/key.go`), and the compares of transactions.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::command::Command;
use crate::errors::StoreError;
use crate::mvcc::{Fields, KeyRange};
use crate::pb::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::etcd::range_request::{SortOrder, SortTarget};
use crate::pb::etcd::request_op::Request;
use crate::pb::etcd::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// etcd's `--max-txn-ops`.
pub const DEFAULT_MAX_TXN_OPS: usize = 128;
/// etcd's `--max-request-bytes`.
pub const DEFAULT_MAX_REQUEST_BYTES: usize = 1_572_864;

/// Check a read.
///
/// # Errors
/// etcd's, for a missing key or an unknown sort option.
pub fn check_range(request: &RangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(StoreError::InvalidSortOption);
    }
    Ok(())
}

/// Check a put.
///
/// # Errors
/// etcd's, for a missing key or a value or lease given together with the order to ignore it.
pub fn check_put(request: &PutRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(StoreError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(StoreError::LeaseProvided);
    }
    Ok(())
}

/// Check a deletion.
///
/// # Errors
/// etcd's, for a missing key.
pub fn check_delete(request: &DeleteRangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    Ok(())
}

/// Check a transaction with all that is nested in it.
///
/// # Errors
/// etcd's, for too many operations, missing keys, and keys changed twice.
pub fn check_txn(request: &TxnRequest, max_ops: usize) -> Result<(), StoreError> {
    check_ops(request, max_ops)?;
    written(&request.success)?;
    written(&request.failure)?;
    Ok(())
}

fn every_range(request: &TxnRequest, holds: &impl Fn(&RangeRequest) -> bool) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| match &op.request {
        Some(Request::RequestRange(range)) => holds(range),
        Some(Request::RequestTxn(txn)) => every_range(txn, holds),
        _ => false,
    })
}

/// Whether neither branch writes.
#[must_use]
pub fn reads_only(request: &TxnRequest) -> bool {
    every_range(request, &|_| true)
}

/// Whether a transaction that only reads may be answered from what this member has (etcd's `isTxnSerializable`).
#[must_use]
pub fn is_serializable(request: &TxnRequest) -> bool {
    every_range(request, &|range| range.serializable)
}

/// Whether a command makes the state grow (etcd's `quotaKVServer`): it is refused when there is no space.
#[must_use]
pub fn grows(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::LeaseGrant(_) => true,
        Command::Txn(request) => puts(request),
        _ => false,
    }
}

fn puts(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(txn)) => puts(txn),
        _ => false,
    })
}

fn check_ops(request: &TxnRequest, max_ops: usize) -> Result<(), StoreError> {
    let most = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    if most > max_ops {
        return Err(StoreError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(StoreError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            // What is nested counts against what is left, so that depth is bounded too.
            Some(Request::RequestTxn(txn)) => check_ops(txn, max_ops - most)?,
            None => return Err(StoreError::KeyNotFound),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Written {
    puts: std::collections::BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

/// The keys that a list of operations writes; an error when one is put twice, or put and deleted.
fn written(ops: &[RequestOp]) -> Result<Written, StoreError> {
    let mut all = Written::default();
    for op in ops {
        let one = match &op.request {
            Some(Request::RequestPut(put)) => Written {
                puts: std::iter::once(put.key.clone()).collect(),
                deletes: vec![],
            },
            Some(Request::RequestDeleteRange(delete)) => Written {
                // Etcd does not see keys that are written beside a deletion without an end.
                deletes: match KeyRange::new(&delete.key, &delete.range_end) {
                    KeyRange::From(_) => vec![],
                    range => vec![range],
                },
                ..Default::default()
            },
            Some(Request::RequestTxn(txn)) => {
                // Only one branch runs, so the two may write the same keys.
                let (mut then, other) = (written(&txn.success)?, written(&txn.failure)?);
                then.puts.extend(other.puts);
                then.deletes.extend(other.deletes);
                then
            }
            _ => continue,
        };
        let again = one
            .puts
            .iter()
            .any(|key| all.puts.contains(key) || all.deletes.iter().any(|d| d.contains(key)))
            || one
                .deletes
                .iter()
                .any(|delete| all.puts.iter().any(|key| delete.contains(key)));
        if again {
            return Err(StoreError::DuplicateKey);
        }
        all.puts.extend(one.puts);
        all.deletes.extend(one.deletes);
    }
    Ok(all)
}

/// Whether a compare holds for one key; a key that is not there compares as zeros, and never by value.
#[must_use]
pub fn holds(compare: &Compare, found: Option<Fields<'_>>) -> bool {
    let kv = found.unwrap_or_default();
    let Ok(target) = CompareTarget::try_from(compare.target) else {
        return stands(compare, Ordering::Equal);
    };
    let order = match (target, &compare.target_union) {
        (CompareTarget::Value, union) => {
            if found.is_none() {
                return false;
            }
            let wanted = if let Some(TargetUnion::Value(value)) = union {
                value.as_ref()
            } else {
                &[]
            };
            kv.value.cmp(wanted)
        }
        (CompareTarget::Create, union) => kv.create_revision.cmp(&match union {
            Some(TargetUnion::CreateRevision(n)) => *n,
            _ => 0,
        }),
        (CompareTarget::Mod, union) => kv.mod_revision.cmp(&match union {
            Some(TargetUnion::ModRevision(n)) => *n,
            _ => 0,
        }),
        (CompareTarget::Version, union) => kv.version.cmp(&match union {
            Some(TargetUnion::Version(n)) => *n,
            _ => 0,
        }),
        (CompareTarget::Lease, union) => kv.lease.cmp(&match union {
            Some(TargetUnion::Lease(n)) => *n,
            _ => 0,
        }),
    };
    stands(compare, order)
}

/// Whether the order of what is there and what is named is the one asked for; an unknown wish always stands, as in etcd.
fn stands(compare: &Compare, order: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.into(),
                ..Default::default()
            })),
        }
    }
    fn delete(key: &'static str, end: &'static str) -> RequestOp {
        let request = DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: false,
        };
        RequestOp {
            request: Some(Request::RequestDeleteRange(request)),
        }
    }
    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            compare: vec![],
            success,
            failure,
        }
    }
    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestTxn(txn(success, failure))),
        }
    }

    #[test]
    fn a_key_is_written_once() {
        let duplicate = Err(StoreError::DuplicateKey);
        let check = |request| check_txn(&request, 128);
        assert_eq!(check(txn(vec![put("a"), put("a")], vec![])), duplicate);
        assert_eq!(
            check(txn(vec![put("b"), delete("a", "c")], vec![])),
            duplicate
        );
        let endless = vec![delete("a", "\0"), put("z")];
        assert_eq!(check(txn(endless, vec![])), Ok(()), "etcd lets it pass");
        assert_eq!(
            check(txn(vec![put("a"), nested(vec![], vec![put("a")])], vec![])),
            duplicate
        );
        assert_eq!(check(txn(vec![put("a")], vec![put("a")])), Ok(()));
        assert_eq!(
            check(txn(vec![nested(vec![put("a")], vec![put("a")])], vec![])),
            Ok(())
        );
        assert_eq!(
            check(txn(vec![delete("a", "b"), delete("a", "c")], vec![])),
            Ok(())
        );
    }

    #[test]
    fn what_only_deletes_or_reads_does_not_grow() {
        let grows = |request| grows(&Command::Txn(request));
        assert!(!grows(txn(vec![delete("a", "")], vec![delete("b", "")])));
        assert!(!grows(txn(
            vec![nested(vec![delete("a", "")], vec![])],
            vec![]
        )));
        assert!(grows(txn(vec![delete("a", "")], vec![put("b")])));
        assert!(grows(txn(vec![nested(vec![], vec![put("b")])], vec![])));
    }

    #[test]
    fn operations_are_bounded_also_when_nested() {
        let many: Vec<_> = (0..129).map(|_| delete("a", "")).collect();
        assert_eq!(
            check_txn(&txn(many, vec![]), 128),
            Err(StoreError::TooManyOps)
        );
        let mut deep = txn(vec![], vec![]);
        for _ in 0..129 {
            deep = txn(
                vec![RequestOp {
                    request: Some(Request::RequestTxn(deep)),
                }],
                vec![],
            );
        }
        assert_eq!(check_txn(&deep, 128), Err(StoreError::TooManyOps));
    }

    #[test]
    fn an_absent_key_compares_as_zeros_and_never_by_value() {
        let compare = |target: CompareTarget, result: CompareResult, union| Compare {
            key: "k".into(),
            target: target.into(),
            result: result.into(),
            target_union: Some(union),
            ..Default::default()
        };
        assert!(holds(
            &compare(
                CompareTarget::Version,
                CompareResult::Equal,
                TargetUnion::Version(0)
            ),
            None
        ));
        assert!(holds(
            &compare(
                CompareTarget::Create,
                CompareResult::Less,
                TargetUnion::CreateRevision(1)
            ),
            None
        ));
        assert!(!holds(
            &compare(
                CompareTarget::Value,
                CompareResult::NotEqual,
                TargetUnion::Value("x".into())
            ),
            None
        ));
    }
}
