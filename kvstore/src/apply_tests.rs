//! The state machine against a naive model: answers, restarts, snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::model::{proposal, random_command, Model, Random};
use crate::mvcc::{KeyRange, Rev};
use crate::pb::etcd::response_op::Response as Op;
use crate::pb::etcd::{KeyValue, LeaseGrantRequest, PutRequest, RangeRequest};

fn previous(response: Response) -> Vec<KeyValue> {
    match response {
        Response::Put(put) => put.prev_kv.into_iter().collect(),
        Response::DeleteRange(delete) => {
            assert_eq!(delete.deleted as usize, delete.prev_kvs.len());
            delete.prev_kvs
        }
        Response::Txn(txn) => {
            let mut put_at = 0;
            let mut found = Vec::new();
            for op in txn.responses {
                match op.response {
                    Some(Op::ResponsePut(put)) => {
                        put_at = put.header.unwrap().revision;
                        found.extend(put.prev_kv);
                    }
                    // A transaction reads what it wrote.
                    Some(Op::ResponseRange(range)) => {
                        assert_eq!(range.kvs[0].mod_revision, put_at)
                    }
                    other => panic!("{other:?}"),
                }
            }
            found
        }
        _ => Vec::new(),
    }
}

fn check_read(random: &mut Random, store: &Store, model: &Model, seed: u64) {
    let (key, range_end) = random.range();
    let revision = random.below(model.revision as u64 + 3) as i64;
    let request = RangeRequest {
        key: key.clone(),
        range_end: range_end.clone(),
        revision,
        limit: random.below(4) as i64,
        ..Default::default()
    };
    let answer = store.range(&request);
    if revision > model.revision {
        assert_eq!(answer.unwrap_err(), StoreError::FutureRevision);
        return;
    }
    if revision > 0 && revision < model.compacted {
        assert_eq!(answer.unwrap_err(), StoreError::Compacted);
        return;
    }
    let range = KeyRange::new(&key, &range_end);
    let at = if revision == 0 {
        model.revision
    } else {
        revision
    };
    let expected: Vec<_> = model
        .at(at)
        .into_values()
        .filter(|kv| range.contains(&kv.key))
        .collect();
    let answer = answer.unwrap();
    let limit = match request.limit {
        0 => usize::MAX,
        limit => limit as usize,
    };
    assert_eq!(answer.count as usize, expected.len(), "seed {seed}");
    assert_eq!(answer.more, expected.len() > limit, "seed {seed}");
    let shown: Vec<_> = expected.into_iter().take(limit).collect();
    assert_eq!(answer.kvs, shown, "seed {seed}, {request:?}");
}

/// A copy of what is on disk, as a power cut would leave it after the last sync.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.join("data.mdb"), to.join("data.mdb")).unwrap();
}

