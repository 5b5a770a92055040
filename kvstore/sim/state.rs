//! What a running member has beside its log: the real state machine, hub, lessor and membership, joined as the reactor
//! joins them (`reactor/applying.rs`, `changes.rs`, `moving.rs`, `handle/defragment.rs`).

use std::path::{Path, PathBuf};

use bytes::Bytes;
use kvstore::apply::Store;
use kvstore::command::{decode_batch, Command};
use kvstore::consensus::{Body, Committed, Consensus};
use kvstore::defragment::{Copy, Unfinished};
use kvstore::etcd_file::hash_keys;
use kvstore::lease::Lessor;
use kvstore::log::{ConfState, SnapshotMeta};
use kvstore::membership::{Change, Membership};
use kvstore::reactor::{read_membership, MEMBERSHIP_KEY};
use kvstore::snapshot::Export;
use kvstore::watch::{Hub, Pace};

use super::truth::Applied;

/// Every so many entries the states are compared whole.
const HASH_EVERY: u64 = 50;
/// Few keys are many here, so that watches walk through history, share that, and stop within a revision.
const PACE: Pace = Pace {
    few_keys: 2,
    slice_work: 16,
    large_revision: 1,
};
/// The smallest TTL, in seconds.
const MIN_TTL: i64 = 1;

/// A defragmentation on its way.
pub enum Defragment {
    Copying(Copy),
    /// What is applied waits in memory for the copy to have the rest.
    Parked(Copy, Export, u64),
}

pub struct State {
    dir: PathBuf,
    pub store: Store,
    pub hub: Hub,
    pub lessor: Lessor,
    pub membership: Membership,
    pub defragment: Option<Defragment>,
    pub leading: bool,
}

/// The membership of these voters.
pub fn found(voters: &[u64]) -> Membership {
    let mut membership = Membership::default();
    for &id in voters {
        membership.members.insert(id, described(id, false));
    }
    membership
}

/// A member as changes of the membership name it.
pub fn described(id: u64, learner: bool) -> kvstore::membership::Member {
    kvstore::membership::Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}:2380")],
        learner,
        ..Default::default()
    }
}

/// Lays a founder's state under `dir`.
pub fn lay(dir: &Path, membership: &Membership) {
    let mut store = Store::open(dir).unwrap();
    store.set_meta(MEMBERSHIP_KEY, &serde_json::to_vec(membership).unwrap());
    store.apply(1, 1, Vec::new());
    store.flush().unwrap();
}

impl State {
    pub fn open(dir: &Path) -> Self {
        Self::of(dir, Store::open(dir).unwrap())
    }

    fn of(dir: &Path, store: Store) -> Self {
        let membership = match store.applied().0 {
            0 => Membership::default(),
            _ => read_membership(&store).unwrap(),
        };
        Self {
            dir: dir.to_owned(),
            store,
            hub: Hub::with_pace(PACE),
            lessor: Lessor::new(MIN_TTL, None),
            membership,
            defragment: None,
            leading: false,
        }
    }

    /// A snapshot takes the place of all there was; the hub stays, and its watchers are to be ended.
    pub fn replace(&mut self, store: Store) {
        self.membership = read_membership(&store).unwrap();
        self.store = store;
    }

    pub fn conf(&self) -> ConfState {
        match self.store.applied().0 {
            0 => ConfState::default(),
            _ => self.membership.conf_state(),
        }
    }

    /// Applies one entry; `me` has left with it where the second is true.
    pub fn apply(
        &mut self,
        me: u64,
        clock: u64,
        entry: Committed,
        consensus: &mut Consensus,
    ) -> (Applied, bool) {
        let (index, term) = (entry.index, entry.term);
        let mut left = false;
        let outcomes = match &entry.body {
            Body::Empty => self.store.apply(index, term, Vec::new()),
            Body::Normal(data) => self.apply_batch(clock, index, term, data.clone()),
            Body::ConfChange(context) => {
                let change: Change = serde_json::from_slice(context).unwrap();
                if self.membership.check(&change).is_ok() {
                    let hint = self.membership.raft_change(&change);
                    self.membership.apply(&change);
                    consensus.apply_conf_change(hint).unwrap();
                    let text = serde_json::to_vec(&self.membership).unwrap();
                    self.store.set_meta(MEMBERSHIP_KEY, &text);
                    left = change == Change::Remove { id: me };
                }
                self.store.apply(index, term, Vec::new())
            }
        };
        assert_eq!(self.store.failure(), None);
        let whole = index.is_multiple_of(HASH_EVERY);
        let applied = Applied {
            index,
            term,
            body: entry.body,
            outcomes: outcomes
                .into_iter()
                .map(|o| (o.request_id, o.result))
                .collect(),
            events: self.store.take_events(),
            revision: self.store.revision(),
            compacted: self.store.compacted_revision(),
            hash: whole.then(|| self.store.hash().unwrap()),
            hash_kv: if whole { self.hash_kv() } else { None },
        };
        (applied, left)
    }

