//! The files and directories, as they are and as they are synced. An inode's number is never used again while this runs.
//!
//! As POSIX has it, and more strictly than most file systems do it: a file's sync makes its bytes last, and not its name;
//! that does a sync of the directory. Only a rename from one directory to another lasts in both or in none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::backing::{Backing, Meta, Row};
use crate::pending::{Loss, Pending, Random};

pub const ROOT: u64 = 1;
const ROOT_META: Meta = Meta {
    directory: true,
    mode: 0o755,
    uid: 0,
    gid: 0,
};

/// An error number of libc.
pub type Errno = i32;
type Entries = BTreeMap<OsString, u64>;

#[derive(Debug)]
enum Body {
    File(Pending),
    Directory { now: Entries, synced: Entries },
}

#[derive(Debug)]
struct Inode {
    meta: Meta,
    modified: SystemTime,
    body: Body,
    /// Handles that are open: it stays while there are any.
    handles: u64,
}

/// What `stat` tells.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    pub inode: u64,
    pub meta: Meta,
    pub modified: SystemTime,
    pub length: u64,
}

#[derive(Debug)]
pub struct Tree {
    backing: Backing,
    inodes: HashMap<u64, Inode>,
    next: u64,
    /// Directories between which something was moved that is not synced.
    moved: Vec<(u64, u64)>,
}

