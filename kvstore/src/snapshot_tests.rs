//! A received state is laid no faster than the disk takes it, and leaves nothing behind when nobody takes it.

use super::*;

/// More than may wait for the writer.
const LARGE_BYTES: usize = 65 << 20;

fn chunk(value: usize, last: bool) -> Bytes {
    let record = Record {
        table: Table::Meta as u32,
        key: Bytes::from_static(b"k"),
        value: vec![7; value].into(),
    };
    let chunk = Chunk {
        version: VERSION,
        records: vec![record],
        last,
    };
    chunk.encode_to_vec().into()
}

#[test]
fn no_chunk_is_taken_while_too_much_waits_for_the_disk() {
    let root = tempfile::tempdir().unwrap();
    let backend = Backend::open(&root.path().join("state")).unwrap();
    let env = backend.env();
    let hold = env.write_txn().unwrap();
    std::thread::scope(|scope| {
        let chunks = [(LARGE_BYTES, false), (1, true)].into_iter();
        let chunks = chunks.map(|(bytes, last)| {
            assert!(!backend.is_behind(), "it takes more than it may hold");
            chunk(bytes, last)
        });
        let laying = scope.spawn(|| lay(&backend, chunks));
        while !backend.is_behind() && !laying.is_finished() {
            std::thread::yield_now();
        }
        drop(hold);
        laying.join().unwrap().unwrap();
    });
    let tables = backend.reader().unwrap();
    assert_eq!(tables.get(Table::Meta, b"k").unwrap(), Some(&[7][..]));
}

#[test]
fn a_snapshot_that_finds_the_disk_full_ends_there() {
    let root = tempfile::tempdir().unwrap();
    let backend = Backend::open(&root.path().join("state")).unwrap();
    let env = backend.env();
    let _hold = env.write_txn().unwrap();
    backend.find_full();
    let more = std::iter::from_fn(|| panic!("it takes more than it can lay"));
    let ended = lay(&backend, std::iter::once(chunk(1, false)).chain(more));
    assert!(matches!(ended, Err(BackendError::Full(_))));
}

#[test]
fn a_received_state_stays_only_when_it_is_adopted() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let beside = || std::fs::read_dir(root.path()).unwrap().count();
    let received = Store::receive(&dir, [chunk(1, true)]).unwrap();
    assert_eq!(beside(), 1);
    drop(received);
    assert_eq!(beside(), 0);
    assert!(Store::receive(&dir, [chunk(1, false)]).is_err());
    assert_eq!(beside(), 0);
    let (_store, incoming) = Store::receive(&dir, [chunk(1, true)]).unwrap();
    adopt(&dir, incoming).unwrap();
    assert!(dir.exists() && beside() == 1);
}
