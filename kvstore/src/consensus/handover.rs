//! Leadership on its way to another member.

use super::Consensus;

/// Proposals kept while leadership is handed over.
const MAX_PARKED: usize = 4096;

impl Consensus {
    pub fn transfer_leader(&mut self, to: u64) {
        self.node.transfer_leader(to);
        self.parked_ticks = 0;
    }

    /// Whether a proposal of another member must wait here: leadership is on its way, or has gone and nobody is known
    /// to have it yet.
    pub(super) fn parks(&self) -> bool {
        let raft = &self.node.raft;
        let gone =
            raft.leader_id == raft::INVALID_ID && self.parked_ticks <= 2 * self.election_ticks;
        (raft.lead_transferee.is_some() || gone) && self.parked.len() < MAX_PARKED
    }

    /// Hands the proposals that were parked to whoever leads now; they are given up when nobody does for too long,
    /// since their clients don't wait for ever.
    pub(super) fn unpark(&mut self) {
        let raft = &self.node.raft;
        if self.parked_ticks > 2 * self.election_ticks {
            self.parked.clear();
        }
        if self.parked.is_empty()
            || raft.lead_transferee.is_some()
            || raft.leader_id == raft::INVALID_ID
        {
            return;
        }
        for mut message in std::mem::take(&mut self.parked) {
            // As one of our own: raft ignores what was said in an earlier term.
            (message.term, message.from) = (0, self.node.raft.id);
            // One that is dropped all the same is lost, as on a network.
            let _ = self.node.step(message);
        }
    }

    /// Hands leadership over when this member's disk hangs for an election timeout and the others have committed what it
    /// has not on disk: a leader that can't apply that lets no lease end and answers nobody.
    pub(super) fn yield_to_working_disks(&mut self) {
        let log = &self.node.raft.raft_log;
        if self.unsynced.waits_longer(self.election_ticks) && log.committed > log.persisted {
            self.yield_leadership();
        }
    }

    /// Hands leadership over, where this member has it and another can take it, unless it is on its way already.
    pub fn yield_leadership(&mut self) {
        if self.leads() && self.node.raft.lead_transferee.is_none() {
            if let Some(successor) = self.successor() {
                self.transfer_leader(successor);
            }
        }
    }

    /// The voter to hand leadership to: of those heard of lately, the one that has the most of the log.
    pub fn successor(&self) -> Option<u64> {
        let status = self.status();
        let others = status
            .progress
            .iter()
            .filter(|p| p.id != status.id && !p.learner && p.recent_active);
        others.max_by_key(|p| p.matched).map(|p| p.id)
    }
}
