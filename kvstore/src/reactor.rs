//! The one task that owns the consensus: it gathers what waits, makes one entry and one read round of it, and acts on
//! what consensus returns.
//!
//! Not here: sockets (`listen`, `peer`), what requests mean (`apply`), who may join (`membership`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Status;

use crate::apply::{Outcome, Response, Store};
use crate::command::{decode_batch, encode_batch, Command, Proposal};
use crate::config::Config;
use crate::consensus::{
    announced_snapshot, Append, Body, Committed, Consensus, Outgoing, Refused, Role,
};
use crate::disk::Appender;
use crate::errors::StoreError;
use crate::handle::{Core, Handle, MAX_WAITING_REQUESTS};
use crate::log::SnapshotMeta;
use crate::membership::{Change, Membership};
use crate::peer::{PeerEvent, Peers, Received};
use crate::report;
use crate::wal::WalError;

/// Bytes of proposals in one entry, about.
const MAX_ENTRY_BYTES: usize = 1024 * 1024;
/// Leases revoked in one turn.
const MAX_REVOKED: usize = 1_000;
/// Bytes of entries kept in memory for members that lag, if they are fewer than the entries asked for; but at least
/// `MIN_LOG_ENTRIES`, since entries may be large.
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;
const MIN_LOG_ENTRIES: u64 = 100;
/// Ticks between two looks at what seldom changes: the size on disk, the log's length, requests given up.
const CHORE_TICKS: u64 = 5;
/// How long a removed member still sends, so that the others learn what it acknowledged.
const FAREWELL: Duration = Duration::from_millis(500);
/// Ticks that a write of an earlier term may still take to come by the next leader's hand.
const DOUBT_TICKS: u64 = 3;
/// How long clients may take for their last answers when a member stops.
const DRAIN: Duration = Duration::from_millis(500);
/// How often a member that stops looks whether it may.
const LEAVING_LOOK: Duration = Duration::from_millis(10);
/// Where the membership is kept in the state.
pub const MEMBERSHIP_KEY: &[u8] = b"membership";

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the services ask of the reactor.
pub enum Input {
    Write {
        command: Command,
        reply: Reply<(Response, i64)>,
    },
    Read {
        reply: Reply<()>,
    },
    Change {
        change: Change,
        reply: Reply<()>,
    },
    Transfer {
        to: u64,
        reply: Reply<()>,
    },
}

/// How a member's run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Stopped,
    Removed,
}

/// What stops a member against its will.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("{0}")]
    Log(#[from] WalError),
    #[error("the state can't be saved: {0}")]
    State(String),
    #[error("{0}")]
    Consensus(#[from] Refused),
    #[error("the state is unusable: {0}")]
    Core(#[from] Box<Status>),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Core(Box::new(status))
    }
}

/// A change of the membership with the token of who waits for it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Ticket {
    origin: u64,
    token: u64,
    change: Change,
}

/// The reactor's task.
pub struct Reactor {
    pub consensus: Consensus,
    pub disk: Appender,
    /// What the disk thread tells: a number that is durable, or why it gave up.
    pub synced: mpsc::UnboundedReceiver<Result<u64, WalError>>,
    pub handle: Handle,
    pub inputs: mpsc::Receiver<Input>,
    pub events: mpsc::Receiver<PeerEvent>,
    pub peers: Peers,
    pub stop: watch::Receiver<bool>,
    /// Tells the client sockets to close; nobody listens to it any more once all clients have their answers.
    pub doors: watch::Sender<bool>,
    pub config: Config,
    pub state_dir: PathBuf,
    pub waiting: Waiting,
}

/// A snapshot that came and is not installed yet.
struct Incoming {
    meta: SnapshotMeta,
    received: Received,
    done: oneshot::Sender<Result<(), Status>>,
}

/// A write that waits for its outcome.
struct Write {
    reply: Reply<(Response, i64)>,
    /// The term that it was proposed in; 0 while it was not.
    term: u64,
    /// Once it should have been applied and was not: the tick at which it is given up.
    doubt: Option<u64>,
}

