//! A watch stream at its member: what `rpc_watch::Session` decides, without the socket.

use bytes::Bytes;
use kvstore::pb::etcd::WatchCreateRequest;
use kvstore::watch::{Batch, Taken, WatcherId};

use super::state::State;

/// What a stream tells its client.
#[derive(Debug)]
pub enum Told {
    /// At the member's revision.
    Created(i64),
    /// The user may not, or may not any more.
    Denied,
    Events(Vec<Batch>),
    Progress(i64),
    Compacted(i64),
    /// The member can't go on.
    Closed,
}

pub struct Session {
    pub client: usize,
    pub serial: u64,
    watcher: WatcherId,
    user: Option<String>,
    pub key: Bytes,
    pub end: Bytes,
    epoch: u64,
    /// A snapshot took the state's place.
    pub closed: bool,
}

impl Session {
    /// Begins a watch; None when its user may not have it.
    pub fn create(
        state: &mut State,
        (client, serial): (usize, u64),
        user: Option<&str>,
        request: &WatchCreateRequest,
    ) -> Option<Self> {
        let auth = state.store.auth();
        let user = user.filter(|_| auth.is_enabled());
        let (key, end) = (&request.key, &request.range_end);
        auth.permit_watch(user, key, end).ok()?;
        let epoch = auth.epoch();
        Some(Self {
            client,
            serial,
            watcher: state.hub.create(request, state.store.revision()),
            user: user.map(str::to_owned),
            key: key.clone(),
            end: end.clone(),
            epoch,
            closed: false,
        })
    }

    /// What it may tell now; it ends with what is no event and no progress.
    pub fn deliver(&mut self, state: &mut State, progress: bool) -> Vec<Told> {
        let auth = state.store.auth();
        if auth.epoch() != self.epoch {
            self.epoch = auth.epoch();
            let user = self.user.as_deref();
            if auth.permit_watch(user, &self.key, &self.end).is_err() {
                state.hub.cancel(self.watcher);
                return vec![Told::Denied];
            }
        }
        if self.closed {
            state.hub.cancel(self.watcher);
            return vec![Told::Closed];
        }
        let mut told = Vec::new();
        if progress && state.hub.is_synced(self.watcher) {
            told.push(Told::Progress(state.store.revision()));
        }
        match state.hub.take(self.watcher) {
            Some(Taken::Events { batches, .. }) => told.push(Told::Events(batches)),
            Some(Taken::Compacted(revision)) => told.push(Told::Compacted(revision)),
            None => {}
        }
        told
    }

    /// The client went away.
    pub fn end(self, state: &mut State) {
        state.hub.cancel(self.watcher);
    }
}