#[test]
fn answers_are_the_models_and_a_cut_restart_and_a_snapshot_give_the_same_state() {
    for seed in 1..=12u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let root = tempfile::tempdir().unwrap();
        let (live, cut) = (root.path().join("a/state"), root.path().join("b/state"));
        let mut store = Store::open(&live).unwrap();
        let mut model = Model {
            revision: 1,
            ..Default::default()
        };
        let mut log: Vec<Vec<Proposal>> = Vec::new();
        for turn in 1..=150u64 {
            let mut entry = Vec::new();
            let mut expected = Vec::new();
            for _ in 0..1 + random.below(4) {
                let command = random_command(&mut random, &model);
                expected.push(model.apply(&command));
                entry.push(proposal(command));
            }
            log.push(entry.clone());
            for (outcome, expected) in store.apply(turn, 1, entry).into_iter().zip(expected) {
                assert_eq!(outcome.result.map(previous), expected, "seed {seed}");
            }
            assert_eq!(store.revision(), model.revision, "seed {seed}");
            if random.below(2) == 0 {
                store.sweep();
            }
            check_read(&mut random, &store, &model, seed);
            if turn == 75 {
                store.flush().unwrap();
                assert_eq!(store.durable_index(), 75);
                copy(&live, &cut);
            }
            if random.below(40) == 0 {
                drop(store);
                store = Store::open(&live).unwrap();
                assert_eq!(store.applied(), (turn, 1));
                assert_eq!(store.durable_index(), turn);
            }
        }
        let leases: BTreeMap<_, _> = store.leases().collect();
        assert_eq!(leases, model.leases, "seed {seed}");

        let mut again = Store::open(&cut).unwrap();
        let (from, _) = again.applied();
        for (i, entry) in log.iter().enumerate().skip(from as usize) {
            again.apply(i as u64 + 1, 1, entry.clone());
        }
        assert_eq!(again.hash().unwrap(), store.hash().unwrap(), "seed {seed}");
        let left = |store: &Store| store.leases_left().collect::<BTreeSet<_>>();
        assert_eq!(left(&again), left(&store), "seed {seed}");
        drop(again);

        let mut chunks = Vec::new();
        let mut position = (0, 0);
        let export = store.export();
        export
            .read(
                |meta| position = (meta.index, meta.term),
                |chunk| {
                    chunks.push(chunk);
                    true
                },
            )
            .unwrap();
        assert_eq!(position, store.applied());
        let copied = Store::import(&cut, chunks).unwrap();
        assert_eq!(copied.hash().unwrap(), store.hash().unwrap(), "seed {seed}");
        assert_eq!(copied.applied(), store.applied());
        assert_eq!(left(&copied), left(&store), "seed {seed}");
        for id in 1..5 {
            assert_eq!(copied.lease_keys(id), store.lease_keys(id), "seed {seed}");
        }
        check_read(&mut random, &copied, &model, seed);
    }
}

#[test]
fn a_lease_taken_back_and_granted_anew_in_one_entry_outlives_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let grant = Command::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 9 });
    let mut store = Store::open(&dir).unwrap();
    let entry = vec![
        proposal(grant.clone()),
        proposal(Command::LeaseRevoke(7)),
        proposal(grant),
    ];
    store.apply(1, 1, entry);
    drop(store);
    let store = Store::open(&dir).unwrap();
    assert_eq!(store.leases().collect::<Vec<_>>(), [(7, 9)]);
}

#[test]
fn what_was_left_of_a_lease_outlives_a_restart_until_it_is_renewed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let noted = |remaining_ttl| {
        let checkpoints = [7, 8].map(|id| LeaseCheckpoint { id, remaining_ttl });
        proposal(Command::LeaseCheckpoint(LeaseCheckpoints {
            checkpoints: checkpoints.to_vec(),
        }))
    };
    let left = |store: &Store| store.leases_left().collect::<Vec<_>>();
    let mut store = Store::open(&dir).unwrap();
    let grant = Command::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 9 });
    store.apply(1, 1, vec![proposal(grant), noted(4)]);
    assert_eq!(left(&store), [(7, 9, 4)], "8 was never granted");
    drop(store);
    let mut store = Store::open(&dir).unwrap();
    assert_eq!(left(&store), [(7, 9, 4)]);
    store.apply(2, 1, vec![noted(0)]);
    drop(store);
    assert_eq!(left(&Store::open(&dir).unwrap()), [(7, 9, 9)]);
}

#[test]
fn a_crash_between_the_renames_of_an_import_leaves_the_old_state() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let mut store = Store::open(&dir).unwrap();
    let put = PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    };
    store.apply(1, 1, vec![proposal(Command::Put(put))]);
    let before = store.hash().unwrap();
    drop(store);
    std::fs::rename(&dir, root.path().join("outgoing")).unwrap();
    let store = Store::open(&dir).unwrap();
    assert_eq!(store.hash().unwrap(), before);
    assert!(!root.path().join("outgoing").exists());
}

