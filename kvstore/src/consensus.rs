//! Raft-rs behind our own rules: messages in, work out. The only module that names the library; no sockets, clocks or disks.
//!
//! Order that the caller keeps: take `ready()`, send `messages`, install the snapshot of `append` and hand that to the
//! disk, apply `committed`, now or later, and say so with `applied`; when the disk reports a number, `on_persisted`.
//! Messages that must wait for the disk are held here.

mod convert;
mod durable;
mod handover;
mod intake;
mod loss;
mod status;
mod storage;
mod types;

use bytes::Bytes;
use raft::eraftpb::{self, MessageType};
use raft::{Config, RawNode, SnapshotStatus, StateRole};
use raft_prost::Message as _;

use crate::log::{ConfState, Entry, HardState};
use crate::planted::{planted, Bug};
use crate::reads::Reads;
pub use convert::{announced_snapshot, conf_change_context, conf_change_entry, restamp_snapshot};
use convert::{committed, conf_change, dropped, outgoing, role};
use durable::Unsynced;
use storage::{from_raft, snapshot_meta, Log};
pub use types::*;

/// Largest run of entries in one message.
const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;
/// Append messages on their way to one member.
const MAX_INFLIGHT: usize = 256;
/// Proposed and not yet committed; more is refused.
const MAX_UNCOMMITTED_BYTES: u64 = 64 * 1024 * 1024;
/// Committed entries handed out at once.
const MAX_COMMITTED_BYTES: u64 = 4 * 1024 * 1024;

/// One member's consensus state.
pub struct Consensus {
    node: RawNode<Log>,
    reads: Reads,
    unsynced: Unsynced,
    release: Vec<Outgoing>,
    election_ticks: usize,
    state_applied: u64,
    random: u64,
    shape: (u64, StateRole),
    /// Proposals of other members that came while leadership was on its way to another.
    parked: Vec<eraftpb::Message>,
    /// Since leadership was last handed over.
    parked_ticks: usize,
    holds_entries: bool,
    /// To whom, in what term and up to where this member's log was last confirmed.
    confirmed: (u64, u64, u64),
    /// The last that a leader knew this member to have confirmed when it had it no more, and that leader's term.
    confirmed_and_lost: (u64, u64),
    loss: Option<Loss>,
}

