//! Fan-out of events to watchers: in revision order, each once, none left out, a revision never split.
//!
//! No sockets here: what a watcher is owed waits in it until the stream that it belongs to takes it.

mod catching_up;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::apply::RevisionEvents;
use crate::mvcc::{Change, KeyRange, Rev};
use crate::pb::etcd::watch_create_request::FilterType;
use crate::pb::etcd::WatchCreateRequest;
use crate::planted::{planted, Bug};
pub use catching_up::Pace;

/// Events, and bytes of them, that may wait in one watcher before it is put back among those that catch up.
const MAX_WAITING_EVENTS: usize = 4_096;
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// Bytes that may wait in all watchers; then those that hold most are put back, until so little waits that it takes a
/// while to come to this again.
const MAX_WAITING_BYTES_IN_ALL: usize = 64 * 1024 * 1024;
const CALM_WAITING_BYTES_IN_ALL: usize = MAX_WAITING_BYTES_IN_ALL / 2;

/// A watcher, unique in this member's life.
pub type WatcherId = u64;

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    filters: Vec<FilterType>,
    prev_kv: bool,
    /// The next change that it is owed; within a revision while the last of what waits is the beginning of that one.
    at: Rev,
    synced: bool,
    /// Its range was found to have many keys.
    wide: bool,
    waiting: Vec<Batch>,
    waiting_events: usize,
    /// The revision of the store when the last of what waits was found.
    found_at: i64,
    waiting_bytes: usize,
    compacted: Option<i64>,
}

/// Events of one revision for one watcher.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub revision: i64,
    /// Each an encoded `mvccpb.Event`.
    pub events: Vec<Bytes>,
    bytes: usize,
}

/// What a stream takes from a watcher.
#[derive(Debug, PartialEq)]
pub enum Taken {
    /// `revision`: the store's when the last of them was found.
    Events { batches: Vec<Batch>, revision: i64 },
    /// What it asked for is gone; the watcher is removed.
    Compacted(i64),
}

/// All watchers of a member.
#[derive(Debug, Default)]
pub struct Hub {
    pace: Pace,
    watchers: HashMap<WatcherId, Watcher>,
    exact: HashMap<Bytes, Vec<WatcherId>>,
    ranges: Vec<WatcherId>,
    behind: BTreeSet<WatcherId>,
    /// Those behind whose streams have taken what they had, so that they may be handed history.
    hungry: BTreeSet<WatcherId>,
    ready: BTreeSet<WatcherId>,
    last: WatcherId,
    /// The watcher that was brought nearer last; the next one's turn comes after it.
    served: WatcherId,
    /// The one that was left in the middle of a revision: it goes on first.
    midway: Option<WatcherId>,
    waiting_bytes: usize,
}

impl Hub {
    /// One that works in slices of another size than usual.
    #[must_use]
    pub fn with_pace(pace: Pace) -> Self {
        Self {
            pace,
            ..Self::default()
        }
    }

