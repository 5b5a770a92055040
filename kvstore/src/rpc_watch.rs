//! The Watch service: many watchers on one stream, fed from the hub as fast as the client reads.
//!
//! Not here: which events a watcher is owed (`watch`), who may watch what (`judge`), how much may wait for the client
//! (`outlet`).

mod following;
mod judge;
mod outlet;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::apply::Store;
use crate::errors::StoreError;
use crate::handle::{Handle, Sender, WatchStream};
use crate::pb::etcd::watch_request::RequestUnion;
use crate::pb::etcd::{watch_server, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::watch::{Taken, WatcherId};
use outlet::Outlet;

/// How often a stream looks for a lost leader, and whether progress that was asked for can be told.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks without a leader before a stream that requires one ends.
const LOOKS_WITHOUT_LEADER: u32 = 30;

/// The Watch service of one member.
#[derive(Clone)]
pub struct WatchService(pub Handle);

struct Watcher {
    id: WatcherId,
    progress_notify: bool,
    fragment: bool,
    /// What it shows, and to whom: that is judged again when users or roles change.
    key: Bytes,
    range_end: Bytes,
    user: Option<String>,
}

type Item = Result<WatchResponse, Status>;

/// One stream.
struct Session {
    handle: Handle,
    stream: Arc<WatchStream>,
    outlet: Outlet,
    watchers: HashMap<i64, Watcher>,
    by_watcher: HashMap<WatcherId, i64>,
    next_id: i64,
    progress_asked: bool,
    sender: Sender,
    /// Of users and roles when the watchers were judged.
    epoch: u64,
}

#[tonic::async_trait]
impl watch_server::Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let requires_leader = request
            .metadata()
            .get("hasleader")
            .is_some_and(|v| v.as_bytes() == b"true");
        if requires_leader && !self.0.has_leader() {
            return Err(StoreError::NoLeader.into());
        }
        let (sender, requests) = Sender::split(request);
        let (session, out) = self.begin(sender)?;
        let handle = self.0.clone();
        let counted = self.0.clone();
        let requests = requests.inspect(move |_| counted.calls().receive("Watch", "Watch"));
        let counted = self.0.clone();
        let out = out.inspect(move |_| counted.calls().send("Watch", "Watch"));
        tokio::spawn(async move {
            let code = session.serve(requests, requires_leader).await;
            handle.calls().count("Watch", "Watch", code);
        });
        Ok(Response::new(Box::pin(out)))
    }
}

impl Session {
    /// Serves the stream to its end.
    async fn serve(
        mut self,
        requests: impl Stream<Item = Result<WatchRequest, Status>> + Unpin,
        requires_leader: bool,
    ) -> Code {
        let result = self.run(requests, requires_leader).await;
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        if let Err(status) = result {
            self.outlet.fail(status).await;
        }
        self.close();
        code
    }

    async fn run(
        &mut self,
        mut requests: impl Stream<Item = Result<WatchRequest, Status>> + Unpin,
        requires_leader: bool,
    ) -> Result<(), Status> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut progress = tokio::time::interval(self.handle.limits().progress_every);
        progress.reset();
        let stream = self.stream.clone();
        let mut leaderless = 0;
        let mut half_closed = false;
        loop {
            tokio::select! {
                request = requests.next(), if !half_closed => match request.transpose()? {
                    Some(request) => self.take(request).await?,
                    None if self.watchers.is_empty() => return Ok(()),
                    None => half_closed = true,
                },
                () = stream.notify.notified() => {}
                status = self.outlet.closed() => return Err(status),
                _ = look.tick(), if requires_leader || self.progress_asked => {
                    leaderless = if self.handle.has_leader() { 0 } else { leaderless + 1 };
                    if requires_leader && leaderless > LOOKS_WITHOUT_LEADER {
                        return Err(StoreError::NoLeader.into());
                    }
                }
                _ = progress.tick() => self.tell_progress().await?,
            }
            if stream.closed.load(Ordering::Relaxed) {
                return Err(Status::unavailable(
                    "the member's state was replaced by a snapshot; watch again",
                ));
            }
            self.deliver().await?;
            if self.progress_asked {
                self.answer_progress().await?;
            }
        }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Status> {
        self.outlet.send(response).await
    }

