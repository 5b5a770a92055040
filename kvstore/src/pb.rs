//! Generated protobuf and gRPC types.
#![allow(clippy::all, missing_docs)]

pub mod authpb {
    tonic::include_proto!("authpb");
}
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}
impl etcd::WatchResponse {
    /// Its events, which it holds encoded.
    ///
    /// # Errors
    /// When what it holds is no event.
    pub fn read_events(&self) -> Result<Vec<etcd::Event>, tonic::Status> {
        let events = self.events.iter().cloned();
        let read: Result<_, prost::DecodeError> = events.map(prost::Message::decode).collect();
        read.map_err(|error| tonic::Status::internal(format!("an event of a watch: {error}")))
    }
}

// What generated code of other packages calls it.
use etcd as etcdserverpb;

pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
pub mod peer {
    tonic::include_proto!("fleet.kvstore.peer.v1");
}
