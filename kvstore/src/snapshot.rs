//! The whole state as a stream of chunks, and back: for a member that lags too far or starts anew.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::apply::{decode_applied, Store, APPLIED};
use crate::backend::{Backend, BackendError, Batch, Table, View};
use crate::log::SnapshotMeta;
use crate::membership::Membership;
use crate::reactor::MEMBERSHIP_KEY;

/// Bytes in a chunk, about.
const CHUNK_BYTES: usize = 256 << 10;
const VERSION: u32 = 1;
/// Pause before a piece is offered again to a network that is slower than the disk.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Parts of names of directories beside the live state.
const INCOMING: &str = "incoming";
const OUTGOING: &str = "outgoing";
/// Received or copied since the program started.
static RECEIVED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint32, tag = "1")]
    table: u32,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Chunk {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    records: Vec<Record>,
    #[prost(bool, tag = "3")]
    last: bool,
}

/// The directory of a received state, beside the one that it may replace: removed with this, unless it was adopted.
#[derive(Debug)]
pub struct IncomingDir(PathBuf);

impl IncomingDir {
    /// One beside the state under `dir`, which is not there yet.
    #[must_use]
    pub fn beside(dir: &Path) -> Self {
        // A name of its own, since the last one may be the state that is open now.
        let number = RECEIVED.fetch_add(1, Ordering::Relaxed);
        Self(dir.with_file_name(format!("{}{number}", incoming_name(dir))))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for IncomingDir {
    fn drop(&mut self) {
        // An adopted one has another name by now; what can't be removed here is removed by the next start.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The state of one moment, to be read on a thread of its own: neither the member waits for it nor memory holds it.
pub struct Export(View);

impl Export {
    /// Read it once: first the position that it has, then the chunks, until `next` says false. Blocks.
    ///
    /// # Errors
    /// When a record can't be read, or the state is closed or replaced meanwhile.
    pub fn read(
        &self,
        begin: impl FnOnce(SnapshotMeta),
        mut next: impl FnMut(Bytes) -> bool,
    ) -> Result<(), BackendError> {
        let mut meta = SnapshotMeta::default();
        let mut begin = Some(begin);
        let mut writer = Writer::default();
        let tables = [Table::Meta, Table::Leases, Table::Revisions];
        self.0.each(&tables, |table, key, value| {
            if table == Table::Meta {
                if key == b"layout" {
                    return Ok(());
                }
                self.note(&mut meta, key, value)?;
            } else if let Some(begin) = begin.take() {
                begin(meta.clone());
            }
            if writer.push(table, key, value).is_none_or(&mut next) {
                return Ok(());
            }
            Err(self.0.closed())
        })?;
        if let Some(begin) = begin.take() {
            begin(meta);
        }
        if next(writer.cut(true)) {
            Ok(())
        } else {
            Err(self.0.closed())
        }
    }

    fn note(&self, meta: &mut SnapshotMeta, key: &[u8], value: &[u8]) -> Result<(), BackendError> {
        if key == APPLIED {
            let state = value
                .try_into()
                .map_err(|_| self.0.damaged("its position has another length"))?;
            ((meta.index, meta.term), ..) = decode_applied(state);
        }
        if key == MEMBERSHIP_KEY {
            let membership: Membership = serde_json::from_slice(value)
                .map_err(|e| self.0.damaged(&format!("membership: {e}")))?;
            meta.conf = membership.conf_state();
        }
        Ok(())
    }

    /// The tables themselves.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.0
    }

    /// Hand something on to who may be slow; false once nobody takes it any more, or the state is to close. Blocks.
    pub fn offer<T>(&self, queue: &mpsc::Sender<T>, mut piece: T) -> bool {
        loop {
            piece = match queue.try_send(piece) {
                Ok(()) => return true,
                Err(TrySendError::Full(piece)) if !self.0.is_closing() => piece,
                Err(_) => return false,
            };
            std::thread::sleep(FULL_PAUSE);
        }
    }
}

impl Store {
    /// The state as it is now, or a little later.
    #[must_use]
    pub fn export(&self) -> Export {
        Export(self.backend.view())
    }

    /// Replace the state under `dir` by an exported one, and open it. The old state stays until the new is whole.
    ///
    /// # Errors
    /// When a chunk is damaged, or the directory can't be written.
    pub fn import(
        dir: &Path,
        chunks: impl IntoIterator<Item = Bytes>,
    ) -> Result<Self, BackendError> {
        let (store, incoming) = Self::receive(dir, chunks)?;
        adopt(dir, incoming)?;
        Ok(store)
    }

    /// Lay an exported state beside the one under `dir`, and open it; [`adopt`] puts it in that one's place. Blocks.
    ///
    /// # Errors
    /// When a chunk is damaged or missing, or the directory can't be written.
    pub fn receive(
        dir: &Path,
        chunks: impl IntoIterator<Item = Bytes>,
    ) -> Result<(Self, IncomingDir), BackendError> {
        let incoming = IncomingDir::beside(dir);
        fill(&incoming.0, chunks)?;
        Ok((Self::load(&incoming.0)?, incoming))
    }
}

/// How the directories are named, up to their number, that hold what may replace the one under `dir`.
fn incoming_name(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}-{INCOMING}-")
}

/// Lays an exported state under `dir`.
fn fill(dir: &Path, chunks: impl IntoIterator<Item = Bytes>) -> Result<(), BackendError> {
    lay(&Backend::open(dir)?, chunks)
}

/// Takes no chunk before the disk has room for it, so that the sender waits too.
fn lay(backend: &Backend, chunks: impl IntoIterator<Item = Bytes>) -> Result<(), BackendError> {
    let mut whole = false;
    for data in chunks {
        let chunk = Chunk::decode(data).map_err(|e| backend.damaged(&format!("snapshot: {e}")))?;
        if chunk.version > VERSION {
            return Err(
                backend.damaged("the snapshot was made by a newer program: install the newer one")
            );
        }
        let mut batch = Batch::default();
        for record in chunk.records {
            let table = match record.table {
                0 => Table::Revisions,
                1 => Table::Leases,
                _ => Table::Meta,
            };
            batch.put(table, record.key.to_vec(), record.value.to_vec());
        }
        backend.write(batch);
        backend.keep_up()?;
        whole = chunk.last;
    }
    backend.flush()?;
    if !whole {
        return Err(backend.damaged("the snapshot ends early"));
    }
    Ok(())
}

/// Put the state that was received in the place of the one under `dir`. Either may be open.
///
/// # Errors
/// When the directory can't be written.
pub fn adopt(dir: &Path, incoming: IncomingDir) -> Result<(), BackendError> {
    let io = |source| BackendError::Io {
        path: dir.display().to_string(),
        source,
    };
    // At every moment one of the two is whole; `recover` puts the old one back when only that is left.
    let outgoing = dir.with_file_name(OUTGOING);
    if dir.exists() {
        std::fs::rename(dir, &outgoing).map_err(io)?;
    }
    std::fs::rename(&incoming.0, dir).map_err(io)?;
    if let Some(parent) = dir.parent() {
        std::fs::File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(io)?;
    }
    if outgoing.exists() {
        std::fs::remove_dir_all(&outgoing).map_err(io)?;
    }
    Ok(())
}

/// Finish what a crash within [`Store::import`] left: the state's directory is there again, and no other.
pub(crate) fn recover(dir: &Path) -> Result<(), BackendError> {
    let io = |source| BackendError::Io {
        path: dir.display().to_string(),
        source,
    };
    let name = incoming_name(dir);
    let beside = dir.parent().filter(|parent| parent.exists());
    for entry in beside
        .map(std::fs::read_dir)
        .transpose()
        .map_err(io)?
        .into_iter()
        .flatten()
    {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().starts_with(&name) {
            std::fs::remove_dir_all(entry.path()).map_err(io)?;
        }
    }
    let outgoing = dir.with_file_name(OUTGOING);
    if !outgoing.exists() {
        return Ok(());
    }
    let done = if dir.exists() {
        std::fs::remove_dir_all(&outgoing)
    } else {
        std::fs::rename(&outgoing, dir)
    };
    done.map_err(io)
}

#[derive(Default)]
struct Writer {
    records: Vec<Record>,
    bytes: usize,
}

impl Writer {
    fn push(&mut self, table: Table, key: &[u8], value: &[u8]) -> Option<Bytes> {
        self.bytes += key.len() + value.len();
        self.records.push(Record {
            table: table as u32,
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
        });
        (self.bytes >= CHUNK_BYTES).then(|| self.cut(false))
    }

    fn cut(&mut self, last: bool) -> Bytes {
        self.bytes = 0;
        let chunk = Chunk {
            version: VERSION,
            records: std::mem::take(&mut self.records),
            last,
        };
        chunk.encode_to_vec().into()
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
