//! The client for Python: a call returns a number at once, its outcome comes through a queue. An eventfd wakes the
//! event loop once per batch of outcomes; `drain` then hands over all of them. Calls run on a thread of their own and
//! never hold the GIL.

mod by_name;
mod shared;
mod watching;

use std::future::Future;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tonic::Status;

use crate::tls::Tls;
use crate::values::{self as values, Answer};
use kvstore::client::login::Login;
use kvstore::client::{Client, Limits, Retry};
use kvstore::pb::etcd;
pub(crate) use shared::runtime;
pub use shared::Outcome;
use shared::{lock, Following, Running, Shared};

fn refused(status: &Status) -> PyErr {
    PyValueError::new_err(status.message().to_string())
}

/// Calls in flight belong to one event loop; `kvstore.client` is its only user.
#[pyclass(frozen)]
pub struct NativeClient {
    client: Client,
    shared: Arc<Shared>,
    next: Mutex<u64>,
}

impl NativeClient {
    fn number(&self) -> u64 {
        let mut next = lock(&self.next);
        *next += 1;
        *next
    }

    fn spawn<F>(&self, watch: Option<Following>, make: impl FnOnce(u64) -> F) -> PyResult<u64>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = self.number();
        let mut running = lock(&self.shared.running);
        let task = runtime()?.spawn(make(id)).abort_handle();
        running.insert(id, Running { task, watch });
        Ok(id)
    }

    fn start<F>(&self, call: F) -> PyResult<u64>
    where
        F: Future<Output = Result<Answer, Status>> + Send + 'static,
    {
        let shared = self.shared.clone();
        self.spawn(None, |id| async move {
            let outcome = call.await.map_or_else(Outcome::Error, Outcome::Answer);
            shared.finish(id, outcome);
        })
    }
}

macro_rules! call {
    ($self:ident, $retry:expr, $service:ident :: $client:ident . $method:ident, $request:expr, $answer:expr) => {{
        let client = $self.client.clone();
        let limits = client.limits();
        let request = $request;
        $self.start(async move {
            limits.admit(&request)?;
            let answer = client
                .call($retry, request, |channel, request| async move {
                    let grpc = etcd::$service::$client::new(channel);
                    grpc.max_decoding_message_size(limits.receive)
                        .$method(request)
                        .await
                })
                .await?;
            Ok($answer(answer))
        })
    }};
}

#[pymethods]
impl NativeClient {
    /// `login`: a user's name and password, or an empty name and a token. `limits`: bytes of a message that is sent, and
    /// of one that is taken.
    #[new]
    #[pyo3(signature = (endpoints, timeout, patient, tls=None, login=None, limits=None))]
    fn new(
        endpoints: Vec<String>,
        timeout: f64,
        patient: bool,
        tls: Option<Tls>,
        login: Option<(String, String)>,
        limits: Option<(usize, usize)>,
    ) -> PyResult<Self> {
        if !(timeout.is_finite() && timeout > 0.0) {
            return Err(PyValueError::new_err(
                "A client's timeout is a number of seconds above 0.",
            ));
        }
        let _inside = runtime()?.enter();
        let timeout = Duration::from_secs_f64(timeout);
        let client = Client::with_tls(&endpoints, timeout, tls.map(Into::into))
            .map_err(|error| refused(&error))?;
        let client = if patient { client } else { client.impatient() };
        let limits = limits.map(|(send, receive)| Limits { send, receive });
        let client = client.with_limits(limits.unwrap_or_default());
        let login = login.map(Login::of).transpose();
        let login = login.map_err(|error| refused(&error))?;
        Ok(Self {
            client: match login {
                Some(login) => client.with_login(login),
                None => client,
            },
            shared: Arc::new(Shared::new()?),
            next: Mutex::new(0),
        })
    }

    fn fileno(&self) -> i32 {
        self.shared.wake.as_raw_fd()
    }

    fn set_endpoints(&self, endpoints: Vec<String>) -> PyResult<()> {
        self.client
            .set_endpoints(&endpoints)
            .map_err(|error| refused(&error))
    }