    /// Add a watcher. Without a start revision it is owed what comes after `current`.
    pub fn create(&mut self, request: &WatchCreateRequest, current: i64) -> WatcherId {
        self.last += 1;
        let id = self.last;
        let range = KeyRange::new(&request.key, &request.range_end);
        let mut next = if request.start_revision > 0 {
            request.start_revision
        } else {
            current + 1
        };
        if planted(Bug::EventDroppedAtReconnect) && next < current {
            next += 1;
        }
        let synced = next > current;
        match &range {
            KeyRange::One(key) => self.exact.entry(key.clone()).or_default().push(id),
            _ => self.ranges.push(id),
        }
        if !synced {
            self.behind.insert(id);
            self.hungry.insert(id);
        }
        let watcher = Watcher {
            range,
            filters: request.filters().collect(),
            prev_kv: request.prev_kv,
            at: Rev { main: next, sub: 0 },
            synced,
            wide: false,
            waiting: Vec::new(),
            waiting_events: 0,
            found_at: 0,
            waiting_bytes: 0,
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
        self.waiting_bytes -= watcher.waiting_bytes;
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
        self.hungry.remove(&id);
        self.ready.remove(&id);
        true
    }

    /// Watchers now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Watchers that are not up to date, and events that wait for their streams; walks through all watchers.
    #[must_use]
    pub fn waiting(&self) -> (u64, u64) {
        let events: usize = self.watchers.values().map(|w| w.waiting_events).sum();
        (self.behind.len() as u64, events as u64)
    }

    /// Whether nobody watches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Hand a revision's events to those who are up to date; the others find it in history.
    pub fn publish(&mut self, events: &RevisionEvents) {
        self.bound();
        let is_large = events.changes.len() > self.pace.large_revision;
        if is_large {
            self.put_ranges_back(events.revision);
        }
        for change in &events.changes {
            let key = change.kv.key();
            if let Some(ids) = self.exact.get(key) {
                for id in ids {
                    if let Some(watcher) = self.watchers.get_mut(id) {
                        self.waiting_bytes += offer(
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
            for id in self.ranges.iter().filter(|_| !is_large) {
                if let Some(watcher) = self.watchers.get_mut(id).filter(|w| w.range.contains(key)) {
                    self.waiting_bytes += offer(
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

    /// So many changes are handed to watchers of ranges in slices, as history.
    fn put_ranges_back(&mut self, revision: i64) {
        for id in &self.ranges {
            let watcher = self.watchers.get_mut(id);
            let Some(watcher) = watcher.filter(|w| w.synced && w.at.main <= revision) else {
                continue;
            };
            watcher.fall_behind(revision);
            self.behind.insert(*id);
            if watcher.waiting.is_empty() {
                self.hungry.insert(*id);
            }
        }
    }

    /// Keeps what waits in all watchers bounded: past the bound those that hold most, since they are read from slowest,
    /// let go of it, and find it in history once their streams come for it.
    fn bound(&mut self) {
        if self.waiting_bytes <= MAX_WAITING_BYTES_IN_ALL {
            return;
        }
        let mut slowest: Vec<_> = self.watchers.iter_mut().collect();
        slowest.sort_unstable_by_key(|(_, watcher)| Reverse(watcher.waiting_bytes));
        for (id, watcher) in slowest {
            if self.waiting_bytes <= CALM_WAITING_BYTES_IN_ALL {
                return;
            }
            // One in the middle of a revision would only begin that again.
            let Some(first) = watcher.waiting.first().filter(|_| !watcher.is_midway()) else {
                continue;
            };
            watcher.fall_behind(first.revision);
            watcher.waiting = Vec::new();
            self.waiting_bytes -= watcher.waiting_bytes;
            (watcher.waiting_events, watcher.waiting_bytes) = (0, 0);
            self.behind.insert(*id);
            self.hungry.remove(id);
        }
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
        if watcher.is_midway() {
            return None;
        }
        if self.behind.contains(&id) {
            self.hungry.insert(id);
        }
        if !watcher.waiting.is_empty() {
            self.waiting_bytes -= watcher.waiting_bytes;
            (watcher.waiting_events, watcher.waiting_bytes) = (0, 0);
            let taken = std::mem::take(&mut watcher.waiting);
            if watcher.compacted.is_some() {
                self.ready.insert(id);
            }
            return Some(Taken::Events {
                batches: taken,
                revision: watcher.found_at,
            });
        }
        let compacted = watcher.compacted?;
        self.cancel(id);
        Some(Taken::Compacted(compacted))
    }

    /// Whether everything up to `current` was taken, so that progress may be told.
    #[must_use]
    pub fn is_synced(&self, id: WatcherId) -> bool {
        self.watchers.get(&id).is_some_and(|w| {
            let taken = w.waiting.is_empty() || planted(Bug::ProgressAheadOfEvents);
            w.synced && taken && w.compacted.is_none()
        })
    }
}

impl Watcher {
    /// It is owed what history has from this revision on.
    fn fall_behind(&mut self, next: i64) {
        (self.synced, self.at) = (false, Rev { main: next, sub: 0 });
    }

    /// Whether the last of what waits is the beginning of a revision: it is not split, so nothing is handed on.
    fn is_midway(&self) -> bool {
        let last = self.waiting.last().map(|batch| batch.revision);
        self.at.sub > 0 && last == Some(self.at.main)
    }
}

/// Hands a change to a watcher; the bytes that it holds more now.
fn offer(
    id: WatcherId,
    watcher: &mut Watcher,
    revision: i64,
    change: &Change,
    ready: &mut BTreeSet<WatcherId>,
    behind: &mut BTreeSet<WatcherId>,
) -> usize {
    if !watcher.synced || revision < watcher.at.main {
        return 0;
    }
    let begun = watcher
        .waiting
        .last()
        .is_some_and(|batch| batch.revision == revision);
    let full =
        watcher.waiting_events >= MAX_WAITING_EVENTS || watcher.waiting_bytes >= MAX_WAITING_BYTES;
    if full && !begun {
        // It reads too slowly: what follows comes from history, so that memory stays bounded.
        watcher.fall_behind(revision);
        behind.insert(id);
        return 0;
    }
    let bytes = push(watcher, revision, change);
    watcher.found_at = revision;
    if !watcher.waiting.is_empty() {
        ready.insert(id);
    }
    bytes
}

fn push(watcher: &mut Watcher, revision: i64, change: &Change) -> usize {
    let filter = if change.deleted {
        FilterType::Nodelete
    } else {
        FilterType::Noput
    };
    if watcher.filters.contains(&filter) {
        return 0;
    }
    let event = change.event(watcher.prev_kv);
    let bytes = change.size();
    watcher.waiting_events += 1;
    watcher.waiting_bytes += bytes;
    match watcher.waiting.last_mut() {
        Some(batch) if batch.revision == revision => {
            batch.events.push(event);
            batch.bytes += bytes;
        }
        _ => watcher.waiting.push(Batch {
            revision,
            events: vec![event],
            bytes,
        }),
    }
    bytes
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
