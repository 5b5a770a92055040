//! The dialing side: one stream to each other member, and what waits for it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tracing::warn;

use super::{snapshot, Dialer, PeerEvent, PEER_VERSION, REMOVED};
use crate::budget::{Budget, Share};
use crate::measures::of_peer;
use crate::pb::peer::peer_client::PeerClient;
use crate::pb::peer::{Frame, Hello, MembersRequest};
use crate::report::hex;
use crate::snapshot::Export;

/// Raft messages that may wait for one peer; more are dropped, as on a network.
const MAX_WAITING_MESSAGES: usize = 4096;
/// Bytes of them, likewise.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Messages put into one frame.
const MAX_MESSAGES_PER_FRAME: usize = 128;
/// A frame of so many bytes takes no further message: one must fit into what is left of `MAX_FRAME_BYTES`.
const FULL_FRAME_BYTES: usize = 4 * 1024 * 1024;
/// How often the way to another member is measured, as in etcd.
const MEASURE_EVERY: Duration = Duration::from_secs(4);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_millis(500);

/// Since when the other member has taken this one's stream.
type Up = Arc<Mutex<Option<Instant>>>;
/// A message, and its share of what may wait.
type Queued = (Bytes, Share);

struct Link {
    urls: Vec<String>,
    queue: mpsc::Sender<Queued>,
    room: Budget,
    up: Up,
    task: JoinHandle<()>,
    /// The one to its URLs before these. Its stream stands, and carries what is sent until this one's does: a member that
    /// is told of its own new URLs still listens on those that it had.
    former: Option<Box<Link>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    fn up_since(&self) -> Option<Instant> {
        *self.up.lock().ok()?
    }

    /// Lets the former go once this one stands, or it does no longer.
    fn settle(&mut self) {
        let needless = |former: &Self| self.up_since().is_some() || former.up_since().is_none();
        if self.former.as_deref().is_some_and(needless) {
            self.former = None;
        }
    }

    /// The link that carries what is sent now.
    fn carrier(&self) -> &Self {
        self.former.as_deref().unwrap_or(self)
    }
}

/// The streams to all other members.
pub struct Peers {
    cluster_id: u64,
    me: u64,
    dialer: Dialer,
    events: mpsc::Sender<PeerEvent>,
    links: HashMap<u64, Link>,
}

impl Peers {
    pub fn new(cluster_id: u64, me: u64, dialer: Dialer, events: mpsc::Sender<PeerEvent>) -> Self {
        Self {
            cluster_id,
            me,
            dialer,
            events,
            links: HashMap::new(),
        }
    }

    fn hello(&self, to: u64) -> Hello {
        Hello {
            version: PEER_VERSION,
            cluster_id: self.cluster_id,
            from: self.me,
            to,
        }
    }

    /// Makes the links be those to `members` (id, peer URLs), this member left out. A stream to URLs that a member had
    /// before goes on until there is one to the new.
    pub fn update(&mut self, members: &[(u64, Vec<String>)]) {
        self.links
            .retain(|id, _| members.iter().any(|(other, _)| other == id));
        for (id, urls) in members {
            if *id == self.me || self.links.get(id).is_some_and(|link| link.urls == *urls) {
                continue;
            }
            let (queue, waiting) = mpsc::channel(MAX_WAITING_MESSAGES);
            let up = Up::default();
            let task = tokio::spawn(keep_link(
                self.dialer.clone(),
                self.hello(*id),
                urls.clone(),
                waiting,
                self.events.clone(),
                Arc::clone(&up),
            ));
            let former = self.links.remove(id).and_then(|mut link| {
                link.settle();
                let standing = link.former.take().unwrap_or_else(|| Box::new(link));
                standing.up_since().map(|_| standing)
            });
            self.links.insert(
                *id,
                Link {
                    urls: urls.clone(),
                    queue,
                    room: Budget::new(MAX_WAITING_BYTES),
                    up,
                    task,
                    former,
                },
            );
        }
    }

    /// How long the other member's stream from this one has stood; None while it does not.
    pub fn connected_for(&self, id: u64) -> Option<Duration> {
        let link = self.links.get(&id)?;
        let since = link.up_since().or_else(|| link.carrier().up_since())?;
        Some(since.elapsed())
    }

