//! A watch that outlives its connections: it resumes at the revision after the last whole one it delivered. Fragments
//! of an answer are held back until the last has come, so what is delivered never ends inside a revision.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};

use super::pool::Seat;
use super::Client;
use crate::pb::etcd;
use etcd::watch_client::WatchClient;
use etcd::watch_request::RequestUnion;
use etcd::{Event, WatchCreateRequest, WatchRequest, WatchResponse};

const PAUSE: Duration = Duration::from_millis(100);
/// How long a member may take to answer the creation of a watch.
const CREATE_WAIT: Duration = Duration::from_millis(1500);

/// What a watch delivers.
#[derive(Debug)]
pub enum Delivery {
    /// It stands: everything from this revision on will come.
    Created(i64),
    /// Events of whole revisions up to this one; none when it only tells progress.
    Batch(i64, Vec<Event>),
    /// History before this revision is gone; the last delivery.
    Compacted(i64),
    /// The member refused the watch; the last delivery.
    Failed(Status),
}

enum End {
    Over,
    Broken,
}

/// Follows a watch until it ends, or until `sink` is closed.
pub async fn follow(client: Client, mut create: WatchCreateRequest, sink: mpsc::Sender<Delivery>) {
    create.fragment = true;
    let mut told = false;
    loop {
        let seat = match client.pool().take() {
            Ok(seat) => seat,
            Err(error) => {
                let _closed = sink.send(Delivery::Failed(error)).await;
                return;
            }
        };
        tokio::select! {
            end = session(seat, &mut create, &mut told, &sink) => if matches!(end, End::Over) { return },
            () = sink.closed() => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn session(
    mut seat: Seat,
    create: &mut WatchCreateRequest,
    told: &mut bool,
    sink: &mpsc::Sender<Delivery>,
) -> End {
    // The sender lives as long as the session: the stream of requests must stay open.
    let (requests, outgoing) = mpsc::channel(4);
    let first = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create.clone())),
    };
    if requests.send(first).await.is_err() {
        return End::Broken;
    }
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(outgoing));
    super::require_leader(&mut request);
    let mut grpc = WatchClient::new(seat.channel()).max_decoding_message_size(usize::MAX);
    let opened = tokio::select! {
        answer = tokio::time::timeout(CREATE_WAIT, grpc.watch(request)) => answer.ok(),
        () = seat.lost() => None,
    };
    let mut answers = match opened {
        Some(Ok(answer)) => answer.into_inner(),
        Some(Err(error)) if !super::passing(&error) => {
            let _closed = sink.send(Delivery::Failed(error)).await;
            return End::Over;
        }
        _ => {
            seat.failed();
            return End::Broken;
        }
    };
    let mut held = Vec::new();
    loop {
        let Some(answer) = next(&mut answers, &mut seat).await else {
            seat.failed();
            return End::Broken;
        };
        seat.heard();
        if let Some(end) = take(answer, create, told, &mut held, sink).await {
            if matches!(end, End::Broken) {
                seat.failed();
            }
            return end;
        }
    }
}

async fn next(answers: &mut Streaming<WatchResponse>, seat: &mut Seat) -> Option<WatchResponse> {
    tokio::select! {
        answer = answers.message() => answer.ok().flatten(),
        () = seat.lost() => None,
    }
}

async fn take(
    answer: WatchResponse,
    create: &mut WatchCreateRequest,
    told: &mut bool,
    held: &mut Vec<Event>,
    sink: &mpsc::Sender<Delivery>,
) -> Option<End> {
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    if answer.canceled {
        let last = if answer.compact_revision > 0 {
            Delivery::Compacted(answer.compact_revision)
        } else if answer.cancel_reason.contains("no leader") || answer.cancel_reason.is_empty() {
            return Some(End::Broken);
        } else {
            Delivery::Failed(Status::failed_precondition(answer.cancel_reason))
        };
        let _closed = sink.send(last).await;
        return Some(End::Over);
    }
    if answer.created {
        if create.start_revision == 0 {
            create.start_revision = revision + 1;
        }
        if !*told {
            *told = true;
            if sink
                .send(Delivery::Created(create.start_revision))
                .await
                .is_err()
            {
                return Some(End::Over);
            }
        }
        if answer.events.is_empty() {
            return None;
        }
    }
    held.extend(answer.events);
    if answer.fragment {
        return None;
    }
    let events = std::mem::take(held);
    let reached = events
        .last()
        .and_then(|event| event.kv.as_ref())
        .map(|kv| kv.mod_revision);
    if reached.is_none() && !create.progress_notify {
        return None;
    }
    let reached = reached.unwrap_or(revision);
    create.start_revision = create.start_revision.max(reached + 1);
    match sink.send(Delivery::Batch(reached, events)).await {
        Ok(()) => None,
        Err(_) => Some(End::Over),
    }
}
