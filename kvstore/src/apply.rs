//! The replicated state: a committed entry to its effects. The same entries give the same state on every member.

mod alarms;
mod compacting;
mod disk;
mod hash;
mod noting;
mod pausing;
mod reading;
mod types;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::alarm::Alarms;
use crate::auth::{Auth, AuthCommand, Caller};
use crate::backend::{Backend, BackendError, Batch, Table};
use crate::command::{Command, DowngradeTo, LeaseCheckpoint, LeaseCheckpoints, Proposal};
use crate::downgrade::{Downgrade, Release};
use crate::errors::StoreError;
use crate::etcd_file::{read_alarm_key, read_kept_key};
use crate::measures::{self, Lap};
use crate::mvcc::{Change, KeyRange, Keys};
use crate::pb::etcd::{LeaseGrantResponse, LeaseRevokeResponse};
use crate::planted::{planted, Bug};
use crate::slow;
pub use noting::Noted;
use pausing::Pause;
use reading::Pins;
pub use reading::Slices;
pub(crate) use types::{count, decode_applied, encode_applied, Turn};
pub use types::{Counts, LeaseEntry, Outcome, Response, RevisionEvents};

/// The largest TTL that a lease may have, in seconds (etcd's `lease.MaxLeaseTTL`).
pub const MAX_LEASE_TTL: i64 = 9_000_000_000;
pub(crate) const APPLIED: &[u8] = b"applied";
const DOWNGRADE: &[u8] = b"downgrade";

/// Keys, leases and meta data of one member.
pub struct Store {
    pub(crate) keys: Keys,
    pub(crate) backend: Backend,
    pub(crate) leases: HashMap<i64, LeaseEntry>,
    pub(crate) auth: Auth,
    alarms: Alarms,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    revision: i64,
    compacted: i64,
    applied: (u64, u64),
    batch: Batch,
    events: Vec<RevisionEvents>,
    /// Why what is on disk can't be read, once that has shown while an entry was applied.
    broken: Option<String>,
    pub(crate) counts: Arc<Counts>,
    pins: Arc<Pins>,
    pause: Pause,
    swept: Arc<Notify>,
    noted: Vec<Noted>,
}

impl Store {
    /// Open the state under `dir`, as of its last sync; the log has what came after.
    ///
    /// # Errors
    /// When the directory can't be read or holds a newer layout.
    pub fn open(dir: &Path) -> Result<Self, BackendError> {
        crate::snapshot::recover(dir)?;
        Self::load(dir)
    }

    pub(crate) fn load(dir: &Path) -> Result<Self, BackendError> {
        let backend = Backend::open(dir)?;
        let (mut meta, mut auth) = (BTreeMap::new(), Auth::default());
        let mut alarms = Alarms::default();
        backend.each(Table::Meta, |key, value| {
            if let Some(alarm) = read_alarm_key(key) {
                let taken = alarms.load(alarm);
                return taken.map_err(|e| backend.damaged(&format!("an alarm's record: {e}")));
            }
            if let Some((bucket, key)) = read_kept_key(key) {
                let taken = auth.load(bucket, key, value);
                return taken.map_err(|what| backend.damaged(&format!("{bucket}: {what}")));
            }
            meta.insert(key.to_vec(), value.to_vec());
            Ok(())
        })?;
        auth.loaded();
        let number = |key: &[u8]| -> Option<[u8; 32]> { meta.get(key)?.as_slice().try_into().ok() };
        let state = number(APPLIED).unwrap_or_else(|| encode_applied((0, 0), 1, 0));
        let (applied, revision, compacted) = decode_applied(&state);
        backend.opened_at(applied.0, revision);
        let mut leases: HashMap<i64, LeaseEntry> = HashMap::new();
        backend.each(Table::Leases, |key, value| {
            let id = key.try_into().map(i64::from_be_bytes);
            let (Ok(id), Some(lease)) = (id, LeaseEntry::decode(value)) else {
                return Err(backend.damaged("a lease's record has another length"));
            };
            leases.insert(id, lease);
            Ok(())
        })?;
        let mut keys = Keys::load(&backend)?;
        keys.synced(i64::MAX);
        if compacted > 0 {
            // The last run may not have come to its end.
            keys.compact(compacted);
        }
        for kv in keys.newest_in(&KeyRange::From(Bytes::new())) {
            let kv = kv.fields();
            if let Some(lease) = leases.get_mut(&kv.lease) {
                lease.keys.insert(Bytes::copy_from_slice(kv.key));
            }
        }
        Ok(Self {
            keys,
            backend,
            leases,
            auth,
            alarms,
            meta,
            revision,
            compacted,
            applied,
            batch: Batch::default(),
            events: Vec::new(),
            broken: None,
            counts: Arc::default(),
            pins: Arc::default(),
            pause: Pause::default(),
            swept: Arc::default(),
            noted: Vec::new(),
        })
    }

