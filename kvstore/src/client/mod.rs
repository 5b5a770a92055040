//! The native client: one call on whichever endpoint answers, retried only where that cannot repeat a write.
//! Endpoints and their health are in `pool`, watches that resume in `watch`. It knows nothing of Python.

mod greeting;
mod limits;
pub mod login;
pub mod pool;
pub mod raw;
pub mod snapshot;
pub mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::time::{timeout_at, Instant};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::pb::etcd;
use crate::tls::Identity;
use limits::too_large;
pub use limits::Limits;
use login::Login;
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
    patient: bool,
    login: Option<Arc<Login>>,
    limits: Limits,
}

impl Client {
    pub fn new(endpoints: &[String], timeout: Duration) -> Result<Self, Status> {
        Self::with_tls(endpoints, timeout, None)
    }

    /// A client that endpoints without a scheme are dialed by with TLS, if there is an identity; `https://` ones always.
    pub fn with_tls(
        endpoints: &[String],
        timeout: Duration,
        identity: Option<Identity>,
    ) -> Result<Self, Status> {
        let tls = identity.map(pool::secure).transpose()?;
        Ok(Self {
            pool: Arc::new(Pool::new(endpoints, tls.map(Arc::new))?),
            timeout,
            patient: true,
            login: None,
            limits: Limits::default(),
        })
    }

    /// The same client, whose calls end when every endpoint has refused a connection, instead of when their time is
    /// over.
    #[must_use]
    pub fn impatient(mut self) -> Self {
        self.patient = false;
        self
    }

    /// The same client, whose calls are this user's.
    #[must_use]
    pub fn with_login(mut self, login: Login) -> Self {
        self.login = Some(Arc::new(login));
        self
    }

    /// The same client, with bounds on its messages.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn set_endpoints(&self, endpoints: &[String]) -> Result<(), Status> {
        self.pool.replace(endpoints)
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_deref()
    }

    async fn signed<Q, A, F, Fut>(
        &self,
        channel: Channel,
        mut request: Request<Q>,
        rpc: &F,
    ) -> Result<Response<A>, Status>
    where
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        if let Some(login) = &self.login {
            login.sign(&channel, request.metadata_mut()).await?;
        }
        rpc(channel, request).await
    }

    /// Whether an error was about the token alone: the call was not carried out, and may be sent again with a new one.
    async fn forgets_token(&self, error: &Status) -> bool {
        match &self.login {
            Some(login) => login.forgets(error).await,
            None => false,
        }
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
        let (mut failed, mut refused) = (0, 0);
        let mut telling = None;
        let mut token_is_new = false;
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
                answer = timeout_at(until, self.signed(channel, asked, &rpc)) => answer.unwrap_or_else(|_| Err(late(&seat, begun))),
                () = seat.lost() => Err(silent(&seat)),
            };
            let error = match answer {
                Ok(answer) => {
                    seat.heard();
                    return Ok(answer.into_inner());
                }
                Err(error) => plain(error),
            };
            if let Some(error) = too_large(&error) {
                return Err(error);
            }
            if !token_is_new && self.forgets_token(&error).await {
                token_is_new = true;
                continue;
            }
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
            refused =
                not_connected(&error).map_or(0, |why| (refused + 1) * usize::from(why.refused));
            if !self.patient && refused >= self.pool.len() {
                return Err(telling.unwrap_or(error));
            }
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
        let request = etcd::StatusRequest {};
        self.ask(endpoint, request, |channel, request| async move {
            let client = etcd::maintenance_client::MaintenanceClient::new(channel);
            let mut client = client.max_decoding_message_size(self.limits.receive);
            client.status(request).await
        })
        .await
    }

    /// Calls any unary method on one endpoint alone, without another try.
    pub async fn ask_raw(
        &self,
        endpoint: &str,
        path: PathAndQuery,
        request: Bytes,
    ) -> Result<Bytes, Status> {
        self.ask(endpoint, request, |channel, request| {
            raw::unary(channel, path.clone(), request, self.limits)
        })
        .await
    }

    /// Without another try, but for one with a new token where the member takes the old one no more.
    async fn ask<Q, A, F, Fut>(&self, endpoint: &str, request: Q, rpc: F) -> Result<A, Status>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let channel = pool::channel(endpoint, self.pool.tls())?;
        let once = || self.signed(channel.clone(), Request::new(request.clone()), &rpc);
        let call = async {
            let answer = once().await;
            match &answer {
                Err(error) if self.forgets_token(error).await => once().await,
                _ => answer,
            }
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer
                .map(Response::into_inner)
                .map_err(|error| too_large(&error).unwrap_or_else(|| plain(error))),
            Err(_) => Err(Status::unavailable(format!(
                "{endpoint} did not answer in time"
            ))),
        }
    }

    /// Renews a lease once; its new TTL is 0 when the store does not know it.
    pub async fn keep_alive(&self, id: i64) -> Result<etcd::LeaseKeepAliveResponse, Status> {
        let request = etcd::LeaseKeepAliveRequest { id };
        self.call_within(
            self.timeout,
            RENEWAL_ATTEMPT,
            Retry::Safe,
            request,
            |channel, request| async move {
                let (metadata, extensions, message) = request.into_parts();
                let messages = tokio_stream::iter([message]);
                let stream = Request::from_parts(metadata, extensions, messages);
                let mut client = etcd::lease_client::LeaseClient::new(channel);
                let mut answers = client.lease_keep_alive(stream).await?.into_inner();
                match answers.message().await? {
                    Some(answer) => Ok(Response::new(answer)),
                    None => Err(Status::unavailable("the keepalive ended without an answer")),
                }
            },
        )
        .await
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
    cause(status)
}

/// The error of this kind that a status comes from.
fn cause<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
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

/// The request never left: no connection, or one that closed first, or the member refused it before it looked at it.
fn not_sent(status: &Status) -> bool {
    let refusals = [
        "etcdserver: no leader",
        "etcdserver: rpc not supported for learner",
    ];
    if refusals.contains(&status.message()) {
        return true;
    }
    // hyper calls canceled only what it has not begun to send.
    not_connected(status).is_some() || cause(status).is_some_and(hyper::Error::is_canceled)
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
