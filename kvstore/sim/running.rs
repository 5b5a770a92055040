//! What runs of a member between its start and its end: turns, in the order in which the reactor takes its own.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use kvstore::apply::{Response, Store};
use kvstore::command::{encode_batch, Proposal};
use kvstore::consensus::{restamp_snapshot, Append, Committed, Consensus, Output, Role};
use kvstore::errors::StoreError;
use kvstore::log::SnapshotMeta;
use kvstore::pb::etcd::RangeRequest;
use kvstore::snapshot::IncomingDir;
use kvstore::wal::Wal;

use super::disk::SimDisk;
use super::session::Session;
use super::state::State;
use super::truth::Applied;

/// Applied entries kept for members that lag.
const KEEP: u64 = 10;
/// Entries that may wait for a state that is behind; then no more are taken.
const MOST_UNAPPLIED: usize = 8;
/// Marks the requests with which a leader ends leases.
pub const BY_LEADER: u64 = 1 << 47;

pub struct Sent {
    pub to: u64,
    pub bytes: Bytes,
    pub chunks: Option<Rc<Vec<Bytes>>>,
    pub once: bool,
}

/// A linearizable look at the member, made once its turn has come.
pub enum Wanted {
    Get(Bytes),
    /// A renewal that its client sent then.
    Renew {
        lease: i64,
        sent: u64,
    },
}

pub enum Answer {
    Done {
        request: u64,
        result: Result<Response, StoreError>,
    },
    Got {
        request: u64,
        value: Bytes,
    },
    Renewed {
        lease: i64,
        sent: u64,
    },
}

/// What a turn of the member made known.
#[derive(Default)]
pub struct Turn {
    pub sent: Vec<Sent>,
    pub answers: Vec<Answer>,
    pub applied: Vec<Applied>,
    pub leads: Option<u64>,
    pub disk_work: bool,
    /// A snapshot took the state's place.
    pub installed: bool,
}

/// What the disk is to do, in this order.
pub enum Job {
    Adopt(IncomingDir),
    Append(Append),
    /// Forgets the log up to there.
    Cut(u64),
}

pub struct Running {
    me: u64,
    pub consensus: Consensus,
    pub state: State,
    pub wal: Wal<SimDisk>,
    pub jobs: Vec<Job>,
    /// The state's disk is slow: what is committed waits.
    pub behind: bool,
    /// The log's disk does nothing.
    pub hangs: bool,
    unapplied: VecDeque<Committed>,
    /// A snapshot that came and is not installed yet.
    pub incoming: Option<(SnapshotMeta, Store, IncomingDir)>,
    pub wanted: BTreeMap<u64, Wanted>,
    due: Vec<(u64, u64)>,
    pub proposals: Vec<Proposal>,
    pub sessions: Vec<Session>,
    /// It was removed from the cluster.
    pub left: bool,
}

impl Running {
    pub fn new(me: u64, consensus: Consensus, state: State, wal: Wal<SimDisk>) -> Self {
        Self {
            me,
            consensus,
            state,
            wal,
            jobs: Vec::new(),
            behind: false,
            hangs: false,
            unapplied: VecDeque::new(),
            incoming: None,
            wanted: BTreeMap::new(),
            due: Vec::new(),
            proposals: Vec::new(),
            sessions: Vec::new(),
            left: false,
        }
    }

    /// Does all work that is due.
    pub fn turn(&mut self, clock: u64) -> Turn {
        let mut turn = Turn::default();
        self.apply(clock, &mut turn);
        self.submit();
        while let Some(output) = self.consensus.ready() {
            self.perform(clock, output, &mut turn);
        }
        self.settle(clock, &mut turn);
        turn
    }

    /// Applies what is committed, unless the state is behind.
    fn apply(&mut self, clock: u64, turn: &mut Turn) {
        let me = self.me;
        let (mut last, from) = (0, turn.applied.len());
        while !self.behind {
            let Some(entry) = self.unapplied.pop_front() else {
                break;
            };
            last = entry.index;
            let next = self.state.store.applied().0 + 1;
            assert_eq!(entry.index, next, "member {me} applies out of order");
            let consensus = &mut self.consensus;
            let (applied, left) = self.state.apply(me, clock, entry, consensus);
            self.left |= left;
            let outcomes = applied.outcomes.iter();
            let own = outcomes.filter(|(request, _)| request >> 48 == me);
            turn.answers
                .extend(own.map(|(request, result)| Answer::Done {
                    request: *request,
                    result: result.clone(),
                }));
            turn.applied.push(applied);
        }
        for events in turn.applied[from..]
            .iter()
            .flat_map(|applied| &applied.events)
        {
            self.state.hub.publish(events);
        }
        self.consensus
            .hold_entries(self.unapplied.len() > MOST_UNAPPLIED);
        if last > 0 {
            self.consensus.applied(last);
            // What raft counts with is what the state says.
            let (mut raft, mut said) = (self.consensus.conf_state(), self.state.conf());
            for conf in [&mut raft, &mut said] {
                conf.voters.sort_unstable();
            }
            assert_eq!(raft, said, "the configuration in force at member {me}");
        }
    }

