//! A value made of files, made again when one of them is another. A handshake asks for it: then each file's entry is
//! looked at, and a file read only where that has changed.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use super::TlsError;

/// What tells a file from what it was before: its place, size and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    };
    files.iter().map(stamp).collect()
}

type Make<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

pub struct Renewed<T> {
    /// What the log calls it.
    name: String,
    files: Vec<PathBuf>,
    make: Make<T>,
    state: Mutex<(Vec<Option<Stamp>>, Arc<T>)>,
}

impl<T> Renewed<T> {
    /// Makes the value for the first time.
    ///
    /// # Errors
    /// `make`'s: later ones are logged, and the value stays what it was.
    pub fn new(
        name: impl Into<String>,
        files: impl IntoIterator<Item = PathBuf>,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let files = files
            .into_iter()
            .filter(|path| !path.as_os_str().is_empty());
        let files: Vec<PathBuf> = files.collect();
        // Looked at before they are read: what is written meanwhile is read again.
        let seen = stamps(&files);
        let value = Arc::new(make()?);
        Ok(Self {
            name: name.into(),
            files,
            make: Box::new(make),
            state: Mutex::new((seen, value)),
        })
    }

    /// The value of the files as they are now, or as they were when they last made sense.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if now != state.0 {
            state.0 = now;
            let name = &self.name;
            match (self.make)() {
                Ok(value) => {
                    state.1 = Arc::new(value);
                    info!("the {name} was read anew");
                }
                Err(error) => warn!(%error, "the {name} stays what it was"),
            }
        }
        state.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn files_are_read_when_they_change_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        std::fs::write(&path, "1").unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let (file, count) = (path.clone(), reads.clone());
        let renewed = Renewed::new("certificate", [path.clone(), PathBuf::new()], move || {
            count.fetch_add(1, Ordering::Relaxed);
            let text = std::fs::read_to_string(&file).map_err(|e| TlsError(e.to_string()))?;
            text.parse::<u32>().map_err(|e| TlsError(e.to_string()))
        })
        .unwrap();
        for _ in 0..3 {
            assert_eq!(*renewed.current(), 1);
        }
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        for bad in ["", "nonsense"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(*renewed.current(), 1, "a wrong file leaves the old value");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*renewed.current(), 1);
        // As a renewal lays a file: beside the old one, then in its place.
        std::fs::write(dir.path().join("new"), "2").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(*renewed.current(), 2);
        let before = reads.load(Ordering::Relaxed);
        assert_eq!(*renewed.current(), 2);
        assert_eq!(reads.load(Ordering::Relaxed), before);
    }
}
