//! What applying gives, and what it keeps while it is at it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::auth::Authenticated;
use crate::command::MemberAttributes;
use crate::errors::StoreError;
use crate::mvcc::{Change, Rev};
use crate::pb::etcd::{
    AlarmResponse, CompactionResponse, DeleteRangeResponse, LeaseGrantResponse,
    LeaseRevokeResponse, PutResponse, TxnResponse,
};

/// What a proposal did.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    MemberAttributes(MemberAttributes),
    /// Of one who authenticated, the token.
    Auth(Option<Authenticated>),
    Alarm(AlarmResponse),
    Downgrade,
    LeaseCheckpoint,
}

/// The outcome of one proposal, for the member whose client waits.
#[derive(Debug)]
pub struct Outcome {
    pub origin: u64,
    pub request_id: u64,
    /// The state's revision after it.
    pub revision: i64,
    pub result: Result<Response, StoreError>,
}

/// All changes of one revision.
#[derive(Debug, Clone)]
pub struct RevisionEvents {
    pub revision: i64,
    pub changes: Vec<Change>,
}

/// Operations that the state carried out since the member started: one for each range, put and deletion, also within
/// transactions and also where no key was found, as etcd's `etcd_mvcc_*_total` count them.
#[derive(Debug, Default)]
pub struct Counts {
    pub ranges: AtomicU64,
    pub puts: AtomicU64,
    pub deletes: AtomicU64,
    /// Transactions of more than one operation.
    pub txns: AtomicU64,
}

/// Adds to one of the counts.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// A lease as all members know it; when it ends is its leader's business.
#[derive(Debug, Default)]
pub struct LeaseEntry {
    pub ttl: i64,
    /// Seconds that were left of it at its last checkpoint; 0 for all.
    pub remaining: i64,
    pub keys: BTreeSet<Bytes>,
}

impl LeaseEntry {
    /// Without keys yet.
    pub fn new(ttl: i64, remaining: i64) -> Self {
        Self {
            ttl,
            remaining,
            keys: BTreeSet::new(),
        }
    }

    /// Seconds that a new leader gives it.
    pub fn left(&self) -> i64 {
        if self.remaining > 0 {
            self.remaining.min(self.ttl)
        } else {
            self.ttl
        }
    }

    /// Its record: the TTL, and behind it what is left, where that was noted.
    pub fn encode(&self) -> Vec<u8> {
        let mut record = self.ttl.to_be_bytes().to_vec();
        if self.remaining > 0 {
            record.extend_from_slice(&self.remaining.to_be_bytes());
        }
        record
    }

    /// Reads such a record; None when it has another length.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (ttl, rest) = record.split_first_chunk::<8>()?;
        let remaining = match rest {
            [] => 0,
            rest => i64::from_be_bytes(rest.try_into().ok()?),
        };
        Some(Self::new(i64::from_be_bytes(*ttl), remaining))
    }
}

/// One transaction's revision and its changes so far.
#[derive(Debug)]
pub(crate) struct Turn {
    pub main: i64,
    sub: u32,
    pub changes: Vec<Change>,
    /// The first read that failed; what it was to answer is missing.
    pub unread: Option<StoreError>,
    /// Ranges, puts and deletions so far.
    pub operations: u32,
}

impl Turn {
    pub fn new(current: i64) -> Self {
        Self {
            main: current + 1,
            sub: 0,
            changes: Vec::new(),
            unread: None,
            operations: 0,
        }
    }

    pub fn next(&mut self) -> Rev {
        let rev = Rev {
            main: self.main,
            sub: self.sub,
        };
        self.sub += 1;
        rev
    }

    /// The revision that a read within the transaction sees.
    pub fn seen(&self) -> i64 {
        if self.changes.is_empty() {
            self.main - 1
        } else {
            self.main
        }
    }
}

pub(crate) fn encode_applied(applied: (u64, u64), revision: i64, compacted: i64) -> [u8; 32] {
    let mut out = [0; 32];
    out[..8].copy_from_slice(&applied.0.to_be_bytes());
    out[8..16].copy_from_slice(&applied.1.to_be_bytes());
    out[16..24].copy_from_slice(&revision.to_be_bytes());
    out[24..].copy_from_slice(&compacted.to_be_bytes());
    out
}

pub(crate) fn decode_applied(data: &[u8; 32]) -> ((u64, u64), i64, i64) {
    let part = |i: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&data[i..i + 8]);
        bytes
    };
    let (index, term) = (u64::from_be_bytes(part(0)), u64::from_be_bytes(part(8)));
    (
        (index, term),
        i64::from_be_bytes(part(16)),
        i64::from_be_bytes(part(24)),
    )
}
