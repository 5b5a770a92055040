//! One simulated member: the real consensus, log and state machine, joined as the server joins them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use kvstore::apply::Store;
use kvstore::auth::Caller;
use kvstore::command::{Command, Proposal};
use kvstore::consensus::{announced_snapshot, Append, Consensus, Options};
use kvstore::log::{HardState, SnapshotMeta};
use kvstore::membership::Membership;
use kvstore::snapshot::{adopt, IncomingDir};
use kvstore::wal::{Identity, Recovered, Wal};

use super::disk::SimDisk;
use super::rng::Rng;
use super::running::{Job, Running, Turn, Wanted, BY_LEADER};
use super::state::{lay, State};

/// Segments are small, so that they are begun and removed often.
const SEGMENT_BYTES: u64 = 4000;
/// Leases revoked in one turn.
const MOST_REVOKED: usize = 100;
/// How far the clocks of two members are apart, in milliseconds.
const CLOCKS_APART_MS: u64 = 10_000_019;
/// Where the old state is while another takes its place (`snapshot::adopt`).
const OUTGOING: &str = "outgoing";

pub struct Member {
    pub id: u64,
    disk: SimDisk,
    dir: PathBuf,
    pub running: Option<Running>,
    pub boot: u64,
    pub removed: bool,
    requests: u64,
}

impl Member {
    pub fn founder(id: u64, root: &Path, membership: &Membership) -> Self {
        let this = Self::joiner(id, root);
        let (mut wal, _) = this.open();
        let hard_state = HardState {
            term: 1,
            vote: 0,
            commit: 1,
        };
        let snapshot = Some(SnapshotMeta {
            index: 1,
            term: 1,
            conf: membership.conf_state(),
        });
        wal.append(&[Append {
            number: 0,
            hard_state,
            snapshot,
            entries: Vec::new(),
        }])
        .unwrap();
        lay(&this.dir, membership);
        this
    }

    pub fn joiner(id: u64, root: &Path) -> Self {
        Self {
            id,
            disk: SimDisk::default(),
            dir: root.join(format!("m{id}")).join("state"),
            running: None,
            boot: 0,
            removed: false,
            requests: 0,
        }
    }

    fn open(&self) -> (Wal<SimDisk>, Recovered) {
        let identity = Identity {
            cluster: 1,
            member: self.id,
        };
        Wal::open_with(self.disk.clone(), identity, SEGMENT_BYTES).unwrap()
    }

    pub fn start(&mut self, seed: u64) {
        self.boot += 1;
        let state = State::open(&self.dir);
        let (mut wal, found) = self.open();
        let restored = wal
            .restore(found, state.store.applied(), state.conf())
            .unwrap();
        let options = Options {
            election_ticks: 10,
            heartbeat_ticks: 1,
            seed: seed ^ self.boot,
            boot_nonce: self.boot,
        };
        let consensus = Consensus::new(self.id, restored, &options).unwrap();
        self.running = Some(Running::new(self.id, consensus, state, wal));
    }

    /// This member's clock.
    pub fn clock(&self, now: u64) -> u64 {
        now + self.id * CLOCKS_APART_MS
    }

