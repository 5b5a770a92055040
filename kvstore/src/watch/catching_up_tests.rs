//! Watchers that begin in the past: what a slice does, in which order, and that both ways through history find the same.

use bytes::Bytes;

use super::super::{Batch, Taken};
use super::*;
use crate::command::Command;
use crate::model::{proposal, random_command, Model, Random};
use crate::pb::etcd::{DeleteRangeRequest, PutRequest, WatchCreateRequest};

/// All keys are many.
const WALKS: Pace = Pace {
    few_keys: 0,
    slice_work: 100,
    large_revision: 100,
};

fn apply(store: &mut Store, hub: &mut Hub, command: Command) {
    store.apply(store.applied().0 + 1, 1, vec![proposal(command)]);
    for events in store.take_events() {
        hub.publish(&events);
    }
}

fn put(store: &mut Store, hub: &mut Hub, key: String) {
    let request = PutRequest {
        key: key.into(),
        value: "v".into(),
        ..Default::default()
    };
    apply(store, hub, Command::Put(request));
}

fn delete_all(store: &mut Store, hub: &mut Hub) {
    let request = DeleteRangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        prev_kv: false,
    };
    apply(store, hub, Command::DeleteRange(request));
}

fn watch(key: &str, range_end: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        start_revision,
        ..Default::default()
    }
}

fn take(hub: &mut Hub, id: WatcherId) -> Vec<Batch> {
    match hub.take(id) {
        Some(Taken::Events { batches, .. }) => batches,
        Some(Taken::Compacted(revision)) => panic!("compacted at {revision}"),
        None => Vec::new(),
    }
}

/// Everything that these are owed, and the slices that it took.
fn take_all(hub: &mut Hub, store: &Store, ids: &[WatcherId]) -> (Vec<Vec<Batch>>, usize) {
    let (mut all, mut slices) = (vec![Vec::new(); ids.len()], 0);
    while hub.can_catch_up() || !hub.ready().is_empty() {
        hub.catch_up(store).unwrap();
        slices += 1;
        for (id, taken) in ids.iter().zip(&mut all) {
            taken.extend(take(hub, *id));
        }
    }
    assert_eq!((hub.lags(), hub.waiting_bytes), (false, 0));
    (all, slices)
}

fn revisions(batches: &[Batch]) -> Vec<i64> {
    batches.iter().map(|batch| batch.revision).collect()
}

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("state")).unwrap();
    (root, store)
}

#[test]
fn looking_keys_up_and_walking_through_all_changes_find_the_same() {
    for seed in 1..=8u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (_root, mut store) = store();
        let mut model = Model {
            revision: 1,
            ..Default::default()
        };
        for turn in 1..=200u64 {
            let command = random_command(&mut random, &model);
            let _ = model.apply(&command);
            store.apply(turn, 1, vec![proposal(command)]);
            // Some of it is on disk, and the newest in memory.
            if random.below(50) == 0 {
                store.flush().unwrap();
            }
        }
        while store.is_sweeping() {
            store.sweep();
        }
        // At a compaction's own revision the records on disk may still have what a transaction wrote twice.
        let first = store.compacted_revision() + 1;
        for _ in 0..20 {
            let (key, range_end) = random.range();
            let start_revision = first + random.below(20) as i64;
            let request = WatchCreateRequest {
                key,
                range_end,
                start_revision,
                prev_kv: random.below(2) == 0,
                ..Default::default()
            };
            let found = [usize::MAX, 0].map(|few_keys| {
                let mut hub = Hub::with_pace(Pace { few_keys, ..WALKS });
                let id = hub.create(&request, store.revision());
                take_all(&mut hub, &store, &[id]).0
            });
            assert_eq!(found[0], found[1], "seed {seed}, {request:?}");
        }
    }
}

#[test]
fn a_slice_looks_at_so_many_changes_and_no_more() {
    let (_root, mut store) = store();
    let mut hub = Hub::with_pace(WALKS);
    let first = store.revision() + 1;
    for n in 0..400 {
        put(&mut store, &mut hub, format!("k{n}"));
    }
    let id = hub.create(&watch("k", "l", first), store.revision());
    let mut seen = Vec::new();
    for slice in 1..=8 {
        hub.catch_up(&store).unwrap();
        let batches = take(&mut hub, id);
        // Each is looked at, and handed on.
        assert_eq!(batches.len(), WALKS.slice_work / 2, "slice {slice}");
        seen.extend(revisions(&batches));
    }
    assert_eq!(seen, (first..=store.revision()).collect::<Vec<_>>());
    assert!(!hub.lags());
}

#[test]
fn watchers_that_are_about_as_far_share_a_walk() {
    let (_root, mut store) = store();
    let mut hub = Hub::with_pace(WALKS);
    let first = store.revision() + 1;
    for n in 0..1_000 {
        put(&mut store, &mut hub, format!("k{n:03}"));
    }
    let slices = |hub: &mut Hub, watchers: i64| {
        let ids: Vec<_> = (0..watchers)
            .map(|n| hub.create(&watch("k9", "l", first + n), store.revision()))
            .collect();
        let (all, slices) = take_all(hub, &store, &ids);
        let wanted: Vec<_> = (first + 900..=store.revision()).collect();
        for batches in all {
            assert_eq!(revisions(&batches), wanted);
        }
        slices
    };
    let alone = slices(&mut hub, 1);
    assert_eq!(alone, 11);
    // Most of the way nobody wants anything: all go it together, asked in fours of sixteen.
    assert!(slices(&mut hub, 15) < 3 * alone);
}

