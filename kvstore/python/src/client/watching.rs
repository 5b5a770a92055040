//! Watches for Python: batches come as long as it has room for them.

use std::sync::Arc;

use pyo3::PyResult;
use tokio::sync::{mpsc, Semaphore};

use super::shared::{lock, Following, Outcome};
use super::NativeClient;
use kvstore::client::watch::{self, Delivery};
use kvstore::pb::etcd::WatchCreateRequest;

/// Batches of a watch that wait for Python at most; then the member is not read from.
const WATCH_QUEUE: usize = 64;

impl NativeClient {
    pub(super) fn follow(&self, create: WatchCreateRequest) -> PyResult<u64> {
        let credits = Arc::new(Semaphore::new(WATCH_QUEUE));
        let (client, shared, room) = (self.client.clone(), self.shared.clone(), credits.clone());
        let (asks, asked) = mpsc::channel(1);
        self.spawn(Some(Following { credits, asks }), |id| async move {
            let (sink, mut deliveries) = mpsc::channel(1);
            let follow = watch::follow(client, create, asked, sink);
            let deliver = async {
                while let Some(delivery) = deliveries.recv().await {
                    if let Ok(permit) = room.acquire().await {
                        permit.forget();
                    }
                    let last = matches!(delivery, Delivery::Compacted(..) | Delivery::Failed(_));
                    if last {
                        shared.finish(id, Outcome::Delivery(delivery));
                    } else {
                        shared.push(id, Outcome::Delivery(delivery));
                    }
                }
            };
            tokio::join!(follow, deliver);
        })
    }

    /// One more batch may come.
    pub(super) fn credit(&self, id: u64) {
        self.with_watch(id, |watch| watch.credits.add_permits(1));
    }

    pub(super) fn ask_progress(&self, id: u64) {
        self.with_watch(id, |watch| {
            let _asked_already = watch.asks.try_send(());
        });
    }

    fn with_watch(&self, id: u64, act: impl FnOnce(&Following)) {
        let running = lock(&self.shared.running);
        if let Some(watch) = running.get(&id).and_then(|one| one.watch.as_ref()) {
            act(watch);
        }
    }
}
