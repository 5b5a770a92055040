//! Streams between members: who dials whom, what is checked first, what happens when a stream breaks.
//!
//! Messages are opaque here, but for the position of a snapshot; the reactor gives them meaning.

mod snapshot;

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use crate::pb::peer::peer_client::PeerClient;
use crate::pb::peer::peer_server::Peer;
use crate::pb::peer::{Ack, Frame, Hello, MembersRequest, MembersResponse, SnapshotChunk};
use crate::report;
use crate::snapshot::Export;
pub use snapshot::Received;

/// The version of what members say to each other.
pub const PEER_VERSION: u32 = 1;
/// Raft messages that may wait for one peer; more are dropped, as on a network.
const MAX_WAITING_MESSAGES: usize = 4096;
/// Messages put into one frame.
const MAX_MESSAGES_PER_FRAME: usize = 128;
/// Largest frame or chunk that is read.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_millis(500);
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// What comes from peers, for the reactor.
#[derive(Debug)]
pub enum PeerEvent {
    Messages(Vec<Bytes>),
    /// A whole snapshot: the raft message that announced it, and the state, which lies ready to be adopted.
    Snapshot {
        message: Bytes,
        received: Received,
        done: tokio::sync::oneshot::Sender<Result<(), Status>>,
    },
    Unreachable(u64),
    SnapshotSent {
        to: u64,
        ok: bool,
    },
    /// A peer says that this member was removed.
    Removed,
}

/// What the acceptor must know to judge a stream.
pub trait Doorkeeper: Send + Sync + 'static {
    /// Says whether a stream with this hello may be read.
    fn admit(&self, hello: &Hello) -> Result<(), Status>;
    fn members(&self) -> MembersResponse;
}

/// Text of the refusal that tells a member of its own removal.
pub const REMOVED: &str = "the member has been permanently removed from the cluster";

/// The accepting side.
pub struct PeerService<D> {
    doorkeeper: Arc<D>,
    events: mpsc::Sender<PeerEvent>,
    state_dir: PathBuf,
    place: Arc<tokio::sync::Mutex<()>>,
}

impl<D> PeerService<D> {
    pub fn new(
        doorkeeper: Arc<D>,
        events: mpsc::Sender<PeerEvent>,
        state_dir: PathBuf,
        place: Arc<tokio::sync::Mutex<()>>,
    ) -> Self {
        Self {
            doorkeeper,
            events,
            state_dir,
            place,
        }
    }
}

type Acks = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

fn closing() -> Status {
    Status::unavailable("the member is stopping")
}

#[tonic::async_trait]
impl<D: Doorkeeper> Peer for PeerService<D> {
    type MessagesStream = Acks;

    async fn messages(&self, request: Request<Streaming<Frame>>) -> Result<Response<Acks>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|f| f.hello);
        let hello =
            first.ok_or_else(|| Status::invalid_argument("the first frame carries no hello"))?;
        self.doorkeeper.admit(&hello)?;
        let (events, doorkeeper) = (self.events.clone(), self.doorkeeper.clone());
        let read = async move {
            while let Some(frame) = frames.message().await? {
                // A member that was removed meanwhile learns it here.
                doorkeeper.admit(&hello)?;
                events
                    .send(PeerEvent::Messages(frame.messages))
                    .await
                    .map_err(|_| closing())?;
            }
            Err(Status::unavailable("the stream ended"))
        };
        Ok(Response::new(Box::pin(
            stream::iter([Ok(Ack {})]).chain(stream::once(read)),
        )))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Ack>, Status> {
        let mut chunks = request.into_inner();
        let missing = || Status::invalid_argument("the snapshot has no first chunk");
        let first = chunks.message().await?.ok_or_else(missing)?;
        self.doorkeeper.admit(&first.hello.ok_or_else(missing)?)?;
        let place = self.place.clone();
        let received = snapshot::receive(&mut chunks, place, self.state_dir.clone()).await?;
        let (done, wait) = tokio::sync::oneshot::channel();
        let event = PeerEvent::Snapshot {
            message: first.message,
            received,
            done,
        };
        self.events.send(event).await.map_err(|_| closing())?;
        wait.await.map_err(|_| closing())??;
        Ok(Response::new(Ack {}))
    }

    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let members = self.doorkeeper.members();
        let wanted = request.into_inner().cluster_id;
        if wanted != 0 && wanted != members.cluster_id {
            return Err(Status::failed_precondition("another cluster answers here"));
        }
        Ok(Response::new(members))
    }
}

/// Opens a channel to a peer URL, lazily.
pub fn channel(url: &str) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|e| Status::invalid_argument(format!("peer URL {url} is not one: {e}")))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(8 << 20))
        .connect_lazy())
}

fn client(url: &str) -> Result<PeerClient<Channel>, Status> {
    Ok(PeerClient::new(channel(url)?).max_decoding_message_size(MAX_FRAME_BYTES))
}

/// Asks a member for the membership.
pub async fn ask_members(url: &str, cluster_id: u64) -> Result<MembersResponse, Status> {
    let mut request = Request::new(MembersRequest { cluster_id });
    request.set_timeout(CONNECT_TIMEOUT);
    Ok(client(url)?.members(request).await?.into_inner())
}

