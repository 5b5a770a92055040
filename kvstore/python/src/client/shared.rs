//! What the client's thread and Python share: who is under way, and what has come.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, Semaphore};
use tokio::task::AbortHandle;
use tonic::Status;

use crate::values::Answer;
use kvstore::client::watch::Delivery;

pub enum Outcome {
    Answer(Answer),
    Delivery(Delivery),
    Error(Status),
}

pub(super) struct Running {
    pub task: AbortHandle,
    pub watch: Option<Following>,
}

/// Python's side of a watch.
pub(super) struct Following {
    /// Batches that may come.
    pub credits: Arc<Semaphore>,
    pub asks: mpsc::Sender<()>,
}

pub(super) struct Shared {
    pub done: Mutex<Vec<(u64, Outcome)>>,
    pub running: Mutex<HashMap<u64, Running>>,
    pub wake: OwnedFd,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new() -> PyResult<Self> {
        // SAFETY: eventfd takes no pointers; the descriptor is checked before it is owned.
        let wake = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(PyOSError::new_err(
                    std::io::Error::last_os_error().to_string(),
                ));
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self {
            done: Mutex::default(),
            running: Mutex::default(),
            wake,
        })
    }

    pub fn push(&self, id: u64, outcome: Outcome) {
        let mut done = lock(&self.done);
        done.push((id, outcome));
        if done.len() == 1 {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the descriptor is ours and open, the buffer is eight bytes as eventfd(2) asks.
            unsafe { libc::write(self.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Says whether the call was still wanted.
    pub fn finish(&self, id: u64, outcome: Outcome) {
        if lock(&self.running).remove(&id).is_some() {
            self.push(id, outcome);
        }
    }
}

pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let fresh = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("kvstore-client")
        .enable_all()
        .build()
        .map_err(|error| {
            PyRuntimeError::new_err(format!("The client's thread did not start: {error}"))
        })?;
    Ok(RUNTIME.get_or_init(|| fresh))
}
