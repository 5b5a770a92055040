//! A state that went through etcd's file is the same state; what is not etcd's is refused with the place.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::schema::{
    conf_state_json, member_json, rev_key, Lease, AUTH_ENABLED, AUTH_REVISION, FINISHED_COMPACTION,
    KEPT, SCHEDULED_COMPACTION,
};
use super::*;
use crate::apply::Store;
use crate::auth::{Access, Caller};
use crate::bolt::{Checked, Reader, Writer};
use crate::command::Command;
use crate::errors::StoreError;
use crate::membership::Membership;
use crate::model::{proposal, random_command, Model, Random};
use crate::mvcc::Rev;
use crate::pb::authpb::{Permission, Role, User, UserAddOptions};
use crate::pb::etcd::alarm_request::AlarmAction;
use crate::pb::etcd::{AlarmRequest, AlarmType, KeyValue, RangeRequest};
use crate::reactor::MEMBERSHIP_KEY;

pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
pub(super) type Contents = BTreeMap<String, Pairs>;

pub(super) fn exported(store: &Store) -> Vec<u8> {
    let (mut data, mut told) = (Vec::new(), 0);
    let out = &mut data;
    let begin = |head: Head| {
        told = head.bytes;
        assert_eq!(head.revision, store.revision());
        out
    };
    write(store.export().view(), begin).unwrap();
    assert_eq!(data.len() as u64, told + crate::bolt::TRAILER_BYTES);
    data
}

fn reader(data: Vec<u8>) -> Reader<Vec<u8>> {
    let bytes = Checked::verify(&data).unwrap().bytes;
    Reader::open(data, bytes).unwrap()
}

pub(super) fn contents(data: Vec<u8>) -> Contents {
    let reader = reader(data);
    let mut found = Contents::new();
    for bucket in reader.buckets().unwrap() {
        let mut cursor = reader.cursor(&bucket).unwrap();
        let pairs = found
            .entry(String::from_utf8(bucket.name).unwrap())
            .or_default();
        while let Some((key, value)) = cursor.next().unwrap() {
            pairs.push((key.to_vec(), value.to_vec()));
        }
    }
    found
}

fn fill<W: Write>(writer: &mut Writer<W>, buckets: &[(&str, Pairs)]) {
    for (name, pairs) in buckets {
        writer.bucket(name.as_bytes()).unwrap();
        for (key, value) in pairs {
            writer.put(key, value).unwrap();
        }
    }
}

fn made(buckets: &[(&str, Pairs)]) -> Reader<Vec<u8>> {
    let mut measuring = Writer::measuring();
    fill(&mut measuring, buckets);
    let (plan, _) = measuring.finish().unwrap();
    let mut writer = Writer::new(Vec::new(), plan).unwrap();
    fill(&mut writer, buckets);
    let (_, data) = writer.finish().unwrap();
    let bytes = data.len() as u64;
    Reader::open(data, bytes).unwrap()
}

fn everything(store: &Store, revision: i64) -> Vec<KeyValue> {
    let request = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..Default::default()
    };
    store.range(&request).unwrap().kvs
}

#[test]
fn a_state_is_the_same_after_it_went_through_the_file() {
    for seed in 1..=12 {
        let root = tempfile::tempdir().unwrap();
        let (mut random, mut model) = (Random(seed * 7919), Model::default());
        let mut store = Store::open(&root.path().join("old")).unwrap();
        model.revision = store.revision();
        for turn in 1..=300 {
            let command = random_command(&mut random, &model);
            // What the model makes of it is tested elsewhere.
            let _ = model.apply(&command);
            store.apply(turn, 1, vec![proposal(command)]);
        }
        let data = exported(&store);
        let again = import(&reader(data.clone()), &root.path().join("new")).unwrap();
        assert_eq!(again.hash().unwrap(), store.hash().unwrap(), "seed {seed}");
        assert_eq!(again.applied(), (0, 0));
        for revision in store.compacted_revision().max(1)..=store.revision() {
            assert_eq!(
                everything(&again, revision),
                everything(&store, revision),
                "seed {seed}"
            );
        }
        let leases = |store: &Store| store.leases_left().collect::<BTreeSet<_>>();
        assert_eq!(leases(&again), leases(&store));
        for id in 1..5 {
            assert_eq!(again.lease_keys(id), store.lease_keys(id), "seed {seed}");
        }
        let (first, second) = (contents(data), contents(exported(&again)));
        for bucket in ["key", "lease"] {
            assert_eq!(first[bucket], second[bucket], "seed {seed}, {bucket}");
        }
    }
}

