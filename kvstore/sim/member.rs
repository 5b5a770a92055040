//! One simulated member: the real consensus and the real log, joined as the server joins them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kvstore::consensus::{
    announced_snapshot, restamp_snapshot, Append, Body, Committed, Consensus, Options, Output,
    RaftChange, Role,
};
use kvstore::log::{ConfState, HardState, SnapshotMeta};
use kvstore::wal::{Identity, Wal};

use crate::disk::SimDisk;
use crate::machine::{Command, Machine};

/// Segments are small, so that they are begun and removed often.
const SEGMENT_BYTES: u64 = 2000;
/// Applied entries kept for members that lag.
const KEEP: u64 = 10;
/// Entries that may wait for a state that is behind; then no more are taken.
const MOST_UNAPPLIED: usize = 8;

pub struct Sent {
    pub to: u64,
    pub bytes: Bytes,
    pub state: Option<Machine>,
    pub once: bool,
}

/// What a turn of the member made known.
#[derive(Default)]
pub struct Turn {
    pub sent: Vec<Sent>,
    /// Request and value before it.
    pub answers: Vec<(u64, u64)>,
    pub applied: Vec<(u64, u64, Body)>,
    pub leads: Option<u64>,
    pub disk_work: bool,
}

pub struct Running {
    pub consensus: Consensus,
    wal: Wal<SimDisk>,
    jobs: Vec<Append>,
    /// The state's disk is slow: what is committed waits.
    pub behind: bool,
    /// The log's disk does nothing.
    pub hangs: bool,
    unapplied: VecDeque<Committed>,
    incoming_state: Option<(SnapshotMeta, Machine)>,
    waiting_reads: BTreeMap<u64, u64>,
    due_reads: Vec<(u64, u64)>,
    proposals: Vec<Command>,
}

pub struct Member {
    pub id: u64,
    pub disk: SimDisk,
    pub machine: Machine,
    /// The state as it was last flushed.
    durable: Machine,
    pub running: Option<Running>,
    pub boot: u64,
    pub removed: bool,
}

impl Member {
    pub fn founder(id: u64, founders: &[u64]) -> Self {
        let mut this = Self::joiner(id);
        let conf = ConfState {
            voters: founders.to_vec(),
            learners: Vec::new(),
        };
        let (mut wal, _) = this.open();
        let hard_state = HardState {
            term: 1,
            vote: 0,
            commit: 1,
        };
        let snapshot = Some(SnapshotMeta {
            index: 1,
            term: 1,
            conf: conf.clone(),
        });
        wal.append(&[Append {
            number: 0,
            hard_state,
            snapshot,
            entries: Vec::new(),
        }])
        .unwrap();
        this.durable = Machine {
            applied: (1, 1),
            conf,
            ..Machine::default()
        };
        this
    }

    pub fn joiner(id: u64) -> Self {
        let (machine, durable) = Default::default();
        Self {
            id,
            disk: SimDisk::default(),
            machine,
            durable,
            running: None,
            boot: 0,
            removed: false,
        }
    }

    fn open(&self) -> (Wal<SimDisk>, kvstore::wal::Recovered) {
        let identity = Identity {
            cluster: 1,
            member: self.id,
        };
        Wal::open_with(self.disk.clone(), identity, SEGMENT_BYTES).unwrap()
    }

    pub fn start(&mut self, seed: u64) {
        self.boot += 1;
        self.machine = self.durable.clone();
        let (mut wal, found) = self.open();
        let restored = wal
            .restore(found, self.machine.applied, self.machine.conf.clone())
            .unwrap();
        let options = Options {
            election_ticks: 10,
            heartbeat_ticks: 1,
            seed: seed ^ self.boot,
            boot_nonce: self.boot,
        };
        let consensus = Consensus::new(self.id, restored, &options).unwrap();
        self.running = Some(Running {
            consensus,
            wal,
            jobs: Vec::new(),
            behind: false,
            hangs: false,
            unapplied: VecDeque::new(),
            incoming_state: None,
            waiting_reads: BTreeMap::new(),
            due_reads: Vec::new(),
            proposals: Vec::new(),
        });
    }

    /// Dies; what it was writing may reach the disk in part.
    pub fn crash(&mut self, rng: &mut crate::rng::Rng) {
        if let Some(mut running) = self.running.take() {
            if !running.jobs.is_empty() && rng.percent(70) {
                self.disk.fail_power();
                let _ = running.wal.append(&running.jobs);
            }
        }
        self.disk.crash(rng);
    }

    pub fn flush(&mut self) {
        self.durable = self.machine.clone();
        if let Some(running) = &mut self.running {
            let upto = self.durable.applied.0.saturating_sub(KEEP);
            running.consensus.compact(upto);
            running.wal.compact(upto).unwrap();
        }
    }

    pub fn receive(&mut self, bytes: &Bytes, state: Option<Machine>) {
        let Some(running) = &mut self.running else {
            return;
        };
        if let (Some(state), Some(meta)) = (state, announced_snapshot(bytes).unwrap()) {
            running.incoming_state = Some((meta, state));
        }
        running.consensus.step(bytes).unwrap();
    }

