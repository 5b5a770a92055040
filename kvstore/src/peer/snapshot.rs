//! A state on its way from one member to another.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};
use tracing::warn;

use super::{closing, Dialer, PeerEvent};
use crate::apply::Store;
use crate::backend::BackendError;
use crate::consensus::restamp_snapshot;
use crate::log::SnapshotMeta;
use crate::measures::work;
use crate::pb::peer::{Hello, SnapshotChunk};
use crate::report::hex;
use crate::snapshot::{Export, IncomingDir};

/// A snapshot that takes longer is given up and tried again.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);

/// Chunks of a snapshot that wait between the disk and the network.
const CHUNKS_AHEAD: usize = 8;

/// A received state, open and laid beside the one that it is to replace; while this is held no other is received. The
/// fields go in this order when nobody takes it.
pub struct Received {
    pub store: Box<Store>,
    pub incoming: IncomingDir,
    pub place: tokio::sync::OwnedMutexGuard<()>,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Received").field(&self.incoming).finish()
    }
}

impl Received {
    /// Removes it on a thread that may block.
    pub fn discard(self) {
        tokio::task::spawn_blocking(move || drop(self));
    }
}

/// Lays the state that comes beside the one in `dir`.
pub(super) async fn receive(
    chunks: &mut Streaming<SnapshotChunk>,
    place: Arc<tokio::sync::Mutex<()>>,
    dir: PathBuf,
) -> Result<Received, Status> {
    let place = place.try_lock_owned();
    let place = place.map_err(|_| Status::unavailable("another snapshot is on its way here"))?;
    let (parts, mut queue) = mpsc::channel(CHUNKS_AHEAD);
    let began = Instant::now();
    let writer = tokio::task::spawn_blocking(move || {
        let chunks = std::iter::from_fn(|| queue.blocking_recv());
        Store::receive(&dir, chunks).map(|(store, incoming)| Received {
            store: Box::new(store),
            incoming,
            place,
        })
    });
    let mut count = 0;
    while let Some(chunk) = chunks.message().await? {
        if crc32fast::hash(&chunk.data) != chunk.crc {
            return Err(Status::data_loss(format!(
                "chunk {count} of the snapshot is damaged"
            )));
        }
        count += 1;
        if parts.send(chunk.data).await.is_err() {
            break;
        }
    }
    drop(parts);
    let received = writer.await.map_err(|_| closing())?;
    let received = received.map_err(|e| Status::data_loss(e.to_string()))?;
    work::SNAPSHOT_SAVE.observe(began.elapsed());
    Ok(received)
}

/// Tries each URL once; the event says how it went.
pub(super) async fn send(
    dialer: Dialer,
    hello: Hello,
    urls: Vec<String>,
    message: Bytes,
    export: Export,
    events: mpsc::Sender<PeerEvent>,
) {
    let (to, export) = (hello.to, Arc::new(export));
    let mut ok = false;
    for url in &urls {
        match tokio::time::timeout(
            SNAPSHOT_TIMEOUT,
            push_snapshot(&dialer, url, hello, &message, &export),
        )
        .await
        {
            Ok(Ok(())) => {
                ok = true;
                break;
            }
            Ok(Err(status)) => {
                warn!(
                    remote_peer_id = %hex(to),
                    url,
                    error = status.message(),
                    "a snapshot was not sent to a member"
                );
            }
            Err(_) => {
                warn!(remote_peer_id = %hex(to), url, "a snapshot to a member took too long");
            }
        }
    }
    let _ = events.send(PeerEvent::SnapshotSent { to, ok }).await;
}

/// Reads the state and hands it on piece by piece, no faster than the network takes it.
fn feed(
    export: &Export,
    head: oneshot::Sender<SnapshotMeta>,
    pieces: &mpsc::Sender<SnapshotChunk>,
) -> Result<(), BackendError> {
    let begin = |meta| {
        // Who is gone takes no pieces either.
        let _ = head.send(meta);
    };
    export.read(begin, |data| {
        let piece = SnapshotChunk {
            hello: None,
            message: Bytes::new(),
            crc: crc32fast::hash(&data),
            data,
        };
        export.offer(pieces, piece)
    })
}

async fn push_snapshot(
    dialer: &Dialer,
    url: &str,
    hello: Hello,
    message: &Bytes,
    export: &Arc<Export>,
) -> Result<(), Status> {
    let (head, position) = oneshot::channel();
    let (pieces, queue) = mpsc::channel(CHUNKS_AHEAD);
    let export = Arc::clone(export);
    let reader = tokio::task::spawn_blocking(move || feed(&export, head, &pieces));
    let sent = async {
        let meta = position
            .await
            .map_err(|_| Status::internal("the state can't be read"))?;
        let announced =
            restamp_snapshot(message, &meta).map_err(|e| Status::internal(e.to_string()))?;
        let first = SnapshotChunk {
            hello: Some(hello),
            message: announced,
            data: Bytes::new(),
            crc: 0,
        };
        let rest = tokio_stream::wrappers::ReceiverStream::new(queue);
        dialer
            .client(url)?
            .snapshot(stream::iter([first]).chain(rest))
            .await
    };
    let began = Instant::now();
    let sent = sent.await;
    if sent.is_ok() {
        work::SNAPSHOT.observe(began.elapsed());
    }
    // What stopped the reading tells more than what the other side made of it.
    match reader.await {
        Ok(Err(error)) if sent.is_ok() || !matches!(error, BackendError::Closed(_)) => {
            Err(Status::internal(error.to_string()))
        }
        _ => sent.map(|_| ()),
    }
}