    fn perform(&mut self, clock: u64, output: Output, turn: &mut Turn) {
        for message in output.messages {
            let (mut bytes, mut chunks) = (message.bytes, None);
            if message.snapshot.is_some() {
                let (meta, state) = self.state.export();
                bytes = restamp_snapshot(&bytes, &meta).unwrap();
                chunks = Some(Rc::new(state));
            }
            turn.sent.push(Sent {
                to: message.to,
                bytes,
                chunks,
                once: message.once,
            });
        }
        if let Some(append) = output.append {
            if let Some(meta) = &append.snapshot {
                self.install(meta);
                turn.installed = true;
            }
            self.jobs.push(Job::Append(append));
            turn.disk_work = true;
        }
        if let Some((_, Role::Leader)) = output.role {
            turn.leads = Some(self.consensus.status().term);
        }
        self.unapplied.extend(output.committed);
        for (index, tokens) in output.reads {
            self.due.extend(tokens.into_iter().map(|t| (index, t)));
        }
        for token in &output.failed_reads {
            self.wanted.remove(token);
        }
        self.apply(clock, turn);
    }

    fn submit(&mut self) {
        if !self.consensus.leads() {
            // Leases that a leader let end are for no successor to revoke.
            self.proposals.retain(|p| p.request_id & BY_LEADER == 0);
        }
        let led = self.consensus.status().leader != 0;
        if led && !self.proposals.is_empty() && self.unapplied.is_empty() {
            let batch = encode_batch(self.proposals.clone());
            if self.consensus.propose(batch).is_ok() {
                self.proposals.clear();
            }
        }
    }

    fn install(&mut self, meta: &SnapshotMeta) {
        let (announced, store, incoming) =
            self.incoming.take().expect("a snapshot without its state");
        assert_eq!(&announced, meta);
        self.state.replace(store);
        self.jobs.push(Job::Adopt(incoming));
        self.unapplied.clear();
        self.consensus.hold_entries(false);
        for session in &mut self.sessions {
            session.closed = true;
        }
    }

    /// What follows from a turn: who leads, looks whose index is applied, watchers that are behind.
    fn settle(&mut self, clock: u64, turn: &mut Turn) {
        self.state.lead(self.consensus.leads(), clock);
        // No snapshot outlives its turn unused.
        self.incoming = None;
        let applied = self.state.store.applied().0;
        let all = std::mem::take(&mut self.due).into_iter();
        let (due, later) = all.partition(|(index, _)| *index <= applied);
        self.due = later;
        let due: Vec<(u64, u64)> = due;
        for (_, request) in due {
            let answer = match self.wanted.remove(&request) {
                None => None,
                Some(Wanted::Get(key)) => Some(Answer::Got {
                    request,
                    value: self.get(key),
                }),
                Some(Wanted::Renew { lease, sent }) => {
                    let renewed = self.state.lessor.renew(lease, clock);
                    renewed.map(|_| Answer::Renewed { lease, sent })
                }
            };
            turn.answers.extend(answer);
        }
        self.state.store.sweep();
        if self.state.hub.can_catch_up() {
            self.state.hub.catch_up(&self.state.store).unwrap();
        }
    }

    fn get(&self, key: Bytes) -> Bytes {
        let request = RangeRequest {
            key,
            ..RangeRequest::default()
        };
        let found = self.state.store.range(&request).unwrap();
        found
            .kvs
            .first()
            .map(|kv| kv.value.clone())
            .unwrap_or_default()
    }

    /// Whether no snapshot is about to take the state's place.
    pub fn may_defragment(&self) -> bool {
        !self.jobs.iter().any(|job| matches!(job, Job::Adopt(_)))
    }

    /// Forgets the part of the log that the state on disk has.
    pub fn cut_log(&mut self) {
        let durable = self.state.store.durable_index();
        let upto = durable.saturating_sub(KEEP);
        self.consensus.compact(upto);
        self.jobs.push(Job::Cut(upto));
    }
}
