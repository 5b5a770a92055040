//! Endpoints with a memory of their health. While an endpoint is in use and quiet it is probed, so that one that hangs
//! without closing its connections (stopped, cut off) is noticed within PROBE_AFTER + PROBE_WAIT. Probes are calls of
//! the API: members may punish frequent HTTP/2 pings.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::transport::Channel;
use tonic::Status;

use super::greeting::{Connector, Line};
use crate::address::Address;
use crate::dial;
use crate::pb::etcd;
use crate::tls::{Connector as Secure, Identity};

const PROBE_AFTER: Duration = Duration::from_millis(500);
const PROBE_WAIT: Duration = Duration::from_millis(900);
/// How long an endpoint that failed is asked last.
const AVOID: Duration = Duration::from_secs(2);
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Tls = Option<Arc<Secure>>;

/// A connection that opens when it is first used. `host:port` means http, or https where there is `tls`.
pub fn channel(url: &str, tls: &Tls) -> Result<Channel, Status> {
    Ok(wire(url, tls)?.channel)
}

/// A channel, and whether it is connected.
#[derive(Clone)]
struct Wire {
    channel: Channel,
    line: Line,
}

fn wire(url: &str, tls: &Tls) -> Result<Wire, Status> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let full = if url.contains("://") || url.starts_with("unix") {
        url.to_owned()
    } else {
        format!("{scheme}://{url}")
    };
    let wrong = || {
        Status::invalid_argument(format!(
            "{url:?} is not an endpoint: write http://HOST:PORT, https://HOST:PORT or unix:///PATH"
        ))
    };
    let address = Address::parse(&full).map_err(|_| wrong())?;
    let endpoint = dial::endpoint(&address).ok_or_else(wrong)?;
    let tls = match tls {
        None if address.secure => Some(Arc::new(secure(Identity::default())?)),
        known => known.clone(),
    };
    let line = Line::default();
    let connector = Connector {
        line: line.clone(),
        address: Arc::new(address),
        tls,
    };
    let channel = endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connector);
    Ok(Wire { channel, line })
}

/// What a client with this identity connects with.
pub fn secure(identity: Identity) -> Result<Secure, Status> {
    Secure::for_client(identity).map_err(|error| Status::invalid_argument(error.to_string()))
}

struct Place {
    url: String,
    tls: Tls,
    wire: Mutex<Wire>,
    avoid_until: Mutex<Option<Instant>>,
    heard: Mutex<Instant>,
    users: watch::Sender<usize>,
    losses: watch::Sender<u64>,
}

impl Place {
    fn fail(&self) {
        *lock(&self.avoid_until) = Some(Instant::now() + AVOID);
    }

    /// Gives up the connection: whoever waits on it is told, and the next call opens another.
    fn lose(&self) {
        self.fail();
        if let Ok(fresh) = wire(&self.url, &self.tls) {
            *lock(&self.wire) = fresh;
        }
        self.losses.send_modify(|count| *count += 1);
    }

    async fn probe(self: Arc<Self>) {
        let mut users = self.users.subscribe();
        loop {
            if users.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
            let quiet = lock(&self.heard).elapsed();
            if quiet < PROBE_AFTER {
                tokio::time::sleep(PROBE_AFTER - quiet).await;
                continue;
            }
            tokio::time::sleep(PROBE_AFTER / 5).await;
            let asked = Instant::now();
            let mut client =
                etcd::maintenance_client::MaintenanceClient::new(lock(&self.wire).channel.clone());
            let answer =
                tokio::time::timeout(PROBE_WAIT, client.status(etcd::StatusRequest {})).await;
            let answered = match answer {
                Ok(Ok(_)) => true,
                Ok(Err(status)) => !super::unreachable(&status),
                Err(_) => false,
            };
            if answered || *lock(&self.heard) > asked {
                *lock(&self.heard) = Instant::now();
            } else {
                self.lose();
                tokio::time::sleep(PROBE_AFTER).await;
            }
        }
    }
}