    /// Every outcome since the last call: (number, kind, value).
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Vec<(u64, &'static str, Bound<'py, PyAny>)>> {
        let mut eight = [0u8; 8];
        // SAFETY: as in `push`; the descriptor does not block.
        unsafe {
            libc::read(
                self.shared.wake.as_raw_fd(),
                eight.as_mut_ptr().cast(),
                eight.len(),
            )
        };
        let done = std::mem::take(&mut *lock(&self.shared.done));
        done.into_iter()
            .map(|(id, outcome)| {
                values::outcome(py, outcome).map(|(kind, value)| (id, kind, value))
            })
            .collect()
    }

    fn cancel(&self, id: u64) {
        if let Some(running) = lock(&self.shared.running).remove(&id) {
            running.task.abort();
        }
    }

    /// Room for one more batch of a watch.
    fn more(&self, id: u64) {
        self.credit(id);
    }

    /// Ask how far a watch has come; a batch without events will tell. One question that waits is enough.
    fn progress(&self, id: u64) {
        self.ask_progress(id);
    }

    fn close(&self) {
        for (_, running) in lock(&self.shared.running).drain() {
            running.task.abort();
        }
    }

    /// How many calls and watches are in flight.
    fn in_flight(&self) -> usize {
        lock(&self.shared.running).len()
    }

    fn operate(&self, op: values::Op) -> PyResult<u64> {
        match op.request()? {
            etcd::request_op::Request::RequestRange(request) => {
                let retry = if request.serializable {
                    Retry::Local
                } else {
                    Retry::Safe
                };
                call!(
                    self,
                    retry,
                    kv_client::KvClient.range,
                    request,
                    Answer::Range
                )
            }
            etcd::request_op::Request::RequestPut(request) => {
                call!(
                    self,
                    Retry::Unsent,
                    kv_client::KvClient.put,
                    request,
                    Answer::Put
                )
            }
            etcd::request_op::Request::RequestDeleteRange(request) => {
                call!(
                    self,
                    Retry::Unsent,
                    kv_client::KvClient.delete_range,
                    request,
                    Answer::Delete
                )
            }
            etcd::request_op::Request::RequestTxn(request) => {
                let reads = request.success.iter().chain(&request.failure).all(|op| {
                    matches!(op.request, Some(etcd::request_op::Request::RequestRange(_)))
                });
                let retry = if reads { Retry::Safe } else { Retry::Unsent };
                call!(self, retry, kv_client::KvClient.txn, request, Answer::Txn)
            }
        }
    }

    fn compact(&self, revision: i64, physical: bool) -> PyResult<u64> {
        let request = etcd::CompactionRequest { revision, physical };
        call!(
            self,
            Retry::Unsent,
            kv_client::KvClient.compact,
            request,
            |a: etcd::CompactionResponse| Answer::Header(a.header)
        )
    }

    #[pyo3(signature = (key, range_end, start_revision, prev_kv, progress_notify))]
    fn watch(
        &self,
        key: &[u8],
        range_end: &[u8],
        start_revision: i64,
        prev_kv: bool,
        progress_notify: bool,
    ) -> PyResult<u64> {
        let create = etcd::WatchCreateRequest {
            key: bytes::Bytes::copy_from_slice(key),
            range_end: bytes::Bytes::copy_from_slice(range_end),
            start_revision,
            prev_kv,
            progress_notify,
            ..Default::default()
        };
        self.follow(create)
    }

    fn lease_grant(&self, ttl: i64, id: i64) -> PyResult<u64> {
        // A grant whose answer is lost leaves a lease that nobody renews; with an id of the caller's it would be refused.
        let retry = if id == 0 { Retry::Safe } else { Retry::Unsent };
        call!(
            self,
            retry,
            lease_client::LeaseClient.lease_grant,
            etcd::LeaseGrantRequest { ttl, id },
            Answer::Grant
        )
    }

