//! Snapshots out and in, links to the others, and leaving.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::changes::read_membership;
use super::types::{Incoming, Leaving};
use super::{Broken, Reactor};
use crate::consensus::Outgoing;
use crate::handle::Core;
use crate::log::SnapshotMeta;
use crate::peer::Received;
use crate::snapshot::adopt;

/// How long clients may take for their last answers when a member stops.
const DRAIN: Duration = Duration::from_millis(500);

impl Reactor {
    pub(super) fn send(&mut self, message: Outgoing) -> Result<(), Broken> {
        if message.snapshot.is_some() {
            let export = self.handle.core()?.store()?.export();
            self.peers.send_snapshot(message.to, message.bytes, export);
        } else if !self.peers.send(message.to, message.bytes) {
            self.consensus.report_unreachable(message.to);
        }
        Ok(())
    }

    /// Replaces the state by the snapshot that came; on disk it does so before the log tells of it.
    pub(super) fn install(&mut self, meta: &SnapshotMeta) -> Result<(), Broken> {
        let Some(Incoming {
            meta: announced,
            received,
            done,
        }) = self.waiting.incoming.take()
        else {
            return Err(Broken::State(
                "raft installs a snapshot that did not come".into(),
            ));
        };
        if announced.index != meta.index {
            return Err(Broken::State(
                "raft installs another snapshot than the one that came".into(),
            ));
        }
        let mut core = self.handle.core()?;
        let Received {
            mut store,
            incoming,
            place,
        } = received;
        if let Some(old) = core.store.take() {
            // Who waits for the end of a compaction looks again.
            old.swept().notify_waiters();
            store.count_in(old.counts().clone());
            store.take_tokens_of(&old);
            // It waits for who still reads it, and much memory goes with it.
            tokio::task::spawn_blocking(move || drop(old));
        }
        let dir = self.state_dir.clone();
        self.disk.first(move || {
            let adopted = adopt(&dir, incoming);
            drop(place);
            adopted.map_err(std::io::Error::other)
        });
        core.membership = read_membership(&store)?;
        self.handle.note_auth(&store);
        core.store = Some(*store);
        // The snapshot is of a later entry than these.
        self.waiting.unapplied.clear();
        self.waiting.unapplied_bytes = 0;
        self.consensus.hold_entries(false);
        // Watchers may have missed revisions.
        end_watches(&core);
        drop(core);
        self.handle
            .facts()
            .applied
            .store(meta.index, Ordering::Relaxed);
        self.handle.applied_more().notify_waiters();
        // What this state was compacted up to is not noted yet.
        self.handle.compactions().notify_one();
        info!(
            snapshot_index = meta.index,
            snapshot_term = meta.term,
            "the state was replaced by the snapshot of a later entry"
        );
        self.dial()?;
        // The sender may have given up; raft's own answer tells it too.
        let _ = done.send(Ok(()));
        Ok(())
    }

    /// Makes the links be those that the membership and the overrides ask for.
    pub fn dial(&mut self) -> Result<(), Broken> {
        let core = self.handle.core()?;
        let all: Vec<_> = core
            .membership
            .members
            .keys()
            .map(|id| (*id, core.peer_urls(*id)))
            .collect();
        let learner = core
            .membership
            .members
            .get(&self.me())
            .is_some_and(|m| m.learner);
        drop(core);
        self.handle
            .facts()
            .is_learner
            .store(learner, Ordering::Relaxed);
        self.peers.update(&all);
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        let mut until = Instant::now();
        if let Some(successor) = self.consensus.successor() {
            self.consensus.transfer_leader(successor);
            until += Duration::from_millis(self.config.election_timeout);
        }
        self.waiting.leaving = Some(Leaving::HandOver { until });
    }

    /// Goes on leaving; true once nobody needs this member any more, or the time for it is over.
    pub(super) fn has_left(&mut self) -> Result<bool, Broken> {
        let now = Instant::now();
        match self.waiting.leaving {
            None => Ok(false),
            Some(Leaving::HandOver { until }) => {
                let leader = self.consensus.status().leader;
                if now < until && (leader == 0 || leader == self.me()) {
                    return Ok(false);
                }
                // A client that is gone already has closed them all.
                let _ = self.doors.send(true);
                end_watches(&*self.handle.core()?);
                // The others may take a moment to see that they have another leader, and still send proposals here.
                let from = now + self.config.heartbeat().min(DRAIN / 2);
                let until = now + DRAIN;
                self.waiting.leaving = Some(Leaving::Drain { from, until });
                Ok(false)
            }
            Some(Leaving::Drain { from, until }) => {
                Ok(now >= until || now >= from && self.doors.receiver_count() == 0)
            }
        }
    }
}

/// Ends every watch stream; clients resume from where they were.
fn end_watches(core: &Core) {
    for stream in core.streams.values() {
        stream.closed.store(true, Ordering::Relaxed);
        stream.notify.notify_one();
    }
}