impl Tree {
    /// What was synced to a backing directory.
    ///
    /// # Errors
    /// When it can't be made or read.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let mut tree = Self {
            backing: Backing::open(directory)?,
            inodes: HashMap::new(),
            next: ROOT + 1,
            moved: Vec::new(),
        };
        let mut waiting = vec![(ROOT, ROOT_META)];
        while let Some((number, meta)) = waiting.pop() {
            tree.next = tree.next.max(number + 1);
            let body = if meta.directory {
                let rows = tree.backing.load(number)?;
                waiting.extend(rows.iter().map(|(inode, _, meta)| (*inode, *meta)));
                let synced: Entries = rows.into_iter().map(|(at, name, _)| (name, at)).collect();
                let now = synced.clone();
                Body::Directory { now, synced }
            } else {
                Body::File(Pending::new(tree.backing.length(number)))
            };
            tree.inodes.insert(number, Inode::new(meta, body));
        }
        // Bytes whose name was not synced: their numbers are given again.
        for number in tree.backing.numbers()? {
            if !tree.inodes.contains_key(&number) {
                tree.backing.remove(number);
            }
        }
        Ok(tree)
    }

    fn inode(&mut self, number: u64) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&number).ok_or(libc::ENOENT)
    }

    fn file(&mut self, number: u64) -> Result<&mut Pending, Errno> {
        let inode = self.inode(number)?;
        inode.modified = SystemTime::now();
        match &mut inode.body {
            Body::File(pending) => Ok(pending),
            Body::Directory { .. } => Err(libc::EISDIR),
        }
    }

    fn entries(&mut self, number: u64) -> Result<&mut Entries, Errno> {
        match &mut self.inode(number)?.body {
            Body::Directory { now, .. } => Ok(now),
            Body::File(_) => Err(libc::ENOTDIR),
        }
    }

    pub fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<Stat, Errno> {
        let found = self.entries(parent)?.get(name).copied();
        self.stat(found.ok_or(libc::ENOENT)?)
    }

    pub fn stat(&mut self, number: u64) -> Result<Stat, Errno> {
        let inode = self.inode(number)?;
        let length = match &inode.body {
            Body::File(pending) => pending.length(),
            Body::Directory { now, .. } => now.len() as u64,
        };
        Ok(Stat {
            inode: number,
            meta: inode.meta,
            modified: inode.modified,
            length,
        })
    }

    pub fn set_meta(
        &mut self,
        number: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Errno> {
        let meta = &mut self.inode(number)?.meta;
        meta.mode = mode.map_or(meta.mode, permissions);
        meta.uid = uid.unwrap_or(meta.uid);
        meta.gid = gid.unwrap_or(meta.gid);
        Ok(())
    }

    /// Names, their inodes, and whether they are directories.
    pub fn list(&mut self, number: u64) -> Result<Vec<(OsString, u64, bool)>, Errno> {
        let entries = self.entries(number)?.clone();
        let kind = |at: &u64| self.inodes.get(at).is_some_and(|one| one.meta.directory);
        Ok(entries
            .iter()
            .map(|(name, at)| (name.clone(), *at, kind(at)))
            .collect())
    }

    pub fn create(&mut self, parent: u64, name: &OsStr, meta: Meta) -> Result<Stat, Errno> {
        let number = self.next;
        let entries = self.entries(parent)?;
        if entries.contains_key(name) {
            return Err(libc::EEXIST);
        }
        entries.insert(name.to_owned(), number);
        self.next += 1;
        let body = if meta.directory {
            Body::Directory {
                now: Entries::new(),
                synced: Entries::new(),
            }
        } else {
            Body::File(Pending::new(0))
        };
        self.inodes.insert(number, Inode::new(meta, body));
        self.stat(number)
    }

    pub fn remove(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let found = self.lookup(parent, name)?;
        self.replaceable(found, directory)?;
        self.entries(parent)?.remove(name);
        self.sweep();
        Ok(())
    }

    /// Whether an entry may go: it is of this kind, and empty.
    fn replaceable(&mut self, found: Stat, directory: bool) -> Result<(), Errno> {
        match (found.meta.directory, directory) {
            (true, false) => Err(libc::EISDIR),
            (false, true) => Err(libc::ENOTDIR),
            (true, true) if found.length > 0 => Err(libc::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    pub fn rename(
        &mut self,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
        replace: bool,
    ) -> Result<(), Errno> {
        let moved = self.lookup(parent, name)?;
        match self.lookup(new_parent, new_name) {
            Ok(_) if !replace => return Err(libc::EEXIST),
            Ok(old) => self.replaceable(old, moved.meta.directory)?,
            Err(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
        self.entries(parent)?.remove(name);
        self.entries(new_parent)?
            .insert(new_name.to_owned(), moved.inode);
        if parent != new_parent {
            self.moved.push((parent, new_parent));
        }
        self.sweep();
        Ok(())
    }

    pub fn opened(&mut self, number: u64) -> Result<(), Errno> {
        self.inode(number)?.handles += 1;
        Ok(())
    }

    pub fn closed(&mut self, number: u64) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        self.sweep();
    }

    pub fn read(&mut self, number: u64, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
        let synced = self.backing.read(number, offset, size).map_err(errno)?;
        match &self.inode(number)?.body {
            Body::File(pending) => Ok(pending.over(offset, synced)),
            Body::Directory { .. } => Err(libc::EISDIR),
        }
    }

    pub fn write(&mut self, number: u64, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let pending = self.file(number)?;
        pending.write(offset, bytes);
        if pending.is_much() {
            return self.sync(number);
        }
        Ok(())
    }

    pub fn set_length(&mut self, number: u64, length: u64) -> Result<(), Errno> {
        self.file(number)?.set_length(length);
        Ok(())
    }

    /// Make a file's bytes last, or a directory's entries.
    pub fn sync(&mut self, number: u64) -> Result<(), Errno> {
        match &mut self.inode(number)?.body {
            Body::File(pending) => {
                let changes = pending.take();
                self.backing.apply(number, &changes).map_err(errno)
            }
            Body::Directory { .. } => self.sync_directories(&self.tied(number)),
        }
    }

    /// The sync of a file has failed.
    pub fn fail_sync(&mut self, number: u64) {
        if let Ok(pending) = self.file(number) {
            pending.fail();
        }
    }

    /// Directories that last only together with this one.
    fn tied(&self, number: u64) -> BTreeSet<u64> {
        let mut found = BTreeSet::from([number]);
        let mut before = 0;
        while found.len() > before {
            before = found.len();
            for (one, other) in &self.moved {
                if found.contains(one) || found.contains(other) {
                    found.extend([*one, *other]);
                }
            }
        }
        found
    }

    fn sync_directories(&mut self, numbers: &BTreeSet<u64>) -> Result<(), Errno> {
        for number in numbers {
            let now = match self.inodes.get(number).map(|inode| &inode.body) {
                Some(Body::Directory { now, .. }) => now.clone(),
                _ => continue,
            };
            let row = |(name, at): (&OsString, &u64)| -> Option<Row> {
                Some((*at, name.clone(), self.inodes.get(at)?.meta))
            };
            let rows: Vec<Row> = now.iter().filter_map(row).collect();
            self.backing.save(*number, &rows).map_err(errno)?;
            if let Body::Directory { synced, .. } = &mut self.inode(*number)?.body {
                *synced = now;
            }
        }
        self.moved.retain(|(one, _)| !numbers.contains(one));
        self.sweep();
        Ok(())
    }

    /// Power is lost: what was not synced is gone, but for what `loss` lets through.
    pub fn lose(&mut self, loss: Loss, random: &mut Random) -> Result<(), Errno> {
        let mut numbers: Vec<u64> = self.inodes.keys().copied().collect();
        numbers.sort_unstable();
        let mut asked = BTreeSet::new();
        for number in &numbers {
            let tied = self.tied(*number);
            if asked.insert(*number) && loss != Loss::All && random.below(2) == 0 {
                self.sync_directories(&tied)?;
            }
            asked.extend(tied);
        }
        self.moved.clear();
        for number in numbers {
            let Some(inode) = self.inodes.get_mut(&number) else {
                continue;
            };
            match &mut inode.body {
                Body::Directory { now, synced } => now.clone_from(synced),
                Body::File(pending) => {
                    let kept = pending.survivors(loss, random);
                    self.backing.apply(number, &kept).map_err(errno)?;
                    *pending = Pending::new(self.backing.length(number));
                }
            }
        }
        self.sweep();
        Ok(())
    }

    /// Bytes that wait for a sync.
    pub fn waiting(&self) -> u64 {
        let bytes = |inode: &Inode| match &inode.body {
            Body::File(pending) => pending.bytes(),
            Body::Directory { .. } => 0,
        };
        self.inodes.values().map(bytes).sum()
    }

    /// Forget what has no name, synced or not, and no handle.
    fn sweep(&mut self) {
        let mut used = BTreeSet::from([ROOT]);
        let mut waiting = vec![ROOT];
        let held = self.inodes.iter().filter(|(_, one)| one.handles > 0);
        waiting.extend(held.map(|(number, _)| *number));
        used.extend(waiting.iter().copied());
        while let Some(number) = waiting.pop() {
            if let Some(Body::Directory { now, synced }) = self.inodes.get(&number).map(|i| &i.body)
            {
                for child in now.values().chain(synced.values()) {
                    if used.insert(*child) {
                        waiting.push(*child);
                    }
                }
            }
        }
        let backing = &self.backing;
        self.inodes.retain(|number, _| {
            let keep = used.contains(number);
            if !keep {
                backing.remove(*number);
            }
            keep
        });
    }
}

impl Inode {
    fn new(meta: Meta, body: Body) -> Self {
        Self {
            meta,
            modified: SystemTime::now(),
            body,
            handles: 0,
        }
    }
}

/// The bits of a mode that are permissions.
#[must_use]
pub fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests;
