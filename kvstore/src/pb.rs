//! Generated protobuf and gRPC types.
#![allow(clippy::all, missing_docs)]

pub mod authpb {
    tonic::include_proto!("authpb");
}
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
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
