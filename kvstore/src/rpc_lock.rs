//! The Lock service: a lock is held by the oldest key of its contest, and for as long as that key exists.

use tonic::{Request, Response, Status};

use crate::contest::{
    created_at, key, oldest, one, prefix, put, range, ranged, without_code, Claim, Contest,
    Presence, Withdrawal,
};
use crate::handle::{Handle, Sender};
use crate::pb::etcd::TxnRequest;
use crate::pb::v3lockpb::{lock_server, LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use crate::rpc_data::finish;

/// The Lock service of one member.
#[derive(Clone)]
pub struct LockService(pub Handle);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl lock_server::Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Answer<LockResponse> {
        let (sender, request) = Sender::split(request);
        let result = acquire(&Contest::new(&self.0, sender), request).await;
        finish(
            &self.0,
            "Lock",
            "Lock",
            result.map_err(|e| without_code(&e)),
        )
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Answer<UnlockResponse> {
        let (sender, UnlockRequest { key }) = Sender::split(request);
        let deleted = Contest::new(&self.0, sender).delete(key).await;
        let result = deleted.map(|deleted| UnlockResponse {
            header: deleted.header,
        });
        finish(
            &self.0,
            "Lock",
            "Unlock",
            result.map_err(|e| without_code(&e)),
        )
    }
}

async fn acquire(contest: &Contest, request: LockRequest) -> Result<LockResponse, Status> {
    let lease = contest.lease(request.lease).await?;
    let (prefix, key) = (prefix(&request.name), key(&request.name, lease));
    let taken = contest
        .txn(TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![
                put(&key, &Default::default(), lease),
                range(oldest(&prefix)),
            ],
            failure: vec![range(one(&key)), range(oldest(&prefix))],
        })
        .await?;
    let created = if taken.succeeded {
        taken.header.map_or(0, |header| header.revision)
    } else {
        let own = ranged(&taken, 0).first();
        own.map_or(0, |kv| kv.create_revision)
    };
    let claim = Claim { key, created };
    let owner = ranged(&taken, 1).first();
    if owner.is_none_or(|owner| owner.create_revision == created) {
        return Ok(LockResponse {
            header: taken.header,
            key: claim.key,
        });
    }
    let presence = Presence::of(contest, &claim, Withdrawal::Key);
    let found = async {
        contest.wait(&prefix, &claim).await?;
        contest.get(one(&claim.key)).await
    };
    match found.await {
        Ok(found) => {
            presence.keep();
            if found.kvs.is_empty() {
                return Err(Status::unknown("mutex: session is expired"));
            }
            Ok(LockResponse {
                header: found.header,
                key: claim.key,
            })
        }
        Err(status) => {
            presence.withdraw().await;
            Err(status)
        }
    }
}
