//! KV.RangeStream: a range in pieces of bounded size, all of one revision, none of which waits in memory for a client.
//!
//! Nothing is held for who reads slowly: once what it reads is compacted the stream ends with that error, as in etcd.

use std::pin::Pin;

use futures::stream::{self, Stream};
use tonic::{Code, Status};

use super::KvService;
use crate::apply::Store;
use crate::auth::{Access, Caller};
use crate::errors::StoreError;
use crate::handle::{Handle, Sender};
use crate::pb::etcd::range_request::{SortOrder, SortTarget};
use crate::pb::etcd::{RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader};
use crate::range::{filters, Reading, SLICE_KEYS};
use crate::txn;

pub type RangeStream = Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

/// One stream on its way.
struct Pieces {
    handle: Handle,
    caller: Option<Caller>,
    reading: Reading,
    /// Goes with the last piece.
    header: ResponseHeader,
    begun: bool,
}

/// What can't be streamed, since all of it would have to be looked at first.
fn check(request: &RangeRequest) -> Result<(), Status> {
    txn::check_range(request)?;
    let by_key = request.sort_target == SortTarget::Key as i32;
    let order = request.sort_order;
    let ascends = order == SortOrder::Ascend as i32 && by_key;
    if order != SortOrder::None as i32 && !ascends {
        let why = "RangeStream does not support custom sort orders";
        return Err(Status::unimplemented(why));
    }
    if filters(request) {
        let why = "RangeStream does not support revision filters";
        return Err(Status::unimplemented(why));
    }
    Ok(())
}

impl KvService {
    pub(super) async fn stream(
        &self,
        mut request: RangeRequest,
        sender: &Sender,
    ) -> Result<RangeStream, Status> {
        check(&request)?;
        // A target without an order does not count.
        request.sort_target = SortTarget::Key.into();
        if !request.serializable {
            self.0.linearize().await?;
        }
        let caller = self.0.caller(sender).await?;
        let (reading, revision) = {
            let core = self.0.core()?;
            let store = core.store()?;
            let (key, end) = (&request.key, &request.range_end);
            store
                .auth()
                .permit(caller.as_ref(), Access::Read, key, end)?;
            (store.begin_stream(request)?, store.revision())
        };
        let pieces = Pieces {
            header: self.0.header(revision),
            handle: self.0.clone(),
            caller,
            reading,
            begun: false,
        };
        Ok(Box::pin(stream::try_unfold(Some(pieces), |left| async {
            let Some(pieces) = left else {
                return Ok(None);
            };
            pieces.next().await.map(Some)
        })))
    }
}

impl Pieces {
    /// The next piece that holds something, and what follows it.
    async fn next(mut self) -> Result<(RangeStreamResponse, Option<Self>), Status> {
        loop {
            // Others of this thread come between two slices.
            if std::mem::replace(&mut self.begun, true) {
                tokio::task::yield_now().await;
            }
            match self.read() {
                Ok(false) => {}
                Ok(true) => {
                    self.handle.calls().count("KV", "RangeStream", Code::Ok);
                    let last = RangeResponse {
                        header: Some(self.header),
                        ..self.reading.finish()
                    };
                    return Ok((piece(last), None));
                }
                Err(status) => {
                    self.handle
                        .calls()
                        .count("KV", "RangeStream", status.code());
                    return Err(status);
                }
            }
            let kvs = self.reading.take();
            if !kvs.is_empty() {
                let some = RangeResponse {
                    kvs,
                    ..RangeResponse::default()
                };
                return Ok((piece(some), Some(self)));
            }
        }
    }

    /// Reads a slice; whether it was the last.
    fn read(&mut self) -> Result<bool, Status> {
        let core = self.handle.core()?;
        let store: &Store = core.store()?;
        if store.auth().is_stale(self.caller.as_ref()) {
            return Err(StoreError::AuthOldRevision.into());
        }
        Ok(store.stream_on(&mut self.reading, SLICE_KEYS)?)
    }
}

fn piece(range_response: RangeResponse) -> RangeStreamResponse {
    RangeStreamResponse {
        range_response: Some(range_response),
    }
}