impl From<Reply<(Response, i64)>> for Write {
    fn from(reply: Reply<(Response, i64)>) -> Self {
        Self {
            reply,
            term: 0,
            doubt: None,
        }
    }
}

/// A member that was told to stop: leadership goes first, then its clients.
enum Leaving {
    HandOver { until: Instant },
    Drain { until: Instant },
}

/// Who waits for what.
#[derive(Default)]
pub struct Waiting {
    /// Unique across restarts: the boot's random number, counted on.
    next_token: u64,
    proposals: VecDeque<Proposal>,
    writes: HashMap<u64, Write>,
    reads: HashMap<u64, Reply<()>>,
    confirmed: BTreeMap<u64, Vec<u64>>,
    changes: HashMap<u64, Reply<()>>,
    transfer: Option<(u64, Reply<()>)>,
    incoming: Option<Incoming>,
    /// Reads that wait for a leader to be known.
    leaderless: Vec<Reply<()>>,
    ticks: u64,
    removed_at: Option<Instant>,
    leaving: Option<Leaving>,
    leading: bool,
}

impl Waiting {
    /// Nobody waits; `boot` is a random number of this start.
    pub fn new(boot: u64) -> Self {
        Self {
            next_token: boot,
            ..Self::default()
        }
    }
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
            let (lease, lags) = {
                let core = handle.core()?;
                (core.lessor.next_deadline(), core.hub.can_catch_up())
            };
            let lease_wait =
                Duration::from_millis(lease.map_or(3_600_000, |at| at.saturating_sub(now)));
            tokio::select! {
                biased;
                _ = self.stop.changed(), if self.waiting.leaving.is_none() => self.leave(),
                _ = ticks.tick() => self.tick()?,
                Some(done) = self.synced.recv() => self.disk_told(done)?,
                Some(event) = self.events.recv() => self.hear(event)?,
                Some(input) = self.inputs.recv() => self.take(input)?,
                () = tokio::time::sleep(lease_wait), if lease.is_some() => self.expire()?,
                () = tokio::task::yield_now(), if lags => {}
                () = handle.nudge().notified() => {}
                () = tokio::time::sleep(LEAVING_LOOK), if self.waiting.leaving.is_some() => {}
            }
            self.drain()?;
            if !self.waiting.proposals.is_empty() || !self.waiting.reads.is_empty() {
                // What the other tasks hold ready comes along in the same entry and the same read round.
                tokio::task::yield_now().await;
                self.drain()?;
            }
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

    fn leave(&mut self) {
        let mut until = Instant::now();
        if let Some(successor) = self.consensus.successor() {
            self.consensus.transfer_leader(successor);
            until += Duration::from_millis(self.config.election_timeout);
        }
        self.waiting.leaving = Some(Leaving::HandOver { until });
    }

    /// Goes on leaving; true once nobody needs this member any more, or the time for it is over.
    fn has_left(&mut self) -> Result<bool, Broken> {
        let now = Instant::now();
        match self.waiting.leaving {
            None => Ok(false),
            Some(Leaving::HandOver { until }) => {
                let leader = self.consensus.status().leader;
                if now < until && (leader == 0 || leader == self.me()) {
                    return Ok(false);
                }
                // A client that is gone already has closed them all.
                let _ = self.doors.send(true);
                end_watches(&*self.handle.core()?);
                let until = now + DRAIN;
                self.waiting.leaving = Some(Leaving::Drain { until });
                Ok(false)
            }
            Some(Leaving::Drain { until }) => Ok(now >= until || self.doors.receiver_count() == 0),
        }
    }

