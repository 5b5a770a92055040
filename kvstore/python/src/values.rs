//! Between Python's values (`kvstore.model`) and the wire's: operations in, tuples out.

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::client::Outcome;
use etcd::compare::TargetUnion;
use etcd::request_op::Request;
use etcd::response_op::Response;
use kvstore::client::watch::Delivery;
use kvstore::pb::etcd;

type Any<'py> = Bound<'py, PyAny>;

pub enum Answer {
    Range(etcd::RangeResponse),
    Put(etcd::PutResponse),
    Delete(etcd::DeleteRangeResponse),
    Txn(etcd::TxnResponse),
    Header(Option<etcd::ResponseHeader>),
    Grant(etcd::LeaseGrantResponse),
    Renewal(etcd::LeaseKeepAliveResponse),
    TimeToLive(etcd::LeaseTimeToLiveResponse),
    Leases(etcd::LeaseLeasesResponse),
    Members(Option<etcd::ResponseHeader>, u64, Vec<etcd::Member>),
    Status(etcd::StatusResponse),
    Raw(Bytes),
}

/// `kvstore.model.Op`, by its attributes.
#[derive(FromPyObject)]
pub struct Op {
    kind: String,
    key: Vec<u8>,
    value: Vec<u8>,
    range_end: Vec<u8>,
    lease: i64,
    limit: i64,
    revision: i64,
    sort: (String, bool),
    serializable: bool,
    keys_only: bool,
    count_only: bool,
    revisions: (i64, i64, i64, i64),
    prev_kv: bool,
    ignore_value: bool,
    ignore_lease: bool,
    compare: Vec<Compare>,
    success: Vec<Op>,
    failure: Vec<Op>,
}

/// `kvstore.model.Compare`, by its attributes.
#[derive(FromPyObject)]
pub struct Compare {
    key: Vec<u8>,
    target: String,
    result: String,
    number: i64,
    data: Vec<u8>,
    range_end: Vec<u8>,
}

fn wrong(what: &str, value: &str) -> PyErr {
    PyValueError::new_err(format!("{value:?} is not {what}."))
}

impl Op {
    pub fn request(self) -> PyResult<Request> {
        let (key, range_end) = (Bytes::from(self.key), Bytes::from(self.range_end));
        match self.kind.as_str() {
            "get" => {
                use etcd::range_request::{SortOrder, SortTarget};
                let (target, descending) = self.sort;
                let (min_mod_revision, max_mod_revision, min_create_revision, max_create_revision) =
                    self.revisions;
                let sort_target = match target.as_str() {
                    "" | "key" => SortTarget::Key,
                    "version" => SortTarget::Version,
                    "create" => SortTarget::Create,
                    "mod" => SortTarget::Mod,
                    "value" => SortTarget::Value,
                    other => {
                        return Err(wrong(
                            "a sort target: key, version, create, mod or value",
                            other,
                        ))
                    }
                };
                let sort_order = match (target.is_empty(), descending) {
                    (true, false) => SortOrder::None,
                    (_, true) => SortOrder::Descend,
                    _ => SortOrder::Ascend,
                };
                Ok(Request::RequestRange(etcd::RangeRequest {
                    key,
                    range_end,
                    limit: self.limit,
                    revision: self.revision,
                    sort_order: sort_order.into(),
                    sort_target: sort_target.into(),
                    serializable: self.serializable,
                    keys_only: self.keys_only,
                    count_only: self.count_only,
                    min_mod_revision,
                    max_mod_revision,
                    min_create_revision,
                    max_create_revision,
                }))
            }
            "put" => Ok(Request::RequestPut(etcd::PutRequest {
                key,
                value: self.value.into(),
                lease: self.lease,
                prev_kv: self.prev_kv,
                ignore_value: self.ignore_value,
                ignore_lease: self.ignore_lease,
            })),
            "delete" => Ok(Request::RequestDeleteRange(etcd::DeleteRangeRequest {
                key,
                range_end,
                prev_kv: self.prev_kv,
            })),
            "txn" => {
                let wrap = |ops: Vec<Op>| -> PyResult<Vec<etcd::RequestOp>> {
                    ops.into_iter()
                        .map(|op| {
                            Ok(etcd::RequestOp {
                                request: Some(op.request()?),
                            })
                        })
                        .collect()
                };
                Ok(Request::RequestTxn(etcd::TxnRequest {
                    compare: self
                        .compare
                        .into_iter()
                        .map(Compare::wire)
                        .collect::<PyResult<_>>()?,
                    success: wrap(self.success)?,
                    failure: wrap(self.failure)?,
                }))
            }
            other => Err(wrong("an operation: get, put, delete or txn", other)),
        }
    }
}

