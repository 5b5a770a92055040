//! What time brings: what is seldom looked at, overrides, leases that end.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::{Broken, Reactor};
use crate::command::{Command, Proposal};
use crate::report;

/// Leases revoked in one turn.
const MAX_REVOKED: usize = 1_000;
/// Bytes of entries kept in memory for members that lag, if they are fewer than the entries asked for; but at least
/// `MIN_LOG_ENTRIES`, since entries may be large.
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;
const MIN_LOG_ENTRIES: u64 = 100;
/// Ticks between two looks at what seldom changes: the size on disk, the log's length, requests given up.
const CHORE_TICKS: u64 = 5;

impl Reactor {
    pub(super) fn tick(&mut self) -> Result<(), Broken> {
        self.consensus.tick();
        self.waiting.ticks += 1;
        self.give_up_doubtful();
        if self.waiting.ticks % CHORE_TICKS == 0 {
            self.chores()?;
        }
        Ok(())
    }

    pub(super) fn chores(&mut self) -> Result<(), Broken> {
        self.waiting
            .writes
            .retain(|_, write| !write.reply.is_closed());
        self.waiting.changes.retain(|_, reply| !reply.is_closed());
        self.waiting.reads.retain(|_, reply| !reply.is_closed());
        self.waiting.leaderless.retain(|reply| !reply.is_closed());
        let writes = &self.waiting.writes;
        self.waiting
            .proposals
            .retain(|p| writes.contains_key(&p.request_id));
        let facts = self.handle.facts();
        let (durable, applied) = {
            let core = self.handle.core()?;
            let store = core.store()?;
            facts.db_bytes.store(store.size(), Ordering::Relaxed);
            (store.durable_index(), store.applied().0)
        };
        let status = self.consensus.status();
        let keep = applied
            .saturating_sub(self.config.snapshot_count)
            .min(durable);
        let slack = (self.config.snapshot_count / 10).max(1);
        let by_bytes = self
            .consensus
            .fitting(MAX_LOG_BYTES)
            .min(applied.saturating_sub(MIN_LOG_ENTRIES))
            .min(durable);
        let keep = keep.max(by_bytes);
        if keep >= status.first_index + slack || by_bytes > status.first_index {
            self.consensus.compact(keep);
            // One entry more stays, since the next start needs to know its term.
            self.disk.compact(keep - 1);
        }
        self.refresh_overrides()
    }

    /// The file of overrides may change at any time.
    pub(super) fn refresh_overrides(&mut self) -> Result<(), Broken> {
        if self.config.peer_url_overrides.is_empty()
            || self.config.peer_url_overrides.trim().starts_with('{')
        {
            return Ok(());
        }
        let found = match self.config.overrides() {
            Ok(found) => found,
            Err(error) => {
                report!("kvstore: {error}");
                return Ok(());
            }
        };
        let changed = {
            let mut core = self.handle.core()?;
            let changed = core.overrides != found;
            core.overrides = found;
            changed
        };
        if changed {
            self.dial()?;
        }
        Ok(())
    }

    pub(super) fn expire(&mut self) -> Result<(), Broken> {
        let ended = {
            let now = self.handle.now_ms();
            self.handle.core()?.lessor.expired(now, MAX_REVOKED)
        };
        for id in ended {
            let request_id = self.token();
            let (reply, _) = oneshot::channel();
            let proposal = Proposal {
                origin: self.me(),
                request_id,
                command: Some(Command::LeaseRevoke(id)),
            };
            self.waiting.proposals.push_back(proposal);
            self.waiting.writes.insert(request_id, reply.into());
        }
        Ok(())
    }
}
