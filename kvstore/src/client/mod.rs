//! The native client: one call on whichever endpoint answers, retried only where that cannot repeat a write.
//! Endpoints and their health are in `pool`, watches that resume in `watch`. It knows nothing of Python.

mod greeting;
pub mod pool;
pub mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{timeout_at, Instant};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::pb::etcd;
use pool::{Pool, Seat};

/// How long a safe call waits for one endpoint before it asks the next, at most.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// Pause after every endpoint has failed once.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// Added to what a member is told of the time left: it must not give up before the client does.
const GRACE: Duration = Duration::from_millis(100);
/// How long a renewal waits for one endpoint.
pub const RENEWAL_ATTEMPT: Duration = Duration::from_millis(500);

/// Whether a call may be sent again when its answer is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Reads and idempotent writes.
    Safe,
    /// Reads that any member answers by itself, with or without a leader.
    Local,
    /// Only what certainly was not sent.
    Unsent,
}

/// A client of any etcd v3 cluster; clones share their connections. Lives on the tokio runtime it was made in.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
    timeout: Duration,
}

impl Client {
    pub fn new(endpoints: &[String], timeout: Duration) -> Result<Self, Status> {
        Ok(Self {
            pool: Arc::new(Pool::new(endpoints)?),
            timeout,
        })
    }

    pub fn set_endpoints(&self, endpoints: &[String]) -> Result<(), Status> {
        self.pool.replace(endpoints)
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Calls `rpc` on one endpoint after the other until one answers or the time is over. Members are told to refuse at
    /// once while they have no leader (unless `retry` is `Local`), so that the call goes to one that has.
    ///
    /// # Errors
    /// The member's own. When nobody could do it in time: the last member's reason, `etcdserver: no leader` for one.
    /// Unavailable or DeadlineExceeded otherwise: a write may then have happened.
    pub async fn call<Q, A, F, Fut>(&self, retry: Retry, request: Q, rpc: F) -> Result<A, Status>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.call_within(self.timeout, ATTEMPT, retry, request, rpc)
            .await
    }

    async fn call_within<Q, A, F, Fut>(
        &self,
        total: Duration,
        attempt: Duration,
        retry: Retry,
        request: Q,
        rpc: F,
    ) -> Result<A, Status>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let end = Instant::now() + total;
        let mut failed = 0;
        let mut telling = None;
        loop {
            let mut seat = self.pool.take()?;
            let until = match retry {
                Retry::Safe | Retry::Local => end.min(Instant::now() + attempt),
                Retry::Unsent => end,
            };
            let mut asked = Request::new(request.clone());
            let begun = Instant::now();
            asked.set_timeout(end.saturating_duration_since(begun) + GRACE);
            if retry != Retry::Local {
                require_leader(&mut asked);
            }
            let (channel, untouched) = seat.watched_channel();
            let answer = tokio::select! {
                answer = timeout_at(until, rpc(channel, asked)) => answer.unwrap_or_else(|_| Err(late(&seat, begun))),
                () = seat.lost() => Err(silent(&seat)),
            };
            let error = match answer {
                Ok(answer) => {
                    seat.heard();
                    return Ok(answer.into_inner());
                }
                Err(error) => plain(error),
            };
            let unsent = untouched() || not_sent(&error);
            if !(unsent || retry != Retry::Unsent && passing(&error)) {
                if !unreachable(&error) {
                    seat.heard();
                } else {
                    seat.failed();
                }
                return Err(error);
            }
            seat.failed();
            failed += 1;
            // What a member says tells more than that another one does not answer.
            if telling.is_none() || error.message().starts_with("etcdserver:") {
                telling = Some(error.clone());
            }
            if failed % self.pool.len().max(1) == 0 {
                tokio::time::sleep_until(end.min(Instant::now() + ROUND_PAUSE)).await;
            }
            if Instant::now() >= end {
                return Err(telling.unwrap_or(error));
            }
        }
    }

    /// Asks one endpoint alone, without another try.
    pub async fn status(&self, endpoint: &str) -> Result<etcd::StatusResponse, Status> {
        let channel = pool::channel(endpoint)?;
        let mut client = etcd::maintenance_client::MaintenanceClient::new(channel);
        match tokio::time::timeout(self.timeout, client.status(etcd::StatusRequest {})).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::unavailable(format!(
                "{endpoint} did not answer in time"
            ))),
        }
    }

    /// Renews a lease once; its new TTL in seconds, 0 when the store does not know it.
    pub async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let request = etcd::LeaseKeepAliveRequest { id };
        let answer = self
            .call_within(
                self.timeout,
                RENEWAL_ATTEMPT,
                Retry::Safe,
                request,
                |channel, request| async move {
                    let mut stream = Request::new(tokio_stream::iter([request.into_inner()]));
                    require_leader(&mut stream);
                    let mut client = etcd::lease_client::LeaseClient::new(channel);
                    let mut answers = client.lease_keep_alive(stream).await?.into_inner();
                    match answers.message().await? {
                        Some(answer) => Ok(Response::new(answer)),
                        None => Err(Status::unavailable("the keepalive ended without an answer")),
                    }
                },
            )
            .await?;
        Ok(answer.ttl)
    }
}

pub(crate) fn require_leader<T>(request: &mut Request<T>) {
    request.metadata_mut().insert(
        "hasleader",
        tonic::metadata::MetadataValue::from_static("true"),
    );
}

fn silent(seat: &Seat) -> Status {
    Status::unavailable(format!("{} stopped answering", seat.url()))
}

fn late(seat: &Seat, begun: Instant) -> Status {
    Status::deadline_exceeded(format!(
        "request timed out: no answer from {} within {} ms",
        seat.url(),
        begun.elapsed().as_millis()
    ))
}

fn not_connected(status: &Status) -> Option<&greeting::NotConnected> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Says why there was no connection, where the transport only says that there was none.
fn plain(status: Status) -> Status {
    let Some(why) = not_connected(&status).map(ToString::to_string) else {
        return status;
    };
    let mut plain = Status::unavailable(why);
    plain.set_source(std::sync::Arc::new(status));
    plain
}

/// The request never left: no connection, or the member refused it before it looked at it.
fn not_sent(status: &Status) -> bool {
    let refusals = [
        "etcdserver: no leader",
        "etcdserver: rpc not supported for learner",
    ];
    if status.code() == Code::Unavailable && refusals.contains(&status.message()) {
        return true;
    }
    not_connected(status).is_some()
}

/// Another endpoint, or this one a moment later, may answer. A broken connection shows as Unknown or Cancelled too.
pub(crate) fn passing(status: &Status) -> bool {
    unreachable(status)
        || status.code() == Code::Unavailable
        || (status.code() == Code::FailedPrecondition && status.message().contains("not leader"))
        || status.message().contains("not supported for learner")
}

/// The transport failed, not the member.
fn unreachable(status: &Status) -> bool {
    !status.message().starts_with("etcdserver:")
        && matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
                | Code::Internal
        )
}
