//! What a member can say of its cluster.

use raft::{ProgressState, StateRole};

use super::convert::role;
use super::{Consensus, PeerProgress, Status};

impl Consensus {
    /// What this member knows of its cluster.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let learners = raft.prs().conf().learners();
        let mut progress: Vec<PeerProgress> = Vec::new();
        if raft.state == StateRole::Leader {
            progress.extend(raft.prs().iter().map(|(&id, p)| PeerProgress {
                id,
                matched: p.matched,
                next: p.next_idx,
                needs: match p.state {
                    ProgressState::Snapshot => p.pending_snapshot,
                    ProgressState::Probe => p.next_idx - 1,
                    ProgressState::Replicate => p.matched,
                },
                recent_active: id == raft.id || p.recent_active,
                learner: learners.contains(&id),
            }));
            progress.sort_by_key(|p| p.id);
        }
        Status {
            id: raft.id,
            term: raft.term,
            leader: raft.leader_id,
            role: role(raft.state),
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied,
            last_index: raft.raft_log.last_index(),
            first_index: self.node.store().start.0 + 1,
            progress,
        }
    }
}
