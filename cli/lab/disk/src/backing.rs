//! What was synced, in a directory: one object an inode, its bytes or its entries.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::pending::Change;

/// What an entry of a directory says of its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub directory: bool,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
}

/// A row of a directory: inode, name, and what the inode is.
pub type Row = (u64, OsString, Meta);

#[derive(Debug)]
pub struct Backing {
    objects: PathBuf,
}

impl Backing {
    /// # Errors
    /// When the directory can't be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let objects = directory.join("objects");
        std::fs::create_dir_all(&objects)?;
        Ok(Self { objects })
    }

    fn path(&self, inode: u64) -> PathBuf {
        self.objects.join(inode.to_string())
    }

    /// How long a file is; 0 for one that was never synced.
    pub fn length(&self, inode: u64) -> u64 {
        self.path(inode).metadata().map_or(0, |found| found.len())
    }

    /// Bytes of a file, with zeros behind its end.
    ///
    /// # Errors
    /// The directory's own.
    pub fn read(&self, inode: u64, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let mut window = vec![0; size];
        match File::open(self.path(inode)) {
            Ok(file) => {
                let mut filled = 0;
                while filled < size {
                    match file.read_at(&mut window[filled..], offset + filled as u64)? {
                        0 => break,
                        count => filled += count,
                    }
                }
                Ok(window)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(window),
            Err(error) => Err(error),
        }
    }

    /// Make changes of a file last.
    ///
    /// # Errors
    /// The directory's own.
    pub fn apply(&self, inode: u64, changes: &[Change]) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(inode))?;
        for change in changes {
            match change {
                Change::Write { offset, bytes } => file.write_all_at(bytes, *offset)?,
                Change::Length(length) => file.set_len(*length)?,
            }
        }
        Ok(())
    }

    /// The inodes of which there is something.
    ///
    /// # Errors
    /// The directory's own.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.objects)? {
            found.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<u64>().ok()),
            );
        }
        Ok(found)
    }

    /// Forget an inode; one that was never synced is no error.
    pub fn remove(&self, inode: u64) {
        let _ = std::fs::remove_file(self.path(inode));
    }

    /// Make the entries of a directory last, all at once.
    ///
    /// # Errors
    /// The directory's own.
    pub fn save(&self, inode: u64, rows: &[Row]) -> io::Result<()> {
        let mut text = Vec::new();
        for (at, name, meta) in rows {
            let Meta {
                directory,
                mode,
                uid,
                gid,
            } = meta;
            let kind = if *directory { "d" } else { "f" };
            text.extend(format!("{at} {kind} {mode} {uid} {gid} ").bytes());
            text.extend(name.as_bytes());
            // No name has one in it.
            text.push(0);
        }
        let new = self.objects.join("new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, self.path(inode))
    }

    /// The entries of a directory; none of one that was never synced.
    ///
    /// # Errors
    /// When the object can't be read, or is none of a directory.
    pub fn load(&self, inode: u64) -> io::Result<Vec<Row>> {
        match std::fs::read(self.path(inode)) {
            Ok(text) => text
                .split(|byte| *byte == 0)
                .filter(|row| !row.is_empty())
                .map(|row| parse(row).ok_or_else(|| io::Error::other("a damaged directory")))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn parse(row: &[u8]) -> Option<Row> {
    let mut words = row.splitn(6, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let inode = word()?.parse().ok()?;
    let meta = Meta {
        directory: word()? == "d",
        mode: word()?.parse().ok()?,
        uid: word()?.parse().ok()?,
        gid: word()?.parse().ok()?,
    };
    Some((inode, OsString::from_vec(words.next()?.to_vec()), meta))
}
