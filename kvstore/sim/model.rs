//! The store, naively: every change is kept. What the real one is held against.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use kvstore::auth::Caller;
use kvstore::command::{Command, Proposal};
use kvstore::mvcc::KeyRange;
use kvstore::pb::etcd::compare::TargetUnion;
use kvstore::pb::etcd::event::EventType;
use kvstore::pb::etcd::request_op::Request;
use kvstore::pb::etcd::{Compare, Event, KeyValue, PutRequest, TxnRequest};

use super::users::Users;

/// The first revision that can have events.
const FIRST: i64 = 2;

pub struct Model {
    keys: BTreeMap<Bytes, KeyValue>,
    pub leases: BTreeMap<i64, i64>,
    pub revision: i64,
    pub compacted: i64,
    pub users: Rc<Users>,
    events: Vec<Vec<Event>>,
    history: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            revision: FIRST - 1,
            compacted: 0,
            users: Rc::default(),
            events: Vec::new(),
            history: BTreeMap::new(),
        }
    }
}

impl Model {
    /// What happened at a revision, each with what was there before.
    pub fn events(&self, revision: i64) -> &[Event] {
        let place = usize::try_from(revision - FIRST).ok();
        place
            .and_then(|i| self.events.get(i))
            .map_or(&[], Vec::as_slice)
    }

    /// All keys as they were at a revision, in order.
    pub fn at(&self, revision: i64) -> Vec<KeyValue> {
        let then = |changes: &Vec<(i64, Option<KeyValue>)>| {
            let seen = changes.partition_point(|(at, _)| *at <= revision);
            changes[..seen].last().and_then(|(_, kv)| kv.clone())
        };
        self.history.values().filter_map(then).collect()
    }

    /// Carries a command out; whether it was possible.
    pub fn apply(&mut self, proposal: &Proposal) -> bool {
        let caller = proposal.caller.as_ref();
        let Some(command) = &proposal.command else {
            return false;
        };
        let mut events = Vec::new();
        let done = match command {
            Command::Put(put) => self.may_put(caller, put) && self.put(put, &mut events),
            Command::DeleteRange(delete) => {
                let allowed = self.users.permit(caller, &delete.key, &delete.range_end);
                let range = KeyRange::new(&delete.key, &delete.range_end);
                allowed && self.delete(|kv| range.contains(&kv.key), &mut events)
            }
            Command::Txn(txn) => self.txn(caller, txn, &mut events),
            Command::Compact(revision) => {
                let fits = (self.compacted + 1..=self.revision).contains(revision);
                if fits {
                    self.compacted = *revision;
                }
                fits
            }
            Command::LeaseGrant(grant) => {
                let fresh = !self.leases.contains_key(&grant.id);
                self.leases.entry(grant.id).or_insert(grant.ttl);
                fresh
            }
            Command::LeaseRevoke(id) => {
                let may = self.may_end(caller, *id);
                let ends = may && self.leases.remove(id).is_some();
                ends && self.delete(|kv| kv.lease == *id, &mut events)
            }
            Command::Auth(command) => {
                let action = command.action.as_ref();
                action.is_some_and(|action| Rc::make_mut(&mut self.users).apply(action, caller))
            }
            other => unreachable!("the simulation does no {other:?}"),
        };
        if !events.is_empty() {
            self.revision += 1;
            self.events.push(events);
        }
        done
    }

    fn may_put(&self, caller: Option<&Caller>, put: &PutRequest) -> bool {
        let held = put.lease == 0 || self.leases.contains_key(&put.lease);
        let may = self.users.permit(caller, &put.key, &Bytes::new());
        held && may && self.may_end(caller, put.lease)
    }

    /// Whether somebody may let a lease end with all its keys.
    fn may_end(&self, caller: Option<&Caller>, lease: i64) -> bool {
        let known = lease != 0 && self.leases.contains_key(&lease);
        let mut keys = self.keys.values().filter(|kv| known && kv.lease == lease);
        self.users.is_root(caller)
            || keys.all(|kv| self.users.permit(caller, &kv.key, &Bytes::new()))
    }

    fn put(&mut self, put: &PutRequest, events: &mut Vec<Event>) -> bool {
        let main = self.revision + 1;
        let prev = self.keys.get(&put.key).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            lease: put.lease,
            mod_revision: main,
            create_revision: prev.as_ref().map_or(main, |kv| kv.create_revision),
            version: prev.as_ref().map_or(1, |kv| kv.version + 1),
        };
        self.note(&put.key, Some(kv.clone()));
        self.keys.insert(put.key.clone(), kv.clone());
        events.push(Event {
            r#type: EventType::Put.into(),
            kv: Some(kv),
            prev_kv: prev,
        });
        true
    }

    fn delete(&mut self, gone: impl Fn(&KeyValue) -> bool, events: &mut Vec<Event>) -> bool {
        let found: Vec<KeyValue> = self.keys.values().filter(|kv| gone(kv)).cloned().collect();
        for prev in found {
            self.keys.remove(&prev.key);
            self.note(&prev.key, None);
            let kv = KeyValue {
                key: prev.key.clone(),
                mod_revision: self.revision + 1,
                ..KeyValue::default()
            };
            events.push(Event {
                r#type: EventType::Delete.into(),
                kv: Some(kv),
                prev_kv: Some(prev),
            });
        }
        true
    }

    fn note(&mut self, key: &Bytes, kv: Option<KeyValue>) {
        let changes = self.history.entry(key.clone()).or_default();
        changes.push((self.revision + 1, kv));
    }

    fn txn(&mut self, caller: Option<&Caller>, txn: &TxnRequest, events: &mut Vec<Event>) -> bool {
        let none = Bytes::new();
        let compared = txn.compare.iter().map(|c| (&c.key, &none));
        let ops = txn.success.iter().chain(&txn.failure);
        let touched = ops.filter_map(|op| match op.request.as_ref()? {
            Request::RequestPut(put) => Some((&put.key, &none)),
            Request::RequestRange(range) => Some((&range.key, &range.range_end)),
            Request::RequestDeleteRange(delete) => Some((&delete.key, &delete.range_end)),
            Request::RequestTxn(_) => None,
        });
        if !compared
            .chain(touched)
            .all(|(key, end)| self.users.permit(caller, key, end))
        {
            return false;
        }
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        for op in if holds { &txn.success } else { &txn.failure } {
            match &op.request {
                Some(Request::RequestPut(put)) => {
                    self.put(put, events);
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    let range = KeyRange::new(&delete.key, &delete.range_end);
                    self.delete(|kv| range.contains(&kv.key), events);
                }
                _ => {}
            }
        }
        true
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.keys.get(&compare.key);
        match compare.target_union.as_ref() {
            Some(TargetUnion::Value(value)) => found.is_some_and(|kv| kv.value == *value),
            Some(TargetUnion::Version(version)) => found.map_or(0, |kv| kv.version) == *version,
            other => unreachable!("the simulation compares no {other:?}"),
        }
    }
}
