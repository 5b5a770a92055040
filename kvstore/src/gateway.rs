//! What is answered over plain HTTP beside gRPC on the client port: the JSON gateway, health, version and metrics.

mod access;
mod calling;
mod calls;
mod handling;
mod health;
mod json;
mod methods;
mod metrics;
mod process;
mod reading;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use tonic::body::Body;

use crate::handle::Handle;
use crate::listen::{Answer, Inbound, Routes};
pub use access::{Access, Settings};
pub use calls::Calls;
pub use handling::begin;
pub use metrics::{code_name, Figures};

/// What etcd says that its plain answers are, though its health is JSON.
const PLAIN: &str = "text/plain; charset=utf-8";
/// Where the JSON gateway begins, and where it did in etcd 3.3.
const GATEWAYS: [&str; 2] = ["/v3/", "/v3beta/"];

/// The version that clients see: the etcd release whose API this is.
pub const SERVER_VERSION: &str = "3.7.0";

fn reply(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(kind),
    );
    response
}

fn versions(cluster: &str) -> String {
    format!(
        r#"{{"etcdserver":"{SERVER_VERSION}","etcdcluster":"{cluster}","storage":"{cluster}"}}"#
    )
}

/// Routes of a client door that so far know what is not gRPC.
pub fn client_routes(handle: &Handle, access: &Arc<Access>) -> Routes {
    let (handle, access) = (handle.clone(), access.clone());
    Routes::with_other(move |request, routes| answer(&handle, &access, request, routes))
}

/// Routes of a peer door: nobody is asked there who he is, so that there is no gateway.
pub fn peer_routes(handle: &Handle) -> Routes {
    let handle = handle.clone();
    Routes::with_other(move |request, _| plain(&handle, &request))
}

fn is_grpc(request: &Request<Inbound>) -> bool {
    if request.version() != Version::HTTP_2 {
        return false;
    }
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn now(response: Response<Body>) -> Answer {
    std::future::ready(Ok(response)).boxed()
}

fn answer(handle: &Handle, access: &Access, request: Request<Inbound>, routes: &Routes) -> Answer {
    if is_grpc(&request) {
        return plain(handle, &request);
    }
    // With TLS the certificate vouches for the name.
    let misdirected = (!routes.is_secure()).then(|| access.misdirected(&request));
    if let Some(refused) = misdirected.flatten() {
        return now(refused);
    }
    if below_gateway(&request).is_some() && routes.client().is_some() && handle.asks_callers() {
        // Else who has a certificate would think that it counts.
        let text = "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
        return now(reply(StatusCode::BAD_REQUEST, PLAIN, text.into()));
    }
    let origin = access.origin(request.headers());
    let answer = if request.method() == Method::OPTIONS {
        now(Response::new(Body::empty()))
    } else {
        admitted(handle, request, routes)
    };
    let Some(origin) = origin else {
        return answer;
    };
    async move {
        let mut response = answer.await?;
        access::show_to(origin, response.headers_mut());
        Ok(response)
    }
    .boxed()
}

/// The part of the path that names the gateway's method.
fn below_gateway(request: &Request<Inbound>) -> Option<&str> {
    let path = request.uri().path();
    GATEWAYS.iter().find_map(|at| path.strip_prefix(at))
}

fn admitted(handle: &Handle, request: Request<Inbound>, routes: &Routes) -> Answer {
    let Some(below) = below_gateway(&request) else {
        return plain(handle, &request);
    };
    let Some(method) = methods::find(below) else {
        return now(calling::refusal(&tonic::Status::not_found("Not Found")));
    };
    if request.method() != Method::POST {
        let status = tonic::Status::unimplemented("Method Not Allowed");
        return now(calling::refusal(&status));
    }
    let (services, most) = (routes.local(), handle.limits().message_bytes());
    async move { Ok(calling::call(method, request, services, most).await) }.boxed()
}

/// What is neither gRPC nor the gateway's; an unknown gRPC service gets its own error.
fn plain(handle: &Handle, request: &Request<Inbound>) -> Answer {
    if is_grpc(request) {
        let text = format!("unknown service {}", request.uri().path());
        return now(tonic::Status::unimplemented(text).into_http());
    }
    let path = request.uri().path();
    if let Some(check) = health::Check::at(path) {
        if request.method() != Method::GET {
            let mut response = not_allowed();
            let get = http::HeaderValue::from_static("GET");
            response.headers_mut().insert(http::header::ALLOW, get);
            return now(response);
        }
        let query = request.uri().query().unwrap_or("").to_owned();
        let handle = handle.clone();
        return async move { Ok(check.answer(&handle, &query).await) }.boxed();
    }
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    now(match path {
        "/version" | "/metrics" if !reads => not_allowed(),
        "/version" => reply(
            StatusCode::OK,
            "application/json",
            versions(&handle.figures().downgrade.cluster().version()),
        ),
        "/metrics" => reply(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            metrics::print(&handle.figures(), handle.calls()),
        ),
        _ => reply(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n".into()),
    })
}

fn not_allowed() -> Response<Body> {
    let text = "Method Not Allowed\n";
    reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text.into())
}
