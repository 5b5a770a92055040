//! The state machine against a naive model that keeps every version of every key, and across restarts.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvstore::apply::{Response, Store};
use kvstore::command::{Command, Proposal};
use kvstore::errors::StoreError;
use kvstore::mvcc::KeyRange;
use kvstore::pb::etcd::{
    DeleteRangeRequest, Event, KeyValue, LeaseGrantRequest, PutRequest, RangeRequest,
    WatchCreateRequest,
};
use kvstore::watch::{Hub, Taken};
use prost::Message;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Every version of every key: what a store without tricks would keep.
#[derive(Default)]
struct Model {
    revision: i64,
    versions: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
}

impl Model {
    fn at(&self, key: &Bytes, revision: i64) -> Option<KeyValue> {
        self.versions
            .get(key)?
            .iter()
            .rev()
            .find(|(rev, _)| *rev <= revision)?
            .1
            .clone()
    }

    fn put(&mut self, key: &Bytes, value: Bytes) {
        self.revision += 1;
        let before = self.at(key, self.revision);
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: before
                .as_ref()
                .map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            version: before.map_or(0, |kv| kv.version) + 1,
            lease: 0,
        };
        self.versions
            .entry(key.clone())
            .or_default()
            .push((self.revision, Some(kv)));
    }

    fn delete(&mut self, range: &KeyRange) {
        let now = self.revision;
        let gone: Vec<_> = self
            .versions
            .keys()
            .filter(|k| range.contains(k) && self.at(k, now).is_some())
            .cloned()
            .collect();
        if !gone.is_empty() {
            self.revision += 1;
            for key in gone {
                self.versions
                    .entry(key)
                    .or_default()
                    .push((self.revision, None));
            }
        }
    }

    fn range(&self, range: &KeyRange, revision: i64) -> Vec<KeyValue> {
        self.versions
            .keys()
            .filter(|k| range.contains(k))
            .filter_map(|k| self.at(k, revision))
            .collect()
    }
}

fn apply(store: &mut Store, command: Command) -> Result<Response, StoreError> {
    let index = store.applied().0 + 1;
    let proposal = Proposal {
        origin: 1,
        request_id: index,
        command: Some(command),
        caller: None,
    };
    store.apply(index, 1, vec![proposal]).remove(0).result
}

fn put(key: &Bytes, value: &Bytes) -> Command {
    Command::Put(PutRequest {
        key: key.clone(),
        value: value.clone(),
        ..Default::default()
    })
}

fn key(n: u64) -> Bytes {
    format!("k{n:02}").into()
}

#[test]
fn it_answers_as_the_naive_model_does_at_every_revision_and_after_a_restart() {
    for seed in 1..=8 {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("state")).unwrap();
        let (mut model, mut random) = (
            Model {
                revision: 1,
                ..Default::default()
            },
            Random(seed),
        );
        let mut hub = Hub::default();
        let all = WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            ..Default::default()
        };
        let watcher = hub.create(&all, store.revision());
        let (mut seen, mut compacted) = (Vec::new(), 0);
        for turn in 0..600 {
            match random.below(20) {
                0..=13 => {
                    let (key, value) = (key(random.below(12)), Bytes::from(format!("v{turn}")));
                    apply(&mut store, put(&key, &value)).unwrap();
                    model.put(&key, value);
                }
                14..=16 => {
                    let (from, to) = (key(random.below(12)), key(random.below(14)));
                    let request = DeleteRangeRequest {
                        key: from.clone(),
                        range_end: to.clone(),
                        prev_kv: false,
                    };
                    apply(&mut store, Command::DeleteRange(request)).unwrap();
                    model.delete(&KeyRange::new(&from, &to));
                }
                17 if turn % 3 == 0 => {
                    let at = compacted + 1 + i64::try_from(random.below(20)).unwrap();
                    let result = apply(&mut store, Command::Compact(at));
                    if at <= model.revision {
                        result.unwrap();
                        compacted = at;
                    } else {
                        assert_eq!(result, Err(StoreError::FutureRevision));
                    }
                }
                18 if turn % 5 == 0 => {
                    store.flush().unwrap();
                    let (hash, revision) = (store.hash().unwrap(), store.revision());
                    drop(store);
                    store = Store::open(&dir.path().join("state")).unwrap();
                    assert_eq!(
                        (store.hash().unwrap(), store.revision()),
                        (hash, revision),
                        "seed {seed}"
                    );
                }
                _ => {
                    let span = i64::try_from(random.below(30)).unwrap();
                    let at = (model.revision - span).max(1);
                    let range = KeyRange::new(&key(2), &key(random.below(13)));
                    let KeyRange::Span(from, to) = range.clone() else {
                        continue;
                    };
                    let request = RangeRequest {
                        key: from,
                        range_end: to,
                        revision: at,
                        ..Default::default()
                    };
                    let got = store.range(&request);
                    if at < compacted {
                        assert_eq!(got, Err(StoreError::Compacted));
                    } else {
                        assert_eq!(
                            got.unwrap().kvs,
                            model.range(&range, at),
                            "seed {seed}, revision {at}"
                        );
                    }
                }
            }
            assert_eq!(store.revision(), model.revision);
            store.sweep();
            store
                .take_events()
                .iter()
                .for_each(|events| hub.publish(events));
            if random.below(3) == 0 {
                while let Some(Taken::Events { batches, .. }) = hub.take(watcher) {
                    seen.extend(batches);
                }
            }
        }
        while let Some(Taken::Events { batches, .. }) = hub.take(watcher) {
            seen.extend(batches);
        }
        let revisions: Vec<_> = seen.iter().map(|batch| batch.revision).collect();
        assert_eq!(
            revisions,
            (2..=model.revision).collect::<Vec<_>>(),
            "each revision once, in order, none missing"
        );
    }
}

