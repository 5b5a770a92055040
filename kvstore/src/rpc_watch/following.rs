//! Beginning a stream of watches: a client's, or one of the member's own services.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use tonic::Status;

use super::outlet::Outlet;
use super::{Item, Session, WatchService};
use crate::handle::Sender;
use crate::pb::etcd::watch_request::RequestUnion;
use crate::pb::etcd::{WatchCreateRequest, WatchRequest};

impl WatchService {
    /// A session, and what it sends.
    pub(super) fn begin(
        &self,
        sender: Sender,
    ) -> Result<(Session, impl Stream<Item = Item> + Send), Status> {
        let (outlet, out) = Outlet::new(self.0.limits().message_bytes());
        let session = Session {
            handle: self.0.clone(),
            stream: Arc::default(),
            outlet,
            watchers: HashMap::new(),
            by_watcher: HashMap::new(),
            next_id: 0,
            progress_asked: false,
            sender,
            epoch: self.0.core()?.store()?.auth().epoch(),
        };
        Ok((session, out))
    }

    /// One watch for a service of the member's own, on behalf of a client; not counted as a call. It ends when what it
    /// returns is dropped.
    pub(crate) fn follow(
        &self,
        create: WatchCreateRequest,
        sender: Sender,
    ) -> Result<impl Stream<Item = Item> + Send, Status> {
        let (session, out) = self.begin(sender)?;
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let requests = stream::iter([Ok(create)]).chain(stream::pending());
        tokio::spawn(session.serve(requests, false));
        Ok(out)
    }
}