    fn close(&self) -> Result<(), Broken> {
        self.handle.core()?.store()?.flush();
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Broken> {
        while let Ok(done) = self.synced.try_recv() {
            self.disk_told(done)?;
        }
        while let Ok(event) = self.events.try_recv() {
            self.hear(event)?;
        }
        while let Ok(input) = self.inputs.try_recv() {
            self.take(input)?;
        }
        Ok(())
    }

    fn disk_told(&mut self, done: Result<u64, WalError>) -> Result<(), Broken> {
        self.consensus.on_persisted(done?);
        Ok(())
    }

    fn take(&mut self, input: Input) -> Result<(), Broken> {
        match input {
            Input::Write { command, reply } => {
                if self.waiting.writes.len() >= MAX_WAITING_REQUESTS {
                    // Who is gone needs no answer.
                    let _ = reply.send(Err(StoreError::TooManyRequests));
                    return Ok(());
                }
                let request_id = self.token();
                let proposal = Proposal {
                    origin: self.me(),
                    request_id,
                    command: Some(command),
                };
                self.waiting.proposals.push_back(proposal);
                self.waiting.writes.insert(request_id, reply.into());
            }
            Input::Read { reply } => self.ask(reply),
            Input::Change { change, reply } => self.propose_change(change, reply)?,
            Input::Transfer { to, reply } => {
                self.consensus.transfer_leader(to);
                self.waiting.transfer = Some((to, reply));
            }
        }
        Ok(())
    }

    fn ask(&mut self, reply: Reply<()>) {
        let token = self.token();
        match self.consensus.read(token) {
            Ok(()) => {
                self.waiting.reads.insert(token, reply);
            }
            Err(_) => {
                // Who is gone needs no answer.
                let _ = reply.send(Err(StoreError::TooManyRequests));
            }
        }
    }

    fn propose_change(&mut self, change: Change, reply: Reply<()>) -> Result<(), Broken> {
        let verdict = {
            let core = self.handle.core()?;
            let connected = |id| id == self.me() || self.peers.connected(id);
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
                // Etcd's rule: nine tenths of what the leader has.
                if matched(*id) * 10 < matched(status.id) * 9 {
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

    fn hear(&mut self, event: PeerEvent) -> Result<(), Broken> {
        match event {
            PeerEvent::Messages(messages) => {
                for message in &messages {
                    if let Err(refused) = self.consensus.step(message) {
                        report!("kvstore: a peer's message is dropped: {refused}");
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
                        report!("kvstore: a peer's snapshot is dropped: {refused}");
                    }
                    while let Some(output) = self.consensus.ready() {
                        self.perform(output)?;
                    }
                    if let Some(Incoming { done, .. }) = self.waiting.incoming.take() {
                        // Raft had no use for it: that is no failure.
                        let _ = done.send(Ok(()));
                    }
                }
                _ => {
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

    /// One entry from what waits; without a leader it goes on waiting.
    fn submit(&mut self) -> Result<(), Broken> {
        while !self.waiting.proposals.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            for proposal in &self.waiting.proposals {
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
                    for proposal in self.waiting.proposals.drain(..count) {
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

    fn send(&mut self, message: Outgoing) -> Result<(), Broken> {
        if message.snapshot.is_some() {
            let export = self.handle.core()?.store()?.export();
            self.peers.send_snapshot(message.to, message.bytes, export);
        } else if !self.peers.send(message.to, message.bytes) {
            self.consensus.report_unreachable(message.to);
        }
        Ok(())
    }

    fn perform(&mut self, output: crate::consensus::Output) -> Result<(), Broken> {
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

    /// Replaces the state by the snapshot that came; the log follows only when that is safe on disk.
    fn install(&mut self, meta: &SnapshotMeta) -> Result<(), Broken> {
        let Some(Incoming {
            meta: announced,
            received,
            done,
        }) = self.waiting.incoming.take()
        else {
            return Err(Broken::State(
                "raft installs a snapshot that did not come".into(),
            ));
        };
        if announced.index != meta.index {
            return Err(Broken::State(
                "raft installs another snapshot than the one that came".into(),
            ));
        }
        let mut core = self.handle.core()?;
        let counts = core.store.take().map(|store| store.counts().clone());
        let mut store = Store::adopt(&self.state_dir).map_err(|e| Broken::State(e.to_string()))?;
        drop(received);
        store.count_in(counts.unwrap_or_default());
        core.membership = read_membership(&store)?;
        core.store = Some(store);
        // Watchers may have missed revisions.
        end_watches(&core);
        drop(core);
        self.handle
            .facts()
            .applied
            .store(meta.index, Ordering::Relaxed);
        self.dial()?;
        // The sender may have given up; raft's own answer tells it too.
        let _ = done.send(Ok(()));
        Ok(())
    }

    /// Makes the links be those that the membership and the overrides ask for.
    pub fn dial(&mut self) -> Result<(), Broken> {
        let core = self.handle.core()?;
        let all: Vec<_> = core
            .membership
            .members
            .keys()
            .map(|id| (*id, core.peer_urls(*id)))
            .collect();
        let learner = core
            .membership
            .members
            .get(&self.me())
            .is_some_and(|m| m.learner);
        drop(core);
        self.handle
            .facts()
            .is_learner
            .store(learner, Ordering::Relaxed);
        self.peers.update(&all);
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), Broken> {
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
    fn doubt_before(&mut self, term: u64) {
        let late = self.waiting.ticks + DOUBT_TICKS;
        let writes = self.waiting.writes.values_mut();
        for write in writes.filter(|write| (1..term).contains(&write.term) && write.doubt.is_none())
        {
            write.doubt = Some(late);
        }
    }

    /// Whether a copy of these is still under way nobody knows, and the error says so.
    fn give_up_doubtful(&mut self) {
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

    fn apply_batch(
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

    fn apply_change(
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

    fn tick(&mut self) -> Result<(), Broken> {
        self.consensus.tick();
        self.waiting.ticks += 1;
        self.give_up_doubtful();
        if self.waiting.ticks % CHORE_TICKS == 0 {
            self.chores()?;
        }
        Ok(())
    }

    fn chores(&mut self) -> Result<(), Broken> {
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
        let facts = self.handle.facts();
        let (durable, applied) = {
            let core = self.handle.core()?;
            let store = core.store()?;
            facts.db_bytes.store(store.size(), Ordering::Relaxed);
            (store.durable_index(), store.applied().0)
        };
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
        let keep = keep.max(by_bytes);
        if keep >= status.first_index + slack || by_bytes > status.first_index {
            self.consensus.compact(keep);
            // One entry more stays, since the next start needs to know its term.
            self.disk.compact(keep - 1);
        }
        self.refresh_overrides()
    }

    /// The file of overrides may change at any time.
    fn refresh_overrides(&mut self) -> Result<(), Broken> {
        if self.config.peer_url_overrides.is_empty()
            || self.config.peer_url_overrides.trim().starts_with('{')
        {
            return Ok(());
        }
        let found = match self.config.overrides() {
            Ok(found) => found,
            Err(error) => {
                report!("kvstore: {error}");
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

    fn expire(&mut self) -> Result<(), Broken> {
        let ended = {
            let now = self.handle.now_ms();
            self.handle.core()?.lessor.expired(now, MAX_REVOKED)
        };
        for id in ended {
            let request_id = self.token();
            let (reply, _) = oneshot::channel();
            let proposal = Proposal {
                origin: self.me(),
                request_id,
                command: Some(Command::LeaseRevoke(id)),
            };
            self.waiting.proposals.push_back(proposal);
            self.waiting.writes.insert(request_id, reply.into());
        }
        Ok(())
    }

    /// What follows from a turn: who leads, reads that can be answered, watchers that have something.
    fn settle(&mut self) -> Result<(), Broken> {
        let handle = self.handle.clone();
        let status = self.consensus.status();
        let facts = handle.facts();
        facts.term.store(status.term, Ordering::Relaxed);
        facts.committed.store(status.commit, Ordering::Relaxed);
        let before = facts.leader.swap(status.leader, Ordering::Relaxed);
        if before != status.leader {
            facts
                .leader_changes
                .fetch_add(u64::from(status.leader != 0), Ordering::Relaxed);
            report!(
                "kvstore: leader of term {} is {:x}",
                status.term,
                status.leader
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
                self.ask(reply);
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
                lessor.promote(store.leases(), now);
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

/// Ends every watch stream; clients resume from where they were.
fn end_watches(core: &Core) {
    for stream in core.streams.values() {
        stream.closed.store(true, Ordering::Relaxed);
        stream.notify.notify_one();
    }
}

fn store_of(core: &mut Core) -> Result<&mut Store, Broken> {
    core.store
        .as_mut()
        .ok_or_else(|| Broken::State("it is being replaced".into()))
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
