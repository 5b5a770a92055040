//! Watches against the model: random commands, watches that begin anywhere, compactions between.

use std::collections::BTreeMap;

use prost::Message;

use super::catching_up::SLICE_BYTES;
use super::*;
use crate::apply::Store;
use crate::model::{proposal, random_command, Model, Random};
use crate::pb::etcd::Event;

/// What a watcher asked for, what it got, and whether it was told that its past is gone.
struct Seen {
    range: KeyRange,
    next: i64,
    events: Vec<(i64, Bytes, bool)>,
    ended: bool,
}

fn take_all(hub: &mut Hub, watched: &mut BTreeMap<WatcherId, Seen>) {
    for id in hub.ready() {
        let seen = watched.get_mut(&id).unwrap();
        match hub.take(id) {
            Some(Taken::Events { batches, .. }) => {
                for batch in batches {
                    let last = seen.events.last().map_or(seen.next - 1, |event| event.0);
                    assert!(batch.revision > last, "repeated, split or out of order");
                    for event in batch.events {
                        let event = Event::decode(event).unwrap();
                        let kv = event.kv.clone().unwrap();
                        assert_eq!(kv.mod_revision, batch.revision);
                        seen.events
                            .push((batch.revision, kv.key, event.r#type == 1));
                    }
                }
            }
            Some(Taken::Compacted(_)) => seen.ended = true,
            None => {}
        }
    }
}

#[test]
fn watches_leave_nothing_out_repeat_nothing_and_split_no_revision() {
    for seed in 1..=12u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::open(&root.path().join("state")).unwrap();
        let mut model = Model {
            revision: 1,
            ..Default::default()
        };
        // Every other time few keys are many, so that history is walked through, and left within revisions.
        let mut hub = match seed % 2 {
            0 => Hub::default(),
            _ => Hub::with_pace(Pace {
                few_keys: 1,
                slice_work: 1 + random.below(8) as usize,
                large_revision: 1,
            }),
        };
        let mut watched: BTreeMap<WatcherId, Seen> = BTreeMap::new();
        for turn in 1..=150u64 {
            let entry = (0..1 + random.below(3))
                .map(|_| {
                    let command = random_command(&mut random, &model);
                    let _ = model.apply(&command);
                    proposal(command)
                })
                .collect();
            store.apply(turn, 1, entry);
            if random.below(3) == 0 {
                let (key, range_end) = random.range();
                let start = random.below(model.revision as u64 + 5) as i64;
                let request = WatchCreateRequest {
                    key: key.clone(),
                    range_end: range_end.clone(),
                    start_revision: start,
                    prev_kv: random.below(2) == 0,
                    ..Default::default()
                };
                let id = hub.create(&request, store.revision());
                let next = if start == 0 {
                    model.revision + 1
                } else {
                    start
                };
                let range = KeyRange::new(&key, &range_end);
                watched.insert(
                    id,
                    Seen {
                        range,
                        next,
                        events: Vec::new(),
                        ended: false,
                    },
                );
            }
            if random.below(2) == 0 {
                hub.catch_up(&store).unwrap();
            }
            for events in store.take_events() {
                hub.publish(&events);
            }
            if random.below(3) == 0 {
                take_all(&mut hub, &mut watched);
            }
        }
        while hub.can_catch_up() || !hub.ready().is_empty() {
            hub.catch_up(&store).unwrap();
            take_all(&mut hub, &mut watched);
        }
        for seen in watched.values() {
            let expected: Vec<_> = model
                .changes
                .iter()
                .filter(|(r, key, _)| *r >= seen.next && seen.range.contains(key))
                .map(|(r, key, kv)| (*r, key.clone(), kv.is_none()))
                .collect();
            if seen.ended {
                let last = seen.events.last().map_or(seen.next - 1, |event| event.0);
                assert!(last < model.compacted, "seed {seed}");
                assert!(expected.starts_with(&seen.events), "seed {seed}");
            } else {
                assert_eq!(seen.events, expected, "seed {seed}, {:?}", seen.range);
            }
        }
    }
}

const LARGE: usize = 256 * 1024;

/// Puts of values of `bytes` each, one a revision.
fn write(store: &mut Store, hub: &mut Hub, count: u64, bytes: usize) {
    for _ in 0..count {
        let put = crate::pb::etcd::PutRequest {
            key: "k".into(),
            value: vec![7; bytes].into(),
            ..Default::default()
        };
        let command = crate::command::Command::Put(put);
        store.apply(store.applied().0 + 1, 1, vec![proposal(command)]);
        for events in store.take_events() {
            hub.publish(&events);
        }
        while hub.can_catch_up() {
            hub.catch_up(store).unwrap();
        }
    }
}

fn held(hub: &Hub) -> usize {
    let batches = hub.watchers.values().flat_map(|w| &w.waiting);
    let events = batches.flat_map(|batch| &batch.events);
    events.map(Bytes::len).sum()
}

#[test]
fn watchers_that_nobody_reads_hold_little_and_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(&root.path().join("state")).unwrap();
    let mut hub = Hub::default();
    let request = WatchCreateRequest {
        key: "k".into(),
        ..Default::default()
    };
    let first = store.revision() + 1;
    let id = hub.create(&request, store.revision());
    write(&mut store, &mut hub, 40, LARGE);
    assert!(held(&hub) <= MAX_WAITING_BYTES + LARGE);
    let late = WatchCreateRequest {
        start_revision: first,
        ..request.clone()
    };
    let ids: Vec<_> = (0..100)
        .map(|_| hub.create(&late, store.revision()))
        .collect();
    write(&mut store, &mut hub, 1, LARGE);
    assert!(held(&hub) <= MAX_WAITING_BYTES_IN_ALL + 2 * SLICE_BYTES);
    let mut seen: BTreeMap<WatcherId, Vec<i64>> = BTreeMap::new();
    while hub.can_catch_up() || !hub.ready().is_empty() {
        for id in hub.ready() {
            if let Some(Taken::Events { batches, .. }) = hub.take(id) {
                let revisions = batches.iter().map(|batch| batch.revision);
                seen.entry(id).or_default().extend(revisions);
            }
        }
        hub.catch_up(&store).unwrap();
    }
    let all: Vec<i64> = (first..=store.revision()).collect();
    assert!(ids.iter().chain([&id]).all(|id| seen[id] == all));
    assert_eq!((held(&hub), hub.waiting_bytes), (0, 0));
}