fn kv(key: &str, create: i64, revision: i64, version: i64) -> Vec<u8> {
    let kv = KeyValue {
        key: key.as_bytes().to_vec().into(),
        create_revision: create,
        mod_revision: revision,
        version,
        ..Default::default()
    };
    kv.encode_to_vec()
}

fn at(main: i64) -> Vec<u8> {
    rev_key(Rev { main, sub: 0 }, false)
}

fn deleted(main: i64) -> Vec<u8> {
    rev_key(Rev { main, sub: 0 }, true)
}

#[test]
fn a_compaction_that_etcd_did_not_finish_is_finished() {
    let root = tempfile::tempdir().unwrap();
    let keys = vec![
        (at(2), kv("a", 2, 2, 1)),
        (at(3), kv("a", 2, 3, 2)),
        (deleted(4), kv("b", 0, 0, 0)),
        (at(6), kv("a", 2, 6, 3)),
    ];
    let meta = vec![
        (FINISHED_COMPACTION.to_vec(), at(2)),
        (SCHEDULED_COMPACTION.to_vec(), at(5)),
    ];
    let mut store = import(
        &made(&[("key", keys), ("meta", meta)]),
        &root.path().join("s"),
    )
    .unwrap();
    assert_eq!((store.compacted_revision(), store.revision()), (5, 6));
    while store.is_sweeping() {
        store.sweep();
    }
    let left: Vec<_> = contents(exported(&store))["key"]
        .iter()
        .map(|(key, _)| key.clone())
        .collect();
    assert_eq!(left, [at(3), at(6)]);
}

#[test]
fn etcd_is_asked_to_finish_our_compaction_where_it_can() {
    let root = tempfile::tempdir().unwrap();
    let marks = |store: &Store| {
        let meta = contents(exported(store)).remove("meta").unwrap();
        let find = |name: &[u8]| meta.iter().find(|(key, _)| key == name);
        [FINISHED_COMPACTION, SCHEDULED_COMPACTION].map(|name| find(name).map(|r| r.1.clone()))
    };
    let keys = vec![(at(2), kv("a", 2, 2, 1)), (at(5), kv("a", 2, 5, 2))];
    let compacted = |main| vec![(FINISHED_COMPACTION.to_vec(), at(main))];
    for (name, main, finished) in [
        ("a", 3, Some(2)),
        ("b", 5, Some(4)),
        ("c", 6, Some(6)),
        ("d", 1, None),
    ] {
        let file = made(&[("key", keys.clone()), ("meta", compacted(main))]);
        let store = import(&file, &root.path().join(name)).unwrap();
        assert_eq!(marks(&store), [finished.map(at), Some(at(main))], "{name}");
    }
}

#[test]
fn an_empty_state_and_one_whose_last_keys_were_compacted_have_the_right_revision() {
    let root = tempfile::tempdir().unwrap();
    let store = import(&made(&[]), &root.path().join("a")).unwrap();
    assert_eq!((store.revision(), store.compacted_revision()), (1, 0));
    let meta = vec![(FINISHED_COMPACTION.to_vec(), at(9))];
    let store = import(&made(&[("meta", meta)]), &root.path().join("b")).unwrap();
    assert_eq!((store.revision(), store.compacted_revision()), (9, 9));
    // What `etcdutl snapshot restore --bump-revision` leaves.
    let bumped = vec![(at(3), kv("a", 3, 3, 1)), (at(1_000), Vec::new())];
    let store = import(&made(&[("key", bumped.clone())]), &root.path().join("c")).unwrap();
    assert_eq!(store.revision(), 1_000);
    assert_eq!(everything(&store, 0).len(), 1);
    assert_eq!(contents(exported(&store))["key"], bumped);
}

