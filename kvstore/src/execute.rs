//! Puts, deletions and transactions on the state: checks first, so that nothing fails half way.

use crate::apply::{count, Store, Turn};
use crate::errors::StoreError;
use crate::mvcc::{KeyRange, Kv};
use crate::pb::etcd::request_op::Request;
use crate::pb::etcd::response_op::Response as OpResponse;
use crate::pb::etcd::{
    DeleteRangeRequest, DeleteRangeResponse, KeyValue, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::txn::holds;

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..Default::default()
    })
}

impl Store {
    pub(crate) fn check_put(&self, request: &PutRequest) -> Result<(), StoreError> {
        if (request.ignore_value || request.ignore_lease)
            && self.keys.newest(&request.key).is_none()
        {
            return Err(StoreError::KeyNotFound);
        }
        if request.lease != 0 && !self.leases.contains_key(&request.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, turn: &mut Turn, request: &PutRequest) -> PutResponse {
        turn.operations += 1;
        count(&self.counts.puts, 1);
        let now = self.keys.newest(&request.key).cloned();
        let was = now.as_ref().map(Kv::fields);
        let lease = match was {
            Some(was) if request.ignore_lease => was.lease,
            _ => request.lease,
        };
        let value = match was {
            Some(was) if request.ignore_value => was.value,
            _ => &request.value,
        };
        let rev = turn.next();
        let (keys, batch) = self.keys_mut();
        let change = keys.put(rev, &request.key, value, lease, batch);
        self.attach(&change);
        let prev_kv = if request.prev_kv {
            change.prev.as_ref().map(Kv::message)
        } else {
            None
        };
        turn.changes.push(change);
        PutResponse {
            header: header(turn.main),
            prev_kv,
        }
    }

    pub(crate) fn delete(
        &mut self,
        turn: &mut Turn,
        request: &DeleteRangeRequest,
    ) -> DeleteRangeResponse {
        turn.operations += 1;
        count(&self.counts.deletes, 1);
        let range = KeyRange::new(&request.key, &request.range_end);
        let (keys, batch) = self.keys_mut();
        let gone = keys.delete_range(&range, || turn.next(), batch);
        let mut prev_kvs: Vec<KeyValue> = Vec::new();
        for change in &gone {
            self.attach(change);
            if request.prev_kv {
                prev_kvs.extend(change.prev.as_ref().map(Kv::message));
            }
        }
        let deleted = i64::try_from(gone.len()).unwrap_or(i64::MAX);
        turn.changes.extend(gone);
        DeleteRangeResponse {
            header: header(turn.seen()),
            deleted,
            prev_kvs,
        }
    }

    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, StoreError> {
        // Every compare, nested ones too, sees the state before the transaction.
        let mut path = Vec::new();
        self.decide(request, &mut path);
        self.check_branch(request, &mut path.iter())?;
        let mut turn = Turn::new(self.revision());
        let response = self.run(&mut turn, request, &mut path.iter());
        let unread = turn.unread.take();
        self.finish(turn);
        match unread {
            None => Ok(response),
            // The writes stand, as on every member; this one can't answer, nor be trusted with what comes.
            Some(error) => Err(self.broke(error)),
        }
    }

    /// Read-only transactions need no entry in the log.
    ///
    /// # Errors
    /// etcd's, for a compacted or future revision.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, StoreError> {
        let mut path = Vec::new();
        self.decide(request, &mut path);
        let response = self.read_branch(request, &mut path.iter())?;
        count(
            &self.counts.txns,
            u64::from(operations_in(&response.responses) > 1),
        );
        Ok(response)
    }

    fn read_branch(
        &self,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<TxnResponse, StoreError> {
        let succeeded = path.next().copied().unwrap_or(false);
        let ops = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => {
                    let mut response = self.range(range)?;
                    response.header = header(self.revision());
                    OpResponse::ResponseRange(response)
                }
                Some(Request::RequestTxn(txn)) => {
                    OpResponse::ResponseTxn(self.read_branch(txn, path)?)
                }
                _ => {
                    return Err(StoreError::Internal(
                        "a transaction that writes was read".into(),
                    ))
                }
            };
            responses.push(ResponseOp {
                response: Some(response),
            });
        }
        Ok(TxnResponse {
            header: header(0),
            succeeded,
            responses,
        })
    }

    fn decide(&self, request: &TxnRequest, path: &mut Vec<bool>) {
        let succeeded = request.compare.iter().all(|compare| {
            let range = KeyRange::new(&compare.key, &compare.range_end);
            let mut found = self.keys.newest_in(&range).peekable();
            if found.peek().is_none() {
                return holds(compare, None);
            }
            found.all(|kv| holds(compare, Some(kv.fields())))
        });
        path.push(succeeded);
        for op in if succeeded {
            &request.success
        } else {
            &request.failure
        } {
            if let Some(Request::RequestTxn(txn)) = &op.request {
                self.decide(txn, path);
            }
        }
    }

    fn check_branch(
        &self,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<(), StoreError> {
        let succeeded = path.next().copied().unwrap_or(false);
        for op in if succeeded {
            &request.success
        } else {
            &request.failure
        } {
            match &op.request {
                Some(Request::RequestPut(put)) => self.check_put(put)?,
                Some(Request::RequestRange(range)) => self.check_revision(range)?,
                Some(Request::RequestTxn(txn)) => self.check_branch(txn, path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_revision(&self, request: &RangeRequest) -> Result<(), StoreError> {
        if request.revision > self.revision() {
            return Err(StoreError::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compacted_revision() {
            return Err(StoreError::Compacted);
        }
        Ok(())
    }

    fn run(
        &mut self,
        turn: &mut Turn,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> TxnResponse {
        let succeeded = path.next().copied().unwrap_or(false);
        let ops: &[RequestOp] = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match &op.request {
                Some(Request::RequestPut(put)) => OpResponse::ResponsePut(self.put(turn, put)),
                Some(Request::RequestDeleteRange(delete)) => {
                    OpResponse::ResponseDeleteRange(self.delete(turn, delete))
                }
                Some(Request::RequestRange(range)) => {
                    turn.operations += 1;
                    count(&self.counts.ranges, 1);
                    let seen = turn.seen();
                    let compacted = self.compacted_revision();
                    let found =
                        crate::range::range(&self.keys, &self.backend, compacted, seen, range);
                    let mut response = found.unwrap_or_else(|error| {
                        turn.unread.get_or_insert(error);
                        RangeResponse::default()
                    });
                    response.header = header(seen);
                    OpResponse::ResponseRange(response)
                }
                Some(Request::RequestTxn(txn)) => {
                    OpResponse::ResponseTxn(self.run(turn, txn, path))
                }
                None => continue,
            };
            responses.push(ResponseOp {
                response: Some(response),
            });
        }
        TxnResponse {
            header: header(0),
            succeeded,
            responses,
        }
    }
}

/// Operations that were carried out, nested ones too.
fn operations_in(responses: &[ResponseOp]) -> usize {
    let nested = |one: &ResponseOp| match &one.response {
        Some(OpResponse::ResponseTxn(inner)) => operations_in(&inner.responses),
        _ => 1,
    };
    responses.iter().map(nested).sum()
}