#[test]
fn a_watcher_from_the_past_gets_history_then_the_present_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    let mut hub = Hub::default();
    for n in 0..50 {
        apply(&mut store, put(&key(n % 5), &Bytes::from(n.to_string()))).unwrap();
    }
    store.take_events();
    let request = WatchCreateRequest {
        key: key(3),
        start_revision: 10,
        prev_kv: true,
        ..Default::default()
    };
    let watcher = hub.create(&request, store.revision());
    apply(&mut store, put(&key(3), &"late".into())).unwrap();
    store
        .take_events()
        .iter()
        .for_each(|events| hub.publish(events));
    while hub.lags() {
        hub.catch_up(&store).unwrap();
    }
    apply(&mut store, put(&key(3), &"last".into())).unwrap();
    store
        .take_events()
        .iter()
        .for_each(|events| hub.publish(events));
    let Some(Taken::Events { batches, .. }) = hub.take(watcher) else {
        panic!("nothing was delivered")
    };
    let got: Vec<_> = batches.iter().map(|b| b.revision).collect();
    assert_eq!(got, [10, 15, 20, 25, 30, 35, 40, 45, 50, 52, 53]);
    let last = batches.last().unwrap();
    let event = Event::decode(last.events[0].clone()).unwrap();
    assert_eq!(event.prev_kv.as_ref().unwrap().value, "late");
}

#[test]
fn a_watcher_of_what_is_compacted_is_told_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    for n in 0..10 {
        apply(&mut store, put(&key(1), &Bytes::from(n.to_string()))).unwrap();
    }
    apply(&mut store, Command::Compact(8)).unwrap();
    let mut hub = Hub::default();
    let request = WatchCreateRequest {
        key: key(1),
        start_revision: 3,
        ..Default::default()
    };
    let watcher = hub.create(&request, store.revision());
    hub.catch_up(&store).unwrap();
    assert_eq!(hub.take(watcher), Some(Taken::Compacted(8)));
    assert!(hub.is_empty());
}

#[test]
fn a_slow_watcher_misses_nothing_and_holds_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    let mut hub = Hub::default();
    let watcher = hub.create(
        &WatchCreateRequest {
            key: key(1),
            ..Default::default()
        },
        store.revision(),
    );
    for n in 0..10_000 {
        apply(&mut store, put(&key(1), &Bytes::from(n.to_string()))).unwrap();
        store
            .take_events()
            .iter()
            .for_each(|events| hub.publish(events));
    }
    assert!(hub.lags(), "it must have been put back");
    let mut revisions = Vec::new();
    loop {
        if let Some(Taken::Events { batches, .. }) = hub.take(watcher) {
            revisions.extend(batches.iter().map(|b| b.revision));
        } else if hub.lags() {
            hub.catch_up(&store).unwrap();
        } else {
            break;
        }
    }
    assert_eq!(revisions, (2..=10_001).collect::<Vec<_>>());
}

#[test]
fn a_lease_takes_its_keys_along_in_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    let grant = |id| Command::LeaseGrant(LeaseGrantRequest { id, ttl: 5 });
    apply(&mut store, grant(9)).unwrap();
    assert_eq!(apply(&mut store, grant(9)), Err(StoreError::LeaseExists));
    let with = |name: &'static str, lease| {
        Command::Put(PutRequest {
            key: name.into(),
            value: "x".into(),
            lease,
            ..Default::default()
        })
    };
    assert_eq!(
        apply(&mut store, with("a", 8)),
        Err(StoreError::LeaseNotFound)
    );
    for name in ["c", "a", "b"] {
        apply(&mut store, with(name, 9)).unwrap();
    }
    apply(&mut store, with("b", 0)).unwrap();
    store.take_events();
    store.flush().unwrap();
    drop(store);
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    assert_eq!(store.lease_keys(9), ["a", "c"]);
    apply(&mut store, Command::LeaseRevoke(9)).unwrap();
    let events = store.take_events();
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0]
            .changes
            .iter()
            .map(|c| c.kv.key())
            .collect::<Vec<_>>(),
        [b"a", b"c"]
    );
    assert_eq!(
        apply(&mut store, Command::LeaseRevoke(9)),
        Err(StoreError::LeaseNotFound)
    );
}

#[test]
fn an_exported_state_comes_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("state")).unwrap();
    for n in 0..200 {
        apply(&mut store, put(&key(n % 9), &Bytes::from(n.to_string()))).unwrap();
    }
    apply(
        &mut store,
        Command::LeaseGrant(LeaseGrantRequest { id: 4, ttl: 60 }),
    )
    .unwrap();
    apply(&mut store, Command::Compact(100)).unwrap();
    store.set_meta(b"members", b"m");
    apply(&mut store, put(&key(1), &"end".into())).unwrap();
    let mut chunks = Vec::new();
    let export = store.export();
    export
        .read(
            |meta| assert_eq!((meta.index, meta.term), store.applied()),
            |chunk| {
                chunks.push(chunk);
                true
            },
        )
        .unwrap();
    let copy = Store::import(&dir.path().join("copy"), chunks.clone()).unwrap();
    assert_eq!(copy.hash().unwrap(), store.hash().unwrap());
    assert_eq!(
        (copy.applied(), copy.get_meta(b"members")),
        (store.applied(), Some(&b"m"[..]))
    );
    let cut = Store::import(&dir.path().join("cut"), chunks[..chunks.len() - 1].to_vec());
    assert!(cut.is_err_and(|e| e.to_string().contains("ends early")));
}