#[test]
fn users_and_roles_go_both_ways_and_hold() {
    let root = tempfile::tempdir().unwrap();
    let alice = User {
        name: "alice".into(),
        password: "$2a$10$".into(),
        roles: vec!["reader/all".into()],
        options: None,
    };
    let robot = User {
        name: "robot".into(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    let role = Role {
        name: "reader/all".into(),
        key_permission: vec![Permission {
            key: "a".into(),
            range_end: "b".into(),
            ..Default::default()
        }],
    };
    let head = [
        (AUTH_ENABLED.to_vec(), vec![1]),
        (AUTH_REVISION.to_vec(), 7_u64.to_be_bytes().to_vec()),
    ];
    let record = |name: &Bytes, value: Vec<u8>| (name.to_vec(), value);
    let users = [&alice, &robot].map(|user| record(&user.name, user.encode_to_vec()));
    let buckets = [
        ("auth", head.to_vec()),
        ("authRoles", vec![record(&role.name, role.encode_to_vec())]),
        ("authUsers", users.to_vec()),
    ];
    let store = import(&made(&buckets), &root.path().join("s")).unwrap();
    let found = contents(exported(&store));
    for (name, pairs) in buckets {
        assert!(KEPT.contains(&name));
        assert_eq!(found[name], pairs);
    }
    let caller = |user: &str| {
        let user = user.to_owned();
        Some(Caller { user, revision: 7 })
    };
    let reads = |user| {
        let auth = store.auth();
        auth.permit(caller(user).as_ref(), Access::Read, b"aa", &[])
    };
    assert!(store.auth().is_enabled());
    assert_eq!(reads("alice"), Ok(()));
    assert_eq!(reads("robot"), Err(StoreError::PermissionDenied));
}

#[test]
fn alarms_go_through_the_file() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(&root.path().join("s")).unwrap();
    let request = |action: AlarmAction, kind: AlarmType| {
        let request = AlarmRequest {
            action: action.into(),
            member_id: 7,
            alarm: kind.into(),
        };
        proposal(Command::Alarm(request))
    };
    let raised =
        [AlarmType::Nospace, AlarmType::Corrupt].map(|k| request(AlarmAction::Activate, k));
    store.apply(1, 1, raised.to_vec());
    let cleared = request(AlarmAction::Deactivate, AlarmType::Nospace);
    let (before, hash) = (store.alarms().clone(), store.hash().unwrap());
    store.apply(2, 1, vec![cleared]);
    assert_ne!(store.hash().unwrap(), hash);
    let data = exported(&store);
    // What etcd makes of memberID 7 and CORRUPT.
    assert_eq!(
        contents(data.clone())["alarm"],
        [(vec![8, 7, 16, 2], vec![])]
    );
    let again = import(&reader(data), &root.path().join("t")).unwrap();
    assert_eq!(again.alarms(), store.alarms());
    assert_ne!(again.alarms(), &before);
    drop(store);
    let reopened = Store::open(&root.path().join("s")).unwrap();
    assert_eq!(reopened.alarms(), again.alarms());
}

#[test]
fn members_are_written_as_etcd_reads_them() {
    let founders = BTreeMap::from([("m1".to_owned(), vec!["http://h:1".to_owned()])]);
    let mut membership = Membership::found(&founders, "t");
    let id = *membership.members.keys().next().unwrap();
    let text = String::from_utf8(member_json(&membership.members[&id])).unwrap();
    assert_eq!(
        text,
        format!(r#"{{"id":{id},"peerURLs":["http://h:1"],"name":"m1"}}"#)
    );
    membership.removed.insert(0xbeef);
    assert_eq!(
        String::from_utf8(conf_state_json(&membership)).unwrap(),
        format!(r#"{{"voters":[{id}],"auto_leave":false}}"#)
    );
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(&root.path().join("s")).unwrap();
    let json = serde_json::to_vec(&membership).unwrap();
    store.set_meta(MEMBERSHIP_KEY, &json);
    store.apply(7, 3, Vec::new());
    let found = contents(exported(&store));
    assert_eq!(found["members"][0].0, format!("{id:x}").into_bytes());
    let removed = (b"beef".to_vec(), b"removed".to_vec());
    assert_eq!(found["members_removed"], [removed]);
    let index = (b"consistent_index".to_vec(), 7_u64.to_be_bytes().to_vec());
    assert!(found["meta"].contains(&index));
}

#[test]
fn what_is_not_etcds_is_refused_with_the_place() {
    let lease = |id, ttl| {
        let lease = Lease {
            id,
            ttl,
            remaining_ttl: 0,
        };
        lease.encode_to_vec()
    };
    let one = |key: Vec<u8>, value: Vec<u8>| vec![(key, value)];
    let user = |name: &str| {
        let name = name.to_owned().into();
        User {
            name,
            ..Default::default()
        }
        .encode_to_vec()
    };
    let cut = at(5)[..16].to_vec();
    let many = [&at(5)[..9], &u64::MAX.to_be_bytes()].concat();
    for (bucket, pairs, expected) in [
        ("key", one(cut, kv("a", 5, 5, 1)), "this is no revision"),
        ("key", one(many, kv("a", 5, 5, 1)), "-1 changes"),
        (
            "key",
            one([at(5), b"x".to_vec()].concat(), kv("a", 5, 5, 1)),
            "marked as nothing",
        ),
        ("key", one(at(5), kv("a", 5, 4, 1)), "of revision 4"),
        ("key", one(at(5), kv("a", 6, 5, 1)), "created at 6"),
        ("key", one(at(5), kv("a", 5, 5, 0)), "version 0"),
        ("key", one(at(5), vec![0xff; 3]), "key \\x00"),
        ("lease", one(vec![0; 8], lease(7, 9)), "of lease 7"),
        (
            "lease",
            one(7_i64.to_be_bytes().to_vec(), lease(7, -9)),
            "a TTL of -9",
        ),
        (
            "meta",
            one(FINISHED_COMPACTION.to_vec(), vec![1]),
            "finishedCompactRev: this is no revision",
        ),
        ("alarm", one(vec![0xff], vec![]), "bucket alarm"),
        (
            "auth",
            one(AUTH_REVISION.to_vec(), vec![1]),
            "authRevision: this is no revision",
        ),
        (
            "authUsers",
            one(b"bob".to_vec(), user("alice")),
            "another name",
        ),
        ("authUsers", one(b"bob".to_vec(), vec![0xff; 3]), "key bob"),
        (
            "authUsers",
            one(vec![b'x'; 401], user(&"x".repeat(401))),
            "longer than 400 bytes",
        ),
        (
            "authRoles",
            one(
                vec![0xff],
                Role {
                    name: vec![0xff].into(),
                    ..Default::default()
                }
                .encode_to_vec(),
            ),
            "not UTF-8",
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        match import(&made(&[(bucket, pairs)]), &root.path().join("s")) {
            Ok(_) => panic!("{expected} is taken"),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }
}

#[test]
fn a_damaged_file_is_refused_before_anything_is_read_from_it() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("s")).unwrap();
    let (data, path) = (exported(&store), root.path().join("snapshot.db"));
    let opened = |data: &[u8], path: &Path, skip| {
        std::fs::write(path, data).unwrap();
        open(path, skip).map_err(|e| e.to_string())
    };
    assert!(opened(&data, &path, false).is_ok());
    let mut damaged = data.clone();
    damaged[9_000] ^= 1;
    let text = opened(&damaged, &path, false).unwrap_err();
    assert!(
        text.starts_with(path.to_str().unwrap()) && text.contains("is damaged"),
        "{text}"
    );
    let bare = &data[..data.len() - 32];
    assert!(opened(bare, &path, false)
        .unwrap_err()
        .contains("--skip-hash-check"));
    let reader = opened(bare, &path, true).unwrap();
    let found = status(&reader).unwrap();
    assert_eq!((found.revision, found.total_bytes), (0, bare.len() as u64));
}
