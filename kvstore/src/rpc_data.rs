//! KV and Lease: requests are checked, agreed on or read, and answered with this member's header.
//!
//! Not here: watches (`rpc_watch`), and what a request means (`apply`, `txn`).

use std::pin::Pin;

use futures::stream::{self, Stream};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::apply::Response as Did;
use crate::command::Command;
use crate::handle::Handle;
use crate::pb::etcd::*;
use crate::txn;

/// The KV service of one member.
#[derive(Clone)]
pub struct KvService(pub Handle);

/// The Lease service of one member.
#[derive(Clone)]
pub struct LeaseService(pub Handle);

type Answer<T> = Result<Response<T>, Status>;

/// Metadata on a request that a member passed on; it isn't passed on again.
pub const FORWARDED: &str = "x-fleet-forwarded";

/// Counts a finished call and wraps its answer.
pub fn finish<T>(
    handle: &Handle,
    service: &'static str,
    method: &'static str,
    result: Result<T, Status>,
) -> Answer<T> {
    let code = result.as_ref().err().map_or(Code::Ok, Status::code);
    handle.calls().count(service, method, code);
    result.map(Response::new)
}

#[tonic::async_trait]
impl kv_server::Kv for KvService {
    async fn range(&self, request: Request<RangeRequest>) -> Answer<RangeResponse> {
        finish(
            &self.0,
            "KV",
            "Range",
            self.read(request.into_inner()).await,
        )
    }

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        let result = async {
            let request = request.into_inner();
            txn::check_put(&request)?;
            match self.0.write(Command::Put(request)).await? {
                (Did::Put(mut response), revision) => {
                    response.header = Some(self.0.header(revision));
                    Ok(response)
                }
                _ => Err(mismatch()),
            }
        };
        finish(&self.0, "KV", "Put", result.await)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Answer<DeleteRangeResponse> {
        let result = async {
            let request = request.into_inner();
            txn::check_delete(&request)?;
            match self.0.write(Command::DeleteRange(request)).await? {
                (Did::DeleteRange(mut response), revision) => {
                    response.header = Some(self.0.header(revision));
                    Ok(response)
                }
                _ => Err(mismatch()),
            }
        };
        finish(&self.0, "KV", "DeleteRange", result.await)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Answer<TxnResponse> {
        finish(
            &self.0,
            "KV",
            "Txn",
            self.transact(request.into_inner()).await,
        )
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        let result = async {
            match self
                .0
                .write(Command::Compact(request.into_inner().revision))
                .await?
            {
                (Did::Compact(mut response), revision) => {
                    response.header = Some(self.0.header(revision));
                    Ok(response)
                }
                _ => Err(mismatch()),
            }
        };
        finish(&self.0, "KV", "Compact", result.await)
    }
}

#[tonic::async_trait]
impl lease_server::Lease for LeaseService {
    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Answer<LeaseGrantResponse> {
        let result = async {
            let mut request = request.into_inner();
            if request.id == 0 {
                request.id = self.0.fresh_lease_id()?;
            }
            request.ttl = self.0.core()?.lessor.granted_ttl(request.ttl);
            match self.0.write(Command::LeaseGrant(request)).await? {
                (Did::LeaseGrant(mut response), revision) => {
                    response.header = Some(self.0.header(revision));
                    Ok(response)
                }
                _ => Err(mismatch()),
            }
        };
        finish(&self.0, "Lease", "LeaseGrant", result.await)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Answer<LeaseRevokeResponse> {
        let result = async {
            match self
                .0
                .write(Command::LeaseRevoke(request.into_inner().id))
                .await?
            {
                (Did::LeaseRevoke(mut response), revision) => {
                    response.header = Some(self.0.header(revision));
                    Ok(response)
                }
                _ => Err(mismatch()),
            }
        };
        finish(&self.0, "Lease", "LeaseRevoke", result.await)
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let forwarded = request.metadata().contains_key(FORWARDED);
        let handle = self.0.clone();
        let answers = stream::try_unfold(
            (request.into_inner(), handle),
            move |(mut requests, handle)| async move {
                let Some(request) = requests.message().await? else {
                    return Ok(None);
                };
                let result = handle.renew(request.id, forwarded).await;
                handle.calls().count(
                    "Lease",
                    "LeaseKeepAlive",
                    result.as_ref().err().map_or(Code::Ok, Status::code),
                );
                let ttl = result?;
                let response = LeaseKeepAliveResponse {
                    header: Some(handle.header(0)),
                    id: request.id,
                    ttl,
                };
                Ok(Some((response, (requests, handle))))
            },
        );
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Answer<LeaseTimeToLiveResponse> {
        let forwarded = request.metadata().contains_key(FORWARDED);
        let result = self
            .0
            .time_to_live(request.into_inner(), forwarded)
            .await
            .map(|mut response| {
                response.header = Some(self.0.header(0));
                response
            });
        finish(&self.0, "Lease", "LeaseTimeToLive", result)
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Answer<LeaseLeasesResponse> {
        let result = async {
            self.0.linearize().await?;
            let leases = self
                .0
                .core()?
                .store()?
                .leases()
                .map(|(id, _)| LeaseStatus { id })
                .collect();
            Ok(LeaseLeasesResponse {
                header: Some(self.0.header(0)),
                leases,
            })
        };
        finish(&self.0, "Lease", "LeaseLeases", result.await)
    }
}

impl KvService {
    async fn read(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        txn::check_range(&request)?;
        if !request.serializable {
            self.0.linearize().await?;
        }
        let (mut response, revision) = {
            let core = self.0.core()?;
            let store = core.store()?;
            (store.range(&request)?, store.revision())
        };
        response.header = Some(self.0.header(revision));
        Ok(response)
    }

    /// A transaction that writes nothing needs no entry in the log.
    async fn read_together(&self, request: &TxnRequest) -> Result<TxnResponse, Status> {
        if !txn::is_serializable(request) {
            self.0.linearize().await?;
        }
        let (mut response, revision) = {
            let core = self.0.core()?;
            let store = core.store()?;
            (store.read_txn(request)?, store.revision())
        };
        response.header = Some(self.0.header(revision));
        Ok(response)
    }

    async fn transact(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        txn::check_txn(&request, self.0.limits().max_txn_ops)?;
        if txn::reads_only(&request) {
            return self.read_together(&request).await;
        }
        let (mut response, revision) = match self.0.write(Command::Txn(request)).await? {
            (Did::Txn(response), revision) => (response, revision),
            _ => return Err(mismatch()),
        };
        response.header = Some(self.0.header(revision));
        Ok(response)
    }
}

fn mismatch() -> Status {
    Status::internal("the answer belongs to another kind of request")
}
