//! Watches against the model: random commands, watches that begin anywhere, compactions between.

use std::collections::BTreeMap;

use super::*;
use crate::model::{proposal, random_command, Model, Random};

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
            Some(Taken::Events(batches)) => {
                for batch in batches {
                    let last = seen.events.last().map_or(seen.next - 1, |event| event.0);
                    assert!(batch.revision > last, "repeated, split or out of order");
                    for event in batch.events {
                        let kv = event.kv.unwrap();
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
        let mut hub = Hub::default();
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
        while hub.can_catch_up() {
            hub.catch_up(&store).unwrap();
        }
        take_all(&mut hub, &mut watched);
        take_all(&mut hub, &mut watched);
        for seen in watched.values() {
            let expected: Vec<_> = model
                .changes
                .iter()
                .filter(|(r, key, _)| *r >= seen.next && seen.range.contains(key))
                .map(|(r, key, kv)| (*r, key.clone(), kv.is_none()))
                .collect();
            if seen.ended {
                assert!(
                    seen.events.is_empty() && seen.next < model.compacted,
                    "seed {seed}"
                );
            } else {
                assert_eq!(seen.events, expected, "seed {seed}, {:?}", seen.range);
            }
        }
    }
}
