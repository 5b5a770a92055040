//! Sums of the state, one at a time: each is read on a thread of its own, and whoever gave up waiting stops it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, Semaphore};
use tonic::Status;

use super::Handle;
use crate::apply::Noted;
use crate::backend::{BackendError, View};
use crate::errors::StoreError;
use crate::etcd_file::{hash_all, hash_keys, EtcdFileError, HashError, KeysHash};
use crate::measures::work;

/// One after the other: each wants a whole processor.
const AT_ONCE: usize = 1;
/// Between two slices of a sum that nobody waits for.
const PAUSE: Duration = Duration::from_millis(1);

/// Whose turn it is.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Handle {
    /// The sum of the keys up to `revision`, 0 for the newest, and of which revisions it is.
    ///
    /// # Errors
    /// etcd's, for a revision that is compacted or does not exist yet.
    pub async fn hash_keys(&self, revision: i64) -> Result<KeysHash, Status> {
        self.hash(move |view, wanted| {
            let began = Instant::now();
            let sum = hash_keys(view, revision, wanted)?;
            work::HASH_REV.observe(began.elapsed());
            Ok(sum)
        })
        .await
    }

    /// The sum of the keys up to the last compaction, as that keeps them; slowly, so that others have the processor too.
    /// None when it can't be had any more: another compaction followed, or it is not on disk yet.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn hash_compacted(&self, revision: i64) -> Result<Option<Noted>, Status> {
        self.hash(move |view, wanted| {
            let paced = || {
                std::thread::sleep(PAUSE);
                wanted()
            };
            match hash_keys(view, revision, &paced) {
                Ok(sum) if sum.compacted == revision => Ok(Some(Noted {
                    revision,
                    hash: sum.hash,
                })),
                Ok(_) | Err(HashError::Refused(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The sum of the whole state, and its revision.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn hash_all(&self) -> Result<(u32, i64), Status> {
        self.hash(|view, wanted| {
            let began = Instant::now();
            let sum = hash_all(view, wanted)?;
            work::HASH.observe(began.elapsed());
            Ok(sum)
        })
        .await
    }

    async fn hash<T: Send + 'static>(
        &self,
        work: impl FnOnce(&View, &dyn Fn() -> bool) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = Arc::clone(&self.shared.hashing.0).acquire_owned().await;
        let turn = turn.map_err(|_| StoreError::Stopped)?;
        let export = self.core()?.store()?.export();
        let (done, wait) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let result = work(export.view(), &|| !done.is_closed());
            drop(turn);
            // Who gave up needs no answer.
            let _ = done.send(result);
        });
        let result = wait.await.map_err(|_| StoreError::Stopped)?;
        result.map_err(told)
    }
}

fn told(error: HashError) -> Status {
    match error {
        HashError::Refused(refused) => refused.into(),
        HashError::State(BackendError::Closed(_))
        | HashError::File(EtcdFileError::State(BackendError::Closed(_))) => {
            StoreError::Replaced.into()
        }
        other => Status::internal(other.to_string()),
    }
}