    /// What was carried out; a state that replaces another goes on counting where that one was.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Counts on in these.
    pub fn count_in(&mut self, counts: Arc<Counts>) {
        self.counts = counts;
    }

    /// Keys that exist now.
    #[must_use]
    pub fn keys_now(&self) -> usize {
        self.keys.len()
    }

    /// Index and term of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> (u64, u64) {
        self.applied
    }

    /// The current revision; an empty store has 1.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The last compaction's revision, 0 before the first.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        self.compacted
    }

    /// A record of the server's own (members, configuration), saved with the applied index of the same turn.
    pub fn set_meta(&mut self, key: &[u8], value: &[u8]) {
        self.meta.insert(key.to_vec(), value.to_vec());
        self.batch.put(Table::Meta, key.to_vec(), value.to_vec());
    }

    /// Read such a record.
    #[must_use]
    pub fn get_meta(&self, key: &[u8]) -> Option<&[u8]> {
        self.meta.get(key).map(Vec::as_slice)
    }

    /// The downgrade that is under way, if any.
    #[must_use]
    pub fn downgrade(&self) -> Downgrade {
        let version = self
            .get_meta(DOWNGRADE)
            .and_then(|v| std::str::from_utf8(v).ok());
        Downgrade(version.and_then(|version| Release::parse(version).ok()))
    }

    /// Granted leases and their TTL in seconds.
    pub fn leases(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl))
    }

    /// What a new leader gives each lease: its TTL, and what is left of it, in seconds.
    pub fn leases_left(&self) -> impl Iterator<Item = (i64, i64, i64)> + '_ {
        let leases = self.leases.iter();
        leases.map(|(id, lease)| (*id, lease.ttl, lease.left()))
    }

    /// The keys attached to a lease, in order.
    #[must_use]
    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.leases
            .get(&id)
            .map(|lease| lease.keys.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Apply one entry; `proposals` is empty for entries that change nothing here (a new leader's, a configuration's).
    /// Events are kept for [`Self::take_events`], and the writer is given the turn's changes.
    pub fn apply(&mut self, index: u64, term: u64, proposals: Vec<Proposal>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(proposals.len());
        let mut lap = Lap::begin();
        for proposal in &proposals {
            let kind = proposal.command.as_ref().map_or("unknown", Command::kind);
            let result = match &proposal.command {
                Some(command) => self.execute(command, proposal.caller.as_ref(), index),
                None => Err(StoreError::Internal(
                    "an empty command was committed".into(),
                )),
            };
            let taken = matches!(result, Ok(_) | Err(StoreError::Compacted));
            let took = lap.applied(kind, taken);
            if slow::is_slow(took) {
                slow::applied(took, proposal, &result);
            }
            let (origin, request_id) = (proposal.origin, proposal.request_id);
            outcomes.push(Outcome {
                origin,
                request_id,
                revision: self.revision,
                result,
            });
        }
        self.applied = (index, term);
        self.hand_over();
        outcomes
    }

    fn hand_over(&mut self) {
        let state = encode_applied(self.applied, self.revision, self.compacted);
        self.meta.insert(APPLIED.to_vec(), state.to_vec());
        let mut batch = std::mem::take(&mut self.batch);
        if self.applied.0 > 1 && planted(Bug::AppliedSavedApart) {
            self.batch
                .put(Table::Meta, APPLIED.to_vec(), state.to_vec());
        } else {
            batch.put(Table::Meta, APPLIED.to_vec(), state.to_vec());
        }
        batch.applied = self.applied.0;
        batch.revision = self.revision;
        self.give(batch);
        self.keys.synced(self.backend.durable_revision());
    }

    /// The events since the last call, in revision order.
    pub fn take_events(&mut self) -> Vec<RevisionEvents> {
        std::mem::take(&mut self.events)
    }

    fn execute(
        &mut self,
        command: &Command,
        caller: Option<&Caller>,
        index: u64,
    ) -> Result<Response, StoreError> {
        if let Some(refused) = self.alarms.refuse(command) {
            return Err(refused);
        }
        if self.auth.is_enabled() {
            self.permit(command, caller)?;
        }
        match command {
            Command::Put(request) => {
                self.check_put(request)?;
                let mut turn = Turn::new(self.revision);
                let response = self.put(&mut turn, request);
                self.finish(turn);
                Ok(Response::Put(response))
            }
            Command::DeleteRange(request) => {
                let mut turn = Turn::new(self.revision);
                let response = self.delete(&mut turn, request);
                self.finish(turn);
                Ok(Response::DeleteRange(response))
            }
            Command::Txn(request) => self.txn(request).map(Response::Txn),
            Command::Compact(revision) => self.compact(*revision).map(Response::Compact),
            Command::LeaseGrant(request) => {
                if request.ttl > MAX_LEASE_TTL {
                    return Err(StoreError::LeaseTtlTooLarge);
                }
                if self.leases.contains_key(&request.id) {
                    return Err(StoreError::LeaseExists);
                }
                let (id, ttl) = (request.id, request.ttl);
                let lease = LeaseEntry::new(ttl, 0);
                let key = id.to_be_bytes().to_vec();
                self.batch.put(Table::Leases, key, lease.encode());
                self.leases.insert(id, lease);
                count(&measures::LEASES_GRANTED, 1);
                let seconds = u64::try_from(ttl).unwrap_or(0);
                measures::LEASE_TTL.observe(Duration::from_secs(seconds));
                Ok(Response::LeaseGrant(LeaseGrantResponse {
                    header: None,
                    id,
                    ttl,
                    error: String::new(),
                }))
            }
            Command::LeaseRevoke(id) => {
                let lease = self.leases.remove(id).ok_or(StoreError::LeaseNotFound)?;
                self.batch.delete(Table::Leases, id.to_be_bytes().to_vec());
                let mut turn = Turn::new(self.revision);
                for key in &lease.keys {
                    turn.operations += 1;
                    count(&self.counts.deletes, 1);
                    if let Some(change) = self.keys.delete(turn.next(), key, &mut self.batch) {
                        turn.changes.push(change);
                    }
                }
                self.finish(turn);
                count(&measures::LEASES_REVOKED, 1);
                Ok(Response::LeaseRevoke(LeaseRevokeResponse { header: None }))
            }
            Command::MemberAttributes(attributes) => {
                Ok(Response::MemberAttributes(attributes.clone()))
            }
            Command::Auth(AuthCommand { action }) => match action {
                Some(action) => self
                    .auth
                    .apply(action.clone(), index, &mut self.batch)
                    .map(Response::Auth),
                None => Err(StoreError::Internal("an unknown change of users".into())),
            },
            Command::Alarm(request) => Ok(Response::Alarm(self.alarm(request))),
            Command::Downgrade(DowngradeTo { version }) => {
                self.set_meta(DOWNGRADE, version.as_bytes());
                Ok(Response::Downgrade)
            }
            Command::LeaseCheckpoint(LeaseCheckpoints { checkpoints }) => {
                for LeaseCheckpoint { id, remaining_ttl } in checkpoints {
                    // One that was revoked meanwhile has nothing left.
                    if let Some(lease) = self.leases.get_mut(id) {
                        lease.remaining = *remaining_ttl;
                        let key = id.to_be_bytes().to_vec();
                        self.batch.put(Table::Leases, key, lease.encode());
                    }
                }
                Ok(Response::LeaseCheckpoint)
            }
        }
    }

    pub(crate) fn attach(&mut self, change: &Change) {
        let kv = change.kv.fields();
        let old = change.prev.as_ref().map_or(0, |kv| kv.fields().lease);
        if old != kv.lease {
            let left = self.leases.get_mut(&old);
            if let Some(lease) = left.filter(|_| !planted(Bug::LeaseKeepsKey)) {
                lease.keys.remove(kv.key);
            }
            if let Some(lease) = self.leases.get_mut(&kv.lease) {
                lease.keys.insert(Bytes::copy_from_slice(kv.key));
            }
        }
    }

    pub(crate) fn keys_mut(&mut self) -> (&mut Keys, &mut Batch) {
        (&mut self.keys, &mut self.batch)
    }

    pub(crate) fn finish(&mut self, turn: Turn) {
        count(&self.counts.txns, u64::from(turn.operations > 1));
        if turn.changes.is_empty() {
            return;
        }
        self.revision = turn.main;
        self.events.push(RevisionEvents {
            revision: turn.main,
            changes: turn.changes,
        });
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
