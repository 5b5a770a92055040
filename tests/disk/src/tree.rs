//! The files and directories, as they are and as they are synced. An inode's number is never used again.
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
        self.file(number)?.write(offset, bytes);
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
mod tests {
    use super::*;

    const FILE: Meta = Meta {
        directory: false,
        mode: 0o600,
        uid: 7,
        gid: 8,
    };

    struct Disk {
        tree: Tree,
        directory: tempfile::TempDir,
    }

    impl Disk {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let tree = Tree::open(directory.path()).unwrap();
            Self { tree, directory }
        }

        /// A synced directory in the root.
        fn folder(&mut self, name: &str) -> u64 {
            let made = self.tree.create(ROOT, name.as_ref(), ROOT_META).unwrap();
            self.tree.sync(ROOT).unwrap();
            made.inode
        }

        /// A file with these bytes, not synced.
        fn file(&mut self, parent: u64, name: &str, bytes: &[u8]) -> u64 {
            let made = self.tree.create(parent, name.as_ref(), FILE).unwrap();
            self.tree.write(made.inode, 0, bytes).unwrap();
            made.inode
        }

        fn lose(&mut self) {
            self.tree.lose(Loss::All, &mut Random::new(1)).unwrap();
        }

        /// What a name has, now and after a new start.
        fn has(&mut self, parent: u64, name: &str) -> Option<Vec<u8>> {
            let read = |tree: &mut Tree| {
                let found = tree.lookup(parent, name.as_ref()).ok()?;
                assert_eq!(found.meta, FILE);
                tree.read(found.inode, 0, 100).ok()
            };
            let now = read(&mut self.tree);
            assert_eq!(read(&mut Tree::open(self.directory.path()).unwrap()), now);
            now
        }
    }

    #[test]
    fn only_what_was_synced_is_there_after_a_loss() {
        let mut disk = Disk::new();
        let file = disk.file(ROOT, "f", b"first");
        disk.tree.sync(file).unwrap();
        disk.tree.sync(ROOT).unwrap();
        disk.tree.write(file, 2, b"XXXXXX").unwrap();
        assert_eq!(disk.tree.read(file, 0, 100).unwrap(), b"fiXXXXXX");
        assert_eq!(disk.tree.waiting(), 6);
        disk.lose();
        assert_eq!(disk.tree.waiting(), 0);
        assert_eq!(disk.has(ROOT, "f").unwrap(), b"first");
    }

    #[test]
    fn a_name_needs_a_sync_of_its_directory_and_bytes_one_of_the_file() {
        let mut disk = Disk::new();
        let nameless = disk.file(ROOT, "nameless", b"bytes");
        disk.tree.sync(nameless).unwrap();
        disk.lose();
        assert_eq!(disk.has(ROOT, "nameless"), None);
        assert!(!disk
            .directory
            .path()
            .join(format!("objects/{nameless}"))
            .exists());
        disk.file(ROOT, "empty", b"bytes");
        disk.tree.sync(ROOT).unwrap();
        disk.lose();
        assert_eq!(disk.has(ROOT, "empty").unwrap(), b"");
    }

    #[test]
    fn a_removal_and_a_rename_need_a_sync_too() {
        let mut disk = Disk::new();
        for name in ["a", "b"] {
            let file = disk.file(ROOT, name, name.as_bytes());
            disk.tree.sync(file).unwrap();
        }
        disk.tree.sync(ROOT).unwrap();
        let over = |tree: &mut Tree| tree.rename((ROOT, "a".as_ref()), (ROOT, "b".as_ref()), true);
        over(&mut disk.tree).unwrap();
        disk.lose();
        assert_eq!(disk.has(ROOT, "b").unwrap(), b"b");
        over(&mut disk.tree).unwrap();
        disk.tree.sync(ROOT).unwrap();
        disk.lose();
        assert_eq!(disk.has(ROOT, "a"), None);
        assert_eq!(disk.has(ROOT, "b").unwrap(), b"a");
        disk.tree.remove(ROOT, "b".as_ref(), false).unwrap();
        disk.lose();
        assert_eq!(disk.has(ROOT, "b").unwrap(), b"a");
    }

    #[test]
    fn a_rename_between_directories_lasts_in_both_or_none() {
        let mut disk = Disk::new();
        let (one, other) = (disk.folder("one"), disk.folder("other"));
        let file = disk.file(one, "f", b"f");
        disk.tree.sync(file).unwrap();
        disk.tree.sync(one).unwrap();
        let there =
            |tree: &mut Tree| tree.rename((one, "f".as_ref()), (other, "f".as_ref()), false);
        there(&mut disk.tree).unwrap();
        disk.lose();
        assert_eq!(disk.has(one, "f").unwrap(), b"f");
        there(&mut disk.tree).unwrap();
        disk.tree.sync(one).unwrap();
        disk.lose();
        assert_eq!(disk.has(one, "f"), None);
        assert_eq!(disk.has(other, "f").unwrap(), b"f");
    }

    #[test]
    fn a_removed_file_is_there_while_it_is_open() {
        let mut disk = Disk::new();
        let file = disk.file(ROOT, "f", b"f");
        disk.tree.opened(file).unwrap();
        disk.tree.remove(ROOT, "f".as_ref(), false).unwrap();
        assert_eq!(disk.tree.read(file, 0, 9).unwrap(), b"f");
        disk.tree.closed(file);
        assert_eq!(disk.tree.read(file, 0, 9), Err(libc::ENOENT));
    }

    #[test]
    fn entries_of_the_wrong_kind_or_with_something_in_them_stay() {
        let mut disk = Disk::new();
        let folder = disk.folder("folder");
        disk.file(folder, "f", b"");
        let remove = |tree: &mut Tree, directory| tree.remove(ROOT, "folder".as_ref(), directory);
        assert_eq!(remove(&mut disk.tree, false), Err(libc::EISDIR));
        assert_eq!(remove(&mut disk.tree, true), Err(libc::ENOTEMPTY));
        disk.tree.remove(folder, "f".as_ref(), false).unwrap();
        assert_eq!(remove(&mut disk.tree, true), Ok(()));
    }
}