    pub fn propose(&mut self, command: Command) {
        self.running
            .iter_mut()
            .for_each(|r| r.proposals.push(command));
    }

    pub fn read(&mut self, request: u64, key: u64) {
        if let Some(running) = &mut self.running {
            if running.consensus.read(request).is_ok() {
                running.waiting_reads.insert(request, key);
            }
        }
    }

    /// The disk has done what was queued.
    pub fn disk_done(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.hangs {
            return;
        }
        let jobs = std::mem::take(&mut running.jobs);
        if !jobs.is_empty() {
            let number = running.wal.append(&jobs).unwrap();
            running.consensus.on_persisted(number);
        }
    }

    /// Applies what is committed, unless the state is behind.
    fn apply(&mut self, turn: &mut Turn) {
        let Some(running) = &mut self.running else {
            return;
        };
        let mut last = 0;
        while !running.behind {
            let Some(entry) = running.unapplied.pop_front() else {
                break;
            };
            last = entry.index;
            assert_eq!(
                entry.index,
                self.machine.applied.0 + 1,
                "member {} applies out of order",
                self.id
            );
            match &entry.body {
                Body::Empty => {}
                Body::Normal(bytes) => {
                    for command in Command::decode_all(bytes.clone()) {
                        turn.answers
                            .push((command.request, self.machine.apply(&command)));
                    }
                }
                Body::ConfChange(context) => {
                    let change = decode_change(context);
                    self.machine.conf = running.consensus.apply_conf_change(change).unwrap();
                    self.removed |= change == RaftChange::Remove(self.id);
                }
            }
            self.machine.applied = (entry.index, entry.term);
            turn.applied.push((entry.index, entry.term, entry.body));
        }
        running
            .consensus
            .hold_entries(running.unapplied.len() > MOST_UNAPPLIED);
        if last > 0 {
            running.consensus.applied(last);
        }
    }

    /// Does all work that is due.
    pub fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        self.apply(&mut turn);
        let Some(running) = &mut self.running else {
            return turn;
        };
        if !running.proposals.is_empty() && running.unapplied.is_empty() {
            let mut batch = Vec::new();
            running.proposals.iter().for_each(|c| c.encode(&mut batch));
            if running.consensus.propose(batch.into()).is_ok() {
                running.proposals.clear();
            }
        }
        while let Some(output) = self.running.as_mut().and_then(|r| r.consensus.ready()) {
            self.perform(output, &mut turn);
        }
        self.answer_reads(&mut turn);
        turn
    }

    fn perform(&mut self, output: Output, turn: &mut Turn) {
        let Some(running) = &mut self.running else {
            return;
        };
        for message in output.messages {
            let state = message.snapshot.is_some().then(|| self.machine.clone());
            let bytes = match &state {
                Some(m) => {
                    let meta = SnapshotMeta {
                        index: m.applied.0,
                        term: m.applied.1,
                        conf: m.conf.clone(),
                    };
                    restamp_snapshot(&message.bytes, &meta).unwrap()
                }
                None => message.bytes,
            };
            turn.sent.push(Sent {
                to: message.to,
                bytes,
                state,
                once: message.once,
            });
        }
        if let Some(append) = output.append {
            if let Some(meta) = &append.snapshot {
                let (announced, state) = running
                    .incoming_state
                    .take()
                    .expect("a snapshot without its state");
                assert_eq!(&announced, meta);
                self.machine = state;
                self.durable = self.machine.clone();
                running.unapplied.clear();
                running.consensus.hold_entries(false);
            }
            running.jobs.push(append);
            turn.disk_work = true;
        }
        if let Some((_, Role::Leader)) = output.role {
            turn.leads = Some(running.consensus.status().term);
        }
        running.unapplied.extend(output.committed);
        for (index, tokens) in output.reads {
            running
                .due_reads
                .extend(tokens.into_iter().map(|t| (index, t)));
        }
        running
            .waiting_reads
            .retain(|token, _| !output.failed_reads.contains(token));
        self.apply(turn);
    }

    /// Answers the reads whose index is applied; no snapshot outlives its turn unused.
    fn answer_reads(&mut self, turn: &mut Turn) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.incoming_state = None;
        let applied = self.machine.applied.0;
        let (due, later) = running
            .due_reads
            .drain(..)
            .partition(|(index, _)| *index <= applied);
        running.due_reads = later;
        let due: Vec<(u64, u64)> = due;
        for (_, token) in due {
            if let Some(key) = running.waiting_reads.remove(&token) {
                turn.answers.push((token, self.machine.get(key)));
            }
        }
    }
}

pub fn encode_change(change: RaftChange) -> Bytes {
    let (kind, id) = match change {
        RaftChange::AddVoter(id) => (0, id),
        RaftChange::AddLearner(id) => (1, id),
        RaftChange::Remove(id) => (2, id),
    };
    vec![kind, id as u8].into()
}

fn decode_change(context: &[u8]) -> RaftChange {
    let id = u64::from(context[1]);
    [
        RaftChange::AddVoter(id),
        RaftChange::AddLearner(id),
        RaftChange::Remove(id),
    ][context[0] as usize]
}
