//! Responses on their way to one client: few wait, by count and by bytes, and large ones are split where it asked for that.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use prost::encoding::encoded_len_varint;
use prost::Message;
use tokio::sync::{mpsc, OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::measures::EVENTS;
use crate::pb::etcd::WatchResponse;

/// Responses that may wait for a client that reads slowly; more wait in the hub, and then in history.
const MAX_WAITING_RESPONSES: usize = 16;
/// Bytes of them; one that is larger waits alone.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// What an event takes besides its own bytes, at most.
const EVENT_OVERHEAD_BYTES: usize = 48;

type Item = Result<WatchResponse, Status>;

/// The session's end of the stream.
pub(super) struct Outlet {
    responses: mpsc::Sender<(Item, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
    /// From which size on a response is split.
    message_bytes: usize,
}

/// The client went away; no status reaches it.
fn gone() -> Status {
    Status::cancelled("the client closed the stream")
}

impl Outlet {
    pub fn new(message_bytes: usize) -> (Self, impl Stream<Item = Item> + Send) {
        let (responses, out) = mpsc::channel(MAX_WAITING_RESPONSES);
        let outlet = Self {
            responses,
            room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
            message_bytes,
        };
        // A response's room is free again when it is on its way.
        (outlet, ReceiverStream::new(out).map(|(item, _room)| item))
    }

    /// Returns when the client went away.
    pub async fn closed(&self) -> Status {
        self.responses.closed().await;
        gone()
    }

    /// Ends the stream; a client that is gone needs no reason.
    pub async fn fail(&self, status: Status) {
        let _ = self.responses.send((Err(status), None)).await;
    }

    /// Sends a response; waits where the client reads slowly.
    pub async fn send(&self, response: WatchResponse) -> Result<(), Status> {
        let bytes = about(&response.events).min(MAX_WAITING_BYTES);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let events = response.events.len() as u64;
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
        let sent = self.responses.send((Ok(response), room.ok())).await;
        sent.map_err(|_| gone())?;
        EVENTS.fetch_add(events, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a response in parts that are no larger than a message may be, where that can be.
    pub async fn send_split(&self, response: WatchResponse) -> Result<(), Status> {
        for part in fragments(response, self.message_bytes) {
            self.send(part).await?;
        }
        Ok(())
    }
}

fn about(events: &[Bytes]) -> usize {
    let sizes = events.iter().map(|event| event.len());
    sizes.map(|size| EVENT_OVERHEAD_BYTES + size).sum()
}

/// As etcd's `sendFragments` does: all but the last say that more follows, and an event is never split.
fn fragments(mut whole: WatchResponse, most: usize) -> Vec<WatchResponse> {
    if whole.events.len() < 2 || whole.encoded_len() < most {
        return vec![whole];
    }
    let events = std::mem::take(&mut whole.events);
    whole.fragment = true;
    let empty = whole.encoded_len();
    let (mut parts, mut part, mut size) = (Vec::new(), whole.clone(), empty);
    for event in events {
        let bytes = 1 + encoded_len_varint(event.len() as u64) + event.len();
        if !part.events.is_empty() && size + bytes >= most {
            parts.push(std::mem::replace(&mut part, whole.clone()));
            size = empty;
        }
        size += bytes;
        part.events.push(event);
    }
    part.fragment = false;
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn response(sizes: &[usize]) -> WatchResponse {
        let event = |(number, size): (usize, &usize)| Bytes::from(vec![number as u8; *size]);
        WatchResponse {
            watch_id: 5,
            events: sizes.iter().enumerate().map(event).collect(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_client_that_does_not_read_is_bounded_by_bytes() {
        let (outlet, out) = Outlet::new(usize::MAX);
        tokio::pin!(out);
        let half = response(&[MAX_WAITING_BYTES / 2 - EVENT_OVERHEAD_BYTES]);
        assert!(outlet.send(half.clone()).now_or_never().is_some());
        assert!(outlet.send(half.clone()).now_or_never().is_some());
        assert!(outlet.send(half.clone()).now_or_never().is_none());
        assert_eq!(out.next().await.unwrap().unwrap(), half);
        assert!(outlet.send(half).now_or_never().is_some());
        let (_, _) = (out.next().await, out.next().await);
        let large = response(&[3 * MAX_WAITING_BYTES]);
        assert!(outlet.send(large).now_or_never().is_some(), "alone");
        let _ = out.next().await;
        let small = response(&[0; MAX_WAITING_BYTES / EVENT_OVERHEAD_BYTES]);
        assert!(outlet.send(small.clone()).now_or_never().is_some());
        assert!(outlet.send(small).now_or_never().is_none(), "many");
    }

    #[test]
    fn fragments_are_smaller_than_the_limit_unless_one_event_is_not() {
        let sizes = [400, 400, 400, 5_000, 10, 10, 900];
        let parts = fragments(response(&sizes), 1_000);
        let counts: Vec<_> = parts.iter().map(|part| part.events.len()).collect();
        assert_eq!(counts, [2, 1, 1, 3]);
        let more: Vec<_> = parts.iter().map(|part| part.fragment).collect();
        assert_eq!(more, [true, true, true, false]);
        assert!(parts.iter().all(|part| part.watch_id == 5));
        let joined: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(joined, response(&sizes).events);
        assert_eq!(fragments(response(&[9_000]), 1_000), [response(&[9_000])]);
        assert_eq!(fragments(response(&[1, 2]), 1_000), [response(&[1, 2])]);
    }
}
