//! The state of one moment as etcd's file, read where it lies and written as it is read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use prost::Message;

use super::schema::{
    conf_state_json, member_json, member_key, read_alarm_key, read_kept_key, rev_key, Lease, ALARM,
    BUCKETS, CONF_STATE, CONSISTENT_INDEX, FINISHED_COMPACTION, KEY, LEASE, MEMBERS,
    MEMBERS_REMOVED, META, SCHEDULED_COMPACTION, TERM,
};
use super::EtcdFileError;
use crate::apply::{decode_applied, LeaseEntry, APPLIED};
use crate::backend::{BackendError, Held, Table, View};
use crate::bolt::{Sealed, Writer};
use crate::membership::Membership;
use crate::mvcc::Rev;
use crate::pb::etcd::KeyValue;
use crate::reactor::MEMBERSHIP_KEY;

/// What etcd writes into a removed member's record.
const REMOVED: &[u8] = b"removed";

/// What is known before the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the pages; the checksum's 32 follow.
    pub bytes: u64,
    pub revision: i64,
}

/// Write the state as it is now, with etcd's checksum at its end, to what `begin` opens, told how long it becomes. Blocks.
///
/// # Errors
/// When a record can't be read, the state is closed meanwhile, or no bytes are taken.
pub fn write<W: Write>(view: &View, begin: impl FnOnce(Head) -> W) -> Result<(), EtcdFileError> {
    view.hold(|held| {
        let small = Small::read(held)?;
        let mut measuring = Writer::measuring();
        small.fill(held, &mut measuring)?;
        let (plan, _) = measuring.finish()?;
        let out = begin(Head {
            bytes: plan.bytes(),
            revision: small.revision,
        });
        let mut writer = Writer::new(Sealed::new(out), plan)?;
        small.fill(held, &mut writer)?;
        let (_, sealed) = writer.finish()?;
        sealed.seal().map_err(crate::bolt::BoltError::from)?;
        Ok(())
    })
}

/// Takes bucket after bucket, each with its records in the order of their keys.
pub(super) trait Sink {
    fn begin(&mut self, bucket: &'static str) -> Result<(), EtcdFileError>;
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdFileError>;
}

impl<W: Write> Sink for Writer<W> {
    fn begin(&mut self, bucket: &'static str) -> Result<(), EtcdFileError> {
        Ok(self.bucket(bucket.as_bytes())?)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdFileError> {
        Ok(self.put(key, value)?)
    }
}

/// What fits into memory: all but keys and leases.
pub(super) struct Small {
    buckets: BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>,
    pub revision: i64,
}

impl Small {
    pub fn read(held: &Held<'_>) -> Result<Self, EtcdFileError> {
        let mut small = Self {
            buckets: BTreeMap::new(),
            revision: 1,
        };
        let last = held.last_key(Table::Revisions)?;
        let last = last.and_then(Rev::decode).map_or(0, |rev| rev.main);
        held.each(Table::Meta, |key, value| {
            if key == APPLIED {
                let state = value
                    .try_into()
                    .map_err(|_| held.damaged("its position has another length"))?;
                small.note_position(state, last);
            } else if key == MEMBERSHIP_KEY {
                let membership = serde_json::from_slice(value)
                    .map_err(|e| held.damaged(&format!("membership: {e}")))?;
                small.note_members(&membership);
            } else if let Some(alarm) = read_alarm_key(key) {
                small.put(ALARM, alarm, &[]);
            } else if let Some((bucket, key)) = read_kept_key(key) {
                small.put(bucket, key, value);
            }
            Ok::<_, BackendError>(())
        })?;
        Ok(small)
    }

    fn put(&mut self, bucket: &'static str, key: &[u8], value: &[u8]) {
        let bucket = self.buckets.entry(bucket).or_default();
        bucket.insert(key.to_vec(), value.to_vec());
    }

    /// `last`: the last revision that has a record.
    fn note_position(&mut self, state: &[u8; 32], last: i64) {
        let ((index, term), revision, compacted) = decode_applied(state);
        self.revision = revision;
        self.put(META, CONSISTENT_INDEX, &index.to_be_bytes());
        self.put(META, TERM, &term.to_be_bytes());
        let rev = |main| rev_key(Rev { main, sub: 0 }, false);
        if compacted > 0 {
            self.put(META, SCHEDULED_COMPACTION, &rev(compacted));
        }
        // Ours may not have dropped everything yet, so etcd is told to do it; but not of a revision that it has no record
        // of, since it would not believe it.
        let finished = compacted - i64::from(last >= compacted);
        if finished > 0 {
            self.put(META, FINISHED_COMPACTION, &rev(finished));
        }
    }

    /// The cluster's version stays out: each etcd that takes the file finds its own.
    fn note_members(&mut self, membership: &Membership) {
        self.put(META, CONF_STATE, &conf_state_json(membership));
        for member in membership.members.values() {
            self.put(MEMBERS, &member_key(member.id), &member_json(member));
        }
        for id in &membership.removed {
            self.put(MEMBERS_REMOVED, &member_key(*id), REMOVED);
        }
    }

    /// Hands everything on, what is large as it is read.
    pub fn fill(&self, held: &Held<'_>, sink: &mut impl Sink) -> Result<(), EtcdFileError> {
        for bucket in BUCKETS {
            sink.begin(bucket)?;
            match bucket {
                KEY => held.each(Table::Revisions, |key, value| {
                    let (key, value) = revision_record(held, key, value)?;
                    sink.record(&key, &value)
                })?,
                LEASE => held.each(Table::Leases, |key, value| {
                    sink.record(key, &lease_record(held, key, value)?)
                })?,
                _ => {
                    for (key, value) in self.buckets.get(bucket).into_iter().flatten() {
                        sink.record(key, value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A revision's record as etcd has it.
pub(super) fn revision_record<'r>(
    held: &Held<'_>,
    key: &[u8],
    value: &'r [u8],
) -> Result<(Vec<u8>, Cow<'r, [u8]>), BackendError> {
    let rev = Rev::decode(key).ok_or_else(|| held.damaged("a revision's key is too short"))?;
    let (flag, body) = value
        .split_first()
        .ok_or_else(|| held.damaged("a revision's record is empty"))?;
    if *flag == 0 {
        return Ok((rev_key(rev, false), Cow::Borrowed(body)));
    }
    // etcd's tombstones say which key, and nothing else: members are compared by these bytes.
    let kv = KeyValue::decode(body).map_err(|e| held.damaged(&e.to_string()))?;
    let bare = KeyValue {
        key: kv.key,
        ..KeyValue::default()
    };
    Ok((rev_key(rev, true), Cow::Owned(bare.encode_to_vec())))
}

fn lease_record(held: &Held<'_>, key: &[u8], value: &[u8]) -> Result<Vec<u8>, BackendError> {
    let id = key.try_into().map(i64::from_be_bytes);
    let (Ok(id), Some(entry)) = (id, LeaseEntry::decode(value)) else {
        return Err(held.damaged("a lease's record has another length"));
    };
    let lease = Lease {
        id,
        ttl: entry.ttl,
        remaining_ttl: entry.remaining,
    };
    Ok(lease.encode_to_vec())
}