    /// Queues a message; false when it had to be dropped.
    pub fn send(&mut self, to: u64, message: Bytes) -> bool {
        let Some(link) = self.links.get_mut(&to) else {
            return false;
        };
        link.settle();
        let link = link.carrier();
        let share = link.room.take(message.len());
        let sent = share.is_some_and(|share| link.queue.try_send((message, share)).is_ok());
        if !sent {
            let failures = &of_peer(to).sent_failures;
            failures.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Sends a snapshot on a stream of its own; a `SnapshotSent` event tells how it went.
    pub fn send_snapshot(&self, to: u64, message: Bytes, export: Export) {
        let events = self.events.clone();
        let hello = self.hello(to);
        let urls = self
            .links
            .get(&to)
            .map(|link| link.carrier().urls.clone())
            .unwrap_or_default();
        let dialer = self.dialer.clone();
        tokio::spawn(snapshot::send(dialer, hello, urls, message, export, events));
    }
}

type Waiting = Arc<Mutex<mpsc::Receiver<Queued>>>;

/// Frames made of whatever waits; ends when the link is dropped.
fn frames(hello: Hello, waiting: Waiting) -> impl Stream<Item = Frame> + Send {
    let first = Frame {
        hello: Some(hello),
        messages: Vec::new(),
    };
    let measures = of_peer(hello.to);
    let rest = stream::poll_fn(move |context| {
        let mut messages = Vec::new();
        let Ok(mut queue) = waiting.lock() else {
            return Poll::Ready(None);
        };
        let mut bytes = 0;
        while bytes < FULL_FRAME_BYTES && messages.len() < MAX_MESSAGES_PER_FRAME {
            match queue.poll_recv(context) {
                Poll::Ready(Some((message, _))) => {
                    bytes += message.len();
                    messages.push(message);
                }
                Poll::Ready(None) if messages.is_empty() => return Poll::Ready(None),
                Poll::Pending if messages.is_empty() => return Poll::Pending,
                _ => break,
            }
        }
        let sent = &measures.sent_bytes;
        sent.fetch_add(bytes as u64, Ordering::Relaxed);
        Poll::Ready(Some(Frame {
            hello: None,
            messages,
        }))
    });
    stream::iter([first]).chain(rest)
}

async fn keep_link(
    dialer: Dialer,
    hello: Hello,
    urls: Vec<String>,
    waiting: mpsc::Receiver<Queued>,
    events: mpsc::Sender<PeerEvent>,
    up: Up,
) {
    let waiting = Arc::new(Mutex::new(waiting));
    let mut pause = RETRY_FIRST;
    let mut said = String::new();
    for url in urls.iter().cycle() {
        let status = match run_link(&dialer, url, hello, &waiting, &up).await {
            Ok(()) => Status::unavailable("the stream ended"),
            Err(status) => status,
        };
        let was_up = up.lock().is_ok_and(|mut since| since.take().is_some());
        if status.code() == tonic::Code::PermissionDenied && status.message() == REMOVED {
            let _ = events.send(PeerEvent::Removed).await;
        }
        if was_up {
            pause = RETRY_FIRST;
            said.clear();
        }
        if said != status.message() {
            said = status.message().to_owned();
            warn!(
                remote_peer_id = %hex(hello.to),
                url,
                error = said,
                "the link to a member is down"
            );
        }
        if events.send(PeerEvent::Unreachable(hello.to)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
        // What waited meanwhile is old news; raft says again what still matters.
        if let Ok(mut queue) = waiting.lock() {
            while queue.try_recv().is_ok() {}
        }
    }
}

async fn run_link(
    dialer: &Dialer,
    url: &str,
    hello: Hello,
    waiting: &Waiting,
    up: &Up,
) -> Result<(), Status> {
    let mut client = dialer.client(url)?;
    let probe = client.clone();
    let mut acks = client
        .messages(frames(hello, waiting.clone()))
        .await?
        .into_inner();
    let read = async {
        while acks.message().await?.is_some() {
            if let Ok(mut since) = up.lock() {
                since.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = read => ended,
        never = measure(probe, hello) => match never {},
    }
}

/// Takes the time of a small question to the other member, again and again.
async fn measure(mut client: PeerClient<Channel>, hello: Hello) -> Infallible {
    let measures = of_peer(hello.to);
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        let asked = Instant::now();
        let cluster_id = hello.cluster_id;
        let mut request = Request::new(MembersRequest { cluster_id });
        request.set_timeout(MEASURE_EVERY);
        if client.members(request).await.is_ok() {
            measures.round_trip.observe(asked.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::MAX_FRAME_BYTES;
    use super::*;

    const MEBI: usize = 1 << 20;

    #[tokio::test]
    async fn what_waits_for_a_peer_that_does_not_read_is_bounded_by_bytes() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let (events, _heard) = mpsc::channel(8);
        let mut peers = Peers::new(1, 1, Dialer::default(), events);
        peers.update(&[(2, vec![url])]);
        let message = Bytes::from(vec![7; MEBI]);
        let taken = (0..MAX_WAITING_MESSAGES)
            .take_while(|_| peers.send(2, message.clone()))
            .count();
        assert_eq!(taken, MAX_WAITING_BYTES / MEBI);
    }

    #[tokio::test]
    async fn no_frame_is_larger_than_what_the_other_side_reads() {
        let (queue, waiting) = mpsc::channel(MAX_WAITING_MESSAGES);
        let (room, count) = (Budget::new(usize::MAX), 2 * MAX_FRAME_BYTES / MEBI);
        for _ in 0..count {
            let share = room.take(MEBI).unwrap();
            let message = Bytes::from(vec![7; MEBI]);
            queue.try_send((message, share)).unwrap();
        }
        drop(queue);
        let frames: Vec<Frame> = frames(Hello::default(), Arc::new(Mutex::new(waiting)))
            .collect()
            .await;
        assert!(frames.iter().all(|f| f.encoded_len() <= MAX_FRAME_BYTES));
        let messages: usize = frames.iter().map(|frame| frame.messages.len()).sum();
        assert_eq!(messages, count, "and none is lost");
    }
}