struct Link {
    urls: Vec<String>,
    queue: mpsc::Sender<Bytes>,
    up: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The dialing side: one stream to each other member.
pub struct Peers {
    cluster_id: u64,
    me: u64,
    events: mpsc::Sender<PeerEvent>,
    links: HashMap<u64, Link>,
}

impl Peers {
    pub fn new(cluster_id: u64, me: u64, events: mpsc::Sender<PeerEvent>) -> Self {
        Self {
            cluster_id,
            me,
            events,
            links: HashMap::new(),
        }
    }

    fn hello(&self, to: u64) -> Hello {
        Hello {
            version: PEER_VERSION,
            cluster_id: self.cluster_id,
            from: self.me,
            to,
        }
    }

    /// Makes the links be those to `members` (id, peer URLs), this member left out.
    pub fn update(&mut self, members: &[(u64, Vec<String>)]) {
        self.links
            .retain(|id, _| members.iter().any(|(other, _)| other == id));
        for (id, urls) in members {
            if *id == self.me || self.links.get(id).is_some_and(|link| link.urls == *urls) {
                continue;
            }
            let (queue, waiting) = mpsc::channel(MAX_WAITING_MESSAGES);
            let up = Arc::default();
            let task = tokio::spawn(keep_link(
                self.hello(*id),
                urls.clone(),
                waiting,
                self.events.clone(),
                Arc::clone(&up),
            ));
            self.links.insert(
                *id,
                Link {
                    urls: urls.clone(),
                    queue,
                    up,
                    task,
                },
            );
        }
    }

    /// Whether the other member has taken this one's stream, and it still stands.
    pub fn connected(&self, id: u64) -> bool {
        let link = self.links.get(&id);
        link.is_some_and(|link| link.up.load(Ordering::Relaxed))
    }

    /// Queues a message; false when it had to be dropped.
    pub fn send(&self, to: u64, message: Bytes) -> bool {
        self.links
            .get(&to)
            .is_some_and(|link| link.queue.try_send(message).is_ok())
    }

    /// Sends a snapshot on a stream of its own; a `SnapshotSent` event tells how it went.
    pub fn send_snapshot(&self, to: u64, message: Bytes, export: Export) {
        let events = self.events.clone();
        let hello = self.hello(to);
        let urls = self
            .links
            .get(&to)
            .map(|link| link.urls.clone())
            .unwrap_or_default();
        tokio::spawn(snapshot::send(hello, urls, message, export, events));
    }
}

type Waiting = Arc<Mutex<mpsc::Receiver<Bytes>>>;

/// Frames made of whatever waits; ends when the link is dropped.
fn frames(hello: Hello, waiting: Waiting) -> impl Stream<Item = Frame> + Send {
    let first = Frame {
        hello: Some(hello),
        messages: Vec::new(),
    };
    let rest = stream::poll_fn(move |context| {
        let mut messages = Vec::new();
        let Ok(mut queue) = waiting.lock() else {
            return Poll::Ready(None);
        };
        match queue.poll_recv_many(context, &mut messages, MAX_MESSAGES_PER_FRAME) {
            Poll::Ready(0) => Poll::Ready(None),
            Poll::Ready(_) => Poll::Ready(Some(Frame {
                hello: None,
                messages,
            })),
            Poll::Pending => Poll::Pending,
        }
    });
    stream::iter([first]).chain(rest)
}

async fn keep_link(
    hello: Hello,
    urls: Vec<String>,
    waiting: mpsc::Receiver<Bytes>,
    events: mpsc::Sender<PeerEvent>,
    connected: Arc<AtomicBool>,
) {
    let waiting = Arc::new(Mutex::new(waiting));
    let mut pause = RETRY_FIRST;
    let mut said = String::new();
    for url in urls.iter().cycle() {
        let status = match run_link(url, hello, &waiting, &connected).await {
            Ok(()) => Status::unavailable("the stream ended"),
            Err(status) => status,
        };
        let up = connected.swap(false, Ordering::Relaxed);
        if status.code() == tonic::Code::PermissionDenied && status.message() == REMOVED {
            let _ = events.send(PeerEvent::Removed).await;
        }
        if up {
            pause = RETRY_FIRST;
            said.clear();
        }
        if said != status.message() {
            said = status.message().to_owned();
            report!("kvstore: member {:x} at {url}: {said}", hello.to);
        }
        if events.send(PeerEvent::Unreachable(hello.to)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
        // What waited meanwhile is old news; raft says again what still matters.
        if let Ok(mut queue) = waiting.lock() {
            while queue.try_recv().is_ok() {}
        }
    }
}

async fn run_link(
    url: &str,
    hello: Hello,
    waiting: &Waiting,
    connected: &AtomicBool,
) -> Result<(), Status> {
    let mut acks = client(url)?
        .messages(frames(hello, waiting.clone()))
        .await?
        .into_inner();
    while acks.message().await?.is_some() {
        connected.store(true, Ordering::Relaxed);
    }
    Ok(())
}