#[test]
fn a_transaction_that_cannot_read_fails_and_stops_the_member() {
    use crate::pb::etcd::{request_op::Request, RequestOp, TxnRequest};
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let put = |value: &'static str| PutRequest {
        key: "k".into(),
        value: value.into(),
        ..Default::default()
    };
    store.apply(1, 1, vec![proposal(Command::Put(put("1")))]);
    store.apply(2, 1, vec![proposal(Command::Put(put("2")))]);
    store.flush().unwrap();
    // The old value's record is damaged on disk; nothing of it is in memory any more.
    let mut damage = Batch::default();
    damage.put(
        Table::Revisions,
        Rev { main: 2, sub: 0 }.encode(),
        vec![0, 0xff, 0xff],
    );
    (damage.applied, damage.revision) = (2, 3);
    store.backend.write(damage);
    store.flush().unwrap();
    store.keys.synced(3);
    let op = |request| RequestOp {
        request: Some(request),
    };
    let read = RangeRequest {
        key: "k".into(),
        revision: 2,
        ..Default::default()
    };
    let txn = TxnRequest {
        success: vec![
            op(Request::RequestPut(put("3"))),
            op(Request::RequestRange(read)),
        ],
        ..Default::default()
    };
    let outcome = store.apply(3, 1, vec![proposal(Command::Txn(txn))]);
    let error = outcome[0].result.as_ref().unwrap_err();
    assert!(
        matches!(error, StoreError::Internal(why) if why.contains("damaged")),
        "{error}"
    );
    // The write stands, as on the members that could read.
    assert_eq!(store.keys.newest(b"k").unwrap().fields().value, b"3");
    assert!(store.failure().unwrap().contains("damaged"));
}

#[test]
fn applying_never_waits_for_the_disk_and_says_when_it_should() {
    const VALUE_BYTES: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    // LMDB has one writer: while this one lasts, nothing that was applied gets to disk.
    let env = store.backend.env();
    let held = env.write_txn().unwrap();
    let mut index = 0;
    let mut put = |store: &mut Store, value: &Bytes| {
        index += 1;
        let put = PutRequest {
            key: "k".into(),
            value: value.clone(),
            ..Default::default()
        };
        store.apply(index, 1, vec![proposal(Command::Put(put))]);
    };
    for _ in 0..3000 {
        put(&mut store, &Bytes::from_static(b"v"));
    }
    assert!(!store.is_behind() && store.durable_index() == 0);
    for _ in 0..65 {
        put(&mut store, &vec![0; VALUE_BYTES].into());
    }
    assert!(store.is_behind() && store.durable_index() == 0);
    drop(held);
    store.flush().unwrap();
    assert!(!store.is_behind() && store.durable_index() == 3065);
    let room = store.room();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(room.notified());
}

fn all(revision: i64) -> RangeRequest {
    RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        revision,
        ..Default::default()
    }
}

#[test]
fn a_read_in_slices_is_of_one_revision_and_a_compaction_waits_for_it() {
    const KEYS: usize = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let mut index = 0;
    let mut turn = |store: &mut Store, command: Command| {
        index += 1;
        let outcomes = store.apply(index, 1, vec![proposal(command)]);
        outcomes.into_iter().next().unwrap().result.unwrap()
    };
    let put = |at: usize, value: &str| {
        Command::Put(PutRequest {
            key: format!("k{at:06}").into(),
            value: value.to_owned().into(),
            ..Default::default()
        })
    };
    for at in 0..KEYS {
        turn(&mut store, put(at, "old"));
    }
    let expected = store.range(&all(0)).unwrap();
    let mut slices = store.begin_range(all(0)).unwrap();
    assert!(!store.read_on(&mut slices).unwrap(), "it is a large one");
    for at in 0..KEYS {
        turn(&mut store, put(at, "new"));
    }
    turn(&mut store, put(KEYS, "another"));
    let end = store.revision();
    turn(&mut store, Command::Compact(end));
    store.flush().unwrap();
    assert!(store.is_sweeping() && !store.can_sweep());
    store.sweep();
    while !store.read_on(&mut slices).unwrap() {}
    assert_eq!(slices.finish(), expected);
    let mut turns = 0;
    while store.is_sweeping() {
        // A member that is stopped meanwhile goes on where it opens again.
        if turns == 1 {
            drop(store);
            store = Store::open(dir.path()).unwrap();
        }
        assert!(store.can_sweep());
        store.sweep();
        turns += 1;
    }
    assert!(turns > 3, "{turns} turns");
    assert_eq!(store.range(&all(end - 1)), Err(StoreError::Compacted));
    assert_eq!(store.range(&all(0)).unwrap().count as usize, KEYS + 1);
    store.flush().unwrap();
    let mut records = 0;
    let count = |_: &[u8], _: &[u8]| {
        records += 1;
        Ok(())
    };
    store.backend.each(Table::Revisions, count).unwrap();
    assert_eq!(records, KEYS + 1);
}

