//! Changes of the membership: proposed, judged where all agree on what came before, applied.

use std::time::Duration;

use tokio::time::Instant;

use super::applying::store_of;
use super::types::Reply;
use super::{Broken, Reactor};
use crate::apply::Store;
use crate::consensus::{conf_change_context, conf_change_entry, RaftChange, Refused, Role};
use crate::errors::StoreError;
use crate::handle::Core;
use crate::log::Entry;
use crate::membership::{Change, Membership};

/// Where the membership is kept in the state.
pub const MEMBERSHIP_KEY: &[u8] = b"membership";

/// A change of the membership with the token of who waits for it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Ticket {
    origin: u64,
    token: u64,
    change: Change,
}

impl Reactor {
    pub(super) fn propose_change(
        &mut self,
        change: Change,
        reply: Reply<()>,
    ) -> Result<(), Broken> {
        let verdict = {
            let core = self.handle.core()?;
            let connected = |id| match self.peers.connected_for(id) {
                None if id == self.me() => Some(Duration::MAX),
                since => since,
            };
            let strict = || {
                core.membership.check_started(&change)?;
                core.membership.check_connected(&change, connected)
            };
            core.membership
                .check(&change)
                .and_then(|()| {
                    if self.config.strict_reconfig_check {
                        strict()
                    } else {
                        Ok(())
                    }
                })
                .map(|()| core.membership.raft_change(&change))
        };
        let status = self.consensus.status();
        let result = verdict.and_then(|hint| {
            if let Change::Promote { id } = &change {
                // Only the leader knows who has caught up; who asked looks for it again.
                if status.role != Role::Leader {
                    return Err(StoreError::NotLeader);
                }
                let matched = |id| {
                    status
                        .progress
                        .iter()
                        .find(|p| p.id == id)
                        .map_or(0, |p| p.matched)
                };
                // Etcd's rule: nine tenths of what the leader has. One that has it and is gone would be a vote that is lost.
                let gone = self.peers.connected_for(*id).is_none();
                if gone || matched(*id) * 10 < matched(status.id) * 9 {
                    return Err(StoreError::LearnerNotReady);
                }
            }
            let (origin, token) = (self.me(), self.token());
            let context = serde_json::to_vec(&Ticket {
                origin,
                token,
                change,
            })
            .unwrap_or_default();
            self.consensus
                .propose_conf_change(hint, context.into())
                .map_err(|refused| match refused {
                    Refused::ConfChangePending => StoreError::Unhealthy,
                    Refused::NoLeader => StoreError::NoLeader,
                    _ => StoreError::TooManyRequests,
                })?;
            Ok(token)
        });
        match result {
            Ok(token) => {
                self.waiting.changes.insert(token, reply);
            }
            Err(error) => {
                // Who is gone needs no answer.
                let _ = reply.send(Err(error));
            }
        }
        Ok(())
    }

    pub(super) fn apply_change(
        &mut self,
        core: &mut Core,
        index: u64,
        term: u64,
        context: &[u8],
    ) -> Result<(), Broken> {
        let ticket: Ticket =
            serde_json::from_slice(context).map_err(|e| Broken::State(e.to_string()))?;
        // Checked again where all members agree on what came before.
        let verdict = core.membership.check(&ticket.change);
        if verdict.is_ok() {
            let raft_change = core.membership.raft_change(&ticket.change);
            core.membership.apply(&ticket.change);
            self.consensus.apply_conf_change(raft_change)?;
            if let Change::Update { id, .. } | Change::Remove { id } = &ticket.change {
                core.overrides.remove(id);
            }
            save_membership(core)?;
            if let Change::Remove { id } = ticket.change {
                store_of(core)?.member_left(id);
            }
            if (Change::Remove { id: self.me() }) == ticket.change {
                self.waiting.removed_at = Some(Instant::now());
            }
        }
        store_of(core)?.apply(index, term, Vec::new());
        if ticket.origin == self.me() {
            if let Some(reply) = self.waiting.changes.remove(&ticket.token) {
                // Who gave up needs no answer.
                let _ = reply.send(verdict);
            }
        }
        Ok(())
    }
}

/// A change that nobody waits for, as an entry of the log at (index, term); `hint` is what it means for raft.
pub fn change_entry(at: (u64, u64), hint: RaftChange, change: Change) -> Entry {
    let ticket = Ticket {
        origin: 0,
        token: 0,
        change,
    };
    let context = serde_json::to_vec(&ticket).unwrap_or_default();
    conf_change_entry(at, hint, context.into())
}

/// The change of the membership that an entry holds, if it holds one.
///
/// # Errors
/// When it can't be read.
pub fn read_change(entry: &Entry) -> Result<Option<Change>, String> {
    let Some(context) = conf_change_context(entry).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    let ticket: Ticket = serde_json::from_slice(&context).map_err(|e| e.to_string())?;
    Ok(Some(ticket.change))
}

/// Puts the membership into the state; it is saved with the entry that is applied next.
pub fn save_membership(core: &mut Core) -> Result<(), Broken> {
    let text = serde_json::to_vec(&core.membership).map_err(|e| Broken::State(e.to_string()))?;
    store_of(core)?.set_meta(MEMBERSHIP_KEY, &text);
    Ok(())
}

/// The membership that the state holds.
pub fn read_membership(store: &Store) -> Result<Membership, Broken> {
    let text = store
        .get_meta(MEMBERSHIP_KEY)
        .ok_or_else(|| Broken::State("it holds no membership".into()))?;
    serde_json::from_slice(text)
        .map_err(|e| Broken::State(format!("its membership can't be read: {e}")))
}
