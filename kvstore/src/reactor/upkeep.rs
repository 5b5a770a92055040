//! What time brings: what is seldom looked at, room on the disk, overrides, leases that end.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tracing::warn;

use super::{Broken, Reactor};
use crate::command::{Command, LeaseCheckpoint, LeaseCheckpoints, Proposal};
use crate::wal::WalError;

/// Leases revoked in one turn.
const MAX_REVOKED: usize = 1_000;
/// Leases of which is noted in one entry what is left.
const MAX_NOTED: usize = 1_000;
/// Bytes of entries kept in memory, if they are fewer than the entries asked for; but at least `MIN_LOG_ENTRIES`, since
/// entries may be large.
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of entries kept for a connected member that lags or takes a snapshot meanwhile, however many they are.
const MAX_AWAITED_BYTES: usize = 64 * 1024 * 1024;
const MIN_LOG_ENTRIES: u64 = 100;
/// Ticks between two looks at what seldom changes: the size on disk, the log's length, requests given up.
const CHORE_TICKS: u64 = 5;

impl Reactor {
    pub(super) fn tick(&mut self) -> Result<(), Broken> {
        self.consensus.tick();
        self.waiting.ticks += 1;
        self.give_up_doubtful();
        self.yield_to_working_states();
        if self.waiting.ticks.is_multiple_of(CHORE_TICKS) {
            self.chores()?;
        }
        Ok(())
    }

    /// Hands leadership over when the disk behind the state has taken nothing for an election timeout, though committed
    /// entries wait for it: a leader that can't apply them answers nobody, and no lease is renewed.
    fn yield_to_working_states(&mut self) {
        let waits = !self.waiting.unapplied.is_empty();
        self.waiting.unapplied_ticks = if waits {
            self.waiting.unapplied_ticks + 1
        } else {
            0
        };
        if self.waiting.unapplied_ticks > self.config.election_ticks() {
            self.consensus.yield_leadership();
        }
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
        let (durable, applied, full) = {
            let mut core = self.handle.core()?;
            let store = core.store_mut()?;
            store.auth_mut().tokens.sweep();
            let facts = self.handle.facts();
            facts.db_bytes.store(store.size(), Ordering::Relaxed);
            (store.durable_index(), store.applied().0, store.is_full())
        };
        if self.space.is_disk_full() && !full && !self.waiting.log_full {
            self.space.reserve()?;
        }
        self.judge_space()?;
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
        let awaited = status.progress.iter().filter(|p| {
            // Who needs what is gone gets a snapshot, and needs what follows that.
            p.id != status.id
                && p.needs + 1 >= status.first_index
                && self.peers.connected_for(p.id).is_some()
        });
        let awaited = awaited.map(|p| p.needs).min().unwrap_or(u64::MAX);
        let keep = keep
            .max(by_bytes)
            .min(awaited.max(self.consensus.fitting(MAX_AWAITED_BYTES)));
        let cut = keep >= status.first_index + slack || by_bytes > status.first_index;
        if cut && keep > status.first_index {
            self.consensus.compact(keep);
            // One entry more stays, since the next start needs to know its term.
            self.disk.compact(keep - 1);
        }
        self.refresh_overrides()
    }

    /// Takes what the disk thread says of the log.
    pub(super) fn disk_told(&mut self, done: Result<u64, WalError>) -> Result<(), Broken> {
        match done {
            Err(WalError::NoSpace(_)) => {
                self.waiting.log_full = true;
                self.space.ran_out()?;
                self.judge_space()
            }
            done => {
                self.waiting.log_full = false;
                self.consensus.on_persisted(done?);
                Ok(())
            }
        }
    }

    /// Refuses writes that grow while there is no room for them, and takes them again.
    pub fn judge_space(&mut self) -> Result<(), Broken> {
        let (used, full) = {
            let core = self.handle.core()?;
            let store = core.store()?;
            (store.used(), store.is_full())
        };
        self.space.uses(used);
        if full {
            self.space.ran_out()?;
        }
        let facts = self.handle.facts();
        facts.db_used_bytes.store(used, Ordering::Relaxed);
        facts
            .no_space
            .store(self.space.is_short(), Ordering::Relaxed);
        Ok(())
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
                warn!(%error, "the peer URLs that hold for now are not known");
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

    /// Has leases that are over revoked, and notes in the log what is left of others, where all members can read that.
    pub(super) fn expire(&mut self) -> Result<(), Broken> {
        let mut commands = Vec::new();
        let caller = {
            let now = self.handle.now_ms();
            let mut core = self.handle.core()?;
            let ended = core.lessor.expired(now, MAX_REVOKED);
            commands.extend(ended.into_iter().map(Command::LeaseRevoke));
            let due = core.lessor.due_notes(now, MAX_NOTED);
            let checkpoint = |(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl };
            let checkpoints: Vec<_> = due.into_iter().map(checkpoint).collect();
            let noted = Command::LeaseCheckpoint(LeaseCheckpoints {
                checkpoints: checkpoints.clone(),
            });
            if !checkpoints.is_empty() && noted.since() <= core.membership.log_version() {
                for LeaseCheckpoint { id, remaining_ttl } in checkpoints {
                    core.lessor.is_noting(id, remaining_ttl);
                }
                commands.push(noted);
            }
            core.store()?.auth().own_caller()
        };
        for command in commands {
            let request_id = self.token();
            let (reply, _) = oneshot::channel();
            let proposal = Proposal {
                origin: self.me(),
                request_id,
                command: Some(command),
                caller: caller.clone(),
            };
            self.waiting.proposals.push(proposal);
            self.waiting.writes.insert(request_id, reply.into());
        }
        Ok(())
    }
}