/// What a watcher holds for an event besides its bytes, which all of them share.
const OF_ONE_EVENT: usize = std::mem::size_of::<Batch>() + std::mem::size_of::<Bytes>();

#[test]
fn small_events_that_nobody_takes_are_bounded_by_what_they_take_themselves() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(&root.path().join("state")).unwrap();
    let mut hub = Hub::default();
    let request = WatchCreateRequest {
        key: "k".into(),
        ..Default::default()
    };
    let watchers = 100;
    for _ in 0..watchers {
        hub.create(&request, store.revision());
    }
    let mut most = 0;
    for _ in 0..MAX_WAITING_EVENTS {
        write(&mut store, &mut hub, 1, 1);
        let waiting: usize = hub.watchers.values().map(|w| w.waiting_events).sum();
        most = most.max(waiting * OF_ONE_EVENT);
    }
    let turn = watchers * OF_ONE_EVENT;
    assert!(most <= MAX_WAITING_BYTES_IN_ALL + turn, "{most}");
}

#[test]
fn the_watchers_that_are_read_from_slowest_go_to_history_first() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(&root.path().join("state")).unwrap();
    let mut hub = Hub::default();
    let request = WatchCreateRequest {
        key: "k".into(),
        ..Default::default()
    };
    let ids: Vec<_> = (0..100)
        .map(|_| hub.create(&request, store.revision()))
        .collect();
    let (fast, slow) = ids.split_at(20);
    while hub.behind.is_empty() {
        fast.iter().for_each(|id| drop(hub.take(*id)));
        write(&mut store, &mut hub, 2, LARGE);
    }
    assert!(hub.behind.iter().all(|id| slow.contains(id)));
    let all: usize = hub.watchers.values().map(|w| w.waiting_bytes).sum();
    assert!(all == hub.waiting_bytes && all <= MAX_WAITING_BYTES_IN_ALL);
}

#[test]
fn a_watcher_that_reads_too_late_is_told_of_the_compaction() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(&root.path().join("state")).unwrap();
    let mut hub = Hub::default();
    let request = WatchCreateRequest {
        key: "k".into(),
        ..Default::default()
    };
    let id = hub.create(&request, store.revision());
    write(&mut store, &mut hub, 20, LARGE);
    let compacted = store.revision();
    let command = crate::command::Command::Compact(compacted);
    store.apply(store.applied().0 + 1, 1, vec![proposal(command)]);
    assert!(matches!(hub.take(id), Some(Taken::Events { .. })));
    hub.catch_up(&store).unwrap();
    assert_eq!(hub.take(id), Some(Taken::Compacted(compacted)));
}
