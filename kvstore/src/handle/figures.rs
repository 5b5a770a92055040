//! What this member tells of itself, to `/metrics` and to `Status`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::Handle;
use crate::gateway::Figures;

impl Handle {
    pub fn figures(&self) -> Figures {
        let facts = self.facts();
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let leader = get(&facts.leader);
        let mut figures = Figures {
            member_id: facts.member_id,
            leader,
            has_leader: leader != 0,
            is_leader: leader == facts.member_id,
            is_learner: facts.is_learner.load(Ordering::Relaxed),
            leader_changes: get(&facts.leader_changes),
            proposals_committed: get(&facts.committed),
            proposals_applied: get(&facts.applied),
            proposals_pending: get(&facts.pending),
            proposals_failed: get(&facts.failed),
            db_bytes: get(&facts.db_bytes),
            db_used_bytes: get(&facts.db_used_bytes),
            no_space: facts.no_space.load(Ordering::Relaxed),
            quota_bytes: self.limits().quota_bytes,
            term: get(&facts.term),
            ..Figures::default()
        };
        if let Ok(core) = self.core() {
            figures.watchers = core.hub.len() as u64;
            (figures.slow_watchers, figures.pending_events) = core.hub.waiting();
            let streams: HashSet<_> = core.streams.values().map(Arc::as_ptr).collect();
            figures.watch_streams = streams.len() as u64;
            if let Some(store) = &core.store {
                figures.revision = store.revision();
                figures.compacted = store.compacted_revision();
                figures.keys = store.keys_now() as u64;
                let counts = store.counts();
                figures.ranges = get(&counts.ranges);
                figures.puts = get(&counts.puts);
                figures.deletes = get(&counts.deletes);
                figures.txns = get(&counts.txns);
                figures.downgrade = store.downgrade();
                figures.alarms = store.alarms().list(0).collect();
            }
        }
        figures
    }
}
