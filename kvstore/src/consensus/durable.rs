//! What waits for the disk: messages that stand on what is not durable yet, and the campaign of a lone voter.

use std::collections::VecDeque;

use super::{Consensus, Outgoing};
use crate::planted::{planted, Bug};

struct Held {
    number: u64,
    on_disk: bool,
    messages: Vec<Outgoing>,
}

/// Work that was handed out and is not durable yet, in order.
#[derive(Default)]
pub(super) struct Unsynced {
    queue: VecDeque<Held>,
    /// The last work that changed term or vote.
    promised: u64,
    /// Everything up to here is durable.
    durable: u64,
    /// For how long something has waited and nothing became durable.
    waited_ticks: usize,
}

impl Unsynced {
    pub(super) fn tick(&mut self) {
        self.waited_ticks = if self.is_empty() {
            0
        } else {
            self.waited_ticks + 1
        };
    }

    /// Whether one write to the disk has taken longer than this.
    pub(super) fn waits_longer(&self, ticks: usize) -> bool {
        self.waited_ticks > ticks
    }

    /// Notes that this work changes term or vote.
    pub(super) fn promises(&mut self, number: u64) {
        self.promised = number;
    }

    /// Whether term or vote are not durable: a crash would take them back, so nobody may hear of them.
    pub(super) fn has_promised(&self) -> bool {
        self.promised > self.durable && !planted(Bug::LoneVoterSpeaksEarly)
    }

    pub(super) fn hold(&mut self, number: u64, on_disk: bool, messages: Vec<Outgoing>) {
        self.queue.push_back(Held {
            number,
            on_disk,
            messages,
        });
    }

    /// The messages that may go once everything up to `number` is on disk, and the last work that is done then.
    pub(super) fn synced(&mut self, number: u64) -> Option<(u64, Vec<Outgoing>)> {
        let waits = |held: &Held| held.on_disk && held.number > number;
        let free = self
            .queue
            .iter()
            .position(waits)
            .unwrap_or(self.queue.len());
        let done: Vec<Held> = self.queue.drain(..free).collect();
        self.durable = done.last()?.number;
        if done.iter().any(|held| held.on_disk) {
            self.waited_ticks = 0;
        }
        let messages = done.into_iter().flat_map(|held| held.messages).collect();
        Some((self.durable, messages))
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Consensus {
    /// Whether this member may stand now. A lone voter wins as soon as it stands, and the library takes what it wrote
    /// as a follower for durable then, so that must be true; and it looks through the entries that are not applied,
    /// of which there are none while a snapshot that stands for them is on its way to the disk. Nor may a member that
    /// has lost what it had confirmed.
    pub(super) fn may_campaign(&self) -> bool {
        let raft = &self.node.raft;
        let alone = raft.promotable() && raft.prs().is_singleton();
        let whole = raft.raft_log.applied >= self.node.store().start.0;
        whole && !self.has_lost() && (self.unsynced.is_empty() || !alone)
    }
}
