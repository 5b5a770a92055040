//! Accepting connections: gRPC and plain HTTP on one port, each request handed to the service that it names.
//!
//! Not here: what the services do, the sockets themselves (`door`), certificates (`tls`).

mod door;
mod inbound;
mod metered;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::body::Body;

use crate::authority::Lenient;
use crate::encoded::Encoded;
use crate::stream::Stream;
use crate::tls::CommonName;
pub use door::{bind, Door};
pub use inbound::Inbound;
use metered::Metered;

/// What becomes of a request.
pub type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;
type Guard = Arc<dyn Fn(&Request<Inbound>) -> Option<tonic::Status> + Send + Sync>;
type Route = Arc<dyn Fn(Request<Inbound>) -> Answer + Send + Sync>;
/// What is kept for as long as a call is under way, and dropped when that is over.
pub type UnderWay = Box<dyn Send>;
type Started = Arc<dyn Fn(&str) -> Option<UnderWay> + Send + Sync>;
type Other = Arc<dyn Fn(Request<Inbound>, &Routes) -> Answer + Send + Sync>;

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 100_000;
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after a failed accept (out of file descriptors, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Services by the first part of the path; anything else goes to the plain HTTP handler.
#[derive(Clone)]
pub struct Routes {
    services: Arc<Vec<(String, Route)>>,
    other: Other,
    guard: Option<Guard>,
    started: Option<Started>,
    client: Option<CommonName>,
    secure: bool,
}

impl Routes {
    /// Routes that so far know only `other`.
    pub fn new<F>(other: F) -> Self
    where
        F: Fn(Request<Inbound>) -> Response<Body> + Send + Sync + 'static,
    {
        Self::with_other(move |request, _| {
            let response = other(request);
            async move { Ok(response) }.boxed()
        })
    }

    /// Routes that so far know only `other`, which may wait, and be a client of these routes itself.
    pub fn with_other(
        other: impl Fn(Request<Inbound>, &Routes) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self {
            services: Arc::new(Vec::new()),
            other: Arc::new(other),
            guard: None,
            started: None,
            client: None,
            secure: false,
        }
    }

    /// Lets `guard` refuse a call of a service before the service sees it.
    pub fn refusing(
        mut self,
        guard: impl Fn(&Request<Inbound>) -> Option<tonic::Status> + Send + Sync + 'static,
    ) -> Self {
        self.guard = Some(Arc::new(guard));
        self
    }

    /// Tells `started` the path of each call that was let in, keeps what it returns until the answer is sent, and counts
    /// the connections' bytes as clients'.
    pub fn measured(
        mut self,
        started: impl Fn(&str) -> Option<UnderWay> + Send + Sync + 'static,
    ) -> Self {
        self.started = Some(Arc::new(started));
        self
    }

    /// Adds a generated gRPC server.
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: tower_service::Service<Request<Inbound>, Response = Response<Body>, Error = Infallible>
            + tonic::server::NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let route: Route = Arc::new(move |request| {
            let answer = service.clone().call(request);
            async move { Ok(Encoded::lay(as_etcd_says(answer.await?))) }.boxed()
        });
        let mut services = Arc::unwrap_or_clone(self.services);
        services.push((S::NAME.to_owned(), route));
        self.services = Arc::new(services);
        self
    }

    /// The services, for calls from within this program: no certificate speaks for those.
    pub fn local(&self) -> Local {
        Local(self.clone().of(None, self.secure))
    }

    /// The name in the certificate of the connection.
    pub fn client(&self) -> Option<&CommonName> {
        self.client.as_ref()
    }

    /// Whether the connection speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The routes of a connection whose certificate names this client.
    fn of(mut self, client: Option<CommonName>, secure: bool) -> Self {
        self.client = client;
        self.secure = secure;
        self
    }

    fn answer(&self, mut request: Request<Inbound>) -> Answer {
        if let Some(client) = &self.client {
            request.extensions_mut().insert(client.clone());
        }
        // gRPC is HTTP/2: what a browser could send is no call.
        let may_call = request.version() == Version::HTTP_2;
        let path = may_call.then(|| request.uri().path());
        let name = path
            .and_then(|path| path.strip_prefix('/'))
            .and_then(|p| p.split_once('/'))
            .map(|(name, _)| name);
        if let Some(name) = name {
            if let Some((_, route)) = self.services.iter().find(|(known, _)| known == name) {
                let refused = self.guard.as_ref().and_then(|guard| guard(&request));
                if let Some(status) = refused {
                    return async move { Ok(status.into_http()) }.boxed();
                }
                let path = request.uri().path();
                let under_way = self.started.as_ref().and_then(|started| started(path));
                let answer = route(request);
                let Some(under_way) = under_way else {
                    return answer;
                };
                return async move { Ok(answer.await?.map(|body| kept(under_way, body))) }.boxed();
            }
        }
        (self.other)(request, self)
    }
}

/// A body that takes something with it when it goes.
fn kept(under_way: UnderWay, body: Body) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _kept = &under_way;
        frame
    }))
}

/// A client of the services in the same program.
#[derive(Clone)]
pub struct Local(Routes);

impl tower_service::Service<Request<Body>> for Local {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        self.0.answer(request.map(Inbound::Local))
    }
}

impl tower_service::Service<Request<Incoming>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        Pin<Box<dyn std::future::Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        self.answer(request.map(Inbound::Network))
    }
}

/// A message over gRPC's own limit is refused before a service sees it: in grpc-go's words and code, as by etcd.
fn as_etcd_says(response: Response<Body>) -> Response<Body> {
    const TOO_LONG: &str = "Error, decoded message length too large: found ";
    if response.headers().get(tonic::Status::GRPC_STATUS).is_none() {
        return response;
    }
    let Some(status) = tonic::Status::from_header_map(response.headers()) else {
        return response;
    };
    let Some(lengths) = status.message().strip_prefix(TOO_LONG) else {
        return response;
    };
    let mut numbers = lengths.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.by_ref().find(|n| !n.is_empty()).unwrap_or("?");
    let (found, most) = (next(), next());
    tonic::Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {most})"
    ))
    .into_http()
}

/// Serves a door until `stop` says so; then nobody is let in any more, and it returns once each open connection has its
/// answers: clients are told to send nothing more there (GOAWAY).
pub async fn serve(door: Door, routes: Routes, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let builder = Arc::new(builder);
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            _ = stop.changed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Ok(socket) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Without it a small answer waits for the last one's acknowledgement; a socket that is gone already fails here.
        if socket.set_nodelay().is_err() {
            continue;
        }
        let (builder, routes) = (builder.clone(), routes.clone());
        let (entry, mut stop) = (door.entry.clone(), stop.clone());
        connections.spawn(async move {
            let admitted = tokio::select! {
                admitted = entry.admit(socket) => admitted,
                _ = stop.changed() => None,
            };
            let Some((stream, client)) = admitted else {
                return;
            };
            let secure = matches!(stream, Stream::Tls(_));
            let stream = Metered {
                inner: stream,
                counts: routes.started.is_some(),
            };
            let service = TowerToHyperService::new(routes.of(client, secure));
            let connection = builder.serve_connection(TokioIo::new(Lenient::new(stream)), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                // How a connection ends is the client's business; each request had its own answer.
                _ended = connection.as_mut() => return,
                _ = stop.changed() => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ended = connection.await;
        });
    }
    drop(door);
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
