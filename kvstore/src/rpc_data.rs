//! KV and Lease: requests are checked, agreed on or read, and answered with this member's header.
//!
//! Not here: watches (`rpc_watch`), and what a request means (`apply`, `txn`).

mod door;
mod reading;
mod renewals;
mod streaming;

use std::pin::Pin;

use futures::stream::{self, Stream};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::apply::Response as Did;
use crate::auth::Access;
use crate::command::Command;
use crate::handle::{Handle, Sender};
use crate::pb::etcd::*;
use crate::txn;
pub use door::Door;
use reading::Found;
use renewals::Renewals;

/// The KV service of one member.
#[derive(Clone)]
pub struct KvService(pub Handle);

/// The Lease service of one member, by the door that its calls come in at.
#[derive(Clone)]
pub struct LeaseService(pub Handle, pub Door);

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
    type RangeStreamStream = streaming::RangeStream;

    async fn range(&self, request: Request<RangeRequest>) -> Answer<RangeResponse> {
        let (sender, request) = Sender::split(request);
        let found = self.read(request, &sender).await;
        finish(&self.0, "KV", "Range", found).map(|answer| answer.into_inner().into_answer())
    }

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Answer<Self::RangeStreamStream> {
        let (sender, request) = Sender::split(request);
        let begun = self.stream(request, &sender).await;
        if let Err(status) = &begun {
            self.0.calls().count("KV", "RangeStream", status.code());
        }
        begun.map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        let result = async {
            let (sender, request) = Sender::split(request);
            txn::check_put(&request)?;
            let caller = self.0.caller(&sender).await?;
            match self.0.write(Command::Put(request), caller).await? {
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
        let (sender, request) = Sender::split(request);
        let result = self.delete(request, &sender).await;
        finish(&self.0, "KV", "DeleteRange", result)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Answer<TxnResponse> {
        let (sender, request) = Sender::split(request);
        let result = self.transact(request, &sender).await;
        finish(&self.0, "KV", "Txn", result)
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        let result = async {
            let (sender, request) = Sender::split(request);
            let caller = self.0.require_root(&sender).await?;
            let CompactionRequest { revision, physical } = request;
            match self.0.write(Command::Compact(revision), caller).await? {
                (Did::Compact(mut response), revision) => {
                    if physical {
                        self.0.swept().await?;
                    }
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
        let (sender, request) = Sender::split(request);
        let result = self.grant(request, &sender).await;
        finish(&self.0, "Lease", "LeaseGrant", result)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Answer<LeaseRevokeResponse> {
        let result = async {
            self.1.refuse_peers()?;
            let (sender, request) = Sender::split(request);
            let caller = self.0.require_user(&sender).await?;
            let command = Command::LeaseRevoke(request.id);
            match self.0.write(command, caller).await? {
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
        let (sender, requests) = Sender::split(request);
        let renewals = Renewals::begin(&self.0, self.1);
        let answers = stream::try_unfold(
            (requests, self.clone(), sender, renewals),
            move |(mut requests, service, sender, mut renewals)| async move {
                let Some(request) = requests.message().await? else {
                    renewals.end(Code::Ok);
                    return Ok(None);
                };
                renewals.asked();
                let handle = &service.0;
                let result = service.renew(request.id, forwarded, &sender).await;
                let ttl = result.inspect_err(|status| renewals.end(status.code()))?;
                renewals.answered();
                let response = LeaseKeepAliveResponse {
                    header: Some(handle.header(0)),
                    id: request.id,
                    ttl,
                };
                Ok(Some((response, (requests, service, sender, renewals))))
            },
        );
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Answer<LeaseTimeToLiveResponse> {
        let forwarded = request.metadata().contains_key(FORWARDED);
        let result = async {
            let (sender, request) = Sender::split(request);
            let caller = self.caller(&sender).await?;
            if request.keys {
                self.permit(caller.as_ref(), Access::Read, [request.id])?;
            }
            let keys = request.keys;
            let mut response = self.0.time_to_live(request, forwarded).await?;
            if keys {
                self.still_shown_to(caller.as_ref())?;
            }
            response.header = Some(self.0.header(0));
            Ok(response)
        };
        finish(&self.0, "Lease", "LeaseTimeToLive", result.await)
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Answer<LeaseLeasesResponse> {
        let result = async {
            self.1.refuse_peers()?;
            self.0.linearize().await?;
            let caller = self.0.require_user(&Sender::split(request).0).await?;
            let core = self.0.core()?;
            let mut ids: Vec<i64> = core.store()?.leases().map(|(id, _)| id).collect();
            // The leader knows which ends first.
            ids.sort_unstable_by_key(|id| (core.lessor.ends_at(*id), *id));
            drop(core);
            self.permit(caller.as_ref(), Access::Read, ids.iter().copied())?;
            let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
            Ok(LeaseLeasesResponse {
                header: Some(self.0.header(0)),
                leases,
            })
        };
        finish(&self.0, "Lease", "LeaseLeases", result.await)
    }
}

impl LeaseService {
    /// A new lease, not counted as a call.
    pub(crate) async fn grant(
        &self,
        mut request: LeaseGrantRequest,
        sender: &Sender,
    ) -> Result<LeaseGrantResponse, Status> {
        self.1.refuse_peers()?;
        let caller = self.0.require_user(sender).await?;
        if request.id == 0 {
            request.id = self.0.fresh_lease_id()?;
        }
        request.ttl = self.0.core()?.lessor.granted_ttl(request.ttl);
        let command = Command::LeaseGrant(request);
        match self.0.write(command, caller).await? {
            (Did::LeaseGrant(mut response), revision) => {
                response.header = Some(self.0.header(revision));
                Ok(response)
            }
            _ => Err(mismatch()),
        }
    }
}

impl KvService {
    /// A range, not counted as a call.
    pub(crate) async fn get(
        &self,
        request: RangeRequest,
        sender: &Sender,
    ) -> Result<RangeResponse, Status> {
        match self.read(request, sender).await? {
            Found::Small(response) => Ok(response),
            Found::Large(encoded, ..) => Ok(encoded.decode()?),
        }
    }

    /// A deletion, not counted as a call.
    pub(crate) async fn delete(
        &self,
        request: DeleteRangeRequest,
        sender: &Sender,
    ) -> Result<DeleteRangeResponse, Status> {
        txn::check_delete(&request)?;
        let caller = self.0.caller(sender).await?;
        let command = Command::DeleteRange(request);
        match self.0.write(command, caller).await? {
            (Did::DeleteRange(mut response), revision) => {
                response.header = Some(self.0.header(revision));
                Ok(response)
            }
            _ => Err(mismatch()),
        }
    }

    /// A transaction, not counted as a call.
    pub(crate) async fn transact(
        &self,
        request: TxnRequest,
        sender: &Sender,
    ) -> Result<TxnResponse, Status> {
        txn::check_txn(&request, self.0.limits().max_txn_ops)?;
        if txn::reads_only(&request) {
            return self.read_together(&request, sender).await;
        }
        let caller = self.0.caller(sender).await?;
        let command = Command::Txn(request);
        let (mut response, revision) = match self.0.write(command, caller).await? {
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