impl Compare {
    fn wire(self) -> PyResult<etcd::Compare> {
        use etcd::compare::{CompareResult, CompareTarget};
        let result = match self.result.as_str() {
            "=" | "==" => CompareResult::Equal,
            "!=" => CompareResult::NotEqual,
            ">" => CompareResult::Greater,
            "<" => CompareResult::Less,
            other => return Err(wrong("a comparison: =, !=, < or >", other)),
        };
        let (target, union) = match self.target.as_str() {
            "version" => (CompareTarget::Version, TargetUnion::Version(self.number)),
            "create" => (
                CompareTarget::Create,
                TargetUnion::CreateRevision(self.number),
            ),
            "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(self.number)),
            "lease" => (CompareTarget::Lease, TargetUnion::Lease(self.number)),
            "value" => (CompareTarget::Value, TargetUnion::Value(self.data.into())),
            other => {
                return Err(wrong(
                    "a target: version, create, mod, lease or value",
                    other,
                ))
            }
        };
        Ok(etcd::Compare {
            result: result.into(),
            target: target.into(),
            key: self.key.into(),
            target_union: Some(union),
            range_end: self.range_end.into(),
        })
    }
}

fn tuple<
    'py,
    T: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
>(
    py: Python<'py>,
    value: T,
) -> PyResult<Any<'py>> {
    Ok(value.into_pyobject(py)?.into_any())
}

fn header(header: Option<etcd::ResponseHeader>) -> (u64, u64, i64, u64) {
    header.map_or((0, 0, 0, 0), |one| {
        (one.cluster_id, one.member_id, one.revision, one.raft_term)
    })
}

fn key_value<'py>(py: Python<'py>, kv: &etcd::KeyValue) -> PyResult<Any<'py>> {
    let (key, value) = (PyBytes::new(py, &kv.key), PyBytes::new(py, &kv.value));
    tuple(
        py,
        (
            key,
            value,
            kv.create_revision,
            kv.mod_revision,
            kv.version,
            kv.lease,
        ),
    )
}

fn maybe<'py>(py: Python<'py>, kv: Option<&etcd::KeyValue>) -> PyResult<Option<Any<'py>>> {
    kv.map(|kv| key_value(py, kv)).transpose()
}

fn all<'py>(py: Python<'py>, kvs: &[etcd::KeyValue]) -> PyResult<Vec<Any<'py>>> {
    kvs.iter().map(|kv| key_value(py, kv)).collect()
}

