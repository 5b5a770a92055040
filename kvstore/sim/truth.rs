//! The one history that all members must agree on: each entry as it was applied first, held against the naive model,
//! and every other member's doing of it held against that.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use kvstore::apply::{Response, RevisionEvents, Store};
use kvstore::command::{decode_batch, Command};
use kvstore::consensus::Body;
use kvstore::errors::StoreError;
use kvstore::pb::etcd::{Event, RangeRequest};
use prost::Message;

use super::model::Model;
use super::users::Users;

/// Request and what became of it.
pub type Outcome = (u64, Result<Response, StoreError>);

/// One entry as a member applied it.
pub struct Applied {
    pub index: u64,
    pub term: u64,
    pub body: Body,
    pub outcomes: Vec<Outcome>,
    pub events: Vec<RevisionEvents>,
    pub revision: i64,
    pub compacted: i64,
    /// Of the whole state; now and then.
    pub hash: Option<u32>,
    /// `HashKV`; now and then.
    pub hash_kv: Option<u32>,
}

struct Entry {
    term: u64,
    body: Body,
    outcomes: Vec<Outcome>,
    revision: i64,
    compacted: i64,
    hash: Option<u32>,
    hash_kv: Option<u32>,
    users: Rc<Users>,
}

/// A lease that came or went with an entry.
#[derive(Debug, Clone, Copy)]
pub struct LeaseNews {
    index: u64,
    pub id: i64,
    /// None when it ended.
    pub ttl: Option<i64>,
    pub request: u64,
}

#[derive(Default)]
pub struct Truth {
    entries: BTreeMap<u64, Entry>,
    pub model: Model,
    requests: BTreeSet<u64>,
    pub leases: Vec<LeaseNews>,
}

/// All keys, at a revision (0: now).
fn everything(revision: i64) -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        revision,
        ..RangeRequest::default()
    }
}

impl Truth {
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Takes in what a member applied.
    pub fn check(&mut self, member: u64, applied: Applied) {
        let index = applied.index;
        if !self.entries.contains_key(&index) {
            return self.learn(member, applied);
        }
        let Some(known) = self.entries.get_mut(&index) else {
            return;
        };
        let at = format!("entry {index} at member {member}");
        assert_eq!(
            (known.term, &known.body),
            (applied.term, &applied.body),
            "{at} is another"
        );
        let state = (applied.revision, applied.compacted);
        assert_eq!(
            (known.revision, known.compacted),
            state,
            "revisions after {at}"
        );
        assert_eq!(known.outcomes, applied.outcomes, "outcomes of {at}");
        same_hash(&mut known.hash, applied.hash, &at);
        same_hash(&mut known.hash_kv, applied.hash_kv, &at);
        let before = self
            .entries
            .get(&(index - 1))
            .map_or(1, |entry| entry.revision);
        same_events(&self.model, before, &applied, &at);
    }

    fn learn(&mut self, member: u64, applied: Applied) {
        let index = applied.index;
        let at = format!("entry {index}, applied first by member {member}");
        let last = self.entries.last_key_value().map_or(1, |(last, _)| *last);
        assert_eq!(index, last + 1, "{at} follows another");
        let before = self.model.revision;
        if let Body::Normal(data) = &applied.body {
            let proposals = decode_batch(data.clone()).unwrap();
            assert_eq!(proposals.len(), applied.outcomes.len());
            for (proposal, (request, result)) in proposals.iter().zip(&applied.outcomes) {
                assert_eq!(proposal.request_id, *request);
                assert!(
                    self.requests.insert(*request),
                    "request {request:x} comes twice, {at}"
                );
                let possible = self.model.apply(proposal);
                assert_eq!(
                    possible,
                    result.is_ok(),
                    "{at}: {proposal:?} gave {result:?}"
                );
                let (id, ttl) = match &proposal.command {
                    Some(Command::LeaseGrant(grant)) => (grant.id, Some(grant.ttl)),
                    Some(Command::LeaseRevoke(id)) => (*id, None),
                    _ => continue,
                };
                if possible {
                    let request = *request;
                    self.leases.push(LeaseNews {
                        index,
                        id,
                        ttl,
                        request,
                    });
                }
            }
        }
        let state = (applied.revision, applied.compacted);
        assert_eq!(
            state,
            (self.model.revision, self.model.compacted),
            "revisions after {at}"
        );
        same_events(&self.model, before, &applied, &at);
        let entry = Entry {
            term: applied.term,
            body: applied.body,
            outcomes: applied.outcomes,
            revision: applied.revision,
            compacted: applied.compacted,
            hash: applied.hash,
            hash_kv: applied.hash_kv,
            users: Rc::clone(&self.model.users),
        };
        self.entries.insert(index, entry);
    }

    /// Users as they were after an entry.
    pub fn users_at(&self, index: u64) -> &Users {
        self.entries
            .get(&index)
            .map_or(&self.model.users, |entry| &entry.users)
    }

    /// A state that was opened, or came as a snapshot, is what it was when its last entry was applied.
    pub fn check_opened(&self, member: u64, store: &Store) {
        let index = store.applied().0;
        let at = format!("the state of entry {index} that member {member} opened");
        let Some(entry) = self.entries.get(&index) else {
            assert!(index <= 1, "{at} has an entry that nobody applied");
            return;
        };
        assert_eq!(store.applied().1, entry.term, "{at} has another term");
        let state = (store.revision(), store.compacted_revision());
        assert_eq!(
            state,
            (entry.revision, entry.compacted),
            "revisions of {at}"
        );
        self.check_keys(&at, store, 0);
        let mut leases = BTreeMap::new();
        for news in self.leases.iter().take_while(|news| news.index <= index) {
            match news.ttl {
                Some(ttl) => leases.insert(news.id, ttl),
                None => leases.remove(&news.id),
            };
        }
        assert_eq!(
            store.leases().collect::<BTreeMap<_, _>>(),
            leases,
            "leases of {at}"
        );
        assert_eq!(store.auth().is_enabled(), entry.users.enabled, "{at}");
        assert_eq!(
            store.auth().revision(),
            entry.users.changes + 1,
            "users of {at}"
        );
    }

    /// All keys at a revision are what they were (0: now).
    pub fn check_keys(&self, at: &str, store: &Store, revision: i64) {
        let read = store.range(&everything(revision)).unwrap();
        let revision = if revision == 0 {
            store.revision()
        } else {
            revision
        };
        assert_eq!(
            read.kvs,
            self.model.at(revision),
            "keys of revision {revision} in {at}"
        );
    }
}

fn same_hash(first: &mut Option<u32>, other: Option<u32>, at: &str) {
    if let Some(other) = other {
        assert_eq!(*first.get_or_insert(other), other, "hash after {at}");
    }
}

/// The same events, and one revision after the other.
fn same_events(model: &Model, before: i64, applied: &Applied, at: &str) {
    let revisions = applied.events.iter().map(|one| one.revision);
    assert!(
        revisions.eq(before + 1..=applied.revision),
        "revisions in {at}"
    );
    for one in &applied.events {
        let events = one.changes.iter().map(|change| change.event(true));
        let told: Result<Vec<_>, _> = events.map(Event::decode).collect();
        assert_eq!(
            told.as_deref(),
            Ok(model.events(one.revision)),
            "events of revision {}, {at}",
            one.revision
        );
    }
}
