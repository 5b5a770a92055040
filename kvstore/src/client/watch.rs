//! A watch that outlives its connections: it resumes at the revision after the last whole one it delivered. Fragments
//! of an answer are held back until the last has come, so what is delivered never ends inside a revision.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::limits::too_large;
use super::pool::Seat;
use super::Client;
use crate::pb::etcd;
use etcd::watch_client::WatchClient;
use etcd::watch_request::RequestUnion;
use etcd::{
    Event, ResponseHeader, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};

const PAUSE: Duration = Duration::from_millis(100);
/// How long a member may take to answer the creation of a watch.
const CREATE_WAIT: Duration = Duration::from_millis(1500);

/// What a watch delivers.
#[derive(Debug)]
pub enum Delivery {
    /// It stands: everything from this revision on will come.
    Created(i64),
    Batch(Batch),
    /// History before this revision is gone; the last delivery.
    Compacted(i64, Option<ResponseHeader>),
    /// The member refused the watch; the last delivery.
    Failed(Status),
}

/// Events of whole revisions up to `revision`; none when it only tells progress.
#[derive(Debug)]
pub struct Batch {
    pub revision: i64,
    pub events: Vec<Event>,
    /// Of the last answer that they came in.
    pub header: Option<ResponseHeader>,
}

enum End {
    Over,
    Broken,
}

/// What a watch keeps from one connection to the next.
struct Watching {
    create: WatchCreateRequest,
    /// That it stands was delivered.
    told: bool,
    /// Somebody waits for progress.
    asked: bool,
    held: Vec<Event>,
}

/// Follows a watch until it ends, or until `sink` is closed. Progress is delivered for what comes through `asks`.
pub async fn follow(
    client: Client,
    mut create: WatchCreateRequest,
    mut asks: mpsc::Receiver<()>,
    sink: mpsc::Sender<Delivery>,
) {
    create.fragment = true;
    let mut watching = Watching {
        create,
        told: false,
        asked: false,
        held: Vec::new(),
    };
    loop {
        let seat = match client.pool().take() {
            Ok(seat) => seat,
            Err(error) => {
                let _closed = sink.send(Delivery::Failed(error)).await;
                return;
            }
        };
        tokio::select! {
            end = session(&client, seat, &mut watching, &mut asks, &sink) => if matches!(end, End::Over) { return },
            () = sink.closed() => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn session(
    client: &Client,
    mut seat: Seat,
    watching: &mut Watching,
    asks: &mut mpsc::Receiver<()>,
    sink: &mpsc::Sender<Delivery>,
) -> End {
    watching.held.clear();
    // The sender lives as long as the session: the stream of requests must stay open.
    let (requests, outgoing) = mpsc::channel(4);
    let first = wrapped(RequestUnion::CreateRequest(watching.create.clone()));
    if requests.send(first).await.is_err() || (watching.asked && !ask(&requests)) {
        return End::Broken;
    }
    let request = Request::new(tokio_stream::wrappers::ReceiverStream::new(outgoing));
    let opened = tokio::select! {
        answer = tokio::time::timeout(CREATE_WAIT, open(client, seat.channel(), request)) => answer.ok(),
        () = seat.lost() => None,
    };
    let mut answers = match opened {
        Some(Ok(answer)) => answer,
        Some(Err(error)) if !super::passing(&error) && !forgets(client, &error).await => {
            let _closed = sink.send(Delivery::Failed(error)).await;
            return End::Over;
        }
        _ => {
            seat.failed();
            return End::Broken;
        }
    };
    loop {
        let answer = tokio::select! {
            answer = next(&mut answers, &mut seat) => answer,
            Some(()) = asks.recv() => {
                watching.asked = true;
                if ask(&requests) { continue } else { Ok(None) }
            }
        };
        let answer = match answer {
            Ok(Some(answer)) => answer,
            broken => {
                if let Some(error) = broken.as_ref().err().and_then(too_large) {
                    let _closed = sink.send(Delivery::Failed(error)).await;
                    return End::Over;
                }
                seat.failed();
                return End::Broken;
            }
        };
        seat.heard();
        if let Some(end) = take(client, answer, watching, sink).await {
            if matches!(end, End::Broken) {
                seat.failed();
            }
            return end;
        }
    }
}

fn wrapped(union: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}

/// Asks for progress, unless that waits to be sent already; says whether there is still a stream.
fn ask(requests: &mpsc::Sender<WatchRequest>) -> bool {
    let request = wrapped(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    !matches!(
        requests.try_send(request),
        Err(mpsc::error::TrySendError::Closed(_))
    )
}

async fn open<S>(
    client: &Client,
    channel: Channel,
    mut request: Request<S>,
) -> Result<Streaming<WatchResponse>, Status>
where
    S: tokio_stream::Stream<Item = WatchRequest> + Send + 'static,
{
    super::require_leader(&mut request);
    if let Some(login) = client.login() {
        login.sign(&channel, request.metadata_mut()).await?;
    }
    let mut grpc = WatchClient::new(channel).max_decoding_message_size(client.limits().receive);
    Ok(grpc.watch(request).await?.into_inner())
}

async fn forgets(client: &Client, error: &Status) -> bool {
    match client.login() {
        Some(login) => login.forgets(error).await,
        None => false,
    }
}

async fn next(
    answers: &mut Streaming<WatchResponse>,
    seat: &mut Seat,
) -> Result<Option<WatchResponse>, Status> {
    tokio::select! {
        answer = answers.message() => answer,
        () = seat.lost() => Ok(None),
    }
}

/// How a watch ends that the member canceled.
async fn canceled(client: &Client, answer: WatchResponse, sink: &mpsc::Sender<Delivery>) -> End {
    let last = if answer.compact_revision > 0 {
        Delivery::Compacted(answer.compact_revision, answer.header)
    } else {
        let refusal = Status::failed_precondition(answer.cancel_reason);
        let passing = refusal.message().contains("no leader") || refusal.message().is_empty();
        if passing || forgets(client, &refusal).await {
            return End::Broken;
        }
        Delivery::Failed(refusal)
    };
    let _closed = sink.send(last).await;
    End::Over
}

async fn take(
    client: &Client,
    answer: WatchResponse,
    watching: &mut Watching,
    sink: &mpsc::Sender<Delivery>,
) -> Option<End> {
    if answer.canceled {
        return Some(canceled(client, answer, sink).await);
    }
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    let create = &mut watching.create;
    if answer.created {
        if create.start_revision == 0 {
            create.start_revision = revision + 1;
        }
        if !watching.told {
            watching.told = true;
            let told = sink.send(Delivery::Created(create.start_revision)).await;
            if told.is_err() {
                return Some(End::Over);
            }
        }
        if answer.events.is_empty() {
            return None;
        }
    }
    let Ok(events) = answer.read_events() else {
        return Some(End::Broken);
    };
    watching.held.extend(events);
    if answer.fragment {
        return None;
    }
    let events = std::mem::take(&mut watching.held);
    let reached = events
        .last()
        .and_then(|event| event.kv.as_ref())
        .map(|kv| kv.mod_revision);
    if reached.is_none() && !std::mem::take(&mut watching.asked) && !create.progress_notify {
        return None;
    }
    let reached = reached.unwrap_or(revision);
    create.start_revision = create.start_revision.max(reached + 1);
    let batch = Batch {
        revision: reached,
        events,
        header: answer.header,
    };
    match sink.send(Delivery::Batch(batch)).await {
        Ok(()) => None,
        Err(_) => Some(End::Over),
    }
}
