//! The shared page: when the cluster answered last, for whoever must know without asking anyone. Its layout is told in
//! `main.rs`.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Failure;

const PAGE_BYTES: usize = 4096;

/// The page that monitors read without asking anyone.
pub struct Page(*mut AtomicU64);

impl Page {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_len(PAGE_BYTES as u64)?;
        // SAFETY: a fresh shared mapping of a file that is as long as the page; checked before use, kept for ever.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self(at.cast()))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < 3);
        // SAFETY: the words are inside the mapping, aligned, and only touched atomically.
        unsafe { &*self.0.add(index) }
    }

    pub fn answered(&self, lease: i64, announced: bool) {
        let now = boot_time_ms().to_le();
        self.word(1)
            .store((lease as u64).to_le(), Ordering::Release);
        self.word(0).store(now, Ordering::Release);
        if announced {
            self.word(2).store(now, Ordering::Release);
        }
    }

    /// The lease of the last answer was announced after it.
    pub fn announced(&self) {
        self.word(2)
            .store(self.word(0).load(Ordering::Acquire), Ordering::Release);
    }

    pub fn answered_ms(&self) -> u64 {
        u64::from_le(self.word(0).load(Ordering::Acquire))
    }
}

fn boot_time_ms() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes the timespec it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
