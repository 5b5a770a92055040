//! FUSE requests as operations on the tree, with the faults of the moment. Nothing is decided here.
//!
//! Names and attributes are never cached by the kernel, and a file's pages only until it is opened again: after a loss of
//! power nobody sees what was lost. Within one opening pages are cached, so that maps and writes of a file agree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::backing::Meta;
use crate::control::Faults;
use crate::tree::{permissions, Stat, Tree};

const NEVER: Duration = Duration::ZERO;
const BLOCK: u32 = 4096;

pub struct Shell {
    tree: Arc<Mutex<Tree>>,
    faults: Arc<Mutex<Faults>>,
    backing: PathBuf,
}

impl Shell {
    pub fn new(tree: Arc<Mutex<Tree>>, faults: Arc<Mutex<Faults>>, backing: PathBuf) -> Self {
        Self {
            tree,
            faults,
            backing,
        }
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request that takes more room is told instead.
    fn no_room(&self) -> Result<(), i32> {
        self.faults().write.map_or(Ok(()), Err)
    }

    /// What a write up to `end` is told instead. A full disk takes what it has room for already.
    fn no_write(&self, number: u64, end: u64) -> Result<(), i32> {
        let fails = self.faults().write;
        match fails {
            Some(libc::ENOSPC) if self.tree().stat(number)?.length >= end => Ok(()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        directory: bool,
    ) -> Result<Stat, i32> {
        self.no_room()?;
        let meta = Meta {
            directory,
            mode: permissions(mode),
            uid: request.uid(),
            gid: request.gid(),
        };
        self.tree().create(parent.0, name, meta)
    }

    /// Sync an inode and then answer, at once or when it has taken the time that it shall.
    fn sync(&self, number: u64, answer: impl FnOnce(Result<(), i32>) + Send + 'static) {
        let (fails, slow) = {
            let mut faults = self.faults();
            faults.syncs += 1;
            (faults.sync, faults.slow)
        };
        let tree = Arc::clone(&self.tree);
        let work = move || {
            std::thread::sleep(slow);
            let mut tree = tree.lock().unwrap_or_else(PoisonError::into_inner);
            answer(match fails {
                None => tree.sync(number),
                Some(error) => {
                    tree.fail_sync(number);
                    Err(error)
                }
            });
        };
        if slow.is_zero() {
            work();
        } else {
            std::thread::spawn(work);
        }
    }
}

fn attributes(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.inode),
        size: stat.length,
        blocks: stat.length.div_ceil(512),
        atime: stat.modified,
        mtime: stat.modified,
        ctime: stat.modified,
        crtime: stat.modified,
        kind: kind(stat.meta.directory),
        perm: stat.meta.mode,
        nlink: if stat.meta.directory { 2 } else { 1 },
        uid: stat.meta.uid,
        gid: stat.meta.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

fn kind(directory: bool) -> FileType {
    if directory {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

fn entry(found: Result<Stat, i32>, reply: ReplyEntry) {
    match found {
        Ok(stat) => reply.entry(&NEVER, &attributes(&stat), Generation(0)),
        Err(error) => reply.error(Errno::from_i32(error)),
    }
}

fn empty(result: Result<(), i32>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from_i32(error)),
    }
}

impl Filesystem for Shell {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.tree().lookup(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree().stat(ino.0) {
            Ok(stat) => reply.attr(&NEVER, &attributes(&stat)),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.tree();
        let changed = tree
            .set_meta(ino.0, mode, uid, gid)
            .and_then(|()| size.map_or(Ok(()), |length| tree.set_length(ino.0, length)))
            .and_then(|()| tree.stat(ino.0));
        match changed {
            Ok(stat) => reply.attr(&NEVER, &attributes(&stat)),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        entry(self.make(request, parent, name, mode & !umask, true), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.tree().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.tree().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (from, to) = ((parent.0, name), (newparent.0, newname));
        empty(self.tree().rename(from, to, replace), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self
            .make(request, parent, name, mode & !umask, false)
            .and_then(|stat| self.tree().opened(stat.inode).map(|()| stat));
        match made {
            Ok(stat) => reply.created(
                &NEVER,
                &attributes(&stat),
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.tree().opened(ino.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.tree().closed(ino.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fails = self.faults().read;
        match fails.map_or_else(|| self.tree().read(ino.0, offset, size as usize), Err) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let size = data.len() as u32;
        let answer = move |result| match result {
            Ok(()) => reply.written(size),
            Err(error) => reply.error(Errno::from_i32(error)),
        };
        let written = self
            .no_write(ino.0, offset + data.len() as u64)
            .and_then(|()| self.tree().write(ino.0, offset, data));
        match written {
            // LMDB writes its meta pages so, and syncs them no other way.
            Ok(()) if flags.0 & libc::O_DSYNC != 0 => self.sync(ino.0, answer),
            result => answer(result),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino.0, move |result| empty(result, reply));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino.0, move |result| empty(result, reply));
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let end = offset + length;
        let grown = self.no_write(ino.0, end).and_then(|()| {
            let mut tree = self.tree();
            if tree.stat(ino.0)?.length < end {
                tree.set_length(ino.0, end)?;
            }
            Ok(())
        });
        empty(grown, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let rows = match self.tree().list(ino.0) {
            Ok(rows) => rows,
            Err(error) => return reply.error(Errno::from_i32(error)),
        };
        let dots = [(".".into(), ino.0, true), ("..".into(), ino.0, true)];
        let all = dots.into_iter().chain(rows).enumerate();
        for (at, (name, number, directory)) in all.skip(offset as usize) {
            if reply.add(INodeNo(number), at as u64 + 1, kind(directory), &name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let full = self.faults().write == Some(libc::ENOSPC);
        let Ok(path) = std::ffi::CString::new(self.backing.as_os_str().as_bytes()) else {
            return reply.error(Errno::EINVAL);
        };
        // SAFETY: all zeros is a value of this plain struct; the call fills it, and reads a string that ends with a zero.
        let (found, failed) = unsafe {
            let mut found: libc::statvfs = std::mem::zeroed();
            let failed = libc::statvfs(path.as_ptr(), &mut found) != 0;
            (found, failed)
        };
        if failed {
            return reply.error(Errno::EIO);
        }
        let free = if full { 0 } else { found.f_bavail };
        let (size, name) = (found.f_bsize as u32, found.f_namemax as u32);
        reply.statfs(
            found.f_blocks,
            free,
            free,
            found.f_files,
            found.f_ffree,
            size,
            name,
            size,
        );
    }
}
