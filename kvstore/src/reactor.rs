//! The one task that owns the consensus: it gathers what waits, makes one entry and one read round of it, and acts on
//! what consensus returns.
//!
//! Its parts: `queues` of what waits, `proposing` it, `applying` entries, `alarms`, `changes` of the membership, `moving` snapshots and
//! leaving, `upkeep`.
//! Not here: sockets (`listen`, `peer`), what requests mean (`apply`), who may join (`membership`).

mod alarms;
mod applying;
mod changes;
mod moving;
mod proposing;
mod queues;
mod types;
mod upkeep;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Status;

use crate::command::Proposal;
use crate::config::Config;
use crate::consensus::{announced_snapshot, Append, Consensus, Loss};
use crate::disk::Appender;
use crate::errors::StoreError;
use crate::handle::{Core, Handle, MAX_WAITING_REQUESTS};
use crate::peer::{PeerEvent, Peers};
use crate::report::hex;
use crate::space::Space;
use crate::wal::WalError;
pub use changes::{change_entry, read_change, read_membership, save_membership, MEMBERSHIP_KEY};
use queues::MAX_WAITING_FIRST;
pub use queues::{inputs, InputSender, Inputs};
use tracing::{error, info, warn};
pub use types::{Broken, End, Input, Waiting};
use types::{Incoming, Reply, Write};

/// How long a removed member still sends, so that the others learn what it acknowledged.
const FAREWELL: Duration = Duration::from_millis(500);
/// Reads that may wait; those that renew leases have room beyond it.
const MAX_WAITING_READS: usize = 61_440;
/// How often a member that stops looks whether it may.
const LEAVING_LOOK: Duration = Duration::from_millis(10);
/// The reactor's task.
pub struct Reactor {
    pub consensus: Consensus,
    pub disk: Appender,
    /// What the disk thread tells: a number that is durable, or why it gave up.
    pub synced: mpsc::UnboundedReceiver<Result<u64, WalError>>,
    pub handle: Handle,
    pub inputs: Inputs,
    pub events: mpsc::Receiver<PeerEvent>,
    pub peers: Peers,
    pub stop: watch::Receiver<bool>,
    /// Tells the client sockets to close; nobody listens to it any more once all clients have their answers.
    pub doors: watch::Sender<bool>,
    pub config: Config,
    pub state_dir: PathBuf,
    pub waiting: Waiting,
    pub space: Space,
}

impl Reactor {
    fn me(&self) -> u64 {
        self.handle.facts().member_id
    }

    fn token(&mut self) -> u64 {
        self.waiting.next_token = self.waiting.next_token.wrapping_add(1);
        self.waiting.next_token
    }