    /// Dies; what it was writing may reach the disk in part.
    pub fn crash(&mut self, rng: &mut Rng) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        if rng.percent(30) {
            // What was committed to the tables may be any first part of what waits.
            let most = rng.below(20) as usize;
            running.state.store.write_first(most).unwrap();
        }
        if rng.percent(50) {
            running.state.half_defragment();
        }
        let Running { jobs, mut wal, .. } = running;
        let mut appends = Vec::new();
        for job in jobs {
            match job {
                Job::Append(append) => appends.push(append),
                Job::Cut(_) => {}
                Job::Adopt(incoming) => {
                    // Its own entries may follow only once it is there.
                    if !appends.is_empty() || !adopt_partly(&self.dir, incoming, rng) {
                        break;
                    }
                }
            }
        }
        if !appends.is_empty() && rng.percent(70) {
            self.disk.fail_power();
            let _ = wal.append(&appends);
        }
        self.disk.crash(rng);
    }

    fn request(&mut self) -> u64 {
        self.requests += 1;
        self.id << 48 | self.requests
    }

    /// Takes a client's command; the request's number.
    pub fn propose(&mut self, command: Command, caller: Option<Caller>) -> u64 {
        let request_id = self.request();
        let proposal = Proposal {
            origin: self.id,
            request_id,
            command: Some(command),
            caller,
        };
        if let Some(running) = &mut self.running {
            running.proposals.push(proposal);
        }
        request_id
    }

    /// Takes a client's wish to look; its number.
    pub fn read(&mut self, wanted: Wanted) -> u64 {
        let request = self.request();
        if let Some(running) = &mut self.running {
            if running.consensus.read(request).is_ok() {
                running.wanted.insert(request, wanted);
            }
        }
        request
    }

    /// Revokes the leases that have ended by this leader's clock.
    fn expire(&mut self, now: u64) {
        let clock = self.clock(now);
        let Some(running) = &mut self.running else {
            return;
        };
        let ended = running.state.lessor.expired(clock, MOST_REVOKED);
        for id in ended {
            let request_id = self.request() | BY_LEADER;
            let Some(running) = &mut self.running else {
                return;
            };
            running.proposals.push(Proposal {
                origin: self.id,
                request_id,
                command: Some(Command::LeaseRevoke(id)),
                caller: running.state.store.auth().own_caller(),
            });
        }
    }

    /// Does all work that is due.
    pub fn turn(&mut self, now: u64) -> Turn {
        self.expire(now);
        let clock = self.clock(now);
        let Some(running) = &mut self.running else {
            return Turn::default();
        };
        let turn = running.turn(clock);
        self.removed |= running.left;
        turn
    }

    /// A message from another member; false where a snapshot can't be taken now.
    pub fn receive(&mut self, bytes: &Bytes, chunks: Option<&[Bytes]>) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        if let (Some(chunks), Some(meta)) = (chunks, announced_snapshot(bytes).unwrap()) {
            let adopting = running.jobs.iter().any(|job| matches!(job, Job::Adopt(_)));
            if adopting || running.state.defragment.is_some() {
                return false;
            }
            let (store, incoming) = Store::receive(&self.dir, chunks.iter().cloned()).unwrap();
            running.incoming = Some((meta, store, incoming));
        }
        running.consensus.step(bytes).unwrap();
        true
    }

    /// The log's disk has done what was queued.
    pub fn disk_done(&mut self) {
        let Some(running) = self.running.as_mut().filter(|r| !r.hangs) else {
            return;
        };
        let (mut appends, mut cut) = (Vec::new(), 0);
        for job in std::mem::take(&mut running.jobs) {
            match job {
                Job::Append(append) => appends.push(append),
                Job::Cut(upto) => cut = upto,
                Job::Adopt(incoming) => adopt(&self.dir, incoming).unwrap(),
            }
        }
        if !appends.is_empty() {
            let number = running.wal.append(&appends).unwrap();
            running.consensus.on_persisted(number);
        }
        running.wal.compact(cut).unwrap();
    }
}

/// The old state's place is taken in steps, of which a crash leaves the first; whether all were done.
fn adopt_partly(dir: &Path, incoming: IncomingDir, rng: &mut Rng) -> bool {
    let outgoing = dir.with_file_name(OUTGOING);
    match rng.below(4) {
        0 => return false,
        1 => {
            std::fs::rename(dir, outgoing).unwrap();
            return false;
        }
        2 => {
            std::fs::rename(dir, outgoing).unwrap();
            std::fs::rename(incoming.path(), dir).unwrap();
        }
        _ => adopt(dir, incoming).unwrap(),
    }
    true
}