    async fn take(&mut self, request: WatchRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                let Some(watcher) = self.watchers.remove(&cancel.watch_id) else {
                    return Ok(());
                };
                self.by_watcher.remove(&watcher.id);
                self.forget(watcher.id)?;
                let header = Some(self.handle.header(0));
                self.send(WatchResponse {
                    header,
                    watch_id: cancel.watch_id,
                    canceled: true,
                    ..Default::default()
                })
                .await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                // Where nothing is watched there is no progress to tell, and etcd tells none.
                self.progress_asked = !self.watchers.is_empty();
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, mut create: WatchCreateRequest) -> Result<(), Status> {
        if create.key.is_empty() {
            // Etcd's rule: no key is the smallest key.
            create.key = vec![0].into();
        }
        let caller = self.handle.caller(&self.sender).await;
        if let Some(cancel_reason) = self.refusal(&create, &caller)? {
            let refused = WatchResponse {
                header: Some(self.handle.header(0)),
                watch_id: -1,
                created: true,
                canceled: true,
                cancel_reason,
                ..Default::default()
            };
            return self.send(refused).await;
        }
        let watch_id = if create.watch_id == 0 {
            while self.watchers.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            self.next_id += 1;
            self.next_id - 1
        } else {
            create.watch_id
        };
        let id = {
            let mut core = self.handle.core()?;
            // Judged in the same turn: nobody has changed users since.
            let revision = core.store()?.revision();
            let id = core.hub.create(&create, revision);
            core.streams.insert(id, self.stream.clone());
            id
        };
        self.watchers.insert(
            watch_id,
            Watcher {
                id,
                progress_notify: create.progress_notify,
                fragment: create.fragment,
                key: create.key,
                range_end: create.range_end,
                user: caller.ok().flatten().map(|caller| caller.user),
            },
        );
        self.by_watcher.insert(id, watch_id);
        self.send(WatchResponse {
            header: Some(self.handle.header(0)),
            watch_id,
            created: true,
            ..Default::default()
        })
        .await?;
        self.handle.nudge().notify_one();
        Ok(())
    }

    /// Why no store would take such a watch, in etcd's words.
    fn contradiction(&self, create: &WatchCreateRequest) -> Option<String> {
        let end = &create.range_end;
        if !end.is_empty() && end.as_ref() != [0] && create.key >= *end {
            return Some("mvcc: watcher range is empty".to_owned());
        }
        (create.watch_id != 0 && self.watchers.contains_key(&create.watch_id))
            .then(|| "mvcc: duplicate watch ID provided on the WatchStream".to_owned())
    }

    /// Sends what the hub holds for this stream; waits where the client reads slowly.
    async fn deliver(&mut self) -> Result<(), Status> {
        self.judge_again().await?;
        loop {
            if self.stream.closed.load(Ordering::Relaxed) {
                // What came since follows a gap.
                return Ok(());
            }
            let ready = self.stream.ready.lock();
            let next = ready.ok().and_then(|mut ready| ready.pop_first());
            let Some(id) = next else { return Ok(()) };
            self.judge_again().await?;
            let (taken, more) = {
                let mut core = self.handle.core()?;
                let taken = core.hub.take(id);
                (taken, core.hub.can_catch_up())
            };
            if more {
                self.handle.nudge().notify_one();
            }
            let Some(&watch_id) = self.by_watcher.get(&id) else {
                continue;
            };
            match taken {
                Some(Taken::Events { batches, revision }) => {
                    let events = batches.into_iter().flat_map(|b| b.events).collect();
                    let header = Some(self.handle.header(revision));
                    let response = WatchResponse {
                        header,
                        watch_id,
                        events,
                        ..Default::default()
                    };
                    if self.watchers.get(&watch_id).is_some_and(|w| w.fragment) {
                        self.outlet.send_split(response).await?;
                    } else {
                        self.send(response).await?;
                    }
                }
                Some(Taken::Compacted(compact_revision)) => {
                    self.watchers.remove(&watch_id);
                    self.by_watcher.remove(&id);
                    self.forget(id)?;
                    let header = Some(self.handle.header_without_revision());
                    let canceled = true;
                    self.send(WatchResponse {
                        header,
                        watch_id,
                        canceled,
                        compact_revision,
                        ..Default::default()
                    })
                    .await?;
                }
                None => {}
            }
        }
    }

    /// The current revision, if each of these watchers was sent all up to it.
    fn synced_at(
        &self,
        mut watchers: impl Iterator<Item = WatcherId>,
    ) -> Result<Option<i64>, Status> {
        let core = self.handle.core()?;
        let revision = core.store.as_ref().map_or(0, Store::revision);
        if self.stream.closed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        Ok(watchers
            .all(|id| core.hub.is_synced(id))
            .then_some(revision))
    }

    async fn answer_progress(&mut self) -> Result<(), Status> {
        if let Some(revision) = self.synced_at(self.watchers.values().map(|w| w.id))? {
            self.progress_asked = false;
            let header = Some(self.handle.header(revision));
            self.send(WatchResponse {
                header,
                watch_id: -1,
                ..Default::default()
            })
            .await?;
        }
        Ok(())
    }

    async fn tell_progress(&mut self) -> Result<(), Status> {
        let wanted: Vec<_> = self
            .watchers
            .iter()
            .filter(|(_, w)| w.progress_notify)
            .map(|(i, w)| (*i, w.id))
            .collect();
        for (watch_id, id) in wanted {
            if let Some(revision) = self.synced_at(std::iter::once(id))? {
                let header = Some(self.handle.header(revision));
                self.send(WatchResponse {
                    header,
                    watch_id,
                    ..Default::default()
                })
                .await?;
            }
        }
        Ok(())
    }

    fn forget(&self, id: WatcherId) -> Result<(), Status> {
        let mut core = self.handle.core()?;
        core.hub.cancel(id);
        core.streams.remove(&id);
        Ok(())
    }

    fn close(&self) {
        for watcher in self.watchers.values() {
            // An unusable state has nothing to forget.
            let _ = self.forget(watcher.id);
        }
    }
}

#[cfg(test)]
#[path = "rpc_watch_tests.rs"]
mod tests;
