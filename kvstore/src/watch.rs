//! Fan-out of events to watchers: in revision order, each once, none left out, a revision never split.
//!
//! No sockets here: what a watcher is owed waits in it until the stream that it belongs to takes it.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::apply::{RevisionEvents, Store};
use crate::errors::StoreError;
use crate::mvcc::{Change, KeyRange};
use crate::pb::etcd::event::EventType;
use crate::pb::etcd::watch_create_request::FilterType;
use crate::pb::etcd::{Event, KeyValue, WatchCreateRequest};

/// Revisions that one watcher catches up in one turn.
const CATCH_UP_REVISIONS: i64 = 1_000;
/// Events that may wait in one watcher before it is put back among those that catch up.
const MAX_WAITING_EVENTS: usize = 4_096;

/// A watcher, unique in this member's life.
pub type WatcherId = u64;

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    filters: Vec<FilterType>,
    prev_kv: bool,
    /// The next revision that it is owed.
    next: i64,
    synced: bool,
    waiting: Vec<Batch>,
    waiting_events: usize,
    compacted: Option<i64>,
}

/// Events of one revision for one watcher.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub revision: i64,
    pub events: Vec<Event>,
}

/// What a stream takes from a watcher.
#[derive(Debug, PartialEq)]
pub enum Taken {
    Events(Vec<Batch>),
    /// What it asked for is gone; the watcher is removed.
    Compacted(i64),
}

/// All watchers of a member.
#[derive(Debug, Default)]
pub struct Hub {
    watchers: HashMap<WatcherId, Watcher>,
    exact: HashMap<Bytes, Vec<WatcherId>>,
    ranges: Vec<WatcherId>,
    behind: BTreeSet<WatcherId>,
    ready: BTreeSet<WatcherId>,
    last: WatcherId,
}

impl Hub {
    /// Add a watcher. Without a start revision it is owed what comes after `current`.
    pub fn create(&mut self, request: &WatchCreateRequest, current: i64) -> WatcherId {
        self.last += 1;
        let id = self.last;
        let range = KeyRange::new(&request.key, &request.range_end);
        let next = if request.start_revision > 0 {
            request.start_revision
        } else {
            current + 1
        };
        let synced = next > current;
        match &range {
            KeyRange::One(key) => self.exact.entry(key.clone()).or_default().push(id),
            _ => self.ranges.push(id),
        }
        if !synced {
            self.behind.insert(id);
        }
        let watcher = Watcher {
            range,
            filters: request.filters().collect(),
            prev_kv: request.prev_kv,
            next,
            synced,
            waiting: Vec::new(),
            waiting_events: 0,
            compacted: None,
        };
        self.watchers.insert(id, watcher);
        id
    }

