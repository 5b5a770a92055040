//! Ranges, and transactions that only read: what they wait for, in slices where they are large, and how long all that took.

use prost::Message;
use tonic::{Response, Status};

use super::KvService;
use crate::apply::Store;
use crate::auth::Access;
use crate::encoded::Encoded;
use crate::errors::StoreError;
use crate::handle::Sender;
use crate::measures::Ranges;
use crate::pb::etcd::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::slow::{Ranged, Underway};
use crate::txn;

/// The answer to a read.
pub(super) enum Found {
    Small(RangeResponse),
    /// Encoded already, on another thread; how many keys it holds, and how many there are.
    Large(Encoded, usize, i64),
}

impl Found {
    fn facts(&self) -> Ranged {
        match self {
            Self::Small(response) => Ranged {
                kvs: response.kvs.len(),
                bytes: response.encoded_len(),
                count: response.count,
            },
            Self::Large(encoded, kvs, count) => Ranged {
                kvs: *kvs,
                bytes: encoded.bytes(),
                count: *count,
            },
        }
    }

    pub fn into_answer(self) -> Response<RangeResponse> {
        match self {
            Self::Small(response) => Response::new(response),
            Self::Large(encoded, ..) => {
                let mut answer = Response::new(RangeResponse::default());
                answer.extensions_mut().insert(encoded);
                answer
            }
        }
    }
}

impl KvService {
    pub(super) async fn read(
        &self,
        request: RangeRequest,
        sender: &Sender,
    ) -> Result<Found, Status> {
        txn::check_range(&request)?;
        let underway = Underway::begin("Range");
        // The bytes in it are shared.
        let asked = request.clone();
        let found = self.find(request, sender).await;
        underway.ranged(&asked, found.as_ref().map(|found| || found.facts()));
        found
    }

    async fn find(&self, request: RangeRequest, sender: &Sender) -> Result<Found, Status> {
        if !request.serializable {
            self.0.linearize().await?;
        }
        let caller = self.0.caller(sender).await?;
        let caller = caller.as_ref();
        let permit = |store: &Store| {
            let (key, end) = (&request.key, &request.range_end);
            store.auth().permit(caller, Access::Read, key, end)
        };
        if request.range_end.is_empty() {
            let (found, revision) = {
                let core = self.0.core()?;
                let store = core.store()?;
                permit(store)?;
                let begun = Ranges::begin();
                let found = store.range(&request);
                Ranges::end(begun, found.is_ok());
                (found, store.revision())
            };
            let mut response = found?;
            response.header = Some(self.0.header(revision));
            return Ok(Found::Small(response));
        }
        permit(self.0.core()?.store()?)?;
        let begun = Ranges::begin();
        let found = self.find_many(request).await;
        Ranges::end(begun, found.is_ok());
        let found = found?;
        if self.0.core()?.store()?.auth().is_stale(caller) {
            return Err(StoreError::AuthOldRevision.into());
        }
        Ok(found)
    }

    /// A range of several keys, in slices.
    async fn find_many(&self, request: RangeRequest) -> Result<Found, Status> {
        let mut slices = self.0.core()?.store()?.begin_range(request)?;
        let header = self.0.header(slices.revision());
        let mut is_small = true;
        while !self.0.core()?.store()?.read_on(&mut slices)? {
            is_small = false;
            tokio::task::yield_now().await;
        }
        if is_small {
            let mut response = slices.finish();
            response.header = Some(header);
            return Ok(Found::Small(response));
        }
        // Sorting and encoding would hold up everyone else on this thread.
        let encode = move || {
            let mut response = slices.finish();
            response.header = Some(header);
            let (kvs, count) = (response.kvs.len(), response.count);
            Encoded::new(response).map(|encoded| Found::Large(encoded, kvs, count))
        };
        let encoded = tokio::task::spawn_blocking(encode).await;
        Ok(encoded.map_err(|_| StoreError::Stopped)??)
    }

    /// A transaction that writes nothing needs no entry in the log.
    pub(super) async fn read_together(
        &self,
        request: &TxnRequest,
        sender: &Sender,
    ) -> Result<TxnResponse, Status> {
        let underway = Underway::begin("ReadonlyTxn");
        let answer = self.find_together(request, sender).await;
        underway.read(request, answer.as_ref());
        answer
    }

    async fn find_together(
        &self,
        request: &TxnRequest,
        sender: &Sender,
    ) -> Result<TxnResponse, Status> {
        if !txn::is_serializable(request) {
            self.0.linearize().await?;
        }
        let caller = self.0.caller(sender).await?;
        let (mut response, revision) = {
            let core = self.0.core()?;
            let store = core.store()?;
            if store.auth().is_enabled() {
                store.permit_txn(caller.as_ref(), request)?;
            }
            (store.read_txn(request)?, store.revision())
        };
        response.header = Some(self.0.header(revision));
        Ok(response)
    }
}
