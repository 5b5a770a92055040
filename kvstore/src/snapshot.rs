//! The whole state as a stream of chunks, and back: for a member that lags too far or starts anew.

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use crate::apply::Store;
use crate::backend::{Backend, BackendError, Batch, Table};
use crate::mvcc::{KeyRange, Rev};

/// Bytes in a chunk, about.
const CHUNK_BYTES: usize = 256 << 10;
const VERSION: u32 = 1;
/// Subdirectory names beside the live state.
const INCOMING: &str = "incoming";
const OUTGOING: &str = "outgoing";

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

impl Store {
    /// The state as it is now, in chunks.
    ///
    /// # Errors
    /// When an older value can't be read.
    pub fn export(&self) -> Result<Vec<Bytes>, BackendError> {
        let mut writer = Writer::default();
        for (key, value) in self.meta() {
            writer.push(Table::Meta, key.to_vec(), value.to_vec());
        }
        for (id, ttl) in self.leases() {
            writer.push(
                Table::Leases,
                id.to_be_bytes().to_vec(),
                ttl.to_be_bytes().to_vec(),
            );
        }
        let mut sub = (0i64, 0u32);
        for change in self.keys.changes(
            &self.backend,
            &KeyRange::From(Bytes::new()),
            (1, self.revision()),
            false,
        )? {
            let main = change.kv.mod_revision;
            sub = if sub.0 == main {
                (main, sub.1 + 1)
            } else {
                (main, 0)
            };
            let mut value = vec![u8::from(change.deleted)];
            value.extend_from_slice(&change.kv.encode_to_vec());
            writer.push(Table::Revisions, Rev { main, sub: sub.1 }.encode(), value);
        }
        Ok(writer.finish())
    }

    /// Replace the state under `dir` by an exported one, and open it. The old state stays until the new is whole.
    ///
    /// # Errors
    /// When a chunk is damaged, or the directory can't be written.
    pub fn import(
        dir: &Path,
        chunks: impl IntoIterator<Item = Bytes>,
    ) -> Result<Self, BackendError> {
        let path = dir.display().to_string();
        let io = |source| BackendError::Io {
            path: path.clone(),
            source,
        };
        let incoming = dir.with_file_name(INCOMING);
        if incoming.exists() {
            std::fs::remove_dir_all(&incoming).map_err(io)?;
        }
        let backend = Backend::open(&incoming)?;
        let mut whole = false;
        for data in chunks {
            let chunk =
                Chunk::decode(data).map_err(|e| backend.damaged(&format!("snapshot: {e}")))?;
            if chunk.version > VERSION {
                return Err(backend
                    .damaged("the snapshot was made by a newer program: install the newer one"));
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
            whole = chunk.last;
        }
        backend.flush();
        if let Some(failure) = backend.failure() {
            return Err(backend.damaged(&failure));
        }
        if !whole {
            return Err(backend.damaged("the snapshot ends early"));
        }
        drop(backend);
        // At every moment one of the two is whole; `recover` puts the old one back when only that is left.
        let outgoing = dir.with_file_name(OUTGOING);
        if dir.exists() {
            std::fs::rename(dir, &outgoing).map_err(io)?;
        }
        std::fs::rename(&incoming, dir).map_err(io)?;
        if let Some(parent) = dir.parent() {
            std::fs::File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(io)?;
        }
        Self::open(dir)
    }
}

/// Finish what a crash within [`Store::import`] left: the state's directory is there again, and no other.
pub(crate) fn recover(dir: &Path) -> Result<(), BackendError> {
    let outgoing = dir.with_file_name(OUTGOING);
    if !outgoing.exists() {
        return Ok(());
    }
    let done = if dir.exists() {
        std::fs::remove_dir_all(&outgoing)
    } else {
        std::fs::rename(&outgoing, dir)
    };
    done.map_err(|source| BackendError::Io {
        path: dir.display().to_string(),
        source,
    })
}

#[derive(Default)]
struct Writer {
    chunks: Vec<Bytes>,
    records: Vec<Record>,
    bytes: usize,
}

impl Writer {
    fn push(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.records.push(Record {
            table: table as u32,
            key: key.into(),
            value: value.into(),
        });
        if self.bytes >= CHUNK_BYTES {
            self.cut(false);
        }
    }

    fn cut(&mut self, last: bool) {
        let chunk = Chunk {
            version: VERSION,
            records: std::mem::take(&mut self.records),
            last,
        };
        self.chunks.push(chunk.encode_to_vec().into());
        self.bytes = 0;
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.cut(true);
        self.chunks
    }
}
