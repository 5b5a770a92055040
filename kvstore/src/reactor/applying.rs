//! Committed entries to the state, and outcomes to who waits for them.

use std::sync::atomic::Ordering;

use super::changes::save_membership;
use super::{Broken, Reactor};
use crate::apply::{Outcome, Response, Store};
use crate::command::{decode_batch, Command, LeaseCheckpoint, Proposal};
use crate::consensus::{Body, Committed};
use crate::errors::StoreError;
use crate::handle::Core;
use crate::measures::LEASES_EXPIRED;

/// Ticks that a write of an earlier term may still take to come by the next leader's hand.
const DOUBT_TICKS: u64 = 3;
/// Bytes of committed entries that wait to be applied before this member takes no more entries.
const MAX_UNAPPLIED_BYTES: usize = 64 << 20;

impl Reactor {
    /// Takes committed entries in; they are applied now, or when the disk behind the state has caught up.
    pub(super) fn apply(&mut self, entries: Vec<Committed>) -> Result<(), Broken> {
        self.waiting.unapplied_bytes += entries.iter().map(carried).sum::<usize>();
        self.waiting.unapplied.extend(entries);
        self.apply_waiting()
    }

    pub(super) fn apply_waiting(&mut self) -> Result<(), Broken> {
        let handle = self.handle.clone();
        let mut core = handle.core()?;
        let mut last = 0;
        let mut redial = false;
        while !store_of(&mut core)?.is_behind() {
            let Some(entry) = self.waiting.unapplied.pop_front() else {
                break;
            };
            self.waiting.unapplied_bytes -= carried(&entry);
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
        self.judge_space()?;
        self.consensus
            .hold_entries(self.waiting.unapplied_bytes > MAX_UNAPPLIED_BYTES);
        if last == 0 {
            return Ok(());
        }
        self.waiting.unapplied_ticks = 0;
        self.consensus.applied(last);
        handle.facts().applied.store(last, Ordering::Relaxed);
        handle.applied_more().notify_waiters();
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
        let (mut revoked, mut noted) = (Vec::new(), Vec::new());
        let (mut described, mut judged) = (false, false);
        let me = self.me();
        for (at, proposal) in proposals.iter().enumerate() {
            match &proposal.command {
                Some(Command::LeaseRevoke(id)) => revoked.push((at, *id)),
                Some(Command::LeaseCheckpoint(all)) => noted.extend_from_slice(&all.checkpoints),
                Some(Command::MemberAttributes(attributes)) => {
                    if let Some(member) = core.membership.members.get_mut(&attributes.id) {
                        member.name.clone_from(&attributes.name);
                        member.client_urls.clone_from(&attributes.client_urls);
                        if member.id != me && member.log_version < attributes.log_version {
                            self.handle.newcomers().notify_one();
                        }
                        member.log_version = attributes.log_version;
                        described = true;
                    }
                }
                Some(Command::Auth(_)) => judged = true,
                _ => {}
            }
        }
        if described {
            save_membership(core)?;
        }
        let outcomes = store_of(core)?.apply(index, term, proposals);
        if judged {
            self.rejudge(core)?;
        }
        let now = self.handle.now_ms();
        for (at, id) in revoked {
            // One that is refused goes on, and ends when it ends.
            if outcomes
                .get(at)
                .is_some_and(|outcome| outcome.result.is_ok())
            {
                let expired = core.lessor.revoked(id);
                LEASES_EXPIRED.fetch_add(expired.into(), Ordering::Relaxed);
            }
        }
        for LeaseCheckpoint { id, remaining_ttl } in noted {
            core.lessor.noted(id, remaining_ttl, now);
        }
        for Outcome {
            origin,
            request_id,
            revision,
            result,
        } in outcomes
        {
            if matches!(result, Ok(Response::Compact(_))) {
                self.handle.compactions().notify_one();
            }
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

impl Reactor {
    /// Users or roles may have changed: each watch stream looks whether its watches are still permitted.
    fn rejudge(&self, core: &mut Core) -> Result<(), Broken> {
        self.handle.note_auth(store_of(core)?);
        for stream in core.streams.values() {
            stream.notify.notify_one();
        }
        Ok(())
    }
}

fn carried(entry: &Committed) -> usize {
    match &entry.body {
        Body::Normal(data) | Body::ConfChange(data) => data.len(),
        Body::Empty => 0,
    }
}

pub(super) fn store_of(core: &mut Core) -> Result<&mut Store, Broken> {
    core.store
        .as_mut()
        .ok_or_else(|| Broken::State("it is being replaced".into()))
}
