//! History for watchers that are behind, slice by slice, each in its turn. Those that are about as far share one walk
//! through it.

use super::{push, Hub, Watcher, WatcherId, CALM_WAITING_BYTES_IN_ALL};
use crate::apply::Store;
use crate::errors::StoreError;
use crate::mvcc::{Limit, Rev};

/// Bytes of changes that a slice finds, about.
pub(super) const SLICE_BYTES: usize = 1024 * 1024;
/// Bytes that a slice hands to all watchers together, about.
const SLICE_HANDED_BYTES: usize = 8 * SLICE_BYTES;
/// Watchers that share a walk; so many are asked about a change in the time that it takes to look at some more.
const MAX_SHARERS: usize = 64;
const ASKED_IN_ONE: usize = 16;
/// Hungry watchers that are asked whether they go along.
const MAX_CANDIDATES: usize = 256;

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A range of no more keys than these is looked up key by key; for others all changes are walked through.
    pub few_keys: usize,
    /// What is done in one slice: a change that is looked at counts as one, and one for each watcher that is handed it.
    pub slice_work: usize,
    /// Changes of one revision that watchers of ranges are handed at once; more are handed to each in its turn.
    pub large_revision: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            few_keys: 1_000,
            slice_work: 4_000,
            large_revision: 1_000,
        }
    }
}

