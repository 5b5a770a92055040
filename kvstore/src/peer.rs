//! Streams between members: who dials whom, what is checked first, what happens when a stream breaks.
//!
//! Messages are opaque here, but for the position of a snapshot; the reactor gives them meaning.

mod dialer;
mod link;
mod snapshot;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::apply::Noted;
use crate::etcd_file::KeysHash;
use crate::measures::of_peer;
use crate::pb::peer::peer_server::Peer;
use crate::pb::peer::{
    Ack, Frame, HashRequest, HashResponse, Hello, MembersRequest, MembersResponse, NotedHash,
    NotedHashesRequest, NotedHashesResponse, SnapshotChunk,
};
pub use dialer::Dialer;
pub use link::Peers;
pub use snapshot::Received;

/// The version of what members say to each other.
pub const PEER_VERSION: u32 = 1;
/// Largest frame or chunk that is read.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;
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
    /// What this member noted at its newest compactions.
    fn noted(&self) -> Result<Vec<Noted>, Status>;
    /// The sum of this member's keys.
    fn hash(&self, revision: i64) -> impl Future<Output = Result<KeysHash, Status>> + Send;
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

impl<D: Doorkeeper> PeerService<D> {
    fn same_cluster(&self, cluster_id: u64) -> Result<(), Status> {
        if cluster_id == self.doorkeeper.members().cluster_id {
            return Ok(());
        }
        Err(Status::failed_precondition("another cluster answers here"))
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
        let measures = of_peer(hello.from);
        let read = async move {
            while let Some(frame) = frames.message().await? {
                // A member that was removed meanwhile learns it here.
                doorkeeper.admit(&hello)?;
                let bytes: usize = frame.messages.iter().map(Bytes::len).sum();
                let received = &measures.received_bytes;
                received.fetch_add(bytes as u64, Ordering::Relaxed);
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

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let HashRequest {
            cluster_id,
            revision,
        } = request.into_inner();
        self.same_cluster(cluster_id)?;
        let sum = self.doorkeeper.hash(revision).await?;
        Ok(Response::new(HashResponse {
            hash: sum.hash,
            revision: sum.revision,
            compacted: sum.compacted,
            current: sum.current,
        }))
    }

    async fn noted_hashes(
        &self,
        request: Request<NotedHashesRequest>,
    ) -> Result<Response<NotedHashesResponse>, Status> {
        self.same_cluster(request.into_inner().cluster_id)?;
        let told = |Noted { revision, hash }| NotedHash { revision, hash };
        let noted = self.doorkeeper.noted()?.into_iter().map(told).collect();
        Ok(Response::new(NotedHashesResponse { noted }))
    }
}
