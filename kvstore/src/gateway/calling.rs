//! A call through the gateway: JSON in, the method called as by any client, JSON out.
//!
//! Streams are read and written no faster than the other side does: nothing but a message each way waits here.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Status};

use super::json;
use super::methods::Method;
use super::reading::{most_json, whole, Objects};
use crate::client::raw::Raw;
use crate::listen::{Inbound, Local};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What a request's header may hand on to the method, besides `Authorization`: after this prefix.
const METADATA_PREFIX: &str = "grpc-metadata-";
const METADATA: [&str; 4] = ["token", "authorization", "hasleader", "client-api-version"];

type Grpc = tonic::client::Grpc<Local>;

/// Answers a call of a method whose messages have at most `message_bytes`.
pub async fn call(
    method: Method,
    request: Request<Inbound>,
    services: Local,
    message_bytes: usize,
) -> Response<Body> {
    let grpc = Grpc::new(services).max_decoding_message_size(usize::MAX);
    let (head, body) = request.into_parts();
    let metadata = metadata(&head.headers);
    let most = most_json(message_bytes);
    let answer = match (
        method.descriptor.is_client_streaming(),
        method.descriptor.is_server_streaming(),
    ) {
        (false, false) => unary(grpc, &method, metadata, body, most).await,
        (false, true) => told(grpc, &method, metadata, body, most).await,
        (true, _) => talk(grpc, &method, metadata, body, most).await,
    };
    answer.unwrap_or_else(|status| refusal(&status))
}

/// An answer that says only what went wrong.
pub fn refusal(status: &Status) -> Response<Body> {
    let mut response = respond(Full::new(Bytes::from(json::error(status))));
    *response.status_mut() = http_status(status.code());
    name_challenge(&mut response, status);
    response
}

fn name_challenge(response: &mut Response<Body>, status: &Status) {
    if status.code() == Code::Unauthenticated {
        if let Ok(value) = HeaderValue::from_str(status.message()) {
            let name = http::header::WWW_AUTHENTICATE;
            response.headers_mut().insert(name, value);
        }
    }
}

fn respond<B>(body: B) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut response = Response::new(Body::new(body));
    let name = http::header::CONTENT_TYPE;
    response.headers_mut().insert(name, JSON);
    response
}

/// As grpc-gateway maps codes.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn metadata(headers: &HeaderMap) -> MetadataMap {
    let mut found = HeaderMap::new();
    for (name, value) in headers {
        let known = |given: &str| METADATA.iter().find(|known| **known == given).copied();
        let name = match name.as_str().strip_prefix(METADATA_PREFIX) {
            Some(given) => known(given),
            None => (name == http::header::AUTHORIZATION).then_some("authorization"),
        };
        if let Some(name) = name {
            found.insert(name, value.clone());
        }
    }
    MetadataMap::from_headers(found)
}

fn ask<T>(metadata: MetadataMap, message: T) -> tonic::Request<T> {
    tonic::Request::from_parts(metadata, Extensions::default(), message)
}

async fn unary(
    mut grpc: Grpc,
    method: &Method,
    metadata: MetadataMap,
    body: Inbound,
    most: usize,
) -> Result<Response<Body>, Status> {
    let asked = json::decode(method.descriptor.input(), whole(body, most).await?).await?;
    let request = ask(metadata, asked);
    let answer = grpc.unary(request, method.path.clone(), Raw).await?;
    let kind = method.descriptor.output();
    let text = json::encode(kind, answer.into_inner(), "", "").await?;
    Ok(respond(Full::new(text)))
}

/// One request, and answers as they come.
async fn told(
    mut grpc: Grpc,
    method: &Method,
    metadata: MetadataMap,
    body: Inbound,
    most: usize,
) -> Result<Response<Body>, Status> {
    let asked = json::decode(method.descriptor.input(), whole(body, most).await?).await?;
    let request = ask(metadata, asked);
    let path = method.path.clone();
    match grpc.server_streaming(request, path, Raw).await {
        Ok(answers) => lines(method, answers.into_inner()).await,
        Err(status) => lines(method, stream::iter([Err(status)])).await,
    }
}

/// Requests and answers, each as they come.
async fn talk(
    mut grpc: Grpc,
    method: &Method,
    metadata: MetadataMap,
    body: Inbound,
    most: usize,
) -> Result<Response<Body>, Status> {
    let (fail, failed) = oneshot::channel();
    let asking = Asking {
        objects: Objects::new(body, most),
        fail,
    };
    let kind = method.descriptor.input();
    let requests = stream::unfold(asking, move |mut asking| {
        let kind = kind.clone();
        async move {
            let next = async {
                match asking.objects.next().await? {
                    Some(object) => json::decode(kind, object).await.map(Some),
                    None => Ok(None),
                }
            };
            match next.await {
                Ok(Some(message)) => Some((message, asking)),
                Ok(None) => None,
                Err(status) => {
                    // Who does not listen any more has no answers to end.
                    let _ = asking.fail.send(status);
                    None
                }
            }
        }
    });
    let path = method.path.clone();
    match grpc.streaming(ask(metadata, requests), path, Raw).await {
        Ok(answers) => lines(method, until(answers.into_inner(), failed)).await,
        Err(status) => lines(method, stream::iter([Err(status)])).await,
    }
}

/// The requests of a stream, and whom to tell of one that can't be read.
struct Asking {
    objects: Objects,
    fail: oneshot::Sender<Status>,
}

/// Answers up to their end, or until a request failed: that is told, and is the end then. A body that ends well is not.
fn until<S>(
    answers: S,
    failed: oneshot::Receiver<Status>,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + Unpin
where
    S: Stream<Item = Result<Bytes, Status>> + Send + Unpin,
{
    let state = Some((answers, Some(failed)));
    Box::pin(stream::unfold(state, |state| async {
        let (mut answers, mut failed) = state?;
        loop {
            let failure = async {
                match &mut failed {
                    Some(failed) => failed.await.ok(),
                    None => futures::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                status = failure => match status {
                    Some(status) => return Some((Err(status), None)),
                    None => failed = None,
                },
                answer = answers.next() => {
                    return Some((answer?, Some((answers, failed))));
                }
            }
        }
    }))
}

/// A line for each answer, and one for what went wrong; that decides on the status only where it is the first.
async fn lines<S>(method: &Method, mut answers: S) -> Result<Response<Body>, Status>
where
    S: Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static,
{
    const BEFORE: &str = "{\"result\":";
    const AFTER: &str = "}\n";
    let kind = method.descriptor.output();
    let first = match answers.next().await {
        Some(answer) => answer.map(Some),
        None => Ok(None),
    };
    let refused = first.as_ref().err().cloned();
    let first = stream::iter(first.transpose());
    let lines = stream::unfold(Some(first.chain(answers)), move |state| {
        let kind = kind.clone();
        async move {
            let mut answers = state?;
            let line = match answers.next().await? {
                Ok(message) => json::encode(kind, message, BEFORE, AFTER).await,
                Err(status) => Err(status),
            };
            Some(match line {
                Ok(line) => (line, Some(answers)),
                Err(status) => (error_line(&status), None),
            })
        }
    });
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
    let mut response = respond(StreamBody::new(frames));
    if let Some(status) = refused {
        *response.status_mut() = http_status(status.code());
    }
    Ok(response)
}

fn error_line(status: &Status) -> Bytes {
    format!("{{\"error\":{}}}\n", json::error(status)).into()
}
