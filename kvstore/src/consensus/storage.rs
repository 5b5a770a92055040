//! The log in memory as the library wants to read it, and our values in its words.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{self, EntryType};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use raft_prost::Message as _;

use super::Restored;
use crate::log::{ConfState, Entry, EntryKind, HardState, SnapshotMeta};

/// Entries not yet compacted, in memory.
pub(super) struct Log {
    pub(super) hard: eraftpb::HardState,
    pub(super) conf: eraftpb::ConfState,
    pub(super) start: (u64, u64),
    pub(super) applied: u64,
    entries: VecDeque<eraftpb::Entry>,
    /// What the entries take.
    bytes: usize,
}

impl Log {
    pub(super) fn new(restored: Restored) -> Self {
        let HardState { term, vote, commit } = restored.hard_state;
        // A commit index is written with the next entries only, so the state may be ahead of it.
        let commit = commit.max(restored.applied).max(restored.start.0);
        let entries: VecDeque<_> = restored.entries.into_iter().map(to_raft).collect();
        Self {
            hard: eraftpb::HardState { term, vote, commit },
            conf: to_raft_conf(&restored.conf),
            start: restored.start,
            applied: restored.applied,
            bytes: entries.iter().map(size).sum(),
            entries,
        }
    }

    fn last(&self) -> u64 {
        self.start.0 + self.entries.len() as u64
    }

    pub(super) fn install(&mut self, meta: &SnapshotMeta) {
        self.entries.clear();
        self.bytes = 0;
        self.start = (meta.index, meta.term);
        self.conf = to_raft_conf(&meta.conf);
        self.applied = meta.index;
    }

    pub(super) fn append(&mut self, entries: Vec<eraftpb::Entry>) {
        if let Some(first) = entries.first() {
            let kept = first.index.saturating_sub(self.start.0 + 1) as usize;
            let gone = self.entries.iter().skip(kept);
            self.bytes -= gone.map(size).sum::<usize>();
            self.entries.truncate(kept);
            self.bytes += entries.iter().map(size).sum::<usize>();
            self.entries.extend(entries);
        }
    }

    pub(super) fn compact(&mut self, to: u64) {
        let to = to.min(self.applied).min(self.last());
        if to > self.start.0 {
            let count = (to - self.start.0) as usize;
            self.start = (to, self.entries[count - 1].term);
            let gone = self.entries.drain(..count);
            self.bytes -= gone.map(|entry| size(&entry)).sum::<usize>();
        }
    }

    /// The position after which entries take no more than `most` bytes; the start while they take up to a quarter more.
    pub(super) fn fitting(&self, most: usize) -> u64 {
        let (mut index, mut left) = (self.start.0, self.bytes);
        if left > most + most / 4 {
            for entry in &self.entries {
                if left <= most {
                    break;
                }
                left -= size(entry);
                index = entry.index;
            }
        }
        index
    }

    fn term_at(&self, index: u64) -> raft::Result<u64> {
        if index == self.start.0 {
            return Ok(self.start.1);
        }
        let offset = index
            .checked_sub(self.start.0 + 1)
            .ok_or(raft::Error::Store(StorageError::Compacted))?;
        let entry = self
            .entries
            .get(offset as usize)
            .ok_or(raft::Error::Store(StorageError::Unavailable))?;
        Ok(entry.term)
    }
}

/// Bytes of memory that an entry takes, about.
pub(super) fn size(entry: &eraftpb::Entry) -> usize {
    size_of::<eraftpb::Entry>() + entry.data.len()
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        let skip = low
            .checked_sub(self.start.0 + 1)
            .ok_or(raft::Error::Store(StorageError::Compacted))? as usize;
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut out: Vec<eraftpb::Entry> = Vec::new();
        for entry in self.entries.iter().skip(skip).take((high - low) as usize) {
            let size = entry.encoded_len() as u64;
            if size > room && !out.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<eraftpb::Snapshot> {
        let unready = raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        if self.applied < request_index || self.applied < self.start.0 {
            return Err(unready);
        }
        let term = self.term_at(self.applied).map_err(|_| unready)?;
        let conf = ConfState {
            voters: self.conf.voters.clone(),
            learners: self.conf.learners.clone(),
        };
        Ok(snapshot_of(&SnapshotMeta {
            index: self.applied,
            term,
            conf,
        }))
    }
}

pub(super) fn from_raft(entry: &eraftpb::Entry) -> Entry {
    let kind = if entry.entry_type() == EntryType::EntryNormal {
        EntryKind::Normal
    } else {
        EntryKind::ConfChange
    };
    Entry {
        index: entry.index,
        term: entry.term,
        kind,
        data: Bytes::copy_from_slice(&entry.data),
    }
}

pub(super) fn to_raft(entry: Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry {
        index: entry.index,
        term: entry.term,
        data: entry.data.into(),
        ..Default::default()
    };
    if entry.kind == EntryKind::ConfChange {
        out.set_entry_type(EntryType::EntryConfChange);
    }
    out
}

pub(super) fn to_raft_conf(conf: &ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: conf.voters.clone(),
        learners: conf.learners.clone(),
        ..Default::default()
    }
}

pub(super) fn snapshot_of(meta: &SnapshotMeta) -> eraftpb::Snapshot {
    let conf_state = Some(to_raft_conf(&meta.conf));
    let metadata = eraftpb::SnapshotMetadata {
        conf_state,
        index: meta.index,
        term: meta.term,
    };
    eraftpb::Snapshot {
        data: Vec::new(),
        metadata: Some(metadata),
    }
}

pub(super) fn snapshot_meta(snapshot: &eraftpb::Snapshot) -> SnapshotMeta {
    let meta = snapshot.metadata.clone().unwrap_or_default();
    let conf = meta.conf_state.unwrap_or_default();
    let conf = ConfState {
        voters: conf.voters,
        learners: conf.learners,
    };
    SnapshotMeta {
        index: meta.index,
        term: meta.term,
        conf,
    }
}
