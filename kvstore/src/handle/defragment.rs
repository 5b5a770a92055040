//! Defragmentation of this member's state, one at a time and never beside a snapshot that comes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tonic::Status;
use tracing::info;

use super::Handle;
use crate::apply::Store;
use crate::backend::BackendError;
use crate::defragment::{Copy, Unfinished};
use crate::errors::StoreError;
use crate::measures::work::Defragmenting;

/// So few revisions that come while others are copied are left for the end.
const FEW_REVISIONS: u64 = 2_000;
/// Rounds after which the end is begun, however many come.
const MAX_ROUNDS: usize = 8;
/// How long the end waits for who reads the tables, a snapshot for one, which it would break off.
const READERS_PATIENCE: Duration = Duration::from_secs(60);
const READERS_PAUSE: Duration = Duration::from_millis(50);

/// Where the state is, and who may put another in its place.
#[derive(Clone)]
pub struct StatePlace {
    pub dir: PathBuf,
    /// Held by whoever is about to do so.
    pub taken: Arc<Mutex<()>>,
}

impl Handle {
    /// Makes the file of the state as small as what is in it; all goes on meanwhile.
    ///
    /// # Errors
    /// When the disk has no room for the copy, or fails.
    pub async fn defragment(&self, place: &StatePlace) -> Result<(), Status> {
        let (handle, place) = (self.clone(), place.clone());
        // Whoever asked may go: what was begun is brought to an end.
        let work = tokio::spawn(async move { handle.replace_tables(place).await });
        work.await.map_err(|_| StoreError::Stopped)?
    }

    async fn replace_tables(&self, place: StatePlace) -> Result<(), Status> {
        let _place = place.taken.lock_owned().await;
        let running = Defragmenting::begin();
        self.store_mut(|store| store.hold_sweeps())?;
        let before = self.store_mut(|store| store.size())?;
        let copied = self.copy(place.dir).await;
        let finished = match copied {
            Ok(copy) => self.finish(copy).await,
            Err(error) => Err(Unfinished::Given(error)),
        };
        let (fresh, failed) = match finished {
            Ok(fresh) => (Some(fresh), None),
            Err(failed) => (None, Some(failed)),
        };
        if let Some(Unfinished::Torn(error)) = &failed {
            self.store_mut(|store| store.tear(error))?;
        }
        let old = self.store_mut(|store| store.resume(fresh))?;
        // It waits for who still reads it.
        tokio::task::spawn_blocking(move || drop(old));
        self.nudge().notify_one();
        if let Some(failed) = failed {
            return Err(StoreError::Internal(format!("defragmentation failed: {failed}")).into());
        }
        running.done();
        let after = self.store_mut(|store| store.size())?;
        self.facts()
            .db_bytes
            .store(after, std::sync::atomic::Ordering::Relaxed);
        info!(
            bytes_before = before,
            bytes = after,
            "the state was defragmented"
        );
        Ok(())
    }

    async fn copy(&self, dir: PathBuf) -> Result<Copy, BackendError> {
        let mut copy = blocking(move || Copy::begin(&dir)).await?;
        for _ in 0..MAX_ROUNDS {
            let export = self.export()?;
            let added;
            (copy, added) = blocking(move || {
                let added = copy.catch_up(export.view())?;
                Ok::<_, BackendError>((copy, added))
            })
            .await?;
            if added <= FEW_REVISIONS {
                break;
            }
        }
        Ok(copy)
    }

    async fn finish(&self, copy: Copy) -> Result<crate::backend::Backend, Unfinished> {
        let patience = tokio::time::Instant::now() + READERS_PATIENCE;
        while self.viewed() && tokio::time::Instant::now() < patience {
            tokio::time::sleep(READERS_PAUSE).await;
        }
        // From here to the view nothing is applied: what is parked is all that the view lacks.
        let index = self.store_mut(|store| store.park());
        let index = index.map_err(|_| Unfinished::Given(gone()))?;
        let export = self.export()?;
        blocking(move || copy.finish(export.view(), index)).await
    }

    fn viewed(&self) -> bool {
        self.store_mut(|store| store.is_viewed()).unwrap_or(false)
    }

    fn export(&self) -> Result<crate::snapshot::Export, BackendError> {
        self.store_mut(|store| store.export()).map_err(|_| gone())
    }

    fn store_mut<T>(&self, work: impl FnOnce(&mut Store) -> T) -> Result<T, Status> {
        let mut core = self.core()?;
        let store = core.store.as_mut().ok_or(StoreError::Replaced)?;
        Ok(work(store))
    }
}

fn gone() -> BackendError {
    BackendError::Closed("the state".into())
}

async fn blocking<T: Send + 'static, E: From<BackendError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(gone().into()),
    }
}
