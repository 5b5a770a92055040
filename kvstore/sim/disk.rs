//! A disk that outlives its member and, at a crash, keeps what was synced and any part of the rest.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use kvstore::wal::Disk;

use super::rng::Rng;

#[derive(Default, Clone)]
struct Content {
    synced: Vec<u8>,
    unsynced: Vec<u8>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Content>,
    power_fails: bool,
}

#[derive(Default, Clone)]
pub struct SimDisk(Rc<RefCell<State>>);

impl SimDisk {
    /// From now on writes reach the disk's cache but no sync succeeds.
    pub fn fail_power(&self) {
        self.0.borrow_mut().power_fails = true;
    }

    /// What is there after the crash: of unsynced bytes none, a part, or all with some of them wrong.
    pub fn crash(&self, rng: &mut Rng) {
        let mut state = self.0.borrow_mut();
        state.power_fails = false;
        for content in state.files.values_mut() {
            let mut rest = std::mem::take(&mut content.unsynced);
            if rest.is_empty() {
                continue;
            }
            match rng.below(4) {
                0 => rest.clear(),
                1 => rest.truncate(rng.below(rest.len() as u64) as usize),
                2 => {
                    // Blocks reach the disk in any order: its head may still be the zeros that lay there.
                    let missing = rng.below(rest.len() as u64) as usize;
                    rest[..missing].fill(0);
                }
                _ => {
                    let at = rng.below(rest.len() as u64) as usize;
                    let end = (at + 16).min(rest.len());
                    rest[at..end].iter_mut().for_each(|b| *b = !*b);
                }
            }
            content.synced.extend(rest);
            let ahead = rng.below(64) as usize;
            content.synced.extend(std::iter::repeat_n(0, ahead));
        }
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut state = self.0.borrow_mut();
        state
            .files
            .get_mut(name)
            .map(act)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.with(name, |c| [c.synced.as_slice(), &c.unsynced].concat())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.0
            .borrow_mut()
            .files
            .insert(name.to_owned(), Content::default());
        Ok(())
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(name, |c| {
            if c.unsynced.is_empty() {
                assert!(c.synced[offset as usize..].iter().all(|&byte| byte == 0));
                c.synced.truncate(offset as usize);
            }
            assert_eq!(c.synced.len() + c.unsynced.len(), offset as usize);
            c.unsynced.extend_from_slice(bytes);
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        if self.0.borrow().power_fails {
            return Err(io::Error::other("the power failed"));
        }
        self.with(name, |c| {
            let rest = std::mem::take(&mut c.unsynced);
            c.synced.extend(rest);
        })
    }

    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let there = self.read(name)?;
        assert_eq!(
            &there[offset as usize..offset as usize + bytes.len()],
            bytes
        );
        self.sync(name)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.with(name, |c| {
            c.synced.truncate(length as usize);
            c.unsynced.clear();
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.borrow_mut().files.remove(name);
        Ok(())
    }
}