/// One use of an endpoint.
pub struct Seat {
    place: Arc<Place>,
    losses: watch::Receiver<u64>,
    index: usize,
    preferred: Arc<AtomicUsize>,
}

impl Seat {
    pub fn url(&self) -> &str {
        &self.place.url
    }

    pub fn channel(&self) -> Channel {
        lock(&self.place.wire).channel.clone()
    }

    /// A channel, and a question that it answers with yes when certainly nothing was sent on it since now.
    pub fn watched_channel(&self) -> (Channel, impl Fn() -> bool) {
        let Wire { channel, line } = lock(&self.place.wire).clone();
        let before = line.state();
        let untouched = move || before % 2 == 0 && line.state() == before;
        (channel, untouched)
    }

    /// Returns when the endpoint has been found silent.
    pub async fn lost(&mut self) {
        if self.losses.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub fn heard(&self) {
        *lock(&self.place.heard) = Instant::now();
        *lock(&self.place.avoid_until) = None;
        self.preferred.store(self.index, Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.place.fail();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.place.users.send_modify(|count| *count -= 1);
    }
}

struct Probed {
    place: Arc<Place>,
    probe: AbortHandle,
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.probe.abort();
        self.place.losses.send_modify(|count| *count += 1);
    }
}

/// The endpoints of a client.
pub struct Pool {
    places: Mutex<Vec<Probed>>,
    preferred: Arc<AtomicUsize>,
    tls: Tls,
    runtime: tokio::runtime::Handle,
}

impl Pool {
    pub fn new(endpoints: &[String], tls: Tls) -> Result<Self, Status> {
        let pool = Self {
            places: Mutex::new(Vec::new()),
            preferred: Arc::new(AtomicUsize::new(0)),
            tls,
            runtime: tokio::runtime::Handle::current(),
        };
        pool.replace(endpoints)?;
        Ok(pool)
    }

    /// What its connections are secured with.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    pub fn len(&self) -> usize {
        lock(&self.places).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Endpoints that stay keep their connections; calls on those that go are asked again elsewhere.
    pub fn replace(&self, endpoints: &[String]) -> Result<(), Status> {
        let _inside = self.runtime.enter();
        if endpoints.is_empty() {
            return Err(Status::invalid_argument(
                "A client needs at least one endpoint.",
            ));
        }
        let mut places = lock(&self.places);
        let mut next = Vec::with_capacity(endpoints.len());
        let mut fresh = Vec::new();
        for url in endpoints {
            fresh.push((url.clone(), wire(url, &self.tls)?));
        }
        for (url, wire) in fresh {
            if let Some(at) = places.iter().position(|probed| probed.place.url == url) {
                next.push(places.swap_remove(at));
                continue;
            }
            let place = Arc::new(Place {
                url,
                tls: self.tls.clone(),
                wire: Mutex::new(wire),
                avoid_until: Mutex::new(None),
                heard: Mutex::new(Instant::now()),
                users: watch::Sender::new(0),
                losses: watch::Sender::new(0),
            });
            let probe = self.runtime.spawn(place.clone().probe()).abort_handle();
            next.push(Probed { place, probe });
        }
        *places = next;
        self.preferred.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The endpoint that answered last, else the next that is not to be avoided, else the one avoided longest.
    pub fn take(&self) -> Result<Seat, Status> {
        let places = lock(&self.places);
        let count = places.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let now = Instant::now();
        let chosen = (0..count)
            .map(|step| (first + step) % count)
            .min_by_key(|&index| {
                lock(&places[index].place.avoid_until).filter(|until| *until > now)
            });
        let index = chosen.ok_or_else(|| Status::unavailable("The client has no endpoints."))?;
        let place = places[index].place.clone();
        place.users.send_modify(|users| *users += 1);
        Ok(Seat {
            losses: place.losses.subscribe(),
            place,
            index,
            preferred: self.preferred.clone(),
        })
    }
}