impl Hub {
    /// Whether some watcher is behind.
    #[must_use]
    pub fn lags(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Whether some watcher that is behind may be brought nearer now.
    #[must_use]
    pub fn can_catch_up(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Bring a watcher that is behind a slice nearer, each in its turn, and with it others that are about as far; call
    /// again while [`Self::can_catch_up`] and there is time.
    ///
    /// # Errors
    /// When history can't be read from disk.
    pub fn catch_up(&mut self, store: &Store) -> Result<(), StoreError> {
        self.bound();
        let Some(id) = self.next_in_turn() else {
            return Ok(());
        };
        self.served = id;
        if self.is_compacted(id, store.compacted_revision()) {
            return Ok(());
        }
        if self.is_wide(id, store) {
            self.walk(id, store)
        } else {
            self.look_up(id, store)
        }
    }

    /// The watcher whose turn it is.
    fn next_in_turn(&mut self) -> Option<WatcherId> {
        let midway = self.midway.take();
        midway
            .filter(|id| self.hungry.contains(id))
            .or_else(|| self.hungry_after(self.served).next())
    }

    /// All that may be handed history, those behind this one first.
    fn hungry_after(&self, id: WatcherId) -> impl Iterator<Item = WatcherId> + '_ {
        let later = self.hungry.range(id + 1..);
        later.chain(self.hungry.range(..=id)).copied()
    }

    /// Whether a watcher asks for what is compacted; then it is told so, after what it has in whole.
    fn is_compacted(&mut self, id: WatcherId, compacted: i64) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return false;
        };
        if watcher.at.main >= compacted {
            return false;
        }
        self.waiting_bytes -= watcher.begin_again();
        watcher.compacted = Some(compacted);
        self.behind.remove(&id);
        self.hungry.remove(&id);
        self.ready.insert(id);
        true
    }

    /// Whether a watcher's range has many keys. It is counted until it once had.
    fn is_wide(&mut self, id: WatcherId, store: &Store) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return false;
        };
        watcher.wide = watcher.wide || !store.has_few(&watcher.range, self.pace.few_keys);
        watcher.wide
    }

    fn look_up(&mut self, id: WatcherId, store: &Store) -> Result<(), StoreError> {
        let current = store.revision();
        let limit = Limit {
            changes: self.pace.slice_work,
            bytes: SLICE_BYTES,
        };
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return Ok(());
        };
        let from = watcher.at.main;
        let mut next = from;
        if from <= current {
            let found = store.history(&watcher.range, from, watcher.prev_kv, limit)?;
            for change in &found.0 {
                self.waiting_bytes += push(watcher, change.kv.fields().mod_revision, change);
            }
            next = found.1 + 1;
        }
        self.brought(id, Rev { main: next, sub: 0 }, current);
        Ok(())
    }

    /// Walks on from where this watcher is, and others with it that come in reach.
    fn walk(&mut self, leader: WatcherId, store: &Store) -> Result<(), StoreError> {
        let current = store.revision();
        let Some(from) = self.watchers.get(&leader).map(|watcher| watcher.at) else {
            return Ok(());
        };
        let sharers = self.sharers(leader, from, store);
        // Out of the others' way, so that all of them can be handed the same change.
        let mut along: Vec<(WatcherId, Watcher)> = sharers
            .into_iter()
            .filter_map(|id| Some((id, self.watchers.remove(&id)?)))
            .collect();
        let wants_prev = along.iter().any(|(_, watcher)| watcher.prev_kv);
        let asked = 1 + along.len() / ASKED_IN_ONE;
        let most = self.pace.slice_work;
        let (mut work, mut bytes, mut handed) = (0, 0, 0);
        let end = Rev {
            main: current + 1,
            sub: 0,
        };
        let mut reached = from.max(end);
        let walked = store.walk(from, |recorded| {
            if work >= most || bytes >= SLICE_BYTES || handed >= SLICE_HANDED_BYTES {
                reached = recorded.rev;
                return Ok(false);
            }
            work += asked;
            let (rev, key) = (recorded.rev, recorded.key());
            let wanted = along
                .iter_mut()
                .filter(|(_, watcher)| watcher.at <= rev && watcher.range.contains(key));
            let mut change = None;
            for (_, watcher) in wanted {
                let change = match &change {
                    Some(change) => change,
                    None => change.insert(recorded.change(wants_prev)?),
                };
                work += 1;
                handed += push(watcher, rev.main, change);
            }
            bytes += change.map_or(0, |change| change.size());
            Ok(true)
        });
        self.waiting_bytes += handed;
        let ids: Vec<_> = along.iter().map(|(id, _)| *id).collect();
        self.watchers.extend(along);
        walked?;
        for id in ids {
            if self.watchers.get(&id).is_some_and(|w| w.at <= reached) {
                self.brought(id, reached, current);
            }
        }
        self.midway = Some(leader).filter(|id| self.is_midway(*id));
        if self.midway.is_some() {
            self.go_alone(leader);
        }
        Ok(())
    }

    /// This watcher, and those that are about as far.
    fn sharers(&mut self, leader: WatcherId, from: Rev, store: &Store) -> Vec<WatcherId> {
        let mut found = vec![leader];
        let others: Vec<_> = self
            .hungry_after(leader)
            .take_while(|id| *id != leader)
            .take(MAX_CANDIDATES)
            .collect();
        for id in others {
            if found.len() == MAX_SHARERS {
                break;
            }
            // A revision has a change at least.
            let reach = i64::try_from(self.pace.slice_work).unwrap_or(i64::MAX);
            let in_reach =
                |watcher: &Watcher| from <= watcher.at && watcher.at.main - from.main < reach;
            if self.watchers.get(&id).is_some_and(in_reach) && self.is_wide(id, store) {
                found.push(id);
            }
        }
        found
    }

    /// A watcher was handed all before `next`.
    fn brought(&mut self, id: WatcherId, next: Rev, current: i64) {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return;
        };
        (watcher.at, watcher.found_at) = (next, current);
        if next.main > current {
            watcher.synced = true;
            self.behind.remove(&id);
            self.hungry.remove(&id);
        }
        if !watcher.waiting.is_empty() && !watcher.is_midway() {
            self.hungry.remove(&id);
            self.ready.insert(id);
        }
    }

    fn is_midway(&self, id: WatcherId) -> bool {
        self.watchers.get(&id).is_some_and(Watcher::is_midway)
    }

    /// Where a revision is so large that many watchers' beginnings of it take much memory, all but this one let go of
    /// theirs.
    fn go_alone(&mut self, leader: WatcherId) {
        if self.waiting_bytes <= CALM_WAITING_BYTES_IN_ALL {
            return;
        }
        let begun = |id: &WatcherId| *id != leader && self.is_midway(*id);
        let others: Vec<_> = self.hungry.iter().copied().filter(begun).collect();
        for id in others {
            let Some(watcher) = self.watchers.get_mut(&id) else {
                continue;
            };
            self.waiting_bytes -= watcher.begin_again();
            if !watcher.waiting.is_empty() {
                self.hungry.remove(&id);
                self.ready.insert(id);
            }
        }
    }
}

impl Watcher {
    /// In the middle of a revision it lets go of what it has of that; how many bytes those were.
    fn begin_again(&mut self) -> usize {
        let begun = if self.is_midway() {
            self.waiting.pop()
        } else {
            None
        };
        self.at.sub = 0;
        let Some(begun) = begun else { return 0 };
        let bytes = begun.bytes;
        self.waiting_bytes -= bytes;
        self.waiting_events -= begun.events.len();
        bytes
    }
}

#[cfg(test)]
#[path = "catching_up_tests.rs"]
mod tests;
