//! The log on a disk in memory that tears and damages.

use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::log::Entry;

/// A disk, and whether it has no room for more.
#[derive(Default, Clone)]
struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    full: bool,
    /// What was written anew: files and offsets.
    renewed: Vec<(String, usize)>,
}

impl Memory {
    fn room(&self) -> io::Result<()> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.files[name].clone())
    }
    fn create(&mut self, name: &str) -> io::Result<()> {
        self.room()?;
        assert!(self.files.insert(name.to_owned(), Vec::new()).is_none());
        Ok(())
    }
    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.room()?;
        let file = self.files.get_mut(name).unwrap();
        assert!(file[offset as usize..].iter().all(|&byte| byte == 0));
        file.truncate(offset as usize);
        file.extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        assert_eq!(&self.files[name][offset..offset + bytes.len()], bytes);
        self.renewed.push((name.to_owned(), offset));
        Ok(())
    }
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.files.get_mut(name).unwrap().truncate(length as usize);
        Ok(())
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name);
        Ok(())
    }
}

const ME: Identity = Identity {
    cluster: 5,
    member: 6,
};

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: format!("entry {index} of {term}").into(),
        ..Default::default()
    }
}

fn append(entries: Vec<Entry>, term: u64) -> Append {
    Append {
        number: 1,
        hard_state: HardState {
            term,
            vote: 6,
            commit: 0,
        },
        snapshot: None,
        entries,
    }
}

fn written(segment_bytes: u64) -> Memory {
    let (mut wal, _) = Wal::open_with(Memory::default(), ME, segment_bytes).unwrap();
    for index in 1..=20 {
        wal.append(&[append(vec![entry(index, 1)], 1)]).unwrap();
    }
    wal.into_disk()
}

fn open(disk: Memory) -> Result<Recovered, WalError> {
    Wal::open_with(disk, ME, 300).map(|(_, found)| found)
}

#[test]
fn the_last_frame_is_written_anew_when_the_log_is_opened() {
    let disk = written(300);
    let (name, bytes) = disk.files.last_key_value().unwrap();
    let last_frame = bytes.windows(4).rposition(|four| four == MAGIC).unwrap();
    let (name, count) = (name.clone(), disk.files.len());
    let (wal, _) = Wal::open_with(disk, ME, 300).unwrap();
    assert!(count > 2 && last_frame > 0);
    assert_eq!(wal.into_disk().renewed, [(name, last_frame)]);
}

#[test]
fn later_entries_overwrite_earlier_ones() {
    let (mut wal, _) = Wal::open(Memory::default(), ME).unwrap();
    wal.append(&[append((1..=5).map(|i| entry(i, 1)).collect(), 1)])
        .unwrap();
    wal.append(&[append(vec![entry(3, 2)], 2)]).unwrap();
    let found = open(wal.into_disk()).unwrap();
    let positions: Vec<_> = found.entries.iter().map(|e| (e.index, e.term)).collect();
    assert_eq!(positions, [(1, 1), (2, 1), (3, 2)]);
    assert_eq!(
        found.hard_state,
        HardState {
            term: 2,
            vote: 6,
            commit: 0
        }
    );
}

#[test]
fn a_tail_torn_anywhere_is_cut_and_the_rest_is_kept() {
    let disk = written(1 << 20);
    let (name, bytes) = disk.files.first_key_value().unwrap();
    let before = open(disk.clone()).unwrap();
    let mut last_frame = bytes.len() - 1;
    while bytes[last_frame..last_frame + 4.min(bytes.len() - last_frame)] != MAGIC {
        last_frame -= 1;
    }
    for length in last_frame + 1..bytes.len() {
        let mut torn = disk.clone();
        torn.files.get_mut(name).unwrap().truncate(length);
        let (wal, found) = Wal::open(torn, ME).unwrap();
        assert_eq!(found.entries[..], before.entries[..19]);
        assert_eq!(found.cut, Some((name.clone(), last_frame as u64)));
        let (mut wal, _) = Wal::open(wal.into_disk(), ME).unwrap();
        wal.append(&[append(vec![entry(20, 3)], 3)]).unwrap();
        assert_eq!(open(wal.into_disk()).unwrap().entries[19], entry(20, 3));
    }
}