#[test]
fn each_has_its_turn() {
    let (_root, mut store) = store();
    let mut hub = Hub::with_pace(Pace {
        few_keys: 1,
        ..WALKS
    });
    let first = store.revision() + 1;
    for n in 0..400 {
        put(&mut store, &mut hub, format!("k{n}"));
    }
    let wide = [
        hub.create(&watch("k", "l", first), store.revision()),
        hub.create(&watch("k", "l", first + 200), store.revision()),
    ];
    let one = hub.create(&watch("k7", "", first), store.revision());
    for _ in 0..3 {
        hub.catch_up(&store).unwrap();
    }
    assert_eq!(hub.ready(), [wide[0], wide[1], one]);
    assert_eq!(take(&mut hub, wide[1])[0].revision, first + 200);
}

#[test]
fn a_large_revision_comes_in_slices_and_is_taken_whole() {
    let (_root, mut store) = store();
    let mut hub = Hub::with_pace(WALKS);
    for n in 0..300 {
        put(&mut store, &mut hub, format!("k{n:03}"));
    }
    let ids = [
        hub.create(&watch("k", "l", 0), store.revision()),
        hub.create(&watch("k", "l", 0), store.revision()),
        hub.create(&watch("k150", "", 0), store.revision()),
    ];
    put(&mut store, &mut hub, "k000".into());
    delete_all(&mut store, &mut hub);
    put(&mut store, &mut hub, "k001".into());
    // One key's watcher is told at once; the others had something that waits, and do not get more before that is taken.
    assert_eq!(take(&mut hub, ids[2])[0].events.len(), 1);
    assert!(!hub.can_catch_up());
    for id in &ids[..2] {
        assert_eq!(revisions(&take(&mut hub, *id)), [store.revision() - 2]);
    }
    hub.catch_up(&store).unwrap();
    assert!(hub.ready().is_empty() && hub.waiting_bytes > 0);
    assert!(ids.iter().all(|id| take(&mut hub, *id).is_empty()));
    assert!(!hub.is_synced(ids[0]));
    let (all, slices) = take_all(&mut hub, &store, &ids[..2]);
    assert!(slices >= 5, "{slices}");
    for batches in all {
        let sizes: Vec<_> = batches.iter().map(|batch| batch.events.len()).collect();
        assert_eq!(sizes, [300, 1]);
        let revision = store.revision();
        assert_eq!(revisions(&batches), [revision - 1, revision]);
    }
}

#[test]
fn what_is_begun_of_a_revision_is_let_go_when_that_is_compacted() {
    let (_root, mut store) = store();
    let mut hub = Hub::with_pace(WALKS);
    for n in 0..300 {
        put(&mut store, &mut hub, format!("k{n:03}"));
    }
    let id = hub.create(&watch("k", "l", 0), store.revision());
    put(&mut store, &mut hub, "k000".into());
    let before = take(&mut hub, id);
    delete_all(&mut store, &mut hub);
    hub.catch_up(&store).unwrap();
    put(&mut store, &mut hub, "k001".into());
    let compacted = store.revision();
    apply(&mut store, &mut hub, Command::Compact(compacted));
    assert!(take(&mut hub, id).is_empty());
    hub.catch_up(&store).unwrap();
    assert_eq!(hub.take(id), Some(Taken::Compacted(compacted)));
    assert_eq!((before.len(), hub.waiting_bytes, hub.len()), (1, 0, 0));
}

#[test]
fn only_one_watcher_goes_on_with_a_revision_that_takes_much_memory() {
    let (_root, mut store) = store();
    let mut hub = Hub::with_pace(WALKS);
    for n in 0..300 {
        put(&mut store, &mut hub, format!("k{n:03}"));
    }
    let ids = [(); 3].map(|()| hub.create(&watch("k", "l", 0), store.revision()));
    delete_all(&mut store, &mut hub);
    // As if others held much.
    hub.waiting_bytes += CALM_WAITING_BYTES_IN_ALL;
    hub.catch_up(&store).unwrap();
    let begun = |hub: &Hub| ids.map(|id| hub.watchers[&id].waiting_events);
    assert!(matches!(begun(&hub), [(1..), 0, 0]), "{:?}", begun(&hub));
    hub.catch_up(&store).unwrap();
    assert!(matches!(begun(&hub), [(50..), 0, 0]), "{:?}", begun(&hub));
    hub.waiting_bytes -= CALM_WAITING_BYTES_IN_ALL;
    let (all, _) = take_all(&mut hub, &store, &ids);
    assert!(all.iter().all(|batches| batches[0].events.len() == 300));
}
