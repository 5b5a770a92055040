//! Sums do not depend on how far a compaction has come, and change with every record that they are of.

use super::tests::{contents, exported};
use super::*;
use crate::apply::Store;
use crate::crc32c::Crc32c;
use crate::errors::StoreError;
use crate::model::{proposal, random_command, Model, Random};

const ALWAYS: fn() -> bool = || true;

fn sum(store: &Store, revision: i64) -> Result<KeysHash, HashError> {
    hash_keys(store.export().view(), revision, &ALWAYS)
}

#[test]
fn an_empty_states_sum_is_that_of_the_buckets_name() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(&root.path().join("s")).unwrap();
    store.apply(1, 1, Vec::new());
    // What every etcd says of its empty state.
    let expected = KeysHash {
        hash: 1_084_519_789,
        revision: 1,
        compacted: -1,
        current: 1,
    };
    assert_eq!(sum(&store, 0).unwrap(), expected);
    assert!(matches!(
        sum(&store, 2),
        Err(HashError::Refused(StoreError::FutureRevision))
    ));
}

#[test]
fn a_compaction_that_is_under_way_changes_no_sum() {
    for seed in 1..=12 {
        let root = tempfile::tempdir().unwrap();
        let (mut random, mut model) = (Random(seed * 104_729), Model::default());
        let mut swept = Store::open(&root.path().join("swept")).unwrap();
        let mut behind = Store::open(&root.path().join("behind")).unwrap();
        model.revision = swept.revision();
        for turn in 1..=300 {
            let command = random_command(&mut random, &model);
            // What the model makes of it is tested elsewhere.
            let _ = model.apply(&command);
            for store in [&mut swept, &mut behind] {
                store.apply(turn, 1, vec![proposal(command.clone())]);
            }
            while swept.is_sweeping() {
                swept.sweep();
            }
        }
        assert!(swept.compacted_revision() > 1 && behind.is_sweeping());
        let mut sums = std::collections::BTreeSet::new();
        for revision in swept.compacted_revision()..=swept.revision() {
            let found = sum(&swept, revision).unwrap();
            assert_eq!(found.revision, revision);
            assert_eq!(found, sum(&behind, revision).unwrap(), "seed {seed}");
            sums.insert(found.hash);
        }
        let revisions = swept.revision() - swept.compacted_revision() + 1;
        assert_eq!(sums.len() as i64, revisions, "each revision changes it");
        assert!(matches!(
            sum(&swept, swept.compacted_revision() - 1),
            Err(HashError::Refused(StoreError::Compacted))
        ));
    }
}

#[test]
fn the_sum_of_everything_is_that_of_the_file_but_for_what_members_differ_in() {
    let root = tempfile::tempdir().unwrap();
    let (mut random, mut model) = (Random(5), Model::default());
    let mut store = Store::open(&root.path().join("s")).unwrap();
    for turn in 1..=200 {
        let command = random_command(&mut random, &model);
        // As above.
        let _ = model.apply(&command);
        store.apply(turn, 1, vec![proposal(command)]);
    }
    let all = |store: &Store| hash_all(store.export().view(), &ALWAYS).unwrap();
    let mut expected = Crc32c::default();
    let mut left_out = 0;
    for (bucket, pairs) in contents(exported(&store)) {
        expected.update(bucket.as_bytes());
        for (key, value) in pairs {
            if bucket == "meta" && [b"term".as_slice(), b"consistent_index"].contains(&&key[..]) {
                left_out += 1;
                continue;
            }
            expected.update(&key);
            expected.update(&value);
        }
    }
    assert_eq!(left_out, 2);
    let found = all(&store);
    assert_eq!(found, (expected.sum(), store.revision()));
    store.apply(201, 9, Vec::new());
    assert_eq!(all(&store), found, "a leader's own entry changes nothing");
}

#[test]
fn a_sum_that_nobody_waits_for_is_given_up() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(&root.path().join("s")).unwrap();
    let put = crate::pb::etcd::PutRequest {
        key: "k".into(),
        ..Default::default()
    };
    for turn in 1..=1_500 {
        let command = crate::command::Command::Put(put.clone());
        store.apply(turn, 1, vec![proposal(command)]);
    }
    let export = store.export();
    let unwanted = hash_keys(export.view(), 0, &|| false);
    assert!(matches!(unwanted, Err(HashError::Unwanted)));
    let unwanted = hash_all(export.view(), &|| false);
    assert!(matches!(unwanted, Err(HashError::Unwanted)));
}
