//! A naive model of the store that keeps every change, and random commands: what the tests hold the real one against.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::command::{Command, LeaseCheckpoint, LeaseCheckpoints, Proposal};
use crate::errors::StoreError;
use crate::mvcc::KeyRange;
use crate::pb::etcd::request_op::Request;
use crate::pb::etcd::{
    DeleteRangeRequest, KeyValue, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
};

pub(crate) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub fn key(&mut self) -> Bytes {
        format!("k{:02}", self.below(20)).into()
    }

    /// A key and a range's end: alone, an interval, or all from the key on.
    pub fn range(&mut self) -> (Bytes, Bytes) {
        let end = match self.below(4) {
            0 | 1 => Bytes::new(),
            2 => self.key(),
            _ => Bytes::from_static(b"\0"),
        };
        (self.key(), end)
    }
}

/// Every change ever made: revision, key, and what the key then held.
#[derive(Default)]
pub(crate) struct Model {
    pub changes: Vec<(i64, Bytes, Option<KeyValue>)>,
    pub leases: BTreeMap<i64, i64>,
    pub revision: i64,
    pub compacted: i64,
}

impl Model {
    pub fn at(&self, revision: i64) -> BTreeMap<Bytes, KeyValue> {
        let mut state = BTreeMap::new();
        for (_, key, kv) in self.changes.iter().take_while(|(r, ..)| *r <= revision) {
            match kv {
                Some(kv) => state.insert(key.clone(), kv.clone()),
                None => state.remove(key),
            };
        }
        state
    }

    fn put(&mut self, main: i64, request: &PutRequest) -> Option<KeyValue> {
        let old = self.at(main).remove(&request.key);
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: old.as_ref().map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: old.as_ref().map_or(1, |kv| kv.version + 1),
            value: match &old {
                Some(kv) if request.ignore_value => kv.value.clone(),
                _ => request.value.clone(),
            },
            lease: match &old {
                Some(kv) if request.ignore_lease => kv.lease,
                _ => request.lease,
            },
        };
        self.changes.push((main, request.key.clone(), Some(kv)));
        old
    }

    fn delete(&mut self, main: i64, gone: impl Fn(&KeyValue) -> bool) -> Vec<KeyValue> {
        let found: Vec<_> = self.at(main).into_values().filter(gone).collect();
        for kv in &found {
            self.changes.push((main, kv.key.clone(), None));
        }
        found
    }

    fn put_error(&self, request: &PutRequest) -> Option<StoreError> {
        let absent = !self.at(self.revision).contains_key(&request.key);
        if (request.ignore_value || request.ignore_lease) && absent {
            return Some(StoreError::KeyNotFound);
        }
        let unknown = request.lease != 0 && !self.leases.contains_key(&request.lease);
        unknown.then_some(StoreError::LeaseNotFound)
    }

    fn close(&mut self) {
        self.revision = self
            .changes
            .last()
            .map_or(self.revision, |c| c.0.max(self.revision));
    }

    pub fn apply(&mut self, command: &Command) -> Result<Vec<KeyValue>, StoreError> {
        let main = self.revision + 1;
        let mut previous = Vec::new();
        match command {
            Command::Put(request) => {
                self.put_error(request).map_or(Ok(()), Err)?;
                previous.extend(self.put(main, request));
            }
            Command::DeleteRange(request) => {
                let range = KeyRange::new(&request.key, &request.range_end);
                previous = self.delete(main, |kv| range.contains(&kv.key));
            }
            Command::Txn(request) => {
                let puts = request.success.iter().filter_map(|op| match &op.request {
                    Some(Request::RequestPut(put)) => Some(put),
                    _ => None,
                });
                for put in puts.clone() {
                    self.put_error(put).map_or(Ok(()), Err)?;
                }
                for put in puts {
                    previous.extend(self.put(main, put));
                }
            }
            Command::Compact(revision) => {
                if *revision <= self.compacted {
                    return Err(StoreError::Compacted);
                }
                if *revision > self.revision {
                    return Err(StoreError::FutureRevision);
                }
                self.compacted = *revision;
            }
            Command::LeaseGrant(request) => {
                if self.leases.contains_key(&request.id) {
                    return Err(StoreError::LeaseExists);
                }
                self.leases.insert(request.id, request.ttl);
            }
            Command::LeaseRevoke(id) => {
                self.leases.remove(id).ok_or(StoreError::LeaseNotFound)?;
                self.delete(main, |kv| kv.lease == *id);
            }
            Command::MemberAttributes(_)
            | Command::Auth(_)
            | Command::Alarm(_)
            | Command::Downgrade(_)
            | Command::LeaseCheckpoint(_) => {}
        }
        self.close();
        Ok(previous)
    }
}

pub(crate) fn random_put(random: &mut Random) -> PutRequest {
    let (ignore_value, ignore_lease) = (random.below(8) == 0, random.below(8) == 0);
    PutRequest {
        key: random.key(),
        value: if ignore_value {
            Bytes::new()
        } else {
            format!("v{}", random.below(1000)).into()
        },
        lease: if ignore_lease || random.below(2) == 0 {
            0
        } else {
            1 + random.below(4) as i64
        },
        prev_kv: true,
        ignore_value,
        ignore_lease,
    }
}

pub(crate) fn random_command(random: &mut Random, model: &Model) -> Command {
    match random.below(20) {
        0..=9 => Command::Put(random_put(random)),
        10..=12 => {
            let (key, range_end) = random.range();
            Command::DeleteRange(DeleteRangeRequest {
                key,
                range_end,
                prev_kv: true,
            })
        }
        13..=15 => {
            let mut success: Vec<RequestOp> = Vec::new();
            let mut keys = BTreeSet::new();
            for _ in 0..random.below(4) {
                let put = random_put(random);
                if !keys.insert(put.key.clone()) {
                    continue;
                }
                let read = RangeRequest {
                    key: put.key.clone(),
                    ..Default::default()
                };
                success.extend([
                    RequestOp {
                        request: Some(Request::RequestPut(put)),
                    },
                    RequestOp {
                        request: Some(Request::RequestRange(read)),
                    },
                ]);
            }
            Command::Txn(TxnRequest {
                success,
                ..Default::default()
            })
        }
        16 if random.below(3) == 0 => Command::Compact(model.compacted + random.below(12) as i64),
        17 => Command::LeaseRevoke(1 + random.below(4) as i64),
        18 => Command::LeaseCheckpoint(LeaseCheckpoints {
            checkpoints: vec![LeaseCheckpoint {
                id: 1 + random.below(4) as i64,
                remaining_ttl: random.below(5) as i64,
            }],
        }),
        _ => Command::LeaseGrant(LeaseGrantRequest {
            id: 1 + random.below(4) as i64,
            ttl: 5,
        }),
    }
}

pub(crate) fn proposal(command: Command) -> Proposal {
    Proposal {
        origin: 1,
        request_id: 1,
        command: Some(command),
        caller: None,
    }
}