    /// Remove a watcher; false when it is not there.
    pub fn cancel(&mut self, id: WatcherId) -> bool {
        let Some(watcher) = self.watchers.remove(&id) else {
            return false;
        };
        if let KeyRange::One(key) = &watcher.range {
            if let Some(ids) = self.exact.get_mut(key) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.exact.remove(key);
                }
            }
        } else {
            self.ranges.retain(|other| *other != id);
        }
        self.behind.remove(&id);
        self.ready.remove(&id);
        true
    }

    /// Watchers now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether nobody watches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Hand a revision's events to those who are up to date; the others find it in history.
    pub fn publish(&mut self, events: &RevisionEvents) {
        for change in &events.changes {
            if let Some(ids) = self.exact.get(&change.kv.key) {
                for id in ids {
                    if let Some(watcher) = self.watchers.get_mut(id) {
                        offer(
                            *id,
                            watcher,
                            events.revision,
                            change,
                            &mut self.ready,
                            &mut self.behind,
                        );
                    }
                }
            }
            for id in &self.ranges {
                if let Some(watcher) = self
                    .watchers
                    .get_mut(id)
                    .filter(|w| w.range.contains(&change.kv.key))
                {
                    offer(
                        *id,
                        watcher,
                        events.revision,
                        change,
                        &mut self.ready,
                        &mut self.behind,
                    );
                }
            }
        }
    }

    /// Whether some watcher is behind.
    #[must_use]
    pub fn lags(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Bring one watcher that is behind a slice nearer; call again while [`Self::lags`] and there is time.
    ///
    /// # Errors
    /// When history can't be read from disk.
    pub fn catch_up(&mut self, store: &Store) -> Result<(), StoreError> {
        let current = store.revision();
        let Some(id) = self.behind.iter().copied().find(|id| self.has_room(*id)) else {
            return Ok(());
        };
        let Some(watcher) = self.watchers.get_mut(&id) else {
            self.behind.remove(&id);
            return Ok(());
        };
        if watcher.next < store.compacted_revision() {
            watcher.compacted = Some(store.compacted_revision());
            self.behind.remove(&id);
            self.ready.insert(id);
            return Ok(());
        }
        let to = current.min(watcher.next + CATCH_UP_REVISIONS - 1);
        if watcher.next <= to {
            let changes = store.history(&watcher.range, watcher.next, to, watcher.prev_kv)?;
            for change in &changes {
                push(watcher, change.kv.mod_revision, change);
            }
            watcher.next = to + 1;
            if !watcher.waiting.is_empty() {
                self.ready.insert(id);
            }
        }
        if watcher.next > current {
            watcher.synced = true;
            self.behind.remove(&id);
        }
        Ok(())
    }

    fn has_room(&self, id: WatcherId) -> bool {
        self.watchers
            .get(&id)
            .is_none_or(|w| w.waiting_events < MAX_WAITING_EVENTS)
    }

    /// Whether some watcher that is behind may be brought nearer now.
    #[must_use]
    pub fn can_catch_up(&self) -> bool {
        self.behind.iter().any(|id| self.has_room(*id))
    }

    /// Watchers with something to take.
    #[must_use]
    pub fn ready(&self) -> Vec<WatcherId> {
        self.ready.iter().copied().collect()
    }

    /// Take what a watcher is owed by now.
    pub fn take(&mut self, id: WatcherId) -> Option<Taken> {
        self.ready.remove(&id);
        let watcher = self.watchers.get_mut(&id)?;
        if !watcher.waiting.is_empty() {
            watcher.waiting_events = 0;
            let taken = std::mem::take(&mut watcher.waiting);
            if watcher.compacted.is_some() {
                self.ready.insert(id);
            }
            return Some(Taken::Events(taken));
        }
        let compacted = watcher.compacted?;
        self.cancel(id);
        Some(Taken::Compacted(compacted))
    }

    /// Whether everything up to `current` was taken, so that progress may be told.
    #[must_use]
    pub fn is_synced(&self, id: WatcherId) -> bool {
        self.watchers
            .get(&id)
            .is_some_and(|w| w.synced && w.waiting.is_empty() && w.compacted.is_none())
    }
}

fn offer(
    id: WatcherId,
    watcher: &mut Watcher,
    revision: i64,
    change: &Change,
    ready: &mut BTreeSet<WatcherId>,
    behind: &mut BTreeSet<WatcherId>,
) {
    if !watcher.synced || revision < watcher.next {
        return;
    }
    let begun = watcher
        .waiting
        .last()
        .is_some_and(|batch| batch.revision == revision);
    if watcher.waiting_events >= MAX_WAITING_EVENTS && !begun {
        // It reads too slowly: what follows comes from history, so that memory stays bounded.
        watcher.synced = false;
        watcher.next = revision;
        behind.insert(id);
        return;
    }
    push(watcher, revision, change);
    if !watcher.waiting.is_empty() {
        ready.insert(id);
    }
}

fn push(watcher: &mut Watcher, revision: i64, change: &Change) {
    let filter = if change.deleted {
        FilterType::Nodelete
    } else {
        FilterType::Noput
    };
    if watcher.filters.contains(&filter) {
        return;
    }
    let kind = if change.deleted {
        EventType::Delete
    } else {
        EventType::Put
    };
    let prev_kv: Option<KeyValue> = if watcher.prev_kv {
        change.prev.as_deref().cloned()
    } else {
        None
    };
    let event = Event {
        r#type: kind.into(),
        kv: Some((*change.kv).clone()),
        prev_kv,
    };
    watcher.waiting_events += 1;
    match watcher.waiting.last_mut() {
        Some(batch) if batch.revision == revision => batch.events.push(event),
        _ => watcher.waiting.push(Batch {
            revision,
            events: vec![event],
        }),
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
