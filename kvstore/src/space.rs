//! Whether there is room for writes that make the state grow: within the quota, and on the disk (etcd's NOSPACE).
//!
//! A part of the disk is kept in reserve. When the disk is full it is given up, so that the log and the state can
//! still take what makes room: deletions and compactions.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

/// What is kept in reserve on the disk.
const RESERVE_BYTES: u64 = 16 << 20;
const RESERVE_FILE: &str = "reserve";
/// A quota that was exceeded holds again once this part of it, in percent, is used.
const CALM_PERCENT: u64 = 90;

/// Whether an error says that the disk, or what this user may have of it, is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Bytes that can still be written to the disk that holds `path`.
///
/// # Errors
/// When the system doesn't know.
pub fn available(path: &Path) -> io::Result<u64> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zero is a valid `statvfs`; the call reads the name and writes only to the value, both of which live.
    let (result, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(name.as_ptr(), &raw mut found), found)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(found.f_bavail * found.f_frsize)
}

/// The quota and the disk of one member.
#[derive(Debug)]
pub struct Space {
    dir: PathBuf,
    quota_bytes: u64,
    over_quota: bool,
    disk_full: bool,
}

impl Space {
    /// Gives up the reserve of the last run, since a start may need some room. [`Self::reserve`] lays it again.
    ///
    /// # Errors
    /// When the directory can't be written.
    pub fn open(dir: &Path, quota_bytes: u64) -> io::Result<Self> {
        let space = Self {
            dir: dir.to_owned(),
            quota_bytes,
            over_quota: false,
            disk_full: false,
        };
        space.release()?;
        Ok(space)
    }

    /// Whether writes that make the state grow are refused.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.over_quota || self.disk_full
    }

    /// Whether it is the quota that is exceeded.
    #[must_use]
    pub fn is_over_quota(&self) -> bool {
        self.over_quota
    }

    /// Takes note of what the state uses.
    pub fn uses(&mut self, bytes: u64) {
        let calm = self.quota_bytes / 100 * CALM_PERCENT;
        let over = bytes
            > if self.over_quota {
                calm
            } else {
                self.quota_bytes
            };
        if over != self.over_quota {
            self.over_quota = over;
            let quota = self.quota_bytes;
            if over {
                warn!(
                    alarm = "NOSPACE",
                    bytes,
                    quota_bytes = quota,
                    until_bytes = calm,
                    "the quota is exceeded: writes that make the state grow are refused until it uses less; delete \
                     keys and compact, or raise --quota-backend-bytes"
                );
            } else {
                info!(
                    bytes,
                    quota_bytes = quota,
                    "the quota is no longer exceeded: writes are taken again"
                );
            }
        }
    }

    /// Takes note that something could not be written for want of room.
    ///
    /// # Errors
    /// When the reserve can't be given up.
    pub fn ran_out(&mut self) -> io::Result<()> {
        if !self.disk_full {
            self.disk_full = true;
            warn!(
                alarm = "NOSPACE",
                path = %self.dir.display(),
                "the disk is full: writes that make the state grow are refused until there is room again"
            );
            self.release()?;
        }
        Ok(())
    }

    /// Lays the reserve, at the start and when the disk was full; it is full until that succeeds.
    ///
    /// # Errors
    /// When the directory can't be written for another reason.
    pub fn reserve(&mut self) -> io::Result<()> {
        // Room for the reserve alone would be used up by the next write.
        if self.disk_full && available(&self.dir)? < 2 * RESERVE_BYTES {
            return Ok(());
        }
        match self.lay() {
            Ok(()) if self.disk_full => {
                self.disk_full = false;
                info!(
                    path = %self.dir.display(),
                    "the disk has room again: writes are taken again"
                );
                Ok(())
            }
            Err(error) if is_full(&error) => self.ran_out(),
            other => other,
        }
    }

    /// Whether the disk was full when last looked at.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.disk_full
    }

    fn lay(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.dir.join(RESERVE_FILE))?;
        allocate(&file, RESERVE_BYTES)
    }

    fn release(&self) -> io::Result<()> {
        match std::fs::remove_file(self.dir.join(RESERVE_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).unwrap_or(libc::off_t::MAX);
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exceeded_quota_holds_again_only_when_there_is_some_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = Space::open(dir.path(), 1_000).unwrap();
        for (used, short) in [
            (1_000, false),
            (1_001, true),
            (950, true),
            (900, false),
            (950, false),
        ] {
            space.uses(used);
            assert_eq!(space.is_short(), short, "{used} used");
        }
    }

    #[test]
    fn the_reserve_is_given_up_for_a_full_disk_and_laid_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = dir.path().join(RESERVE_FILE);
        let mut space = Space::open(dir.path(), 1_000).unwrap();
        space.reserve().unwrap();
        assert_eq!(reserve.metadata().unwrap().len(), RESERVE_BYTES);
        assert!(!space.is_short());
        space.ran_out().unwrap();
        assert!(space.is_short() && !reserve.exists());
        space.reserve().unwrap();
        assert!(!space.is_short() && reserve.exists());
        drop(Space::open(dir.path(), 1_000).unwrap());
        assert!(!reserve.exists(), "a start needs room");
    }
}