#[test]
fn a_streamed_read_is_of_one_revision_and_ends_where_that_is_forgotten() {
    const KEYS: u64 = 2_500;
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let put = |store: &mut Store, at: u64| {
        let put = PutRequest {
            key: format!("k{:06}", at % KEYS).into(),
            value: at.to_string().into(),
            ..Default::default()
        };
        store.apply(at + 1, 1, vec![proposal(Command::Put(put))]);
    };
    (0..KEYS).for_each(|at| put(&mut store, at));
    for (limit, keys_only) in [
        (0, false),
        (7, true),
        (1_000, false),
        (1_001, false),
        (2_500, true),
    ] {
        let request = RangeRequest {
            limit,
            keys_only,
            ..all(0)
        };
        let whole = store.range(&request).unwrap();
        let mut reading = store.begin_stream(request).unwrap();
        let (mut pieces, mut kvs) = (0, Vec::new());
        while !store.stream_on(&mut reading, 1_000).unwrap() {
            pieces += 1;
            kvs.extend(reading.take());
        }
        let last = reading.finish();
        kvs.extend(last.kvs);
        assert_eq!(
            (last.more, last.count, pieces),
            (whole.more, whole.count, 2)
        );
        assert_eq!(kvs, whole.kvs, "limit {limit}");
    }
    let expected = store.range(&all(0)).unwrap();
    let mut kept = store.begin_stream(all(0)).unwrap();
    let mut lost = store.begin_stream(all(0)).unwrap();
    assert!(!store.stream_on(&mut kept, 1_000).unwrap());
    assert!(!store.stream_on(&mut lost, 1_000).unwrap());
    (KEYS..2 * KEYS).for_each(|at| put(&mut store, at));
    let mut kvs = kept.take();
    while !store.stream_on(&mut kept, 1_000).unwrap() {
        kvs.extend(kept.take());
    }
    kvs.extend(kept.finish().kvs);
    assert_eq!(kvs, expected.kvs);
    let compact = Command::Compact(store.revision());
    store.apply(2 * KEYS + 1, 1, vec![proposal(compact)]);
    assert!(store.can_sweep(), "nobody is waited for");
    assert_eq!(
        store.stream_on(&mut lost, 1_000),
        Err(StoreError::Compacted)
    );
}

#[test]
fn a_key_with_a_long_history_is_forgotten_in_slices() {
    const REVISIONS: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for at in 1..=REVISIONS {
        let put = PutRequest {
            key: "hot".into(),
            value: at.to_string().into(),
            ..Default::default()
        };
        store.apply(at as u64, 1, vec![proposal(Command::Put(put))]);
    }
    let now = store.revision();
    store.apply(
        REVISIONS as u64 + 1,
        1,
        vec![proposal(Command::Compact(now - 1))],
    );
    let mut turns = 0;
    while store.is_sweeping() {
        store.sweep();
        turns += 1;
    }
    assert!(turns > 3, "{turns} turns");
    let value = |revision| store.range(&all(revision)).unwrap().kvs[0].value.clone();
    assert_eq!(value(now - 1), (REVISIONS - 1).to_string());
    assert_eq!(value(now), REVISIONS.to_string());
}