    fn apply_batch(
        &mut self,
        clock: u64,
        index: u64,
        term: u64,
        data: Bytes,
    ) -> Vec<kvstore::apply::Outcome> {
        let proposals = decode_batch(data).unwrap();
        let revoked = |command: &Option<Command>| match command {
            Some(Command::LeaseRevoke(id)) => Some(*id),
            _ => None,
        };
        let revoked: Vec<_> = proposals.iter().map(|p| revoked(&p.command)).collect();
        let outcomes = self.store.apply(index, term, proposals);
        for (outcome, revoked) in outcomes.iter().zip(revoked) {
            match (&outcome.result, revoked) {
                (Ok(_), Some(id)) => {
                    self.lessor.revoked(id);
                }
                (Ok(kvstore::apply::Response::LeaseGrant(granted)), _) if self.leading => {
                    self.lessor.granted(granted.id, granted.ttl, clock);
                }
                _ => {}
            }
        }
        outcomes
    }

    /// None near the end of a defragmentation, when the tables lack what waits.
    fn hash_kv(&self) -> Option<u32> {
        if matches!(self.defragment, Some(Defragment::Parked(..))) {
            return None;
        }
        let export = self.store.export();
        let keys = hash_keys(export.view(), 0, &|| true).unwrap();
        Some(keys.hash)
    }

    /// Follows the consensus in who leads.
    pub fn lead(&mut self, leading: bool, clock: u64) {
        if leading != self.leading {
            self.leading = leading;
            if leading {
                self.lessor.promote(self.store.leases_left(), clock);
            } else {
                self.lessor.demote();
            }
        }
    }

    /// The state to be sent, and the position that it has.
    pub fn export(&self) -> (SnapshotMeta, Vec<Bytes>) {
        let (mut meta, mut chunks) = (SnapshotMeta::default(), Vec::new());
        let next = |chunk| {
            chunks.push(chunk);
            true
        };
        self.store.export().read(|at| meta = at, next).unwrap();
        (meta, chunks)
    }

    /// Takes the next step of a defragmentation, or the first; whether it came to its end.
    pub fn defragment(&mut self) -> bool {
        match self.defragment.take() {
            None => {
                self.store.hold_sweeps();
                let mut copy = Copy::begin(&self.dir).unwrap();
                copy.catch_up(self.store.export().view()).unwrap();
                self.defragment = Some(Defragment::Copying(copy));
                false
            }
            Some(Defragment::Copying(mut copy)) => {
                copy.catch_up(self.store.export().view()).unwrap();
                let index = self.store.park();
                let export = self.store.export();
                self.defragment = Some(Defragment::Parked(copy, export, index));
                false
            }
            Some(Defragment::Parked(copy, export, index)) => {
                let fresh = match copy.finish(export.view(), index) {
                    Ok(fresh) => Some(fresh),
                    // A member that never had a state has nothing to copy.
                    Err(Unfinished::Given(_)) if index == 0 => None,
                    Err(failed) => panic!("{failed}"),
                };
                drop(export);
                self.store.resume(fresh).is_some()
            }
        }
    }

    /// As far as the end of a defragmentation, without what waits for it: for a crash right there.
    pub fn half_defragment(&mut self) {
        if let Some(Defragment::Parked(copy, export, index)) = self.defragment.take() {
            // What it could not copy it left as it was.
            let _ = copy.finish(export.view(), index);
        }
    }
}