    fn lease_revoke(&self, id: i64) -> PyResult<u64> {
        let request = etcd::LeaseRevokeRequest { id };
        call!(
            self,
            Retry::Unsent,
            lease_client::LeaseClient.lease_revoke,
            request,
            |a: etcd::LeaseRevokeResponse| { Answer::Header(a.header) }
        )
    }

    fn lease_keepalive(&self, id: i64) -> PyResult<u64> {
        let client = self.client.clone();
        self.start(async move { client.keep_alive(id).await.map(Answer::Renewal) })
    }

    fn lease_time_to_live(&self, id: i64, keys: bool) -> PyResult<u64> {
        let request = etcd::LeaseTimeToLiveRequest { id, keys };
        call!(
            self,
            Retry::Safe,
            lease_client::LeaseClient.lease_time_to_live,
            request,
            Answer::TimeToLive
        )
    }

    fn leases(&self) -> PyResult<u64> {
        let request = etcd::LeaseLeasesRequest {};
        call!(
            self,
            Retry::Safe,
            lease_client::LeaseClient.lease_leases,
            request,
            Answer::Leases
        )
    }

    fn member_list(&self, linearizable: bool) -> PyResult<u64> {
        let request = etcd::MemberListRequest { linearizable };
        let retry = if linearizable {
            Retry::Safe
        } else {
            Retry::Local
        };
        call!(
            self,
            retry,
            cluster_client::ClusterClient.member_list,
            request,
            |a: etcd::MemberListResponse| { Answer::Members(a.header, 0, a.members) }
        )
    }

    fn member_add(&self, peer_urls: Vec<String>, learner: bool) -> PyResult<u64> {
        let request = etcd::MemberAddRequest {
            peer_ur_ls: peer_urls,
            is_learner: learner,
        };
        call!(
            self,
            Retry::Unsent,
            cluster_client::ClusterClient.member_add,
            request,
            |a: etcd::MemberAddResponse| {
                Answer::Members(a.header, a.member.map_or(0, |member| member.id), a.members)
            }
        )
    }

    fn member_remove(&self, id: u64) -> PyResult<u64> {
        let request = etcd::MemberRemoveRequest { id };
        call!(
            self,
            Retry::Unsent,
            cluster_client::ClusterClient.member_remove,
            request,
            |a: etcd::MemberRemoveResponse| { Answer::Members(a.header, 0, a.members) }
        )
    }

    fn member_update(&self, id: u64, peer_urls: Vec<String>) -> PyResult<u64> {
        let request = etcd::MemberUpdateRequest {
            id,
            peer_ur_ls: peer_urls,
        };
        call!(
            self,
            Retry::Safe,
            cluster_client::ClusterClient.member_update,
            request,
            |a: etcd::MemberUpdateResponse| { Answer::Members(a.header, 0, a.members) }
        )
    }

    fn member_promote(&self, id: u64) -> PyResult<u64> {
        let request = etcd::MemberPromoteRequest { id };
        call!(
            self,
            Retry::Unsent,
            cluster_client::ClusterClient.member_promote,
            request,
            |a: etcd::MemberPromoteResponse| { Answer::Members(a.header, 0, a.members) }
        )
    }

    /// Any unary method by its path, with messages as bytes: on whichever endpoint answers, or on `endpoint` alone. One
    /// that `repeats` may be sent again when its answer is missing.
    #[pyo3(signature = (method, request, repeats, endpoint))]
    fn unary(
        &self,
        method: &str,
        request: &[u8],
        repeats: bool,
        endpoint: Option<String>,
    ) -> PyResult<u64> {
        self.call_raw(method, request, repeats, endpoint)
    }

    /// A method whose answer is a stream; the answer is all of its messages, one after the other.
    fn gather(&self, method: &str, request: &[u8]) -> PyResult<u64> {
        self.gather_raw(method, request)
    }

    fn status(&self, endpoint: String) -> PyResult<u64> {
        let client = self.client.clone();
        self.start(async move { client.status(&endpoint).await.map(Answer::Status) })
    }
}

impl Drop for NativeClient {
    fn drop(&mut self) {
        self.close();
    }
}
