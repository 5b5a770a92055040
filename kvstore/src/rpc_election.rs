//! The Election service: who has the oldest key of a contest leads, and says so by the key's value.

mod observe;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::contest::{
    created_at, key, oldest, one, prefix, put, range, ranged, without_code, Claim, Contest,
    Presence, Withdrawal,
};
use crate::handle::{Handle, Sender};
use crate::pb::etcd::{ResponseHeader, TxnRequest};
use crate::pb::v3electionpb::*;
use crate::rpc_data::finish;

/// Leaders that may wait for a client that reads slowly; then the contest's events wait.
const LEADERS_AHEAD: usize = 4;

/// The Election service of one member.
#[derive(Clone)]
pub struct ElectionService(pub Handle);

type Answer<T> = Result<Response<T>, Status>;

fn missing_leader() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

impl ElectionService {
    fn finish<T>(&self, method: &'static str, result: Result<T, Status>) -> Answer<T> {
        let result = result.map_err(|status| without_code(&status));
        finish(&self.0, "Election", method, result)
    }
}

#[tonic::async_trait]
impl election_server::Election for ElectionService {
    async fn campaign(&self, request: Request<CampaignRequest>) -> Answer<CampaignResponse> {
        let (sender, request) = Sender::split(request);
        let result = campaign(&Contest::new(&self.0, sender), request).await;
        self.finish("Campaign", result)
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Answer<ProclaimResponse> {
        let (sender, request) = Sender::split(request);
        let contest = Contest::new(&self.0, sender);
        let result = async {
            let leader = request.leader.ok_or_else(missing_leader)?;
            let lease = contest.lease(leader.lease).await?;
            let claim = Claim {
                key: leader.key,
                created: leader.rev,
            };
            let header = proclaim(&contest, &claim, &request.value, lease).await?;
            Ok(ProclaimResponse { header })
        };
        self.finish("Proclaim", result.await)
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Answer<LeaderResponse> {
        let (sender, request) = Sender::split(request);
        let contest = Contest::new(&self.0, sender);
        let result = async {
            let mut found = contest.get(oldest(&prefix(&request.name))).await?;
            let kv = found.kvs.pop();
            let kv = kv.ok_or_else(|| Status::unknown("election: no leader"))?;
            Ok(LeaderResponse {
                header: found.header,
                kv: Some(kv),
            })
        };
        self.finish("Leader", result.await)
    }

    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn observe(&self, request: Request<LeaderRequest>) -> Answer<Self::ObserveStream> {
        let (sender, request) = Sender::split(request);
        let contest = Contest::new(&self.0, sender);
        let (leaders, out) = mpsc::channel(LEADERS_AHEAD);
        let handle = self.0.clone();
        let prefix = prefix(&request.name);
        tokio::spawn(async move {
            let code = tokio::select! {
                // As etcd does, it ends without a word when what it needs is refused or fails.
                _ended = observe::tell(&contest, &prefix, &leaders) => Code::Ok,
                () = leaders.closed() => Code::Cancelled,
            };
            handle.calls().count("Election", "Observe", code);
        });
        Ok(Response::new(ReceiverStream::new(out)))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Answer<ResignResponse> {
        let (sender, request) = Sender::split(request);
        let contest = Contest::new(&self.0, sender);
        let result = async {
            let leader = request.leader.ok_or_else(missing_leader)?;
            contest.lease(leader.lease).await?;
            let claim = Claim {
                key: leader.key,
                created: leader.rev,
            };
            let header = contest.give_up(&claim).await?;
            Ok(ResignResponse { header })
        };
        self.finish("Resign", result.await)
    }
}

async fn campaign(contest: &Contest, request: CampaignRequest) -> Result<CampaignResponse, Status> {
    let CampaignRequest { name, lease, value } = request;
    let lease = contest.lease(lease).await?;
    let key = key(&name, lease);
    let entered = contest
        .txn(TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![put(&key, &value, lease)],
            failure: vec![range(one(&key))],
        })
        .await?;
    let mut claim = Claim {
        key,
        created: entered.header.map_or(0, |header| header.revision),
    };
    if let Some(own) = ranged(&entered, 0).first() {
        claim.created = own.create_revision;
        if own.value != value {
            if let Err(status) = proclaim(contest, &claim, &value, lease).await {
                // It is the first failure that is told.
                let _ = contest.give_up(&claim).await;
                return Err(status);
            }
        }
    }
    let presence = Presence::of(contest, &claim, Withdrawal::Claim);
    let waited = contest.wait(&prefix(&name), &claim).await;
    presence.keep();
    waited?;
    Ok(CampaignResponse {
        header: entered.header,
        leader: Some(LeaderKey {
            name,
            key: claim.key,
            rev: claim.created,
            lease,
        }),
    })
}

/// Gives a claim another value.
async fn proclaim(
    contest: &Contest,
    claim: &Claim,
    value: &Bytes,
    lease: i64,
) -> Result<Option<ResponseHeader>, Status> {
    let request = TxnRequest {
        compare: vec![created_at(&claim.key, claim.created)],
        success: vec![put(&claim.key, value, lease)],
        ..Default::default()
    };
    let done = contest.txn(request).await?;
    if !done.succeeded {
        return Err(Status::unknown("election: not leader"));
    }
    Ok(done.header)
}
