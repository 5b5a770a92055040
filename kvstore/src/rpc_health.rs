//! gRPC's health service, for load balancers and probes: a member that answers serves, and it knows no service but the
//! whole, as in etcd.
//!
//! Not here: whether there is a leader, which `/health` and `/readyz` tell.

use std::collections::HashMap;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use crate::errors::StoreError;
use crate::handle::Handle;
use crate::pb::health::health_check_response::ServingStatus;
use crate::pb::health::{
    health_server, HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use crate::rpc_data::finish;

/// The name that stands for all services.
const WHOLE: &str = "";

/// The service, and what tells its streams that clients' connections are to end.
#[derive(Clone)]
pub struct HealthService(pub Handle, pub watch::Receiver<bool>);

type Answer<T> = Result<Response<T>, Status>;

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// Counts a stream when it is over, however that came.
struct Open(Handle);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.calls().count("Health", "Watch", Code::Cancelled);
    }
}

#[tonic::async_trait]
impl health_server::Health for HealthService {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Answer<HealthCheckResponse> {
        let known = request.into_inner().service == WHOLE;
        let found = match self.0.refuse_as_learner() {
            Err(refused) => Err(refused.into()),
            Ok(()) if known => Ok(answer(ServingStatus::Serving)),
            Ok(()) => Err(Status::not_found("unknown service")),
        };
        finish(&self.0, "Health", "Check", found)
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Answer<HealthListResponse> {
        let found = self.0.refuse_as_learner().map(|()| HealthListResponse {
            statuses: HashMap::from([(WHOLE.to_owned(), answer(ServingStatus::Serving))]),
        });
        finish(&self.0, "Health", "List", found.map_err(Status::from))
    }

    /// The status once, since it does not change while there is somebody to tell it; then silence until either side goes.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Answer<Self::WatchStream> {
        if let Err(refused) = self.0.refuse_as_learner() {
            return finish(&self.0, "Health", "Watch", Err(refused.into()));
        }
        let status = if request.into_inner().service == WHOLE {
            ServingStatus::Serving
        } else {
            ServingStatus::ServiceUnknown
        };
        let (open, mut closing) = (Open(self.0.clone()), self.1.clone());
        self.0.calls().send("Health", "Watch");
        let end = stream::once(async move {
            // One that is dropped says the same.
            let _ = closing.changed().await;
            drop(open);
            Err(StoreError::Stopped.into())
        });
        let first = stream::once(async move { Ok(answer(status)) });
        Ok(Response::new(first.chain(end).boxed()))
    }
}