impl Consensus {
    pub fn new(id: u64, restored: Restored, options: &Options) -> Result<Self, Refused> {
        let config = Config {
            id,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied: restored.applied,
            max_size_per_msg: MAX_MESSAGE_BYTES,
            max_inflight_msgs: MAX_INFLIGHT,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Config::default()
        };
        let applied = restored.applied;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, Log::new(restored), &logger)?;
        let mut this = Self {
            node,
            reads: Reads::new(id, options.boot_nonce, options.election_ticks),
            unsynced: Unsynced::default(),
            release: Vec::new(),
            election_ticks: options.election_ticks,
            state_applied: applied,
            random: options.seed ^ id.rotate_left(17) ^ 0x9E37_79B9_7F4A_7C15,
            shape: (u64::MAX, StateRole::Follower),
            parked: Vec::new(),
            parked_ticks: usize::MAX / 2,
            holds_entries: false,
            confirmed: (raft::INVALID_ID, 0, 0),
            confirmed_and_lost: (0, 0),
            loss: None,
        };
        this.node.mut_store().applied = applied;
        this.settle();
        Ok(this)
    }

    /// Lets one unit of time pass.
    pub fn tick(&mut self) {
        if self.node.raft.state == StateRole::Leader || self.may_campaign() {
            self.node.tick();
        } else if self.has_lost() {
            // It may not stand, but a leader that it does not hear of counts for less and less.
            self.node.raft.election_elapsed += 1;
        }
        self.reads.tick();
        self.unsynced.tick();
        self.yield_to_working_disks();
        self.parked_ticks += 1;
        self.settle();
    }

    /// Takes in a message from another member.
    pub fn step(&mut self, message: &[u8]) -> Result<(), Refused> {
        let mut message =
            eraftpb::Message::decode(message).map_err(|e| Refused::Undecodable(e.to_string()))?;
        let (from, kind) = (message.from, message.msg_type());
        self.notice_loss(&mut message);
        if kind == MessageType::MsgPropose && self.parks() {
            self.parked.push(message);
            return Ok(());
        }
        if self.refuses(&message) {
            return Ok(());
        }
        let (empty, committed) = (
            message.entries.is_empty(),
            self.node.raft.raft_log.committed,
        );
        let result = self.node.step(message);
        match kind {
            MessageType::MsgAppend => {
                self.spare_answer(empty && self.node.raft.raft_log.committed > committed);
            }
            MessageType::MsgAppendResponse => self.keep_next_after_match(from),
            _ => {}
        }
        self.settle();
        match result {
            // A stranger's answer, or a proposal that found no leader: the sender tries again.
            Ok(()) | Err(raft::Error::StepPeerNotFound | raft::Error::ProposalDropped) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a batch into the log, through the leader where that is another member. It is applied when it is committed,
    /// or never; the batch itself must say whose it is.
    pub fn propose(&mut self, batch: Bytes) -> Result<(), Refused> {
        self.needs_leader()?;
        self.node.propose(Vec::new(), batch.into()).map_err(dropped)
    }

    /// Proposes a membership change: `hint` is what it means for raft today, `context` says it whole.
    pub fn propose_conf_change(&mut self, hint: RaftChange, context: Bytes) -> Result<(), Refused> {
        self.needs_leader()?;
        if self.node.raft.has_pending_conf() {
            return Err(Refused::ConfChangePending);
        }
        let change = conf_change(hint, context);
        let proposed = self.node.propose_conf_change(Vec::new(), change);
        proposed.map_err(dropped)?;
        if planted(Bug::MemberBeforeCommit) {
            self.apply_conf_change(hint)?;
        }
        Ok(())
    }

    /// Makes a committed membership change effective, while its entry is applied.
    pub fn apply_conf_change(&mut self, change: RaftChange) -> Result<ConfState, Refused> {
        let conf = self
            .node
            .apply_conf_change(&conf_change(change, Bytes::new()))?;
        self.node.mut_store().conf = conf.clone();
        if self.leads() && !conf.voters.contains(&self.node.raft.id) {
            // The library lets it lead on, and panics when that commits more.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        Ok(ConfState {
            voters: conf.voters,
            learners: conf.learners,
        })
    }

    /// Registers a linearizable read; `token` comes back in `Output::reads` or `Output::failed_reads`.
    pub fn read(&mut self, token: u64) -> Result<(), Refused> {
        self.reads
            .register(token)
            .then_some(())
            .ok_or(Refused::TooMany)
    }

    pub fn campaign(&mut self) -> Result<(), Refused> {
        self.node.campaign()?;
        self.settle();
        Ok(())
    }

    pub fn report_unreachable(&mut self, id: u64) {
        self.node.report_unreachable(id);
    }

    pub fn report_snapshot(&mut self, id: u64, ok: bool) {
        self.node.report_snapshot(
            id,
            if ok {
                SnapshotStatus::Finish
            } else {
                SnapshotStatus::Failure
            },
        );
    }

    /// Everything up to here is durable; numbers are those of `Append`.
    pub fn on_persisted(&mut self, number: u64) {
        if let Some((done, messages)) = self.unsynced.synced(number) {
            self.release.extend(messages);
            self.node.on_persist_ready(done);
            self.applied(0);
            self.settle();
        }
    }

    /// The state machine has applied everything up to `index`.
    pub fn applied(&mut self, index: u64) {
        self.state_applied = self.state_applied.max(index);
        let log = &self.node.raft.raft_log;
        // A state that came as a snapshot counts once the log on disk knows of it.
        let index = self.state_applied.min(log.persisted).min(log.committed);
        if index > log.applied {
            self.node.mut_store().applied = index;
            self.node.advance_apply_to(index);
        }
    }

    /// Forgets entries up to `to`, which must be applied; a member that needs them gets a snapshot.
    pub fn compact(&mut self, to: u64) {
        self.node.mut_store().compact(to);
    }

    /// The position up to which entries are to be forgotten for the rest to take no more than `most` bytes.
    pub fn fitting(&self, most: usize) -> u64 {
        self.node.store().fitting(most)
    }

    /// Work that is due, if any. Call until `None`.
    pub fn ready(&mut self) -> Option<Output> {
        let mut output = Output {
            loss: self.loss.take(),
            ..Default::default()
        };
        self.start_reads(&mut output);
        if !self.node.has_ready() {
            output.messages = std::mem::take(&mut self.release);
            let idle = output.messages.is_empty()
                && output.reads.is_empty()
                && output.failed_reads.is_empty();
            return (!idle).then_some(output);
        }
        let mut ready = self.node.ready();
        let number = ready.number();
        output.messages = std::mem::take(&mut self.release);
        output.role = ready.ss().map(|s| (s.leader_id, role(s.raft_state)));
        for state in ready.take_read_states() {
            output.reads.extend(
                self.reads
                    .answered(&state.request_ctx)
                    .map(|tokens| (state.index, tokens)),
            );
        }
        output.committed = ready
            .take_committed_entries()
            .into_iter()
            .filter_map(committed)
            .collect();
        let entries = ready.take_entries();
        let store = self.node.mut_store();
        let snapshot = (!ready.snapshot().is_empty()).then(|| snapshot_meta(ready.snapshot()));
        if let Some(meta) = &snapshot {
            store.install(meta);
            // The caller installs it before it comes again.
            self.state_applied = self.state_applied.max(meta.index);
        }
        if let Some(hard) = ready.hs() {
            if (hard.term, hard.vote) != (store.hard.term, store.hard.vote) {
                self.unsynced.promises(number);
            }
            store.hard = hard.clone();
        }
        let on_disk = ready.must_sync() && !planted(Bug::AckBeforeSync);
        if ready.must_sync() {
            let hard = &store.hard;
            let vote = if planted(Bug::VoteNotSaved) {
                0
            } else {
                hard.vote
            };
            let hard_state = HardState {
                term: hard.term,
                vote,
                commit: hard.commit,
            };
            let entries: Vec<Entry> = entries.iter().map(from_raft).collect();
            output.append = Some(Append {
                number,
                hard_state,
                snapshot,
                entries,
            });
        }
        store.append(entries);
        let at_once = ready.take_messages();
        let at_once = at_once.into_iter().filter_map(|m| self.sound(m));
        let later = ready.take_persisted_messages();
        let later = later.into_iter().filter_map(|m| self.sound(m));
        // What is passed on to the leader says nothing of this member's log or term.
        let (passed_on, mut later): (Vec<_>, Vec<_>) =
            later.flat_map(outgoing).partition(|m| m.once);
        output.messages.extend(passed_on);
        let at_once = at_once.flat_map(outgoing);
        if self.unsynced.has_promised() {
            // The library lets a leader speak at once, as its votes came in after its own was durable. A lone voter
            // leads on its own vote.
            later.extend(at_once);
        } else {
            output.messages.extend(at_once);
        }
        self.node.advance_append_async(ready);
        self.unsynced.hold(number, on_disk, later);
        self.on_persisted(0);
        output.messages.append(&mut self.release);
        Some(output)
    }

    /// Whether this member leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The configuration in force here.
    pub fn conf_state(&self) -> ConfState {
        let conf = &self.node.store().conf;
        ConfState {
            voters: conf.voters.clone(),
            learners: conf.learners.clone(),
        }
    }

    /// Term of an entry that is still in memory, or of the position just before.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        self.node.raft.raft_log.term(index).ok()
    }

    fn needs_leader(&self) -> Result<(), Refused> {
        if self.node.raft.leader_id == raft::INVALID_ID {
            return Err(Refused::NoLeader);
        }
        Ok(())
    }

    fn start_reads(&mut self, output: &mut Output) {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        if leads && planted(Bug::ReadWithoutReadIndex) {
            let waiting = self.reads.take_waiting();
            if !waiting.is_empty() {
                output.reads.push((raft.raft_log.committed, waiting));
            }
            return;
        }
        if raft.leader_id == raft::INVALID_ID {
            output.failed_reads = self.reads.give_up();
        } else if !leads || raft.commit_to_current_term() {
            // A leader that has committed nothing in its own term does not know what is committed: it makes reads wait.
            if let Some(context) = self.reads.next_round() {
                self.node.read_index(context);
            }
        }
    }

    /// Draws the election timeout anew, from our seed, whenever the library drew one.
    fn settle(&mut self) {
        self.unpark();
        let shape = (self.node.raft.term, self.node.raft.state);
        if shape != self.shape {
            self.shape = shape;
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let ticks = self.election_ticks + (self.random % self.election_ticks as u64) as usize;
            self.node.raft.set_randomized_election_timeout(ticks);
        }
    }
}

#[cfg(test)]
mod tests;
