//! Who has a name, among many who want it: each has a key `name/<lease>`, and the one whose key was created first has it.
//!
//! Locks (`rpc_lock`) and elections (`rpc_election`) stand on this. It asks the member's own services on behalf of the
//! client, whose permissions hold as with ordinary keys.

use bytes::Bytes;
use futures::stream::StreamExt;
use tonic::Status;

use crate::errors::StoreError;
use crate::handle::{Handle, Sender};
use crate::pb::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::etcd::event::EventType;
use crate::pb::etcd::range_request::{SortOrder, SortTarget};
use crate::pb::etcd::watch_create_request::FilterType;
use crate::pb::etcd::*;
use crate::rpc_data::{Door, KvService, LeaseService};
use crate::rpc_watch::WatchService;

/// TTL of a lease that is made for a client that brings none, as etcd's.
const TTL_S: i64 = 60;

/// The services that a contest needs, for one client.
#[derive(Clone)]
pub struct Contest {
    kv: KvService,
    leases: LeaseService,
    watches: WatchService,
    sender: Sender,
}

/// A contender's key.
#[derive(Debug, Clone)]
pub struct Claim {
    pub key: Bytes,
    /// The revision that it was created at.
    pub created: i64,
}

/// What becomes of a key whose client went away.
#[derive(Debug, Clone, Copy)]
pub enum Withdrawal {
    /// It is deleted, whatever it is by then.
    Key,
    /// It is deleted if it is still the one that was created then.
    Claim,
}

/// Etcd runs these services through a client of its own, and that loses the codes of errors.
pub fn without_code(status: &Status) -> Status {
    Status::unknown(status.message())
}

/// What all keys of a contest begin with.
pub fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of a contender.
pub fn key(name: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [
        name,
        format!("/{sign}{:x}", lease.unsigned_abs()).as_bytes(),
    ]
    .concat()
    .into()
}

/// The end of the range of all keys with this prefix.
fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    // No key is larger: to the end of all keys.
    Bytes::from_static(&[0])
}

/// That a key was created at a revision; 0: that it does not exist.
pub fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

/// Of a transaction: a put.
pub fn put(key: &Bytes, value: &Bytes, lease: i64) -> RequestOp {
    let put = PutRequest {
        key: key.clone(),
        value: value.clone(),
        lease,
        ..Default::default()
    };
    RequestOp {
        request: Some(request_op::Request::RequestPut(put)),
    }
}

/// Of a transaction: a range.
pub fn range(request: RangeRequest) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestRange(request)),
    }
}

/// The range of one key.
pub fn one(key: &Bytes) -> RangeRequest {
    RangeRequest {
        key: key.clone(),
        ..Default::default()
    }
}

/// The range of the oldest key of a contest.
pub fn oldest(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: end_of(prefix),
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        limit: 1,
        ..Default::default()
    }
}

/// The key-values of a transaction's answer to its `at`th request, a range.
pub fn ranged(response: &TxnResponse, at: usize) -> &[KeyValue] {
    match response
        .responses
        .get(at)
        .and_then(|op| op.response.as_ref())
    {
        Some(response_op::Response::ResponseRange(found)) => &found.kvs,
        _ => &[],
    }
}

impl Contest {
    pub fn new(handle: &Handle, sender: Sender) -> Self {
        Self {
            kv: KvService(handle.clone()),
            leases: LeaseService(handle.clone(), Door::Clients),
            watches: WatchService(handle.clone()),
            sender,
        }
    }

