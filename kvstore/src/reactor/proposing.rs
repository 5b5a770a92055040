//! Proposals that wait, to entries of the log.

use prost::Message;

use super::{Broken, Reactor};
use crate::command::{encode_batch, Proposal};
use crate::consensus::Refused;

/// Bytes of proposals in one entry, about.
const MAX_ENTRY_BYTES: usize = 1024 * 1024;

impl Reactor {
    /// One entry from what waits; without a leader it goes on waiting.
    pub(super) fn submit(&mut self) -> Result<(), Broken> {
        if !self.waiting.proposals.is_empty() && !self.consensus.leads() {
            // Leases that a leader let end are for no successor to revoke: they may be renewed there. Their proposals,
            // like those of clients that gave up, have nobody waiting.
            let writes = &self.waiting.writes;
            self.waiting.proposals.retain(|proposal| {
                writes
                    .get(&proposal.request_id)
                    .is_some_and(|write| !write.reply.is_closed())
            });
        }
        // What is not applied yet must not become more and more.
        while !self.waiting.proposals.is_empty() && self.waiting.unapplied.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            for proposal in self.waiting.proposals.iter() {
                bytes += proposal.encoded_len();
                if count > 0 && bytes > MAX_ENTRY_BYTES {
                    break;
                }
                count += 1;
            }
            let batch: Vec<Proposal> = self.waiting.proposals.iter().take(count).cloned().collect();
            match self.consensus.propose(encode_batch(batch)) {
                Ok(()) => {
                    let term = self.consensus.status().term;
                    for proposal in self.waiting.proposals.drain(count) {
                        if let Some(write) = self.waiting.writes.get_mut(&proposal.request_id) {
                            write.term = term;
                        }
                    }
                }
                Err(Refused::NoLeader | Refused::TooMany) => break,
                Err(refused) => return Err(refused.into()),
            }
        }
        Ok(())
    }
}
