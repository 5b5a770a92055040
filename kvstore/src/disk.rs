//! The log on real files, and the thread that appends and syncs: whatever queued meanwhile is one write and one sync.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::consensus::Append;
use crate::measures::WAL_FSYNC;
use crate::wal::{Disk, Wal, WalError};

/// Appends merged into one write.
const MAX_MERGED: usize = 1024;
/// Zeros laid ahead of the log's end: a sync that changes no length spares the file system a journal commit.
const AHEAD_BYTES: u64 = 512 * 1024;
/// Pause before an append is tried again that found no room on the disk.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Makes a directory, and those above it that are missing, so that all are there after a loss of power.
///
/// # Errors
/// When one can't be made or synced.
pub fn make_directory(path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        None => return Ok(()),
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
    };
    if !path.is_dir() {
        make_directory(above)?;
        std::fs::create_dir_all(path)?;
    }
    // Also of one that is there: who made it may have been killed before this.
    match sync_directory(above) {
        // Whoever may not read what is above it has not made it either.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// Makes a directory's entries durable: a file's own sync need not.
///
/// # Errors
/// The system's own.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A directory of log files.
pub struct FileDisk {
    directory: PathBuf,
    open: Option<Open>,
}

/// The file that is appended to.
struct Open {
    name: String,
    file: File,
    /// Its length with the zeros that lie ahead.
    length: u64,
}

impl Open {
    /// Zeros from `end` on, if there is room for them: without them appends still work.
    fn lay_zeros(&mut self, end: u64) -> io::Result<()> {
        match self.file.write_all_at(&vec![0; AHEAD_BYTES as usize], end) {
            Ok(()) => self.length = end + AHEAD_BYTES,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => self.length = end,
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => self.length = end,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl FileDisk {
    /// Makes the directory if need be.
    pub fn new(directory: &Path) -> io::Result<Self> {
        make_directory(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            open: None,
        })
    }

    fn open(&mut self, name: &str) -> io::Result<&mut Open> {
        if self.open.as_ref().is_none_or(|open| open.name != name) {
            let path = self.directory.join(name);
            let file = OpenOptions::new().write(true).open(path)?;
            self.open = Some(Open {
                name: name.to_owned(),
                length: file.metadata()?.len(),
                file,
            });
        }
        let missing = || io::Error::other("no log file is open");
        self.open.as_mut().ok_or_else(missing)
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_directory(&self.directory)
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.directory)?;
        entries
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = File::open(self.directory.join(name))?;
        let mut bytes = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        // What a create that found no room left behind holds nothing.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.directory.join(name))?;
        file.sync_all()?;
        self.open = Some(Open {
            name: name.to_owned(),
            file,
            length: 0,
        });
        self.sync_directory()
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let open = self.open(name)?;
        open.file.write_all_at(bytes, offset)?;
        let end = offset + bytes.len() as u64;
        if end > open.length {
            open.lay_zeros(end)?;
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let file = &self.open(name)?.file;
        let began = Instant::now();
        let done = file.sync_data();
        WAL_FSYNC.observe(began.elapsed());
        done
    }

    fn renew(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.open(name)?.file.write_all_at(bytes, offset)?;
        self.sync(name)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let open = self.open(name)?;
        open.file.set_len(length)?;
        open.length = length;
        open.file.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.directory.join(name)) {
            // It was removed before, but the directory could not be synced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
        self.open.take_if(|open| open.name == name);
        self.sync_directory()
    }
}

enum Job {
    Append(Append),
    Compact(u64),
    First(First),
}

/// Something that must be on disk before the appends behind it.
type First = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Hands appends to the disk thread. Dropping it lets the thread finish what is queued, and waits for that.
pub struct Appender {
    jobs: Option<mpsc::Sender<Job>>,
    /// Tells the thread to wait for room on the disk no longer.
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Appender {
    /// Starts the thread. `report` hears on it the highest durable number; that the disk is full, while the same append
    /// is tried again and again; or the error after which nothing more is written: the member must stop, since what
    /// reached the disk is not known.
    pub fn start<D, F>(mut wal: Wal<D>, report: F) -> io::Result<Self>
    where
        D: Disk + Send + 'static,
        F: Fn(Result<u64, WalError>) + Send + 'static,
    {
        let (jobs, queue) = mpsc::channel();
        let closing = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&closing);
        let thread = std::thread::Builder::new()
            .name("kvstore-disk".to_owned())
            .spawn(move || {
                while let Ok(first) = queue.recv() {
                    let mut appends = Vec::new();
                    let mut compact = None;
                    for job in std::iter::once(first)
                        .chain(queue.try_iter())
                        .take(MAX_MERGED)
                    {
                        match job {
                            Job::Append(append) => appends.push(append),
                            Job::Compact(index) => compact = compact.max(Some(index)),
                            Job::First(first) => {
                                if let Err(error) = first() {
                                    return report(Err(WalError::Io(error)));
                                }
                            }
                        }
                    }
                    while !appends.is_empty() {
                        let result = wal.append(&appends);
                        let (done, full) = (result.is_ok(), is_full(&result));
                        report(result);
                        if done {
                            break;
                        }
                        if !full || closing.load(Ordering::Acquire) {
                            return;
                        }
                        std::thread::sleep(FULL_PAUSE);
                    }
                    match compact.map(|index| wal.compact(index)) {
                        // It is asked for again.
                        Some(result) if is_full(&result) => {}
                        Some(Err(error)) => return report(Err(error)),
                        _ => {}
                    }
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            closing: stop,
            thread: Some(thread),
        })
    }

    /// Queues an append; its number is reported when it is durable. Raft's own limits bound the queue.
    pub fn append(&self, append: Append) {
        self.send(Job::Append(append));
    }

    /// Queues something that must be done before what is appended later; when it fails the member must stop.
    pub fn first(&self, what: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.send(Job::First(Box::new(what)));
    }

    /// Queues the removal of segments with nothing after `index`, which must be durable in the state.
    pub fn compact(&self, index: u64) {
        self.send(Job::Compact(index));
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A thread that has ended has reported why.
            let _ = jobs.send(job);
        }
    }
}

fn is_full<T>(result: &Result<T, WalError>) -> bool {
    matches!(result, Err(WalError::NoSpace(_)))
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.jobs.take();
        self.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Entry, HardState};
    use crate::wal::Identity;

    #[test]
    fn a_removal_may_be_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = FileDisk::new(directory.path()).unwrap();
        disk.create("a").unwrap();
        disk.remove("a").unwrap();
        disk.remove("a").unwrap();
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn what_is_reported_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity {
            cluster: 1,
            member: 2,
        };
        let path = directory.path().join("wal");
        let (wal, _) = Wal::open(FileDisk::new(&path).unwrap(), identity).unwrap();
        let (report, reports) = mpsc::channel();
        let appender = Appender::start(wal, move |r| report.send(r.unwrap()).unwrap()).unwrap();
        for number in 1..=100 {
            let entry = Entry {
                index: number,
                term: 1,
                data: vec![7; 100].into(),
                ..Default::default()
            };
            let hard_state = HardState {
                term: 1,
                vote: 2,
                commit: number - 1,
            };
            appender.append(Append {
                number,
                hard_state,
                snapshot: None,
                entries: vec![entry],
            });
        }
        drop(appender);
        let numbers: Vec<u64> = reports.iter().collect();
        assert_eq!(numbers.last(), Some(&100));
        assert!(numbers.is_sorted());
        let (_, found) = Wal::open(FileDisk::new(&path).unwrap(), identity).unwrap();
        assert_eq!(found.entries.len(), 100);
        assert_eq!(
            found.hard_state,
            HardState {
                term: 1,
                vote: 2,
                commit: 99
            }
        );
        let other = Identity {
            cluster: 1,
            member: 3,
        };
        assert!(matches!(
            Wal::open(FileDisk::new(&path).unwrap(), other),
            Err(WalError::Foreign { .. })
        ));
    }
}