    /// The lease that the client brings, or a new one.
    pub async fn lease(&self, id: i64) -> Result<i64, Status> {
        if id != 0 {
            return Ok(id);
        }
        let request = LeaseGrantRequest { ttl: TTL_S, id: 0 };
        Ok(self.leases.grant(request, &self.sender).await?.id)
    }

    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.kv.transact(request, &self.sender).await
    }

    pub async fn get(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.kv.get(request, &self.sender).await
    }

    pub async fn delete(&self, key: Bytes) -> Result<DeleteRangeResponse, Status> {
        let request = DeleteRangeRequest {
            key,
            ..Default::default()
        };
        self.kv.delete(request, &self.sender).await
    }

    /// Deletes a claim, if it is still that; tells the header.
    pub async fn give_up(&self, claim: &Claim) -> Result<Option<ResponseHeader>, Status> {
        let delete = DeleteRangeRequest {
            key: claim.key.clone(),
            ..Default::default()
        };
        let request = TxnRequest {
            compare: vec![created_at(&claim.key, claim.created)],
            success: vec![RequestOp {
                request: Some(request_op::Request::RequestDeleteRange(delete)),
            }],
            ..Default::default()
        };
        Ok(self.txn(request).await?.header)
    }

    /// Events from a revision on; of one key, or of all with this prefix.
    pub fn follow(
        &self,
        key: Bytes,
        is_prefix: bool,
        start_revision: i64,
        filters: &[FilterType],
    ) -> Result<impl futures::Stream<Item = Result<WatchResponse, Status>> + Send + Unpin, Status>
    {
        let range_end = if is_prefix {
            end_of(&key)
        } else {
            Bytes::new()
        };
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision,
            filters: filters.iter().map(|&f| f.into()).collect(),
            ..Default::default()
        };
        Ok(Box::pin(self.watches.follow(create, self.sender.clone())?))
    }

    /// Waits until no key of the contest is left that was created before this claim.
    pub async fn wait(&self, prefix: &Bytes, claim: &Claim) -> Result<(), Status> {
        loop {
            let before = RangeRequest {
                sort_order: SortOrder::Descend.into(),
                max_create_revision: claim.created - 1,
                ..oldest(prefix)
            };
            let found = self.get(before).await?;
            let Some(next) = found.kvs.first() else {
                return Ok(());
            };
            let revision = found.header.map_or(0, |header| header.revision);
            self.wait_for_deletion(next.key.clone(), revision).await?;
        }
    }

    /// Waits for a deletion from this revision on; also returns where the watch was interrupted, so that it is to be
    /// looked again.
    async fn wait_for_deletion(&self, key: Bytes, revision: i64) -> Result<(), Status> {
        let mut events = self.follow(key, false, revision, &[FilterType::Noput])?;
        while let Some(response) = events.next().await {
            let response = match response {
                Ok(response) => going_on(response)?,
                Err(status) if status.code() == tonic::Code::Unavailable => return Ok(()),
                Err(status) => return Err(status),
            };
            if response
                .read_events()?
                .iter()
                .any(|e| e.r#type() == EventType::Delete)
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A response, unless it says that the watch ended.
pub fn going_on(response: WatchResponse) -> Result<WatchResponse, Status> {
    if response.compact_revision != 0 {
        return Err(StoreError::Compacted.into());
    }
    if response.canceled {
        return Err(Status::unknown(response.cancel_reason));
    }
    Ok(response)
}

/// Takes a claim back when it is dropped while armed, which it is when the client goes away and its call with it.
pub struct Presence {
    contest: Contest,
    claim: Claim,
    withdrawal: Withdrawal,
    armed: bool,
}

impl Presence {
    /// Arms it.
    pub fn of(contest: &Contest, claim: &Claim, withdrawal: Withdrawal) -> Self {
        Self {
            contest: contest.clone(),
            claim: claim.clone(),
            withdrawal,
            armed: true,
        }
    }

    /// The claim stays.
    pub fn keep(mut self) {
        self.armed = false;
    }

    /// Takes the claim back at once.
    pub async fn withdraw(mut self) {
        self.armed = false;
        // It was to end anyway: where this fails, the key goes with its lease.
        let _ = tokio::spawn(self.withdrawing()).await;
    }

    fn withdrawing(&self) -> impl std::future::Future<Output = ()> + Send + 'static {
        let (contest, claim, withdrawal) =
            (self.contest.clone(), self.claim.clone(), self.withdrawal);
        async move {
            // Nobody is there to be told.
            let _ = match withdrawal {
                Withdrawal::Key => contest.delete(claim.key).await.map(drop),
                Withdrawal::Claim => contest.give_up(&claim).await.map(drop),
            };
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.armed {
            tokio::spawn(self.withdrawing());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_out_as_etcd_does() {
        assert_eq!(key(b"lock", 0x694d_a230_f61a_fe0b), "lock/694da230f61afe0b");
        assert_eq!(key(b"", 10), "/a");
        assert_eq!(key(b"l", -1), "l/-1");
        assert_eq!(end_of(b"lock/"), "lock0");
        assert_eq!(end_of(&[1, 0xff, 0xff]), &[2][..]);
        assert_eq!(end_of(&[0xff]), &[0][..]);
    }
}
