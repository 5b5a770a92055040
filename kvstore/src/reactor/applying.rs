//! Committed entries to the state, and outcomes to who waits for them.

use std::sync::atomic::Ordering;

use super::changes::save_membership;
use super::{store_of, Broken, Reactor};
use crate::apply::{Outcome, Response};
use crate::command::{decode_batch, Command, Proposal};
use crate::consensus::{Body, Committed};
use crate::errors::StoreError;
use crate::handle::Core;

/// Ticks that a write of an earlier term may still take to come by the next leader's hand.
const DOUBT_TICKS: u64 = 3;

impl Reactor {
    pub(super) fn apply(&mut self, entries: Vec<Committed>) -> Result<(), Broken> {
        let handle = self.handle.clone();
        let mut core = handle.core()?;
        let mut last = 0;
        let mut redial = false;
        for entry in entries {
            last = entry.index;
            let (index, term) = (entry.index, entry.term);
            match entry.body {
                Body::Normal(data) => {
                    let proposals = decode_batch(data).map_err(|e| Broken::State(e.to_string()))?;
                    self.apply_batch(&mut core, index, term, proposals)?;
                }
                Body::ConfChange(context) => {
                    self.apply_change(&mut core, index, term, &context)?;
                    redial = true;
                }
                Body::Empty => {
                    store_of(&mut core)?.apply(index, term, Vec::new());
                    self.doubt_before(term);
                }
            }
        }
        let Core {
            store: Some(store),
            hub,
            ..
        } = &mut *core
        else {
            return Ok(());
        };
        for events in store.take_events() {
            hub.publish(&events);
        }
        if let Some(why) = store.failure() {
            return Err(Broken::State(why));
        }
        drop(core);
        self.consensus.applied(last);
        handle.facts().applied.store(last, Ordering::Relaxed);
        if redial {
            self.dial()?;
        }
        Ok(())
    }

    /// A leader's first entry is behind all that is left of earlier terms: what was proposed then and is not here now
    /// went down with its leader, unless that one kept it for its successor (see `Consensus::step`).
    pub(super) fn doubt_before(&mut self, term: u64) {
        let late = self.waiting.ticks + DOUBT_TICKS;
        let writes = self.waiting.writes.values_mut();
        for write in writes.filter(|write| (1..term).contains(&write.term) && write.doubt.is_none())
        {
            write.doubt = Some(late);
        }
    }

    /// Whether a copy of these is still under way nobody knows, and the error says so.
    pub(super) fn give_up_doubtful(&mut self) {
        let (now, writes) = (self.waiting.ticks, &mut self.waiting.writes);
        let lost: Vec<u64> = writes
            .iter()
            .filter(|(_, write)| write.doubt.is_some_and(|late| late <= now))
            .map(|(id, _)| *id)
            .collect();
        for write in lost.iter().filter_map(|id| writes.remove(id)) {
            // Who is gone needs no answer.
            let _ = write.reply.send(Err(StoreError::TimeoutLeaderFailure));
        }
    }

    pub(super) fn apply_batch(
        &mut self,
        core: &mut Core,
        index: u64,
        term: u64,
        proposals: Vec<Proposal>,
    ) -> Result<(), Broken> {
        let mut revoked = Vec::new();
        let mut described = false;
        for proposal in &proposals {
            match &proposal.command {
                Some(Command::LeaseRevoke(id)) => revoked.push(*id),
                Some(Command::MemberAttributes(attributes)) => {
                    if let Some(member) = core.membership.members.get_mut(&attributes.id) {
                        member.name.clone_from(&attributes.name);
                        member.client_urls.clone_from(&attributes.client_urls);
                        described = true;
                    }
                }
                _ => {}
            }
        }
        if described {
            save_membership(core)?;
        }
        let outcomes = store_of(core)?.apply(index, term, proposals);
        let now = self.handle.now_ms();
        for id in revoked {
            core.lessor.revoked(id);
        }
        for Outcome {
            origin,
            request_id,
            revision,
            result,
        } in outcomes
        {
            if let (Ok(Response::LeaseGrant(granted)), true) = (&result, self.waiting.leading) {
                core.lessor.granted(granted.id, granted.ttl, now);
            }
            if origin == self.handle.facts().member_id {
                if let Some(write) = self.waiting.writes.remove(&request_id) {
                    // Who gave up needs no answer.
                    let _ = write
                        .reply
                        .send(result.map(|response| (response, revision)));
                }
            }
        }
        Ok(())
    }
}