    /// Runs until told to stop, removed or broken.
    ///
    /// # Errors
    /// When the disk or the state fails.
    pub async fn run(mut self) -> Result<End, Broken> {
        let handle = self.handle.clone();
        let mut ticks = tokio::time::interval(self.config.heartbeat());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = handle.now_ms();
            let (lease, more, room) = {
                let core = handle.core()?;
                let store = core.store()?;
                let more = core.hub.can_catch_up() || store.can_sweep();
                (core.lessor.next_deadline(), more, store.room())
            };
            // Waited for only where there is a lease.
            let lease_wait = Duration::from_millis(lease.map_or(0, |at| at.saturating_sub(now)));
            tokio::select! {
                biased;
                _ = self.stop.changed(), if self.waiting.leaving.is_none() => self.leave(),
                _ = ticks.tick() => self.tick()?,
                Some(done) = self.synced.recv() => self.disk_told(done)?,
                Some(event) = self.events.recv() => self.hear(event)?,
                Some(input) = self.inputs.recv() => self.take(input)?,
                () = tokio::time::sleep(lease_wait), if lease.is_some() => self.expire()?,
                () = tokio::task::yield_now(), if more => {}
                () = handle.nudge().notified() => {}
                () = room.notified() => self.apply_waiting()?,
                () = tokio::time::sleep(LEAVING_LOOK), if self.waiting.leaving.is_some() => {}
            }
            self.drain()?;
            if !self.waiting.proposals.is_empty() || !self.waiting.reads.is_empty() {
                // What the other tasks hold ready comes along in the same entry and the same read round.
                tokio::task::yield_now().await;
                self.drain()?;
            }
            self.tell_of_space()?;
            self.submit()?;
            while let Some(output) = self.consensus.ready() {
                self.perform(output)?;
            }
            self.settle()?;
            if self.has_left()? {
                break;
            }
            if self
                .waiting
                .removed_at
                .is_some_and(|at| at.elapsed() > FAREWELL)
            {
                self.close()?;
                return Ok(End::Removed);
            }
        }
        self.close()?;
        Ok(End::Stopped)
    }

    fn close(&self) -> Result<(), Broken> {
        if let Err(error) = self.handle.core()?.store()?.flush() {
            warn!(%error, "the state was not saved to the end; what it lacks is in the log");
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Broken> {
        while let Ok(done) = self.synced.try_recv() {
            self.disk_told(done)?;
        }
        while let Ok(event) = self.events.try_recv() {
            self.hear(event)?;
        }
        while let Some(input) = self.inputs.try_recv() {
            self.take(input)?;
        }
        Ok(())
    }

    fn take(&mut self, input: Input) -> Result<(), Broken> {
        match input {
            Input::Write {
                command,
                caller,
                reply,
                share,
            } => {
                let most = MAX_WAITING_REQUESTS + room_of(command.goes_first());
                if self.waiting.writes.len() >= most {
                    // Who is gone needs no answer.
                    let _ = reply.send(Err(StoreError::TooManyRequests));
                    return Ok(());
                }
                let request_id = self.token();
                let proposal = Proposal {
                    origin: self.me(),
                    request_id,
                    command: Some(command),
                    caller,
                };
                self.waiting.proposals.push(proposal);
                let write = Write {
                    _share: Some(share),
                    ..reply.into()
                };
                self.waiting.writes.insert(request_id, write);
            }
            Input::Read { reply, renews } => self.ask(reply, renews),
            Input::Change { change, reply } => self.propose_change(change, reply)?,
            Input::Transfer { to, reply } => {
                self.consensus.transfer_leader(to);
                self.waiting.transfer = Some((to, reply));
            }
        }
        Ok(())
    }

    fn ask(&mut self, reply: Reply<()>, renews: bool) {
        let token = self.token();
        let has_room = self.waiting.reads.len() < MAX_WAITING_READS + room_of(renews);
        if has_room && self.consensus.read(token).is_ok() {
            self.waiting.reads.insert(token, reply);
        } else {
            // Who is gone needs no answer.
            let _ = reply.send(Err(StoreError::TooManyRequests));
        }
    }

    fn hear(&mut self, event: PeerEvent) -> Result<(), Broken> {
        match event {
            PeerEvent::Messages(messages) => {
                for message in &messages {
                    if let Err(refused) = self.consensus.step(message) {
                        warn!(error = %refused, "a peer's message is dropped");
                    }
                }
            }
            PeerEvent::Snapshot {
                message,
                received,
                done,
            } => match announced_snapshot(&message) {
                Ok(Some(meta)) => {
                    self.waiting.incoming = Some(Incoming {
                        meta,
                        received,
                        done,
                    });
                    if let Err(refused) = self.consensus.step(&message) {
                        warn!(error = %refused, "a peer's snapshot is dropped");
                    }
                    while let Some(output) = self.consensus.ready() {
                        self.perform(output)?;
                    }
                    if let Some(Incoming { done, received, .. }) = self.waiting.incoming.take() {
                        received.discard();
                        // Raft had no use for it: that is no failure.
                        let _ = done.send(Ok(()));
                    }
                }
                _ => {
                    received.discard();
                    // The sender learns it; if it is gone it tries again.
                    let _ = done.send(Err(Status::invalid_argument(
                        "the snapshot's message announces none",
                    )));
                }
            },
            PeerEvent::Unreachable(id) => self.consensus.report_unreachable(id),
            PeerEvent::SnapshotSent { to, ok } => self.consensus.report_snapshot(to, ok),
            PeerEvent::Removed => {
                self.waiting.removed_at = self.waiting.removed_at.or(Some(Instant::now()))
            }
        }
        Ok(())
    }

    fn perform(&mut self, output: crate::consensus::Output) -> Result<(), Broken> {
        if let Some(Loss {
            last_index,
            confirmed,
        }) = output.loss
        {
            error!(
                last_index,
                confirmed_index = confirmed,
                "the log ends before an entry that this member had confirmed: its disk lost what was synced, or \
                 somebody changed the log; it takes the whole state from the leader"
            );
        }
        for message in output.messages {
            self.send(message)?;
        }
        if let Some(append) = output.append {
            self.persist(append)?;
        }
        if !output.committed.is_empty() {
            self.apply(output.committed)?;
        }
        for (index, tokens) in output.reads {
            self.waiting
                .confirmed
                .entry(index)
                .or_default()
                .extend(tokens);
        }
        for token in output.failed_reads {
            // Without a leader a read waits for the next one, until its client gives up.
            self.waiting
                .leaderless
                .extend(self.waiting.reads.remove(&token));
        }
        Ok(())
    }

    fn persist(&mut self, append: Append) -> Result<(), Broken> {
        if let Some(meta) = &append.snapshot {
            self.install(meta)?;
        }
        self.disk.append(append);
        Ok(())
    }

    /// What follows from a turn: who leads, reads that can be answered, watchers that have something.
    fn settle(&mut self) -> Result<(), Broken> {
        let handle = self.handle.clone();
        let status = self.consensus.status();
        let facts = handle.facts();
        facts.term.store(status.term, Ordering::Relaxed);
        facts.committed.store(status.commit, Ordering::Relaxed);
        let before = handle.led_by(status.leader);
        if before != status.leader {
            facts
                .leader_changes
                .fetch_add(u64::from(status.leader != 0), Ordering::Relaxed);
            info!(
                local_member_id = %hex(status.id),
                leader_id = %hex(status.leader),
                term = status.term,
                "{}",
                if status.leader == 0 { "there is no leader" } else { "the leader is another" }
            );
            if self
                .waiting
                .transfer
                .as_ref()
                .is_some_and(|(to, _)| *to == status.leader)
            {
                if let Some((_, reply)) = self.waiting.transfer.take() {
                    // Who gave up needs no answer.
                    let _ = reply.send(Ok(()));
                }
            }
        }
        if status.leader != 0 && !self.waiting.leaderless.is_empty() {
            for reply in std::mem::take(&mut self.waiting.leaderless) {
                self.ask(reply, true);
            }
            // Another turn starts their round.
            handle.nudge().notify_one();
        }
        let mut core = handle.core()?;
        let leading = status.leader == status.id;
        if leading != self.waiting.leading {
            self.waiting.leading = leading;
            let now = handle.now_ms();
            let Core {
                store: Some(store),
                lessor,
                ..
            } = &mut *core
            else {
                return Ok(());
            };
            if leading {
                lessor.promote(store.leases_left(), now);
                drop(core);
                self.clear_orphaned_alarms()?;
                core = handle.core()?;
            } else {
                lessor.demote();
            }
        }
        let applied = core.store()?.applied().0;
        let later = self.waiting.confirmed.split_off(&(applied + 1));
        for token in std::mem::replace(&mut self.waiting.confirmed, later)
            .into_values()
            .flatten()
        {
            if let Some(reply) = self.waiting.reads.remove(&token) {
                // Who gave up needs no answer.
                let _ = reply.send(Ok(()));
            }
        }
        let Core {
            store: Some(store),
            hub,
            streams,
            ..
        } = &mut *core
        else {
            return Ok(());
        };
        store.sweep();
        if hub.can_catch_up() {
            hub.catch_up(store)
                .map_err(|e| Broken::State(e.to_string()))?;
        }
        for id in hub.ready() {
            if let Some(stream) = streams.get(&id) {
                let fresh = stream.ready.lock().is_ok_and(|mut ready| ready.insert(id));
                if fresh {
                    stream.notify.notify_one();
                }
            }
        }
        Ok(())
    }
}

fn room_of(goes_first: bool) -> usize {
    if goes_first {
        MAX_WAITING_FIRST
    } else {
        0
    }
}

#[cfg(test)]
mod tests;