fn range(py: Python<'_>, answer: etcd::RangeResponse) -> PyResult<Any<'_>> {
    tuple(
        py,
        (
            header(answer.header),
            all(py, &answer.kvs)?,
            answer.more,
            answer.count,
        ),
    )
}

fn put(py: Python<'_>, answer: etcd::PutResponse) -> PyResult<Any<'_>> {
    tuple(
        py,
        (header(answer.header), maybe(py, answer.prev_kv.as_ref())?),
    )
}

fn delete(py: Python<'_>, answer: etcd::DeleteRangeResponse) -> PyResult<Any<'_>> {
    tuple(
        py,
        (
            header(answer.header),
            answer.deleted,
            all(py, &answer.prev_kvs)?,
        ),
    )
}

fn txn(py: Python<'_>, answer: etcd::TxnResponse) -> PyResult<Any<'_>> {
    let mut responses = Vec::with_capacity(answer.responses.len());
    for response in answer.responses {
        responses.push(match response.response {
            Some(Response::ResponseRange(one)) => ("get", range(py, one)?),
            Some(Response::ResponsePut(one)) => ("put", put(py, one)?),
            Some(Response::ResponseDeleteRange(one)) => ("delete", delete(py, one)?),
            Some(Response::ResponseTxn(one)) => ("txn", txn(py, one)?),
            None => {
                return Err(PyValueError::new_err(
                    "The member's answer holds an operation without a result.",
                ))
            }
        });
    }
    tuple(py, (header(answer.header), answer.succeeded, responses))
}

fn answer(py: Python<'_>, answer: Answer) -> PyResult<Any<'_>> {
    match answer {
        Answer::Range(one) => range(py, one),
        Answer::Put(one) => put(py, one),
        Answer::Delete(one) => delete(py, one),
        Answer::Txn(one) => txn(py, one),
        Answer::Header(one) => tuple(py, header(one)),
        Answer::Raw(one) => Ok(PyBytes::new(py, &one).into_any()),
        Answer::Grant(one) => tuple(py, (header(one.header), one.id, one.ttl)),
        Answer::Renewal(one) => tuple(py, (header(one.header), one.id, one.ttl)),
        Answer::TimeToLive(one) => {
            let keys: Vec<_> = one.keys.iter().map(|key| PyBytes::new(py, key)).collect();
            let head = header(one.header);
            tuple(py, (head, one.id, one.ttl, one.granted_ttl, keys))
        }
        Answer::Leases(one) => {
            let ids: Vec<i64> = one.leases.iter().map(|lease| lease.id).collect();
            tuple(py, (header(one.header), ids))
        }
        Answer::Members(head, subject, members) => {
            let members: Vec<_> = members
                .into_iter()
                .map(|one| {
                    (
                        one.id,
                        one.name,
                        one.peer_ur_ls,
                        one.client_ur_ls,
                        one.is_learner,
                    )
                })
                .collect();
            tuple(py, (header(head), subject, members))
        }
        Answer::Status(one) => {
            let raft = (
                one.leader,
                one.raft_term,
                one.raft_index,
                one.raft_applied_index,
            );
            let sizes = (one.db_size, one.db_size_in_use);
            tuple(
                py,
                (
                    header(one.header),
                    one.version,
                    raft,
                    sizes,
                    one.is_learner,
                    one.errors,
                ),
            )
        }
    }
}

/// A kind and its value, for `kvstore.client`.
pub fn outcome(py: Python<'_>, outcome: Outcome) -> PyResult<(&'static str, Any<'_>)> {
    match outcome {
        Outcome::Answer(one) => Ok(("answer", answer(py, one)?)),
        Outcome::Error(status) | Outcome::Delivery(Delivery::Failed(status)) => Ok((
            "error",
            tuple(py, (status.code() as i32, status.message()))?,
        )),
        Outcome::Delivery(Delivery::Created(revision)) => {
            Ok(("created", revision.into_pyobject(py)?.into_any()))
        }
        Outcome::Delivery(Delivery::Compacted(revision, head)) => {
            Ok(("compacted", tuple(py, (revision, header(head)))?))
        }
        Outcome::Delivery(Delivery::Batch(batch)) => {
            let mut list = Vec::with_capacity(batch.events.len());
            for event in &batch.events {
                let kind = if event.r#type == etcd::event::EventType::Delete as i32 {
                    "delete"
                } else {
                    "put"
                };
                let none = etcd::KeyValue::default();
                let kv = key_value(py, event.kv.as_ref().unwrap_or(&none))?;
                list.push((kind, kv, maybe(py, event.prev_kv.as_ref())?));
            }
            let value = (batch.revision, list, header(batch.header));
            Ok(("batch", tuple(py, value)?))
        }
    }
}