#[test]
fn zeros_behind_the_last_frame_are_its_end_and_are_written_over() {
    let mut disk = written(1 << 20);
    let (name, bytes) = disk
        .files
        .first_key_value()
        .map(|(n, b)| (n.clone(), b.clone()))
        .unwrap();
    disk.files
        .get_mut(&name)
        .unwrap()
        .resize(bytes.len() + 500, 0);
    let (mut wal, found) = Wal::open(disk.clone(), ME).unwrap();
    assert_eq!((found.entries.len(), found.cut), (20, None));
    wal.append(&[append(vec![entry(21, 1)], 1)]).unwrap();
    assert_eq!(open(wal.into_disk()).unwrap().entries[20], entry(21, 1));
    // A last frame of which only a later part reached the disk.
    let torn = disk.files.get_mut(&name).unwrap();
    let last = bytes.windows(4).rposition(|w| w == MAGIC).unwrap();
    torn[last..last + 20].fill(0);
    let (mut wal, found) = Wal::open(disk, ME).unwrap();
    assert_eq!(
        (found.entries.len(), found.cut),
        (19, Some((name, last as u64)))
    );
    wal.append(&[append(vec![entry(20, 3)], 3)]).unwrap();
    assert_eq!(open(wal.into_disk()).unwrap().entries[19], entry(20, 3));
}

#[test]
fn a_byte_changed_before_the_last_frame_is_an_error_that_says_where() {
    let disk = written(1 << 20);
    let (name, bytes) = disk.files.first_key_value().unwrap();
    for at in (0..bytes.len() - 100).step_by(7) {
        let mut damaged = disk.clone();
        damaged.files.get_mut(name).unwrap()[at] ^= 0x40;
        match open(damaged) {
            Err(WalError::Damaged { file, offset, .. }) => {
                assert!(&file == name && offset as usize <= at)
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn a_frame_in_a_wrong_place_is_damage() {
    let disk = written(300);
    let names: Vec<String> = disk.files.keys().cloned().collect();
    let mut swapped = disk.clone();
    swapped
        .files
        .insert(names[1].clone(), disk.files[&names[2]].clone());
    assert!(matches!(open(swapped), Err(WalError::Damaged { .. })));
    let mut missing = disk;
    missing.files.remove(&names[1]);
    assert!(matches!(open(missing), Err(WalError::Damaged { .. })));
}

#[test]
fn segments_go_when_the_state_has_them_and_the_start_is_known() {
    let (mut wal, before) = Wal::open_with(written(300), ME, 300).unwrap();
    assert_eq!(before.entries.len(), 20);
    let segments = wal.segments.len();
    assert!(segments > 3);
    wal.compact(12).unwrap();
    assert!(wal.segments.len() < segments);
    let (mut wal, found) = Wal::open_with(wal.into_disk(), ME, 300).unwrap();
    assert!(
        found.start.0 <= 12 && found.start.1 == 1,
        "{:?}",
        found.start
    );
    assert_eq!(found.entries.last(), Some(&entry(20, 1)));
    assert!(matches!(
        wal.restore(found, (1, 1), ConfState::default()),
        Err(WalError::StateTooOld { .. })
    ));
}

#[test]
fn a_segment_torn_at_its_birth_is_begun_anew_when_there_is_room() {
    let mut disk = written(300);
    let last = disk.files.keys().next_back().unwrap().clone();
    let next = segment_name(segment_number(&last).unwrap() + 1);
    disk.files.insert(next.clone(), MAGIC.to_vec());
    disk.full = true;
    let (mut wal, found) = Wal::open_with(disk, ME, 300).unwrap();
    assert_eq!(found.entries.len(), 20);
    let refused = wal.append(&[append(vec![entry(21, 1)], 1)]);
    assert!(matches!(refused, Err(WalError::NoSpace(_))));
    wal.disk.full = false;
    wal.append(&[append(vec![entry(21, 1)], 1)]).unwrap();
    assert_eq!(open(wal.into_disk()).unwrap().entries.len(), 21);
}

#[test]
fn a_snapshot_voids_what_was_before_it_and_a_state_ahead_of_the_log_wins() {
    let (mut wal, _) = Wal::open(written(1 << 20), ME).unwrap();
    let conf = ConfState {
        voters: vec![1, 2],
        learners: vec![3],
    };
    let meta = SnapshotMeta {
        index: 50,
        term: 4,
        conf: conf.clone(),
    };
    let mut install = append(vec![entry(51, 4)], 4);
    install.snapshot = Some(meta.clone());
    wal.append(&[install]).unwrap();
    let (mut wal, found) = Wal::open(wal.into_disk(), ME).unwrap();
    assert_eq!(
        (found.start, found.snapshot.as_ref()),
        ((50, 4), Some(&meta))
    );
    assert_eq!(
        wal.restore(found, (50, 4), conf.clone()).unwrap().entries,
        [entry(51, 4)]
    );
    let (mut wal, found) = Wal::open(wal.into_disk(), ME).unwrap();
    let ahead = wal.restore(found, (90, 5), conf).unwrap();
    assert_eq!((ahead.start, ahead.entries.len()), ((90, 5), 0));
    wal.append(&[append(vec![entry(91, 5)], 5)]).unwrap();
    let found = open(wal.into_disk()).unwrap();
    assert_eq!((found.start, found.entries.len()), ((90, 5), 1));
}
