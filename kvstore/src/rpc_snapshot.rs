//! Maintenance.Snapshot: the state as etcd's file, read on a thread of its own and sent no faster than it is taken.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::backend::BackendError;
use crate::bolt::BoltError;
use crate::errors::StoreError;
use crate::etcd_file::{self, EtcdFileError, Head};
use crate::handle::Handle;
use crate::measures::work;
use crate::pb::etcd::{ResponseHeader, SnapshotResponse};
use crate::snapshot::Export;
use tracing::error;

/// Of the file, in each message.
const BLOB_BYTES: usize = 64 << 10;
/// Messages that wait between the disk and the network.
const BLOBS_AHEAD: usize = 8;
/// At a time: each holds a thread and old pages of the state.
const MAX_SNAPSHOTS: usize = 4;

type Piece = Result<SnapshotResponse, Status>;
pub type SnapshotStream = ReceiverStream<Piece>;

/// The snapshots under way.
#[derive(Clone)]
pub struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_SNAPSHOTS)))
    }
}

impl Streams {
    /// Begin one more.
    ///
    /// # Errors
    /// `TooManyRequests` when there are [`MAX_SNAPSHOTS`], and when there is no state.
    pub fn begin(&self, handle: &Handle) -> Result<SnapshotStream, Status> {
        let place = Arc::clone(&self.0).try_acquire_owned();
        let place = place.map_err(|_| StoreError::TooManyRequests)?;
        let export = handle.core()?.store()?.export();
        let header = handle.header(0);
        let (pieces, queue) = mpsc::channel(BLOBS_AHEAD);
        tokio::task::spawn_blocking(move || send(&export, header, &pieces, place));
        Ok(ReceiverStream::new(queue))
    }
}

fn send(
    export: &Export,
    mut header: ResponseHeader,
    pieces: &mpsc::Sender<Piece>,
    _place: OwnedSemaphorePermit,
) {
    let begin = |head: Head| {
        header.revision = head.revision;
        Blobs {
            export,
            pieces,
            header: Some(header),
            remaining: head.bytes,
            blob: Vec::with_capacity(BLOB_BYTES),
        }
    };
    let began = Instant::now();
    let error = match etcd_file::write(export.view(), begin) {
        Ok(()) => {
            work::SNAPSHOT.observe(began.elapsed());
            return;
        }
        Err(_) if pieces.is_closed() => return,
        Err(EtcdFileError::Bolt(BoltError::Io(e))) if e.kind() == ErrorKind::BrokenPipe => {
            StoreError::Stopped.into()
        }
        Err(EtcdFileError::State(BackendError::Closed(_))) => StoreError::Stopped.into(),
        Err(error) => {
            error!(%error, "a snapshot was not sent to a client");
            Status::internal(error.to_string())
        }
    };
    // The state is let go: whoever closes it does not wait for this. It ends with the connection at the latest.
    let _ = pieces.blocking_send(Err(error));
}

/// Takes the file's bytes and sends them; the checksum at the end is a message of its own, as from etcd.
struct Blobs<'a> {
    export: &'a Export,
    pieces: &'a mpsc::Sender<Piece>,
    /// Goes with the first message.
    header: Option<ResponseHeader>,
    /// Of the pages that are not sent yet, those of `blob` too.
    remaining: u64,
    blob: Vec<u8>,
}

impl Blobs<'_> {
    fn send(&mut self) -> std::io::Result<()> {
        self.remaining = self.remaining.saturating_sub(self.blob.len() as u64);
        let blob = std::mem::replace(&mut self.blob, Vec::with_capacity(BLOB_BYTES));
        let piece = SnapshotResponse {
            header: self.header.take(),
            remaining_bytes: self.remaining,
            blob: Bytes::from(blob),
            version: String::new(),
        };
        if self.export.offer(self.pieces, Ok(piece)) {
            Ok(())
        } else {
            Err(ErrorKind::BrokenPipe.into())
        }
    }
}

impl Write for Blobs<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let most = match usize::try_from(self.remaining).unwrap_or(BLOB_BYTES) {
            0 => BLOB_BYTES,
            left => left.min(BLOB_BYTES),
        };
        let taken = data.len().min(most - self.blob.len());
        self.blob.extend_from_slice(&data[..taken]);
        if self.blob.len() == most {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.blob.is_empty() {
            return Ok(());
        }
        self.send()
    }
}
